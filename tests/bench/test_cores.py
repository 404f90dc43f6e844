"""Cores of a bench: which spans had a stop, that a watcher sees one, that a core kept awake is never idle."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest

from bench.cores import Awake, Stalls, merged
from bench.machine import core_ticks


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


def test_a_core_that_is_kept_awake_is_never_idle() -> None:
    with Awake((0,)) as awake:
        (spinner,) = awake._spinners
        assert os.sched_getscheduler(spinner.pid) == os.SCHED_IDLE
        before = core_ticks()[0]
        while core_ticks()[0][2] - before[2] < 20:
            pass
        stolen, busy, total = (after - was for after, was in zip(core_ticks()[0], before, strict=True))
    assert stolen + busy >= 0.9 * total
    assert spinner.poll() is not None
