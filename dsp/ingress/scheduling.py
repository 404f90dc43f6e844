"""How a front's own threads share a core with the thread that decides."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


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
