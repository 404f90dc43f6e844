"""How a front's own threads share a core with the thread that decides."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

# As equals, calls by the thousand would wait unread in sockets, where nobody sees that they have become too many.
NICE = 6


def yield_to_threads() -> None:
    """From now on this thread, which decides, gets less of a core than the front's own threads on it (Linux: threads
    have their own niceness). To be called once those exist: they would inherit it, and nobody may take it back.
    """
    thread = threading.get_native_id()
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICE)


@contextlib.contextmanager
def yielding_threads() -> Iterator[None]:
    """Threads started inside do not interrupt this one when a packet wakes them (``SCHED_BATCH``, sched(7)).

    A front's I/O thread woken for every few packets would preempt the deciding thread some twenty times a batch, and
    hand it the requests in small pieces; so it waits until that thread pauses or its time slice ends. Where the policy
    can't be set nothing is changed.
    """
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, policy, parameters)
