"""How a front's own threads share a core with the thread that decides."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import struct
import threading
from collections.abc import Iterator

# As equals, calls by the thousand would wait unread in sockets, where nobody sees that they have become too many.
NICE = 6
SHORT_SLICE_NS, LONG_SLICE_NS = 300_000, 10_000_000
SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}  # the system call, which Python doesn't offer


def yield_to_threads() -> None:
    """From now on this thread, which decides, gets less of a core than the front's own threads on it (Linux: threads
    have their own niceness). To be called once those exist: they would inherit it, and nobody may take it back.

    Its time slice is short, because it yields once a batch, which costs the rest of a slice from Linux 6.18 on.
    """
    thread = threading.get_native_id()
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICE)
    _schedule(os.sched_getscheduler(0), SHORT_SLICE_NS, os.sched_getparam(0).sched_priority)


@contextlib.contextmanager
def yielding_threads(slice_ns: int = 0) -> Iterator[None]:
    """Threads started inside do not interrupt this one when a packet wakes them (``SCHED_BATCH``, sched(7)).

    A front's I/O thread woken for every few packets would preempt the deciding thread some twenty times a batch, and
    hand it the requests in small pieces; so it waits until that thread pauses or its time slice ends. Linux 6.12 and
    later now and then go over to it all the same, for seconds at every packet and every answer, unless its own slice is
    longer: ``slice_ns``, 0 for the system's. Where policy or slice can't be set it stays as it is.
    """
    before, priority = os.sched_getscheduler(0), os.sched_getparam(0).sched_priority
    _schedule(os.SCHED_BATCH, slice_ns)
    try:
        yield
    finally:
        _schedule(before, 0, priority)


def _schedule(policy: int, slice_ns: int, priority: int = 0) -> None:
    """Policy and slice of this thread and of those it starts; 0: the system's slice. ``priority``: a real-time one."""
    nice = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    attributes = struct.pack("=IIQiIQQQ", 48, policy, 0, nice, priority, slice_ns, 0, 0)  # sched_setattr(2)
    number = SCHED_SETATTR.get(platform.machine())
    if number is None or ctypes.CDLL(None).syscall(number, 0, attributes, 0):
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, policy, os.sched_param(priority))
