"""The cores a bench runs on: kept awake, and known when they stood still.

A virtual core that has nothing to do halts, and comes back when its host sees fit: on a host that others use as well
1.5 to 10 ms later, a hundred times in five seconds, which no steal in /proc/stat tells. A program that waits for its
next request meets that as its own latency. `Awake` keeps cores from halting, as ``idle=poll`` does for a kernel: it
asks for a wake-up latency of none (PM quality of service, ``/dev/cpu_dma_latency``), and an idle core polls. A process
of idle priority, which would do the same without root, is no substitute: while one waits for its turn on the core,
Linux 6.18 lets an I/O thread interrupt the deciding thread at every packet, ten times as often as it does alone.

A core that is awake still stands still where its host takes it away. `Stalls` watches for it: a process of real-time
priority wakes every half millisecond; where it comes late by more than LEAST_MS the core was stopped, for whatever
else runs here comes after it. It takes some 0.5 % of a core.
"""

from __future__ import annotations

import contextlib
import struct
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]
LEAST_MS = 1.0
POLLING = Path("/sys/devices/system/cpu/cpu0/cpuidle/state0/name")
_WATCH = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
os.sched_setaffinity(0, {int(sys.argv[1])})
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(2))
stops, last, parent = [], time.monotonic_ns(), os.getppid()
def look():
    global last
    now = time.monotonic_ns()
    if now - last > int(sys.argv[2]):
        stops.append((last, now))
    last = now
print("ready", flush=True)
try:
    while os.getppid() == parent:
        time.sleep(0.0005)
        look()
finally:  # not before: a pipe that nobody reads yet holds some thousand lines
    look()
    print(*(f"{begin} {end}" for begin, end in stops), sep="\\n")
"""


class Awake:
    """Keeps all cores from halting while it is open. ``able`` is False where that is not allowed or not offered."""

    def __init__(self) -> None:
        self.able = False
        self._asked: BinaryIO | None = None

    def __enter__(self) -> Self:
        with contextlib.suppress(OSError):
            self._asked = Path("/dev/cpu_dma_latency").open("wb", buffering=0)
            self._asked.write(struct.pack("=i", 0))  # microseconds; holds as long as it is open
            self.able = POLLING.exists() and POLLING.read_text().strip() == "POLL"
        return self

    def __exit__(self, *_: object) -> None:
        if self._asked is not None:
            self._asked.close()


def _start(program: str, cpu: int, *more: str) -> subprocess.Popen[str]:
    """A program on a core, once it has said that it is ready or has ended."""
    arguments = [sys.executable, "-c", program, str(cpu), *more]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


class Stalls:
    """Watches ``cpus`` while it is open. ``able`` is False where real-time priority is not allowed: nothing is seen."""

    def __init__(self, cpus: Iterable[int]) -> None:
        self._cpus = sorted(set(cpus))
        self._watchers: list[subprocess.Popen[str]] = []
        self.able = True
        self.stops: I64 = np.zeros((0, 2), np.int64)  # apart and rising, monotonic nanoseconds; after it was closed

    def __enter__(self) -> Self:
        self._watchers = [_start(_WATCH, cpu, str(int(LEAST_MS * 1e6) + 500_000)) for cpu in self._cpus]
        self.able = all(watcher.poll() is None for watcher in self._watchers)
        return self

    def __exit__(self, *_: object) -> None:
        found = []
        for watcher in self._watchers:
            watcher.terminate()
            found += [tuple(map(int, line.split())) for line in watcher.communicate()[0].splitlines() if line]
        self.stops = merged(np.array(found, np.int64).reshape(-1, 2))

    def touched(self, begin_ns: I64, end_ns: I64) -> npt.NDArray[np.bool_]:
        """Which of the spans ``begin_ns`` to ``end_ns`` int64[n] had a stop in them."""
        if not len(self.stops):
            return np.zeros(len(begin_ns), bool)
        before = np.searchsorted(self.stops[:, 0], end_ns, side="right") - 1
        return (before >= 0) & (self.stops[np.maximum(before, 0), 1] >= begin_ns)


def merged(spans: I64) -> I64:
    """Spans int64[n, 2] without their overlaps, rising."""
    out: list[list[int]] = []
    for begin, end in sorted(spans.tolist()):
        if out and begin <= out[-1][1]:
            out[-1][1] = max(out[-1][1], end)
        else:
            out.append([begin, end])
    return np.array(out, np.int64).reshape(-1, 2)
