"""Whether a console's load costs its bidders anything: CPU per bid request and p99, this console busy against another.

`python -m bench console load`. Two systems of `dsp demo` run and trade alike, each with its own directory, ledger,
bidder, console and market; the first one's bidder has a core of its own, as in a pod of its own, and all else shares
the other core. Windows take turns (ABBA): in one the first system's console is asked for pages and reports, one after
the other, as fast as they come, in the other the second's. So the core beside is equally busy in both, and the market
reaches the bidder in the same rhythm; what differs is only what goes through the product, from console to bidder. With
an idle console to compare with, the bench measured its own market: slowed down by the console on its core it asks one
by one what it would have asked in bursts, and a bidder that decides in batches takes 1.6 times the CPU for each.

On top of the market's requests, whose notices fill the books that the pages show, the measured bidder gets an open
loop of ``--rate`` requests a second that are marked as tests: they are decided as any other and take no budget, so that
every window has as many. CPU and latency are the bidder's own figures.

Per pair of windows the ratio own over other's; reported with a 95 % interval by bootstrap, against ± 5 %, beside the
batches and pages of either arm. One JSON line, appended to ``bench/results/console_load.jsonl``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
import threading
import time
from pathlib import Path

import httpx
import msgspec
import numpy as np
from rich.console import Console
from rich.progress import track

from bench.console_live import LiveSystem
from bench.load.httpload import HttpLoad
from bench.load.request import Request
from bench.machine import facts
from dsp.base.scrape import Scrape, fetch
from dsp.console.access import ALL, Identity
from dsp.console.edge import COOKIE
from dsp.console.services import open_services

RESULTS = Path(__file__).parent / "results" / "console_load.jsonl"
PATHS = ("/", "/campaigns", "/line-items", "/reports?by=line_item&daily=true", "/creatives", "/exchanges", "/changes")
BAR = 0.05
TESTS_FIRST = 50_000_000  # scenes from here on: other ids than the market's
_TICKS = os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """The process and all below it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(p for child in children for p in tree(int(child)))]


def cpu_s(pids: list[int]) -> float:
    """Seconds of CPU that they have had, user and system."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def pin(pids: list[int], cpus: set[int]) -> None:
    """Keep every thread of them on these cores."""
    for pid in pids:
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.sched_setaffinity(int(thread), cpus)


class Load:
    """A thread that asks a system's console for pages while ``busy`` is set."""

    def __init__(self, system: LiveSystem) -> None:
        services = open_services(system.config)
        services.accounts.add_user(
            Identity(0, "setup", {ALL: "owner"}), "load@bench.example", "a password for a bench", {ALL: "owner"}
        )
        self._cookie = services.accounts.sign_in("load@bench.example", "a password for a bench", "", "bench")
        services.catalog.engine.dispose()
        self._base, self.busy, self.answers = system.console, threading.Event(), 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load")
        self._thread.start()

    def _run(self) -> None:
        with httpx.Client(base_url=self._base, cookies={COOKIE: self._cookie}, timeout=30) as client:
            number = 0
            while not self._stopping.is_set():
                if not self.busy.wait(0.1):
                    continue
                answer = client.get(PATHS[number % len(PATHS)])
                assert answer.status_code == 200, answer.text
                self.answers += 1
                number += 1

    def stop(self) -> None:
        """End it."""
        self._stopping.set()
        self._thread.join()


class Traffic:
    """An open loop of the market's requests, marked as tests, to a system's HTTP front."""

    def __init__(self, system: LiveSystem, rate: float, number: int = 4000) -> None:
        requests = []
        for i in range(number):
            scene = system.world.factory.scene(TESTS_FIRST + i)
            venue = system.world.factory.venues[scene.venue]
            token = (("authorization", f"Bearer {venue.token}"),) if venue.token else ()
            requests.append(Request(msgspec.json.encode({**scene.body, "test": 1}), f"/bid/{venue.name}", token))
        bidder = system.config.bidder
        self._load = HttpLoad((bidder.http_host, bidder.http_port), requests, connections=64, spin=False)
        self._rate = rate

    def during(self, seconds: float) -> threading.Thread:
        """Send for so long, from a thread that has begun."""
        thread = threading.Thread(target=self._send, args=(seconds,), name="traffic")
        thread.start()
        return thread

    def _send(self, seconds: float) -> None:
        with contextlib.suppress(PermissionError):  # before all else on its core: exchanges don't wait for a console
            os.sched_setscheduler(threading.get_native_id(), os.SCHED_FIFO, os.sched_param(1))
        self._load.open_loop(self._rate, seconds)

    def close(self) -> None:
        """Close its connections."""
        self._load.close()


def window(system: LiveSystem, pids: list[int], seconds: float) -> dict[str, float]:
    """Of the bidder during so many seconds: CPU and p99 in microseconds, bid requests, how many a batch had."""

    def now() -> tuple[float, Scrape]:
        return cpu_s(pids), Scrape(fetch("127.0.0.1", system.config.bidder.metrics_port))

    cpu, before = now()
    time.sleep(seconds)
    later, after = now()
    asked = after.sum("dsp_bid_requests_total") - before.sum("dsp_bid_requests_total")
    edges = after.buckets("dsp_request_seconds")
    earlier = dict(before.buckets("dsp_request_seconds"))
    counts = [(edge, n - earlier.get(edge, 0.0)) for edge, n in edges]
    batches = after.sum("dsp_batch_size_count") - before.sum("dsp_batch_size_count")
    return {
        "cpu": (later - cpu) / max(asked, 1) * 1e6,
        "p99": between(counts, 0.99) * 1e6,
        "requests": asked,
        "batch": asked / max(batches, 1),
    }


def between(counts: list[tuple[float, float]], q: float) -> float:
    """The quantile of a histogram (upper edge, observations up to it), by lines between its edges."""
    wanted, low, below = q * counts[-1][1], 0.0, 0.0
    for edge, n in counts:
        if n >= wanted:
            return low + (edge - low) * (wanted - below) / max(n - below, 1e-9) if np.isfinite(edge) else low
        low, below = edge, n
    return low


def interval(ratios: list[float], seed: int = 1) -> tuple[float, float, float]:
    """Median of the ratios and its 95 % interval."""
    draws = np.random.default_rng(seed).choice(ratios, (4000, len(ratios)))
    low, high = np.percentile(np.median(draws, 1), (2.5, 97.5))
    return float(np.median(ratios)), float(low), float(high)


def main(args: list[str]) -> int:
    """Run it; 1 where an interval leaves ± 5 %."""
    parser = argparse.ArgumentParser(prog="python -m bench console load", description=__doc__)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--window", type=float, default=4.0, help="seconds")
    parser.add_argument("--rate", type=float, default=3000.0, help="test requests a second to the measured bidder")
    parser.add_argument("--market", type=float, default=60.0, help="the market's requests a second, of either system")
    options = parser.parse_args(args)
    measured: list[tuple[dict[str, float], dict[str, float]]] = []  # the bidder, its own console busy and the other's
    pages = [0, 0]
    with (
        tempfile.TemporaryDirectory() as one,
        tempfile.TemporaryDirectory() as two,
        LiveSystem(Path(one), options.market) as system,
        LiveSystem(Path(two), options.market) as beside,
    ):
        bidder = next(role for role in system.roles.running if role.name == "bidder").process.pid
        pids = tree(bidder)
        running = [*system.roles.running, *beside.roles.running]
        others = [os.getpid(), *(p for r in running if r.process.pid != bidder for p in tree(r.process.pid))]
        if (os.cpu_count() or 1) > 1:
            pin(pids, {0})
            pin(others, set(range(1, os.cpu_count() or 2)))
        loads, traffic = [Load(system), Load(beside)], Traffic(system, options.rate)
        try:
            time.sleep(4.0)
            for number in track(range(options.pairs), "pairs of windows", console=Console(stderr=True)):
                found = {}
                for which in (0, 1) if number % 2 else (1, 0):
                    loads[which].busy.set()
                    sending = traffic.during(options.window + 1.5)
                    time.sleep(1.0)
                    before = loads[which].answers
                    found[which] = window(system, pids, options.window)
                    pages[which] += loads[which].answers - before
                    loads[which].busy.clear()
                    sending.join()
                measured.append((found[0], found[1]))
        finally:
            for load in loads:
                load.stop()
            traffic.close()
    line: dict[str, object] = {"bench": "console load", "pairs": options.pairs, "pages": pages}
    worst = 0.0
    for name in ("cpu", "p99", "requests", "batch"):
        own, other = (np.array([arms[k][name] for arms in measured]) for k in (0, 1))
        middle, low, high = interval((own / other).tolist())
        line[name] = {
            "own": round(float(np.median(own)), 3), "other": round(float(np.median(other)), 3),
            "ratio": round(middle, 4), "low": round(low, 4), "high": round(high, 4),
        }  # fmt: skip
        if name in ("cpu", "p99"):
            worst = max(worst, 1 - low, high - 1)
    print(json.dumps(line))
    with RESULTS.open("a") as file:
        file.write(json.dumps({**line, "time": int(time.time()), "machine": msgspec.to_builtins(facts())}) + "\n")
    print(f"the intervals leave 1 by {worst:.1%} at most; the bar is {BAR:.0%}")
    return 1 if worst > BAR else 0
