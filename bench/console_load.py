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
every window has as many. It takes two fifths of the core; nearer to saturation p99 is queueing and moves twofold by
itself. CPU and latency are the bidder's own figures.

CPU is compared pair by pair: the Hodges-Lehmann median of the ratios. p99 is the median over an arm's windows, but for
those in which a core stood still (`bench.cores`): a host that takes some milliseconds a second makes most of the
hundredth of the slowest, and moves the p99 of a window fivefold. Both with a 95 % interval, against ± 5 %, beside
requests and batches. One JSON line, appended to ``bench/results/console_load.jsonl``; the runs in it are then taken
together, each by the inverse variance of its logarithm (fixed effect, Borenstein et al. 2009, chapter 11), for on a
machine that others use as well one run alone doesn't tell p99 to a twentieth. `--together` prints that alone.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec
import numpy as np
import numpy.typing as npt
from rich.console import Console

from bench.console_live import LiveSystem
from bench.cores import Awake, Stalls
from bench.load.httpload import HttpLoad
from bench.load.request import Request
from bench.machine import facts
from bench.standard import Bars
from dsp.base.scrape import Scrape, fetch
from dsp.console.access import ALL, Identity
from dsp.console.edge import COOKIE
from dsp.console.services import open_services

RESULTS = Path(__file__).parent / "results" / "console_load.jsonl"
PATHS = ("/", "/campaigns", "/line-items", "/reports?by=line_item&daily=true", "/creatives", "/exchanges", "/changes")
BAR = 0.05
LEAD_S = 0.3  # before a window: its load has begun, the other's has ended
TESTS_FIRST = 50_000_000  # scenes from here on: other ids than the market's
F64 = npt.NDArray[np.float64]
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


@dataclass(frozen=True)
class Seen:
    """A window of the bidder."""

    begin_ns: int
    end_ns: int
    cpu_us: float  # a request
    requests: float
    batch: float  # requests in one
    pages: int
    p99_us: float


def window(system: LiveSystem, pids: list[int], load: Load, seconds: float) -> Seen:
    """So many seconds of the bidder, while ``load`` asks its console."""

    def now() -> tuple[float, Scrape]:
        return cpu_s(pids), Scrape(fetch("127.0.0.1", system.config.bidder.metrics_port))

    pages, begin_ns = load.answers, time.monotonic_ns()
    cpu, before = now()
    time.sleep(seconds)
    later, after = now()
    asked = after.sum("dsp_bid_requests_total") - before.sum("dsp_bid_requests_total")
    batches = after.sum("dsp_batch_size_count") - before.sum("dsp_batch_size_count")
    earlier, counts = dict(before.buckets("dsp_request_seconds")), after.buckets("dsp_request_seconds")
    return Seen(
        begin_ns, time.monotonic_ns(), (later - cpu) / max(asked, 1) * 1e6, asked, asked / max(batches, 1),
        load.answers - pages, quantile([(edge, n - earlier.get(edge, 0.0)) for edge, n in counts], 0.99) * 1e6,
    )  # fmt: skip


def pair(
    system: LiveSystem, pids: list[int], loads: list[Load], traffic: Traffic, seconds: float, own_last: bool
) -> tuple[Seen, Seen]:
    """Two windows of the bidder: its own console busy, and the other's."""
    found = {}
    sending = traffic.during(2 * (seconds + LEAD_S) + 0.2)
    for which in (1, 0) if own_last else (0, 1):
        loads[which].busy.set()
        time.sleep(LEAD_S)
        found[which] = window(system, pids, loads[which], seconds)
        loads[which].busy.clear()
    sending.join()
    return found[0], found[1]


def quantile(counts: list[tuple[float, float]], q: float) -> float:
    """The quantile of a histogram (upper edge, observations up to it), by lines between its edges."""
    wanted, low, below = q * counts[-1][1], 0.0, 0.0
    for edge, n in counts:
        if n >= wanted:
            return low + (edge - low) * (wanted - below) / max(n - below, 1e-9) if np.isfinite(edge) else low
        low, below = edge, n
    return low


def p99s(windows: F64, clean: npt.NDArray[np.bool_], seed: int = 1) -> tuple[F64, F64]:
    """Median p99 of either arm, float64[2], and their ratio with its 95 % interval by bootstrap, float64[3].

    ``windows`` float64[n, 2]: p99 of the arms' windows; ``clean`` bool[n, 2]: which of them count. Raises ValueError
    where an arm has none.
    """
    if not clean.any(axis=0).all():
        raise ValueError("a core stood still in every window; the machine is too busy to tell")
    rng = np.random.default_rng(seed)
    arms = [windows[clean[:, k], k] for k in (0, 1)]
    drawn = [np.median(rng.choice(arm, (4000, len(arm))), axis=1) for arm in arms]
    low, high = np.percentile(drawn[0] / drawn[1], (2.5, 97.5))
    middles = np.array([np.median(arm) for arm in arms])
    return middles, np.array([middles[0] / middles[1], low, high])


def interval(ratios: list[float]) -> tuple[float, float, float]:
    """Hodges-Lehmann median of the ratios and its 95 % interval, by Wilcoxon's signed-rank test on their logarithms
    (Hodges and Lehmann 1963; normal approximation): as robust as the median, from two thirds of the pairs.
    """
    logs = np.log(ratios)
    n = len(logs)
    pairs = np.sort(((logs[:, None] + logs) / 2)[np.triu_indices(n)])
    k = max(0, int(n * (n + 1) / 4 - 1.96 * np.sqrt(n * (n + 1) * (2 * n + 1) / 24)))
    middle, low, high = np.exp([np.median(pairs), pairs[k], pairs[len(pairs) - 1 - k]])
    return float(middle), float(low), float(high)


def main(args: list[str]) -> int:
    """Run it; 1 where an interval leaves ± 5 %."""
    parser = argparse.ArgumentParser(prog="python -m bench console load", description=__doc__)
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--window", type=float, default=1.0, help="seconds")
    parser.add_argument("--rate", type=float, default=1000.0, help="test requests a second to the measured bidder")
    parser.add_argument("--together", action="store_true", help="measure nothing; all runs so far")
    parser.add_argument("--market", type=float, default=60.0, help="the market's requests a second, of either system")
    options = parser.parse_args(args)
    if options.together:
        return judged()
    pairs: list[tuple[Seen, Seen]] = []  # its own console busy, and the other's
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
            bars, cores = Bars(Console(stderr=True)), range(os.cpu_count() or 1)
            with bars.progress, Awake(), Stalls(cores) as stalls:
                task = bars.task("pairs of windows", options.pairs)
                for number in range(options.pairs):
                    pairs.append(pair(system, pids, loads, traffic, options.window, number % 2 == 0))
                    bars.step(task)
        finally:
            for load in loads:
                load.stop()
            traffic.close()
    begin, end = (
        np.array([[getattr(seen, name) for seen in each] for each in pairs]) for name in ("begin_ns", "end_ns")
    )
    clean = ~stalls.touched(begin.ravel(), end.ravel()).reshape(begin.shape)
    line: dict[str, object] = {
        "bench": "console load", "pairs": options.pairs, "window_s": options.window, "rate": options.rate,
        "pages": [sum(each[k].pages for each in pairs) for k in (0, 1)], "clean": clean.sum(0).tolist(),
    }  # fmt: skip
    arms, ratio = p99s(np.array([[seen.p99_us for seen in each] for each in pairs]), clean)
    line["p99_us"] = told(arms, ratio)
    for name in ("cpu_us", "requests", "batch"):
        own, other = (np.array([getattr(each[k], name) for each in pairs]) for k in (0, 1))
        line[name] = told(np.median([own, other], axis=1), np.array(interval((own / other).tolist())))
    print(json.dumps(line))
    with RESULTS.open("a") as file:
        file.write(json.dumps({**line, "time": int(time.time()), "machine": msgspec.to_builtins(facts())}) + "\n")
    return judged()


def judged() -> int:
    """Print all runs taken together; 1 where an interval leaves ± 5 %."""
    runs = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    worst = 0.0
    for name, what in (("cpu_us", "CPU per bid request"), ("p99_us", "p99")):
        ratio, low, high = together([run[name] for run in runs])
        pairs = sum(run["pairs"] for run in runs)
        print(f"{len(runs)} runs, {pairs} pairs of windows: {what} {ratio:.3f} ({low:.3f} to {high:.3f})")
        worst = max(worst, 1 - low, high - 1)
    print(f"the intervals leave 1 by {worst:.1%} at most; the bar is {BAR:.0%}")
    return 1 if worst > BAR else 0


def together(runs: list[dict[str, float]]) -> tuple[float, float, float]:
    """The ratio of several runs (ratio, low, high of 95 %), weighted by the inverse variance of the logarithm."""
    logs, low, high = (np.log([run[name] for run in runs]) for name in ("ratio", "low", "high"))
    weight = (2 * 1.96 / (high - low)) ** 2
    middle, half = (weight * logs).sum() / weight.sum(), 1.96 / np.sqrt(weight.sum())
    return tuple(np.exp([middle, middle - half, middle + half]).tolist())


def told(arms: F64, ratio: F64) -> dict[str, float]:
    """A figure of both arms, and their ratio with its interval."""
    names = ("own", "other", "ratio", "low", "high")
    return dict(zip(names, [*np.round(arms, 3).tolist(), *np.round(ratio, 4).tolist()], strict=True))
