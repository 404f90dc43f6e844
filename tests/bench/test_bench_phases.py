"""The phases and the page, on two stand-in servers that cost next to nothing."""

import math
import os

import numpy as np
import pytest
from tinyserver import Grpc, TinyServer

from bench.load import METHOD, GrpcLoad, to_one_path, window
from bench.machine import core_ticks, cpu_seconds, facts, memory_bytes
from bench.page import page
from bench.phases import Plan, Subject, mean_stages, run_phases, spread

NAMES = ("bidder", "echo", "bare")
BODIES = [b"%03d" % i * 100 for i in range(50)]


@pytest.fixture(scope="module")
def result():
    """A result of all phases, a second long in all."""
    plan = Plan(seconds=0.05, warm_s=0.05, alone=2, saturation=2, per_rate=2, in_flight=4)
    steps = []
    with (
        TinyServer(Grpc(lambda body, n: (0, b"\x0a\x01x\x12\x00"))) as one,
        TinyServer(Grpc(lambda b, n: (0, b))) as two,
        TinyServer(Grpc(lambda b, n: (0, b))) as three,
    ):
        loads = [
            GrpcLoad(server.address, to_one_path(BODIES, METHOD), spin=False, streams_per_connection=8192)
            for server in (one, two, three)
        ]
        bidder, echo, bare = (Subject(name, os.getpid(), load) for name, load in zip(NAMES, loads, strict=True))
        summary = run_phases(bidder, echo, bare, plan, steps.append)
        for load in loads:
            load.close()
    assert len(steps) == plan.steps()
    return {"summary": summary, "windows": [*bidder.rows, *echo.rows, *bare.rows]}


def test_phases_measure_every_level(result):
    summary = result["summary"]
    assert summary["errors"] == 0
    assert list(summary["levels"]) == ["10%", "30%", "50%", "70%", "85%"]
    rates = [level["rate"] for level in summary["levels"].values()]
    assert rates == sorted(rates)
    assert summary["alone"]["bid_rate"] == 1.0
    assert summary["saturation_per_s"]["worst"] <= summary["saturation_per_s"]["best"]
    assert 0 < summary["echo_ratio"]["median"] < 100
    assert 0 < summary["bare_ratio"]["median"] < 100
    assert all(row["statuses"] == {"0": row["sent"]} for row in result["windows"])


def test_the_page_holds_every_plot_and_loads_nothing(result):
    stages = {"decode": 2.0, "score": 10.0, "total": 12.0, "batch": 4.0}
    summary = result["summary"]
    for level in (summary["alone"], summary["saturated"], *summary["levels"].values()):
        level["stages_us"] = stages
    whole = {
        "machine": facts(),
        "mix": {"bodies": 50},
        "bars": [{"what": "a <thing>", "bar": "1", "measured": "2", "ok": False}],
        "fronts": {"gRPC": result},
    }
    text = page(whole)
    assert text.count("<svg") == 3
    assert "a &lt;thing&gt;" in text
    for outside in ("src=", "@import", "<script", "<link"):
        assert outside not in text


def test_a_spread_is_median_best_and_worst():
    rows = [{"x": 3.0}, {"x": 1.0}, {"x": 2.0}]
    assert spread(rows, "x") == {"median": 2.0, "best": 1.0, "worst": 3.0}
    assert spread(rows, "x", max) == {"median": 2.0, "best": 3.0, "worst": 1.0}
    assert mean_stages([{}, {"decode": 1.0}, {"decode": 3.0}]) == {"decode": 2.0}


def test_unsent_and_unanswered_requests_are_errors_with_their_whole_wait():
    times = np.array([[100, 200, 300], [110, 210, 0], [1100, 0, 0]], np.int64)
    facts_ = np.zeros((3, 3), np.int32)
    ctl = np.zeros(16, np.int64)
    run = window.Window.of(times, facts_, ctl, 10.0, 0, (0, 1200, 10_300), 0.0)
    assert run.statuses == {0: 1, window.TIMEOUT: 2}
    assert run.latency_us.tolist() == [1.0, 10.1, 10.0]
    assert run.errors == 2
    empty = window.Window.of(times[:, :0], facts_[:, :0], ctl, 0.0, 1, (0, 1, 2), 0.0)
    assert math.isnan(empty.percentiles()["p99"])
    assert empty.row()["errors"] == 0


def test_the_machine_tells_its_facts_but_not_its_name():
    told = facts()
    assert told["cores"] >= 1
    assert told["cpu"]
    assert os.uname().nodename not in str(told)
    assert len(core_ticks()) >= told["cores"]
    assert all(steal + busy <= total for steal, busy, total in core_ticks())
    assert cpu_seconds(os.getpid()) > 0
    memory = memory_bytes(os.getpid())
    assert 0 < memory["rss_anon"] <= memory["rss"]
