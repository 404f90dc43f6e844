"""Cores of a bench: which spans had a stop, that a watcher sees one, that a core kept awake polls."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from bench.cores import Awake, Stalls, merged


def test_spans_are_touched_by_what_overlaps_them() -> None:
    stalls = Stalls(())
    stalls.stops = merged(np.array([[50, 60], [10, 20], [15, 30]]))
    assert stalls.stops.tolist() == [[10, 30], [50, 60]]
    begin, end = np.array([0, 0, 31, 31, 55, 61]), np.array([9, 10, 49, 70, 56, 99])
    assert stalls.touched(begin, end).tolist() == [False, True, False, True, True, False]
    stalls.stops = stalls.stops[:0]
    assert not stalls.touched(begin, end).any()


def test_a_watcher_that_did_not_run_is_a_stop() -> None:
    with Stalls((0,)) as stalls:
        if not stalls.able:
            pytest.skip("no real-time priority here")
        (watcher,) = stalls._watchers
        os.kill(watcher.pid, signal.SIGSTOP)
        os.waitpid(watcher.pid, os.WUNTRACED)  # until it has stopped
        begin_ns = time.monotonic_ns()
        while time.monotonic_ns() - begin_ns < 20_000_000:
            pass
        end_ns = time.monotonic_ns()
        os.kill(watcher.pid, signal.SIGCONT)
    assert any(stopped_ns <= begin_ns and end_ns <= went_on_ns for stopped_ns, went_on_ns in stalls.stops.tolist())


def test_a_core_that_is_kept_awake_polls() -> None:
    time_us = Path("/sys/devices/system/cpu/cpu0/cpuidle/state0/time")
    with Awake() as awake:
        if not awake.able:
            pytest.skip("no way to keep a core awake here")
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {0})  # what wakes it ends a poll, and only then is it counted
        try:
            before_us, deadline_s = int(time_us.read_text()), time.monotonic() + 20
            while int(time_us.read_text()) == before_us and time.monotonic() < deadline_s:
                threading.Event().wait(0.01)
        finally:
            os.sched_setaffinity(0, allowed)
        polled_us = int(time_us.read_text()) - before_us
    assert polled_us > 0
