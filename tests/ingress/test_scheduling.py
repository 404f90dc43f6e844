"""Threads of a front: their policy and time slice, which the deciding thread that starts them does not keep."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import threading

import pytest

from dsp.ingress.scheduling import (
    LONG_SLICE_NS,
    NICE,
    SCHED_SETATTR,
    SHORT_SLICE_NS,
    yield_to_threads,
    yielding_threads,
)

KNOWN = pytest.mark.skipif(platform.machine() not in SCHED_SETATTR, reason="the system call's number is not known here")


def schedule() -> tuple[int, int]:
    """Policy and slice of the calling thread, sched_getattr(2); the slice is 0 before Linux 6.12."""
    out = ctypes.create_string_buffer(48)
    if ctypes.CDLL(None).syscall(SCHED_SETATTR[platform.machine()] + 1, 0, out, 48, 0):
        pytest.skip("no sched_getattr here")
    _, policy, _, _, _, slice_ns, _, _ = struct.unpack("=IIQiIQQQ", out.raw)
    return policy, slice_ns


@KNOWN
@pytest.mark.parametrize("slice_ns", [0, LONG_SLICE_NS])
def test_threads_yield_and_their_starter_does_not(slice_ns: int) -> None:
    before, seen = schedule(), []
    with yielding_threads(slice_ns):
        thread = threading.Thread(target=lambda: seen.append(schedule()))
        thread.start()
        thread.join()
    assert seen[0][0] == os.SCHED_BATCH
    assert seen[0][1] in (0, slice_ns or before[1])
    assert schedule() == before


@KNOWN
def test_a_thread_that_came_with_real_time_priority_keeps_it() -> None:
    seen: list[tuple[int, int]] = []

    def run() -> None:
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(3))
        except PermissionError:
            return
        with yielding_threads():
            pass
        seen.append((os.sched_getscheduler(0), os.sched_getparam(0).sched_priority))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if not seen:
        pytest.skip("no real-time priority here")
    assert seen == [(os.SCHED_FIFO, 3)]


@KNOWN
def test_the_thread_that_decides_goes_after_the_others_and_yields_little() -> None:
    seen: list[tuple[int, int, int]] = []

    def run() -> None:
        nice = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        yield_to_threads()
        seen.append((os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) - nice, *schedule()))

    before = schedule()
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    nicer, policy, slice_ns = seen[0]
    assert (nicer, policy) == (NICE, before[0])
    assert slice_ns in (0, SHORT_SLICE_NS)
    assert schedule() == before
