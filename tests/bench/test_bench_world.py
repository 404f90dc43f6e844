"""The benchmark's world and what is measured in it, at a hundredth of the size."""

import io
import json

import numpy as np
import pytest
from rich.console import Console

from bench import world as world_module
from bench.echo import read_answers, write_answers
from bench.engine import Bench, ratio, summarise
from bench.generous import ROWS, GenerousLedger
from bench.mix import examine, requirements
from bench.phases import Plan
from bench.procs import Server, ServerError, free_port
from bench.standard import Bars, judge, run_front, show
from bench.world import Parameters, make_world
from dsp.base.config import Config
from dsp.bidder.slices import Slices

PARAMETERS = Parameters(line_items=400, people=3_000, requests=300)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    before = world_module.OUT
    world_module.OUT = tmp_path_factory.mktemp("bench")
    yield make_world(PARAMETERS)
    world_module.OUT = before


@pytest.fixture(scope="module")
def mix(world):
    return examine(world)


def test_the_mix_is_known_people_and_distinct_requests(world, mix):
    facts = mix.facts
    assert facts["requests, all distinct"] == PARAMETERS.requests
    assert facts["known person"] > 0.85
    assert facts["median JSON, bytes"] >= 1800
    assert 0 < facts["bid rate, JSON"] <= 1
    assert abs(facts["bid rate, JSON"] - facts["bid rate, protobuf"]) < 0.1
    assert all(json.loads(item.json)["id"] for item in world.items)
    assert "the mix misses: thousands of distinct bodies" in mix.wrong
    assert [len(answers) for answers in mix.answers.values()] == [PARAMETERS.requests] * 2
    assert all(mix.answers["grpc"])  # a gRPC no-bid has a body


def test_a_second_world_of_the_same_parameters_keeps_the_profiles(world):
    steps = []
    again = make_world(PARAMETERS, steps.append)
    assert not any("profiles" in step for step in steps)
    assert [item.json for item in again.items] == [item.json for item in world.items]


def test_requirements_name_what_is_missed(mix):
    facts = {
        "market traffic": 0.95, "median JSON, bytes": 2000, "known person": 0.93, "bid rate, JSON": 0.7,
        "bid rate, protobuf": 0.7, "scored candidates per request": 8.0, "requests, all distinct": 6000,
    }  # fmt: skip
    assert requirements(facts) == []
    assert requirements({**facts, "bid rate, JSON": 0.9}) == ["the mix misses: a bid rate of 60 to 80 %"]


def test_the_engine_is_measured_by_batch_and_stage(world):
    bench = Bench(world, "protobuf")
    turns = [bench.turn(8, 0.05) for _ in range(2)]
    bench.close()
    summary = summarise(turns)
    assert summary["best_us"] <= summary["us"] <= summary["worst_us"]
    assert 0 < summary["stages_us"]["decode"] < summary["stages_us"]["total"]
    assert turns[0]["stages_us"]["batch"] == 8


def test_a_ratio_comes_with_its_interval():
    a = [1.0, 1.1, 0.9, 1.0, 5.0]
    same = ratio(a, a)
    assert same == {"ratio": 1.0, "low": 1.0, "high": 1.0}
    half = ratio(a, [x / 2 for x in a])
    assert half["ratio"] == 0.5
    assert ratio(a, [1.0, 1.2, 0.8, 1.1, 4.0])["low"] < ratio(a, [1.0, 1.2, 0.8, 1.1, 4.0])["high"]


def test_the_generous_ledger_never_lets_a_budget_end():
    ids = np.arange(1, 2 * ROWS + 1)
    now = [1_000_000_000]
    slices = Slices(Config(), GenerousLedger(ids), worker="t", clock=lambda: now[0], threaded=False)
    slices.attach(ids)
    for _ in range(40):
        slices.refresh(now[0])
        taken = 5_000_000
        assert slices.live(now[0])
        assert (slices.available > 1 << 40).all()
        slices.available -= taken
        slices.reserved += taken
        now[0] += 400_000_000
    slices.close()


def test_answers_survive_their_file(tmp_path):
    answers = [b"", b"x", bytes(range(256)) * 10]
    write_answers(tmp_path / "a" / "b.bin", answers)
    assert read_answers(tmp_path / "a" / "b.bin") == answers


def test_a_server_that_dies_says_why():
    with pytest.raises(ServerError, match="no-such-dir"):
        Server("dies", "bench.echo", ["grpc", "--port", "1", "--answers", "no-such-dir/a"], free_port())


@pytest.mark.slow
@pytest.mark.parametrize("front", ["grpc", "http"])
def test_a_front_is_measured_from_start_to_table(world, mix, front):
    plan = Plan(seconds=0.1, warm_s=0.2, alone=1, saturation=1, per_rate=1, rates=(0.5, 0.7))
    console = Console(width=80, record=True, file=io.StringIO())
    row = run_front(front, world, mix, plan, Bars(console))
    summary = row["summary"]
    assert summary["errors"] == 0
    assert summary["saturated"]["bid_rate"] == pytest.approx(mix.facts["bid rate, JSON"], abs=0.15)
    assert summary["saturated"]["stages_us"]["total"] > 0
    result = {
        "machine": {"cpu": "a cpu"}, "fronts": {"gRPC" if front == "grpc" else "HTTP JSON": row},
        "generator": {front: {"ceiling_per_s": 1e9}}, "mix_wrong": [],
    }  # fmt: skip
    result["bars"] = judge(result)
    show(result, console)
    text = console.export_text()
    assert "saturated" in text
    assert len([bar for bar in result["bars"] if bar["what"].endswith("errors") and bar["ok"]]) == 1
