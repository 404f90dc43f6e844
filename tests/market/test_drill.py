"""A drill's verdicts, its hands on the system, and a small one from end to end."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from dsp.base.config import Config
from dsp.cli.drill import _console_key, _own_system
from dsp.market.drill import DrillError, Outcome, Plan, hold_drill
from dsp.market.drill_faults import Fault, listener
from dsp.market.drill_objectives import Sample, judge
from dsp.market.drill_page import render

FIGURES: dict[str, Any] = {
    "planned": 1000, "asked": 1000, "answered": 1000, "bids": 500, "wins": 100, "invalid": 0, "unsettled": 0,
    "notices": 300, "reconciled": True, "broken": "", "audited": 20, "console": True, "console_errors": 0,
    "console_reads": 50, "console_p95_ms": 20.0,
    "spend_micros": {"notices": 12_345, "ledger": 12_345, "entries": 12_345},
}  # fmt: skip


def samples(bad_at: float = -1.0, bad: int = 0) -> list[Sample]:
    return [
        Sample(k / 2, 50, 50, bad if k / 2 == bad_at else 0, 25, 15, 0, 0, 5.0) for k in range(1, 41)
    ]  # twenty seconds


def missed(seen: list[Sample], faults: list[Fault], **figures: Any) -> set[str]:
    return {each.what for each in judge(seen, faults, FIGURES | figures) if not each.ok}


def test_a_system_that_holds_passes() -> None:
    assert missed(samples(), [Fault("worker", "kill -9 of a worker", 5.0, 5.0, 8.0)]) == set()


def test_failures_count_against_the_fault_only_while_it_lasts() -> None:
    worker = Fault("worker", "kill -9 of a worker", 5.0, 5.0, 8.0)
    assert missed(samples(7.0, 15), [worker]) == set()  # 15 of 450
    assert missed(samples(7.0, 40), [worker]) == {"unanswered or failed during faults"}
    assert missed(samples(15.0, 40), [worker]) == {"unanswered or failed while all is well"}


def test_what_comes_back_late_or_never_fails() -> None:
    late = Fault("ledger", "kill -9 of the ledger", 5.0, 5.0, 15.5)
    never = Fault("model", "another model is made current", 12.0, 12.0, failed="no worker took the new model")
    assert missed(samples(), [late]) == {f"well again after: {late.says}"}
    assert missed(samples(), [never]) == {f"well again after: {never.says}"}
    swapped = Fault("model", "another model is made current", 12.0, 12.0, 18.0)
    assert missed(samples(), [swapped]) == {f"well again after: {swapped.says}"}


@pytest.mark.parametrize(
    ("figures", "what"),
    [
        ({"asked": 940}, "the load was offered"),
        ({"invalid": 1}, "answers an exchange would refuse"),
        ({"unsettled": 1}, "notices never acknowledged"),
        ({"notices": 0}, "notices never acknowledged"),
        ({"reconciled": False}, "spend, line item by line item: notices = ledger = entries"),
        ({"broken": "line item 7: balance 3, entries 4"}, "every balance is the sum of its entries"),
        ({"console_errors": 1}, "console reads that failed"),
        ({"console_p95_ms": 1500.0}, "console reads, p95"),
    ],
)
def test_each_objective_can_be_missed(figures: dict[str, Any], what: str) -> None:
    assert missed(samples(), [], **figures) == {what}


def test_who_listens_on_a_port_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = int(server.getsockname()[1])
        assert listener(port) == os.getpid()
    with pytest.raises(LookupError, match=str(port)):
        listener(port)


def test_without_a_system_it_says_what_to_start(tmp_path: Path) -> None:
    with pytest.raises(DrillError, match="dsp serve"):
        hold_drill(Config(data_dir=str(tmp_path)), Plan())


def test_the_page_tells_the_verdict_and_every_objective() -> None:
    outcome = Outcome(Plan(), faults=[Fault("worker", "kill -9 of a worker", 5.0, 5.0, 8.0)], samples=samples())
    outcome.figures = FIGURES | {"invalid": 1}
    outcome.objectives = judge(outcome.samples, outcome.faults, outcome.figures)
    text = render(outcome)
    assert "failed</span></h1>" in text
    for each in outcome.objectives:
        assert each.what in text
    assert "src=" not in text
    assert "<script" not in text


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_small_drill_of_a_system_of_its_own_reconciles(tmp_path: Path) -> None:
    plan = Plan(rate=30.0, times=2.0, normal_s=2.0, ramp_s=1.0, fault_s=1.0, after_s=6.0, faults=("ledger", "snapshot"))
    with _own_system(Config(data_dir=str(tmp_path))) as config, _console_key(config) as key:
        outcome = hold_drill(config, plan, key)
    figures = outcome.figures
    assert [fault.failed for fault in outcome.faults] == ["", ""]
    assert figures["reconciled"], figures
    assert figures["spend_micros"]["notices"] > 0
    assert figures["unsettled"] == 0
    assert figures["console_errors"] == 0
