"""Threads of a front: their policy and time slice, which the deciding thread that starts them does not keep."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import threading

import pytest

from dsp.ingress.scheduling import LONG_SLICE_NS, SCHED_SETATTR, yielding_threads


def schedule() -> tuple[int, int]:
    """Policy and slice of the calling thread, sched_getattr(2); the slice is 0 before Linux 6.12."""
    out = ctypes.create_string_buffer(48)
    if ctypes.CDLL(None).syscall(SCHED_SETATTR[platform.machine()] + 1, 0, out, 48, 0):
        pytest.skip("no sched_getattr here")
    _, policy, _, _, _, slice_ns, _, _ = struct.unpack("=IIQiIQQQ", out.raw)
    return policy, slice_ns


@pytest.mark.skipif(platform.machine() not in SCHED_SETATTR, reason="its number is not known here")
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
