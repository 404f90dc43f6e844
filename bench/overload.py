"""Overload: what one worker does when offered 1.5 and 3 times what it can answer, and how soon it is itself again.

`python -m bench overload` measures saturation (closed loop), then offers Poisson arrivals at each factor for
``--seconds``, then 70 % for ten seconds. Goodput is what was answered, not refused, within the deadline. In overload
the delay counts from sending: a caller who finds every stream of its connections taken gives up at its own deadline,
at no cost to the server; this generator sends late instead. Recovery counts from the intended time of sending: it is
when the windows of half a second begin in which nothing is refused and every p99 is within the deadline.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import numpy as np
from rich.console import Console

from bench.load import GrpcLoad, Request, Window
from bench.machine import facts
from bench.procs import LOAD_CPU, OUT, SERVER_CPU, pin
from bench.standard import QUICK, Bars, requests_of
from bench.worker import start_worker
from bench.world import forget_decisions, make_world

DEADLINE_MS = 100.0  # the mix's usual tmax
BARS = {1.5: 0.8, 3.0: 0.5}
WINDOW_S = 2.0
IN_FLIGHT = 128


def judged(window: Window) -> dict[str, Any]:
    """Goodput, share refused, and percentiles of the answered."""
    refused = window.statuses.get(8, 0)  # RESOURCE_EXHAUSTED
    row = window.row()
    return {
        "offered_per_s": round(window.rate), "answered_per_s": row["answered_per_s"], "sent": window.sent,
        "refused": refused, "other_errors": window.errors - refused, "p50_ms": row["p50_us"] / 1e3,
        "p99_ms": row["p99_us"] / 1e3, "generator_busy": row["generator_busy"],
    }  # fmt: skip


def hold(load: GrpcLoad, rate: float, seconds: float, step: Any) -> dict[str, Any]:
    """Offer ``rate`` for ``seconds`` in windows; totals and the worst window."""
    rows, latencies = [], []
    for _ in range(max(1, round(seconds / WINDOW_S))):
        window = load.open_loop(rate, WINDOW_S)
        rows.append(judged(window))
        status = load.runner.facts[0]
        answered = status[: window.sent] == 0
        latencies.append((window.latency_us - window.send_lag_us)[answered] / 1e3)
        step()
    answered_ms = np.concatenate(latencies)
    # Only what was answered while load was offered: what the generator still drains afterwards is not goodput.
    in_time = [float((each <= DEADLINE_MS).mean()) if len(each) else 0.0 for each in latencies]
    goodput = sum(row["answered_per_s"] * share for row, share in zip(rows, in_time, strict=True)) / len(rows)
    return {
        "offered_per_s": round(rate), "seconds": seconds, "goodput_per_s": round(goodput),
        "answered_p50_ms": round(float(np.median(answered_ms)), 2),
        "answered_p99_ms": round(float(np.percentile(answered_ms, 99)), 2),
        "worst_window_per_s": round(min(row["answered_per_s"] for row in rows)),
        "refused_share": round(sum(row["refused"] for row in rows) / sum(row["sent"] for row in rows), 4),
        "other_errors": sum(row["other_errors"] for row in rows),
    }  # fmt: skip


def recovery(load: GrpcLoad, rate: float) -> float:
    """Seconds after the overload until everything is answered in time, for good; -1 where it is not in 10 s."""
    well_since = -1.0
    for k in range(20):
        window = load.open_loop(rate, 0.5)
        well = window.errors == 0 and window.row()["p99_us"] / 1e3 <= DEADLINE_MS
        if not well:
            well_since = -1.0
        elif well_since < 0:
            well_since = k * 0.5
    return well_since


def run(seconds: float, console: Console) -> dict[str, Any]:
    """Saturation, each factor, recovery after each."""
    bars = Bars(console)
    with bars.progress:
        task = bars.task("making the world", 6)
        world = make_world(QUICK.parameters, lambda what: bars.step(task, f"making the world: {what}"))
        requests: list[Request] = requests_of("grpc", world.items, world.tokens)
        pin(LOAD_CPU)
        forget_decisions()
        with start_worker(world.config, "grpc", cpu=SERVER_CPU, noon=True) as server:
            load = GrpcLoad(server.address, requests, in_flight_cap=20_000)
            for _ in range(2):
                load.closed_loop(IN_FLIGHT, 1.0)
            peak = float(np.median([load.closed_loop(IN_FLIGHT, 1.0).answered_per_s for _ in range(5)]))
            result: dict[str, Any] = {
                "kind": "overload",
                "machine": facts(),
                "saturation_per_s": round(peak),
                "rows": [],
            }
            for factor, least in BARS.items():
                task = bars.task(f"{factor:g} x saturation", max(1, round(seconds / WINDOW_S)))
                row = hold(load, factor * peak, seconds, lambda task=task: bars.step(task))
                row |= {"factor": factor, "goodput_share": round(row["goodput_per_s"] / peak, 3), "bar": least}
                row["recovered_s"] = recovery(load, 0.7 * peak)
                row["ok"] = (
                    row["goodput_share"] >= least
                    and row["answered_p99_ms"] <= DEADLINE_MS
                    and 0 <= row["recovered_s"] <= 5
                )
                result["rows"].append(row)
            load.close()
        forget_decisions()
    return result


def main(argv: list[str] | None = None) -> int:
    """Run from the command line; 1 where a bar was missed."""
    parser = argparse.ArgumentParser(prog="bench overload", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120, help="of each factor")
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    args = parser.parse_args(argv)
    console = Console(stderr=args.json)
    result = run(args.seconds, console)
    OUT.mkdir(parents=True, exist_ok=True)
    with (OUT / "overload.jsonl").open("a") as file:
        file.write(json.dumps(result) + "\n")
    if args.json:
        json.dump(result, sys.stdout)
        print()
    else:
        console.print(f"saturation {result['saturation_per_s']:,}/s, deadline {DEADLINE_MS:g} ms")
        for row in result["rows"]:
            console.print(
                f"{row['factor']:g} x: goodput {row['goodput_share']:.0%} (bar {row['bar']:.0%}), answered p99 "
                f"{row['answered_p99_ms']:.1f} ms, refused {row['refused_share']:.0%}, other errors "
                f"{row['other_errors']:,}, recovered in {row['recovered_s']:.1f} s: {'held' if row['ok'] else 'missed'}"
            )
    return 0 if all(row["ok"] for row in result["rows"]) else 1
