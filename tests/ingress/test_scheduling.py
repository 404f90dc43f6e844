"""Threads of a front: their policy, which the deciding thread that starts them does not keep, and its niceness."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest

from dsp.ingress.scheduling import NICE, yield_to_threads, yielding_threads


def in_a_thread(run: Callable[[], object]) -> object:
    """What ``run`` says in a thread of its own."""
    said: list[object] = []
    thread = threading.Thread(target=lambda: said.append(run()))
    thread.start()
    thread.join()
    return said[0]


def schedule() -> tuple[int, int]:
    """Policy and real-time priority of the calling thread."""
    return os.sched_getscheduler(0), os.sched_getparam(0).sched_priority


def niceness() -> int:
    """Of the calling thread."""
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_threads_yield_and_their_starter_does_not() -> None:
    before = schedule()
    with yielding_threads():
        assert in_a_thread(schedule) == (os.SCHED_BATCH, 0)
    assert schedule() == before


def test_a_thread_of_real_time_priority_keeps_it() -> None:
    def run() -> object:
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(3))
        except PermissionError:
            return None
        with yielding_threads():
            pass
        return schedule()

    said = in_a_thread(run)
    if said is None:
        pytest.skip("no real-time priority here")
    assert said == (os.SCHED_FIFO, 3)


def test_the_thread_that_decides_goes_after_the_others() -> None:
    def run() -> object:
        yield_to_threads()
        return niceness()

    before = niceness()
    assert in_a_thread(run) == before + NICE
    assert niceness() == before
