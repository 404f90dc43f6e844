"""The phases of a load test of one front: alone, saturation in turns with the echo, fixed rates; and their summary.

Every phase is several short windows, because the machine may be shared: what is reported is the median over windows,
with best and worst beside it, and every window goes into the results. Bidder and echo take turns, so their ratio is of
the same seconds. Rates take turns window by window, each a share of what saturated in the half second before it: a
core whose other half a neighbour uses is slower by a third from one second to the next, which no steal tells, and
seven tenths of a fast minute's saturation are all that a slow one has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.load import GrpcLoad, HttpLoad, Window
from bench.machine import Meter
from bench.stages import StageMeter

RATES = (0.1, 0.3, 0.5, 0.7, 0.85)  # of saturation
BAR_RATE = 0.7
Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """How long everything takes."""

    seconds: float = 2.0  # of a window
    warm_s: float = 4.0
    alone: int = 3  # windows
    saturation: int = 15  # windows of bidder and of the echoes, in turns
    saturation_s: float = 1.0  # of each of them
    beside_s: float = 0.5  # of the saturation before each window at a rate
    per_rate: int = 5
    rates: tuple[float, ...] = RATES
    in_flight: int = 128

    def steps(self) -> int:
        """How many windows in all."""
        return 3 + 2 * self.alone + 3 * self.saturation + 2 * len(self.rates) * self.per_rate


@dataclass
class Subject:
    """A server under test: its process, a generator pointed at it, and where it tells its stages (bidder only)."""

    name: str
    pid: int
    load: GrpcLoad | HttpLoad
    stages: StageMeter | None = None
    rows: list[Row] = field(default_factory=list)

    def window(self, phase: str, run: Callable[[], Window]) -> Row:
        """Run one window and keep what it and the meters say."""
        meter = Meter(self.pid)
        meter.start()
        if self.stages is not None:
            self.stages.start()
        window = run()
        measured = meter.read()
        row = {"server": self.name, "phase": phase, **window.row(), **measured}
        good = max(1, window.sent - window.errors)
        row["server_cpu_us"] = round(measured["server_cpu_s"] / good * 1e6, 2)
        if self.stages is not None:
            row["stages_us"] = self.stages.read()
        self.rows.append(row)
        return row


def run_phases(
    bidder: Subject, echo: Subject, bare: Subject, plan: Plan, progress: Callable[[str], None]
) -> dict[str, Any]:
    """All phases; returns the summary (`summarise`). ``echo`` is the bidder's front with nothing behind it, ``bare``
    the server under that front. ``progress`` is told after each window.
    """

    def closed(subject: Subject, phase: str, in_flight: int, seconds: float) -> Row:
        row = subject.window(phase, lambda: subject.load.closed_loop(in_flight, seconds))
        progress(f"{subject.name}: {phase}")
        return row

    closed(bidder, "warm", plan.in_flight, plan.warm_s)
    for each in (echo, bare):
        closed(each, "warm", plan.in_flight, plan.warm_s / 4)
    for _ in range(plan.alone):
        closed(bidder, "alone", 1, plan.seconds)
        closed(echo, "alone", 1, plan.seconds / 2)
    for _ in range(plan.saturation):
        for each in (bidder, echo, bare):
            closed(each, "saturation", plan.in_flight, plan.saturation_s)
    for _ in range(plan.per_rate):
        for share in plan.rates:
            rate = share * float(closed(bidder, "beside", plan.in_flight, plan.beside_s)["answered_per_s"])
            bidder.window(f"{share:.0%}", lambda rate=rate: bidder.load.open_loop(rate, plan.seconds))  # type: ignore[misc]
            progress(f"{bidder.name}: {share:.0%} of saturation")
    return summarise(bidder.rows, echo.rows, bare.rows, plan)


def of(rows: Iterable[Row], phase: str) -> list[Row]:
    """The windows of a phase."""
    return [row for row in rows if row["phase"] == phase]


def median(values: Iterable[float]) -> float:
    """The median; NaN of nothing."""
    each = list(values)
    return float(np.median(each)) if each else float("nan")


def spread(rows: list[Row], key: str, best: Callable[[list[float]], float] = min) -> Row:
    """Median, best and worst of a figure over windows."""
    values = [float(row[key]) for row in rows]
    worst = max if best is min else min
    return {"median": median(values), "best": best(values), "worst": worst(values)}


def level(rows: list[Row]) -> Row:
    """One load level: percentiles, CPU, errors and bid rate over its windows."""
    return {
        "rate": median(row["rate"] or row["answered_per_s"] for row in rows),
        **{key: spread(rows, f"{key}_us") for key in ("p50", "p90", "p99", "p999")},
        "errors": sum(row["errors"] for row in rows),
        "sent": sum(row["sent"] for row in rows),
        "bid_rate": median(row["bid_rate"] for row in rows),
        "server_cpu_us": median(row["server_cpu_us"] for row in rows),
        "others": median(row["others"] for row in rows),
        "steal_server": spread([{"s": row["steal"][0]} for row in rows], "s"),
        "stages_us": mean_stages([row.get("stages_us", {}) for row in rows]),
    }


def mean_stages(each: list[dict[str, float]]) -> dict[str, float]:
    """Medians over windows, stage by stage."""
    names = next((list(stages) for stages in each if stages), [])
    return {name: round(median(stages[name] for stages in each if stages), 3) for name in names}


def against(ours: list[Row], theirs: list[Row]) -> Row:
    """Ratios of the rates of windows side by side."""
    pairs = [a["answered_per_s"] / max(1e-9, b["answered_per_s"]) for a, b in zip(ours, theirs, strict=True)]
    return {"median": median(pairs), "best": max(pairs), "worst": min(pairs)}


def summarise(bidder: list[Row], echo: list[Row], bare: list[Row], plan: Plan) -> dict[str, Any]:
    """What the table and the page show."""
    ours, theirs, least = (of(rows, "saturation") for rows in (bidder, echo, bare))
    cpu = [b["server_cpu_us"] / max(1e-9, a["server_cpu_us"]) for a, b in zip(ours, theirs, strict=True)]
    load_rows = [row for row in bidder if row["phase"] != "warm"]
    return {
        "saturation_per_s": spread(ours, "answered_per_s", max),
        "echo_per_s": spread(theirs, "answered_per_s", max),
        "echo_ratio": against(ours, theirs),
        "bare_per_s": spread(least, "answered_per_s", max),
        "bare_ratio": against(ours, least),
        "bare_cpu_us": median(row["server_cpu_us"] for row in least),
        "echo_cpu_ratio": {"median": median(cpu), "best": max(cpu), "worst": min(cpu)},
        "echo_cpu_us": median(row["server_cpu_us"] for row in theirs),
        "alone": level(of(bidder, "alone")),
        "echo_alone_p50_us": median(row["p50_us"] for row in of(echo, "alone")),
        "saturated": level(ours),
        "levels": {f"{share:.0%}": level(of(bidder, f"{share:.0%}")) for share in plan.rates},
        "errors": sum(row["errors"] for row in load_rows),
        "generator_busy_max": max(row["generator_busy"] for row in load_rows),
        "generator_stall_max": max(row["generator_stall"] for row in load_rows),
    }
