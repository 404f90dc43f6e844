"""Overload: what one worker does when offered 1.5 and 3 times what it can answer, and how soon it is itself again.

`python -m bench overload` (two minutes a factor; in `make peak`) offers Poisson arrivals at each factor for
``--seconds``, then 70 %. It does so in windows of five seconds, and each asks for its factor of what saturated, closed
loop, in the second before it, because a machine whose cores others share changes its speed from one second to the
next (`bench.phases`); goodput is a share of the same. The generator behaves as an exchange does: a request
for which no stream (gRPC) or connection (HTTP) was free within the deadline is given up, never sent, and stands in the
table as *gave up*; nothing of it waits at the server. So every request has one of these ends, and the shares add up:

    in time   answered, not refused, within the deadline from its sending: goodput
    late      the same, beyond it
    refused   shed by the server: RESOURCE_EXHAUSTED or 429
    gave up   never sent: everything the caller may have open at once was taken
    failed    lost, reset, other statuses, no answer within three seconds

The p99 is that of the answered from their sending. Recovery counts from the intended time of sending: when the windows
of half a second begin in which nothing is refused or given up and every p99 is within the deadline.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.cores import Awake
from bench.load import GrpcLoad, HttpLoad
from bench.load.run import DONE, INTENDED, SENT
from bench.load.window import GOOD, UNSENT
from bench.machine import facts
from bench.procs import LOAD_CPU, OUT, SERVER_CPU, pin
from bench.standard import FRONTS, NAMES, QUICK, Bars, requests_of
from bench.worker import start_worker
from bench.world import World, forget_decisions, make_world

RESULTS = Path(__file__).parent / "results" / "overload.jsonl"
DEADLINE_MS = 100.0  # the mix's usual tmax
BARS = {1.5: 0.8, 3.0: 0.5}
RECOVERY_BAR_S = 5.0
WINDOW_S = 5.0  # at most: each begins with everything free, which overload is not
BESIDE_S = 1.0
IN_FLIGHT = 128
CONNECTIONS = {"grpc": (8, 64), "http": (64, 1024)}
REFUSED = {"grpc": 8, "http": 429}
ENDS = ("in time", "late", "refused", "gave up", "failed")
Load = GrpcLoad | HttpLoad


def make_load(front: str, address: tuple[str, int], world: World, connections: int) -> Load:
    """The generator with so many connections."""
    requests = requests_of(front, world.items, world.tokens)
    if front == "grpc":
        streams = max(1 << 14, (1 << 23) // connections)  # connections last some time, their tables fit into memory
        return GrpcLoad(
            address, requests, connections=connections, in_flight_cap=20_000, streams_per_connection=streams
        )
    return HttpLoad(address, requests, connections=connections)


def ends_of(status: Any, answer_ms: Any, refused: int) -> dict[str, int]:
    """How many requests ended how: ``status`` int[n], ``answer_ms`` float[n] from sending."""
    good = np.isin(status, GOOD)
    in_time = int((good & (answer_ms <= DEADLINE_MS)).sum())
    counts = [in_time, int(good.sum()) - in_time, int((status == refused).sum()), int((status == UNSENT).sum())]
    return dict(zip(ENDS, [*counts, len(status) - sum(counts)], strict=True))


def hold(load: Load, front: str, factor: float, seconds: float, step: Any) -> dict[str, Any]:
    """Offer ``factor`` times saturation for ``seconds`` in windows; how everything ended, and the worst window."""
    ends, answered_ms, refusal_ms, goodput, busy, peaks = dict.fromkeys(ENDS, 0), [], [], [], [], []
    windows = max(1, round(seconds / WINDOW_S))
    length_s = seconds / windows
    for _ in range(windows):
        peaks.append(load.closed_loop(IN_FLIGHT, BESIDE_S).answered_per_s)
        window = load.open_loop(factor * peaks[-1], length_s, patience_s=DEADLINE_MS / 1e3)
        times, status = load.runner.times, load.runner.facts[0]
        answer_ms = (times[DONE] - times[SENT]) / 1e6
        found = ends_of(status, answer_ms, REFUSED[front])
        ends = {name: ends[name] + found[name] for name in ENDS}
        good = np.isin(status, GOOD)
        answered_ms.append(answer_ms[good])
        refusal_ms.append(answer_ms[status == REFUSED[front]])
        # Only what was answered while load was offered: the rest belongs to no time.
        inside = good & (answer_ms <= DEADLINE_MS) & (times[DONE] <= times[INTENDED, -1])
        goodput.append(int(inside.sum()) / length_s)
        busy.append(window.busy)
        step()
    answered, refusals = np.concatenate(answered_ms), np.concatenate(refusal_ms)
    offered = sum(ends.values())
    shares = np.array(goodput) / np.array(peaks)
    return {
        "factor": factor, "seconds": seconds, "offered": offered, "saturation_per_s": round(np.mean(peaks)),
        "last_saturation_per_s": round(peaks[-1]), "goodput_per_s": round(np.mean(goodput)),
        "goodput_share": round(sum(goodput) / sum(peaks), 3), "worst_window_share": round(float(shares.min()), 3),
        "answered_p50_ms": round(float(np.median(answered)), 2),
        "answered_p99_ms": round(float(np.percentile(answered, 99)), 2),
        "refusal_p50_ms": round(float(np.median(refusals)), 2) if len(refusals) else None,
        "ends": ends, "shares": {name: round(n / offered, 4) for name, n in ends.items()},
        "generator_busy": round(float(np.mean(busy)), 3),
    }  # fmt: skip


def recovery(load: Load, rate: float) -> tuple[float, list[dict[str, Any]]]:
    """Seconds until everything is answered in time, for good (-1: not in 10 s); and every window that was not well."""
    well_since, ill = -1.0, []
    for k in range(20):
        window = load.open_loop(rate, 0.5, patience_s=DEADLINE_MS / 1e3)
        p99_ms = window.row()["p99_us"] / 1e3
        if window.errors or p99_ms > DEADLINE_MS:
            well_since = -1.0
            stall = round(window.longest_gap_ms, 1)
            ill.append({"at_s": k / 2, "p99_ms": p99_ms, "statuses": window.statuses, "generator_stall_ms": stall})
        elif well_since < 0:
            well_since = k * 0.5
    return well_since, ill


def measure(
    front: str, world: World, connections: int, seconds: float, bars: Bars, **settings: Any
) -> list[dict[str, Any]]:
    """Saturation, each factor and the recovery after it, of one front with so many connections."""
    rows = []
    with Awake(), start_worker(world.config, front, cpu=SERVER_CPU, noon=True, **settings) as server:
        load = make_load(front, server.address, world, connections)
        for _ in range(4):
            load.closed_loop(IN_FLIGHT, 1.0)
        for factor, least in BARS.items():
            what = f"{NAMES[front]}, {connections} connections, {factor:g} x saturation"
            task = bars.task(what, max(1, round(seconds / WINDOW_S)))
            row = hold(load, front, factor, seconds, lambda task=task: bars.step(task))
            row |= {"front": front, "connections": connections, "bar": least}
            row["recovered_s"], row["ill"] = recovery(load, 0.7 * row["last_saturation_per_s"])
            row["held"] = {
                "goodput": row["goodput_share"] >= least,
                "p99": row["answered_p99_ms"] <= DEADLINE_MS,
                "recovery": 0 <= row["recovered_s"] <= RECOVERY_BAR_S,
            }
            rows.append(row)
        load.close()
    return rows


def main(argv: list[str] | None = None) -> int:
    """Run from the command line; 1 where a bar was missed."""
    parser = argparse.ArgumentParser(prog="bench overload", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120, help="of each factor")
    parser.add_argument("--front", choices=FRONTS, action="append", help="one or more; both without it")
    parser.add_argument("--connections", type=int, action="append", help="one or more; few and many without it")
    parser.add_argument("--queue-delay-ms", type=float, help="another than the default, to compare; 0: no shedding")
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    args = parser.parse_args(argv)
    console = Console(stderr=args.json)
    bars = Bars(console)
    rows = []
    settings = {} if args.queue_delay_ms is None else {"queue_delay_ms": args.queue_delay_ms}
    with bars.progress:
        task = bars.task("making the world", 6)
        world = make_world(QUICK.parameters, lambda what: bars.step(task, f"making the world: {what}"))
        pin(LOAD_CPU)
        forget_decisions()
        for front in args.front or FRONTS:
            for connections in args.connections or CONNECTIONS[front]:
                rows += measure(front, world, connections, args.seconds, bars, **settings)
        forget_decisions()
    result = {"kind": "overload", "machine": facts(), "deadline_ms": DEADLINE_MS, "rows": rows}
    OUT.mkdir(parents=True, exist_ok=True)
    with (RESULTS if args.seconds >= 120 else OUT / "overload.jsonl").open("a") as file:
        file.write(json.dumps(result) + "\n")
    if args.json:
        json.dump(result, sys.stdout)
        print()
    else:
        console.print(told(rows))
    return 0 if all(all(row["held"].values()) for row in rows) else 1


def told(rows: list[dict[str, Any]]) -> Table:
    """The rows for people."""
    table = Table(title=f"overload, deadline {DEADLINE_MS:g} ms; a star misses its bar")
    for name in ("front", "connections", "saturation/s", "offered", "goodput", "p99 ms", "recovered s", *ENDS[1:]):
        table.add_column(name, justify="right")
    for row in rows:
        star = {name: "" if ok else " *" for name, ok in row["held"].items()}
        table.add_row(
            NAMES[row["front"]], str(row["connections"]), f"{row['saturation_per_s']:,}", f"{row['factor']:g} x",
            f"{row['goodput_share']:.0%}{star['goodput']}", f"{row['answered_p99_ms']:.0f}{star['p99']}",
            f"{row['recovered_s']:.1f}{star['recovery']}", *(f"{row['shares'][name]:.1%}" for name in ENDS[1:]),
        )  # fmt: skip
    return table


if __name__ == "__main__":
    sys.exit(main())
