"""One exchange at ten times its QPS cap: do the others notice?

`python -m bench flood` gives one exchange of the standard mix a cap of 3 % of the worker's saturation, and offers it at
once and at ten times its cap in turns, window by window, beside 35 % of saturation from all others: 65 % in all at the
most, within what the machine can do. Both come over the same connections, which is harsher than an exchange's own.
Bars: the others' bid rate within 0.5 points, their p99 (from intended times) at most 1.5 times, none refused.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace
from rich.console import Console

from bench.load import GrpcLoad, HttpLoad, Request
from bench.load.run import CURSOR, DONE, INTENDED
from bench.load.window import GOOD
from bench.machine import facts
from bench.procs import LOAD_CPU, SERVER_CPU, pin
from bench.standard import FRONTS, IN_FLIGHT, NAMES, QUICK, Bars, make_load, requests_of
from bench.worker import start_worker
from bench.world import World, forget_decisions, make_world, publish

RESULTS = Path(__file__).parent / "results" / "flood.jsonl"
CAP, OTHERS, TIMES = 0.03, 0.35, 10  # of saturation; of the cap
WINDOW_S = 2.0
RATE_BAR, P99_BAR = 0.005, 1.5
Load = GrpcLoad | HttpLoad


def mix_of(front: str, world: World, name: str, share: float) -> tuple[list[Request], Any]:
    """Requests of which ``share`` are the exchange's, each other one once; and which are its, bool[n]."""
    ours = requests_of(front, [item for item in world.items if item.exchange == name], world.tokens)
    others = requests_of(front, [item for item in world.items if item.exchange != name], world.tokens)
    n = round(len(others) * share / (1 - share))
    return others + [ours[k % len(ours)] for k in range(n)], np.arange(len(others) + n) >= len(others)


def window(load: Load, of_it: Any, rate: float) -> dict[str, Any]:
    """One open-loop window: the others' bid rate, p99 and refusals; what became of the exchange's requests."""
    runner = load.runner
    first = int(runner.ctl[CURSOR])
    load.open_loop(rate, WINDOW_S)
    times, (status, _, bid) = runner.times, runner.facts
    its = of_it[runner.order[(first + np.arange(len(status))) % len(runner.order)]]
    good = np.isin(status, GOOD)
    latency_ms = (times[DONE] - times[INTENDED]) / 1e6
    return {
        "bid_rate": float((bid[good & ~its] != 0).mean()), "p99_ms": float(np.percentile(latency_ms[good & ~its], 99)),
        "p50_ms": float(np.median(latency_ms[good & ~its])), "others_refused": int((~good & ~its).sum()),
        "others": int((~its).sum()), "its": int(its.sum()), "its_answered": int((good & its).sum()),
    }  # fmt: skip


def measure(front: str, world: World, windows: int, bars: Bars) -> dict[str, Any]:
    """Saturation without a cap, then the cap and the flood in turns."""
    names = sorted({item.exchange for item in world.items})
    name = min(names, key=lambda each: sum(item.exchange == each for item in world.items))
    with start_worker(world.config, front, cpu=SERVER_CPU, noon=True) as server:
        load = make_load(front, server.address, requests_of(front, world.items, world.tokens))
        for _ in range(2):
            load.closed_loop(IN_FLIGHT[front], 1.0)
        peak = float(np.median([load.closed_loop(IN_FLIGHT[front], 1.0).answered_per_s for _ in range(3)]))
        load.close()
    cap = int(CAP * peak)
    exchanges = [replace(each, qps=cap if each.name == name else 0) for each in world.catalog.exchanges]
    publish(world.config, replace(world.catalog, exchanges=exchanges))
    rows: dict[str, list[dict[str, Any]]] = {"at its cap": [], "flooding": []}
    task = bars.task(f"{NAMES[front]}, {name} at {TIMES} x {cap}/s", windows)
    with start_worker(world.config, front, cpu=SERVER_CPU, noon=True) as server:
        loads = []
        for times in (1, TIMES):
            its, others = times * cap, OTHERS * peak
            requests, of_it = mix_of(front, world, name, its / (its + others))
            loads.append((make_load(front, server.address, requests), of_it, its + others))
        for load, of_it, rate in loads:
            window(load, of_it, rate)  # caches
        for _ in range(windows):
            for phase, (load, of_it, rate) in zip(rows, loads, strict=True):
                rows[phase].append(window(load, of_it, rate))
            bars.step(task)
        for load, _, _ in loads:
            load.close()
    publish(world.config, world.catalog)
    return {"front": front, "exchange": name, "saturation_per_s": round(peak), "cap_per_s": cap} | judged(rows)


def judged(rows: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Medians over windows, and whether the others noticed."""
    calm, flood = rows["at its cap"], rows["flooding"]

    def median(each: list[dict[str, Any]], key: str) -> float:
        return float(np.median([row[key] for row in each]))

    ratio = float(np.median([b["p99_ms"] / a["p99_ms"] for a, b in zip(calm, flood, strict=True)]))
    shift = median(flood, "bid_rate") - median(calm, "bid_rate")
    refused = sum(row["others_refused"] for row in flood)
    its = sum(row["its"] for row in flood)
    held = {"bid rate": abs(shift) <= RATE_BAR, "p99": ratio <= P99_BAR, "refused": refused == 0}
    return {
        "bid_rate": [round(median(calm, "bid_rate"), 4), round(median(flood, "bid_rate"), 4)],
        "p99_ms": [round(median(calm, "p99_ms"), 2), round(median(flood, "p99_ms"), 2)], "p99_ratio": round(ratio, 3),
        "others_refused": refused, "others": sum(row["others"] for row in flood),
        "its_answered_share": round(sum(row["its_answered"] for row in flood) / max(1, its), 4),
        "held": held, "windows": rows,
    }  # fmt: skip


def told(row: dict[str, Any]) -> str:
    """One front in words."""
    (calm_rate, rate), (calm_ms, ms) = row["bid_rate"], row["p99_ms"]
    return (
        f"{row['exchange']} at {TIMES} x {row['cap_per_s']:,}/s, {row['its_answered_share']:.0%} of it answered; "
        f"others: bid rate {calm_rate:.1%} → {rate:.1%}, p99 {calm_ms:.1f} → {ms:.1f} ms ({row['p99_ratio']:.2f} x), "
        f"{row['others_refused']:,} of {row['others']:,} refused: {'held' if all(row['held'].values()) else 'MISSED'}"
    )


def main(argv: list[str] | None = None) -> int:
    """Run from the command line; 1 where the others noticed."""
    parser = argparse.ArgumentParser(prog="bench flood", description=__doc__)
    parser.add_argument("--windows", type=int, default=9, help="of each kind and front, two seconds each")
    parser.add_argument("--front", choices=FRONTS, action="append", help="one or more; both without it")
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    args = parser.parse_args(argv)
    console = Console(stderr=args.json)
    bars = Bars(console)
    with bars.progress:
        task = bars.task("making the world", 6)
        world = make_world(QUICK.parameters, lambda what: bars.step(task, f"making the world: {what}"))
        pin(LOAD_CPU)
        forget_decisions()
        rows = [measure(front, world, args.windows, bars) for front in args.front or FRONTS]
        forget_decisions()
    result = {"kind": "flood", "machine": facts(), "rows": rows}
    with RESULTS.open("a") as file:
        file.write(json.dumps(result) + "\n")
    if args.json:
        json.dump(result, sys.stdout)
        print()
    else:
        for row in rows:
            console.print(f"{NAMES[row['front']]}: {told(row)}")
    return 0 if all(all(row["held"].values()) for row in rows) else 1
