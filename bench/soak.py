"""A soak: one worker of each front for half an hour at 70 % of saturation, watched for what creeps.

`make soak` (`python -m bench soak`, ``--seconds 60`` for a quick look). Production's workers with all stages on, one
per front, take turns by windows of two seconds, so each lives through the whole run. Each window's rate is of what
saturated in the half second before it (why: `bench.phases`). After every window memory, descriptors and threads of
both are read. What must hold, the first tenth being warm-up: memory of the last tenth at
most 2 % above that of the tenth after the warm-up; descriptors and threads the same; no drift of p99.

A machine's own p99 wanders by more than that within minutes, so a drift is what a worker has on a new one: in the last
third a fresh worker of each front, on a copy of the world as it was at the start, takes turns with the aged one. p99
drifts where the median of aged/fresh over the pairs of windows is above 1.1 *and* its 95 % interval above 1. The rise
over the run (Theil-Sen slope, Sen 1968), machine included, is told beside it. Old decision logs are removed on the way.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from msgspec.structs import replace
from rich.console import Console
from scipy.stats import theilslopes

from bench.cores import Awake
from bench.engine import ratio
from bench.load import GrpcLoad, HttpLoad
from bench.machine import facts, memory_bytes
from bench.procs import LOAD_CPU, OUT, SERVER_CPU, Server, pin
from bench.quality.page import INK, Page
from bench.standard import FRONTS, IN_FLIGHT, NAMES, QUICK, Bars, requests_of
from bench.worker import start_worker
from bench.world import World, forget_decisions, make_world
from dsp.base.config import Config
from dsp.log.segments import segment_files

RESULTS = Path(__file__).parent / "results" / "soak.jsonl"
PAGE = OUT / "soak.html"
WINDOWS = OUT / "soak.json"  # of the last run
SHARE = 0.7
WINDOW_S, BESIDE_S = 2.0, 0.5
GROWTH = 0.02
DRIFT = 0.1
AGED = 2 / 3  # of the run; then a fresh worker takes turns
NOT_COPIED = ("run", "log", "*.table")  # what a worker of the world has written
KEEP_SEGMENTS = 4
OF_WINDOW = ("rate", "p50_us", "p99_us", "answered_per_s")
Row = dict[str, Any]
F64 = npt.NDArray[np.float64]


class Watched:
    """A worker under load: its generator, and what was read after each window."""

    def __init__(self, front: str, server: Server, load: GrpcLoad | HttpLoad) -> None:
        self.front, self.server, self.load = front, server, load
        self.rows: list[Row] = []
        self.fresh: Watched | None = None  # beside it in the last part of the run

    def saturate(self, seconds: float) -> float:
        """Requests a second at saturation."""
        return self.load.closed_loop(IN_FLIGHT[self.front], seconds).answered_per_s

    def window(self, since_s: float) -> None:
        """One window at seven tenths of what saturates now, and a look at the process."""
        window = self.load.open_loop(SHARE * self.saturate(BESIDE_S), WINDOW_S)
        row = window.row()
        self.rows.append(
            {"at_s": round(time.monotonic() - since_s, 1), **{name: row[name] for name in OF_WINDOW},
             "errors": window.errors, **process(self.server.pid)}
        )  # fmt: skip

    def column(self, name: str) -> F64:
        """One figure of all windows."""
        return np.array([row[name] for row in self.rows], np.float64)


def process(pid: int) -> dict[str, int]:
    """Memory in bytes, open descriptors and threads of a process."""
    counts = {"descriptors": len(os.listdir(f"/proc/{pid}/fd")), "threads": len(os.listdir(f"/proc/{pid}/task"))}
    return memory_bytes(pid) | counts


def judge(times_s: F64, columns: dict[str, F64], fresh_us: F64) -> Row:
    """Growth, drift and whether each holds; ``columns`` has rss, rss_anon, descriptors, threads, p99_us by window.

    ``fresh_us`` are the fresh worker's p99 of as many windows, each beside one of the aged worker's last.
    """
    n = len(times_s)
    tenth = max(1, n // 10)
    early, late = slice(tenth, 2 * tenth), slice(n - tenth, n)

    def growth(name: str) -> float:
        before = float(np.median(columns[name][early]))
        return (float(np.median(columns[name][late])) - before) / before

    slope = float(theilslopes(columns["p99_us"][tenth:], times_s[tenth:])[0])
    middle = float(np.median(columns["p99_us"][tenth:]))
    aged = ratio(fresh_us.tolist(), columns["p99_us"][n - len(fresh_us) :].tolist())
    found: Row = {
        "rss_growth": round(growth("rss"), 5), "anonymous_growth": round(growth("rss_anon"), 5),
        "rss_mb": round(float(np.median(columns["rss"][late])) / 1e6, 1),
        "descriptors": [int(columns["descriptors"][early].max()), int(columns["descriptors"][late].max())],
        "threads": [int(columns["threads"][early].max()), int(columns["threads"][late].max())],
        "p99_ms": round(middle / 1e3, 2), "p99_rise": round(slope * float(times_s[-1] - times_s[tenth]) / middle, 4),
        "p99_of_fresh": aged,
    }  # fmt: skip
    held = {
        "memory": found["rss_growth"] <= GROWTH,
        "descriptors": found["descriptors"][1] <= found["descriptors"][0],
        "threads": found["threads"][1] <= found["threads"][0],
        "p99": aged["low"] <= 1 or aged["ratio"] <= 1 + DRIFT,
    }
    return {**found, "held": held, "ok": all(held.values())}


def prune(config: Config) -> None:
    """Remove decision logs but the newest few."""
    for file in segment_files(config.path("log", "decisions"))[:-KEEP_SEGMENTS]:
        file.unlink(missing_ok=True)


def watch(front: str, world: World, config: Config, cpus: tuple[int, int], stack: contextlib.ExitStack) -> Watched:
    """Start a worker of ``config`` and its generator, and warm both."""
    server = stack.enter_context(start_worker(config, front, cpu=cpus[0], noon=True))
    requests = requests_of(front, world.items, world.tokens)
    spin = cpus[0] != cpus[1]
    load: GrpcLoad | HttpLoad
    if front == "grpc":
        load = GrpcLoad(server.address, requests, spin=spin)
    else:
        load = HttpLoad(server.address, requests, connections=IN_FLIGHT[front], spin=spin)
    stack.callback(load.close)
    watched = Watched(front, server, load)
    watched.saturate(2.0)
    return watched


def run(seconds: float, fronts: tuple[str, ...], cpus: tuple[int, int], console: Console) -> Row:
    """The whole soak."""
    bars = Bars(console)
    with bars.progress, Awake(), contextlib.ExitStack() as stack:
        task = bars.task("making the world", 6)
        world = make_world(QUICK.parameters, lambda what: bars.step(task, f"making the world: {what}"))
        pin(cpus[1])
        forget_decisions()
        stack.callback(forget_decisions)
        copy = stack.enter_context(tempfile.TemporaryDirectory(dir=OUT))
        shutil.copytree(world.config.data_dir, copy, ignore=shutil.ignore_patterns(*NOT_COPIED), dirs_exist_ok=True)
        anew = replace(world.config, data_dir=copy)
        watched = [watch(front, world, world.config, cpus, stack) for front in fronts]
        began_s = time.monotonic()
        task = bars.task("soak", round(seconds))
        while (passed := time.monotonic() - began_s) < seconds:
            for each in watched:
                if passed > AGED * seconds and each.fresh is None:
                    each.fresh = watch(each.front, world, anew, cpus, stack)
                pair = [each] if each.fresh is None else [each, each.fresh]
                for one in pair if len(each.rows) % 2 else reversed(pair):
                    one.window(began_s)
            bars.step(task, f"soak: {watched[0].rows[-1]['rss'] / 1e6:.0f} MB", time.monotonic() - began_s - passed)
            prune(world.config)
            prune(anew)
    result: Row = {"kind": "soak", "seconds": seconds, "machine": facts(), "cpus": list(cpus), "fronts": {}}
    names = ("rss", "rss_anon", "descriptors", "threads", "p99_us")
    for each in watched:
        assert each.fresh is not None
        judged = judge(each.column("at_s"), {name: each.column(name) for name in names}, each.fresh.column("p99_us"))
        answered, errors = int(each.column("answered_per_s").sum() * WINDOW_S), int(each.column("errors").sum())
        judged["held"]["errors"] = errors == 0
        judged["ok"] = judged["ok"] and errors == 0
        result["fronts"][each.front] = {
            "rate_per_s": round(each.column("rate").mean()),
            "answered": answered,
            "errors": errors,
        } | judged
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    WINDOWS.write_text(
        json.dumps(
            {each.front: {"aged": each.rows, "fresh": each.fresh.rows if each.fresh else []} for each in watched}
        )
    )
    PAGE.write_text(page(result, watched))
    return result


def page(result: Row, watched: list[Watched]) -> str:
    """The run on one page."""
    out = Page("Soak", kind="")
    machine = result["machine"]
    out.text(f"{result['seconds']:.0f} s at {SHARE:.0%} of saturation, {machine['date']}, commit {machine['commit']}.")
    for each in watched:
        row = result["fronts"][each.front]
        out.heading(NAMES[each.front])
        out.table(["what", "figure", ""], [[what, told(row, what), bool(ok)] for what, ok in row["held"].items()])
        for name, label, scale in (("rss", "resident memory, MB", 1e6), ("p99_us", "p99, ms", 1e3)):
            out.plot(_line(each, (name,), label, scale), 2.6)
        out.plot(_line(each, ("rate",), "requests/s", 1), 2.6)
        out.plot(_line(each, ("descriptors", "threads"), "count", 1), 2.6)
    return out.render()


def told(row: Row, what: str) -> str:
    """One judged thing in words."""
    return {
        "memory": f"{row['rss_mb']:g} MB, {row['rss_growth']:+.2%} (anonymous {row['anonymous_growth']:+.2%})",
        "descriptors": f"{row['descriptors'][0]} → {row['descriptors'][1]}",
        "threads": f"{row['threads'][0]} → {row['threads'][1]}",
        "p99": "{ratio:.2f} ({low:.2f}–{high:.2f}) of a fresh one's".format(**row["p99_of_fresh"])
        + f"; {row['p99_ms']:g} ms, {row['p99_rise']:+.1%} over the run",
        "errors": f"{row['errors']:,} of {row['answered']:,}",
    }[what]


def _line(each: Watched, names: tuple[str, ...], label: str, scale: float) -> Any:
    def draw(axes: Axes) -> None:
        for name, colour in zip(names, INK, strict=False):
            axes.plot(each.column("at_s") / 60, each.column(name) / scale, color=colour, linewidth=1, label=name)
        if each.fresh is not None and len(names) == 1:
            fresh = each.fresh.column("at_s") / 60, each.fresh.column(names[0]) / scale
            axes.plot(*fresh, color=INK[1], linewidth=1, label="fresh worker")
            axes.legend(frameon=False)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("minutes")
        axes.set_ylabel(label)
        if len(names) > 1:
            axes.legend(frameon=False, ncols=len(names))

    return draw


def main(argv: list[str] | None = None) -> int:
    """Run from the command line; 1 where something crept."""
    parser = argparse.ArgumentParser(prog="bench soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--front", choices=FRONTS, action="append", help="one or more; both in turns without it")
    parser.add_argument("--server-cpu", type=int, default=SERVER_CPU)
    parser.add_argument("--load-cpu", type=int, default=LOAD_CPU)
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    args = parser.parse_args(argv)
    console = Console(stderr=args.json)
    result = run(args.seconds, tuple(args.front or FRONTS), (args.server_cpu, args.load_cpu), console)
    whole = args.seconds >= 1800
    with (RESULTS if whole else OUT / "soak.jsonl").open("a") as file:
        file.write(json.dumps(result) + "\n")
    if args.json:
        json.dump(result, sys.stdout)
        print()
    else:
        for front, row in result["fronts"].items():
            console.print(f"{NAMES[front]}, {row['rate_per_s']:,} requests/s")
            for what, ok in row["held"].items():
                console.print(f"  {what:<11} {told(row, what):<60} {'held' if ok else 'MISSED'}")
        console.print(f"page: {PAGE}")
    return 0 if all(row["ok"] for row in result["fronts"].values()) else 1
