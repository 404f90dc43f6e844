"""The five system calls of the generator, callable inside numba kernels, so that a whole window runs without Python.

Resolved by symbol from the process itself (libc), which unlike ctypes pointers lets numba cache the kernels on disk.
Linux only: `epoll`. Every call returns a negative errno instead of raising.
"""

from __future__ import annotations

import platform
from typing import Any

import numba as nb
from numba import types
from numba.core.types import ExternalFunction

_send: Any = ExternalFunction("send", types.intp(types.intc, types.uintp, types.uintp, types.intc))
_recv: Any = ExternalFunction("recv", types.intp(types.intc, types.uintp, types.uintp, types.intc))
_epoll_wait: Any = ExternalFunction("epoll_wait", types.intc(types.intc, types.uintp, types.intc, types.intc))
_clock_gettime: Any = ExternalFunction("clock_gettime", types.intc(types.intc, types.uintp))
_errno_location: Any = ExternalFunction("__errno_location", types.CPointer(types.intc)())

EAGAIN = 11
_MSG_DONTWAIT = 0x40
_MSG_NOSIGNAL = 0x4000
_CLOCK_MONOTONIC = 1  # what time.monotonic_ns reads

# struct epoll_event is packed on x86-64 only: {u32 events; u64 data}
EVENT_BYTES = 12 if platform.machine() in ("x86_64", "AMD64") else 16
EVENT_DATA = EVENT_BYTES - 8
MAX_EVENTS = 128


@nb.njit(cache=True, nogil=True)
def monotonic_ns(scratch: Any) -> Any:
    """Now, in the nanoseconds of `time.monotonic_ns`; ``scratch`` is int64[2]."""
    _clock_gettime(_CLOCK_MONOTONIC, scratch.ctypes.data)
    return scratch[0] * 1_000_000_000 + scratch[1]


@nb.njit(cache=True, nogil=True)
def send(fd: Any, buffer: Any, start: Any, end: Any) -> Any:
    """Send ``buffer[start:end]`` (uint8[n], contiguous) without waiting: bytes taken, or -errno."""
    sent = _send(fd, buffer.ctypes.data + start, end - start, _MSG_DONTWAIT | _MSG_NOSIGNAL)
    if sent < 0:
        return -nb.int64(nb.carray(_errno_location(), 1)[0])
    return nb.int64(sent)


@nb.njit(cache=True, nogil=True)
def recv(fd: Any, buffer: Any, start: Any, end: Any) -> Any:
    """Receive into ``buffer[start:end]`` without waiting: bytes, 0 at the peer's end, or -errno."""
    got = _recv(fd, buffer.ctypes.data + start, end - start, _MSG_DONTWAIT)
    if got < 0:
        return -nb.int64(nb.carray(_errno_location(), 1)[0])
    return nb.int64(got)


@nb.njit(cache=True, nogil=True)
def epoll_wait(epoll_fd: Any, events: Any, timeout_ms: Any) -> Any:
    """Ready events into ``events`` (uint8[MAX_EVENTS * EVENT_BYTES]); a signal counts as none."""
    return max(0, _epoll_wait(epoll_fd, events.ctypes.data, MAX_EVENTS, timeout_ms))


@nb.njit(cache=True, nogil=True)
def event_fd(events: Any, i: Any) -> Any:
    """The descriptor of the i-th event, as Python's `select.epoll` registered it (little-endian)."""
    at = i * EVENT_BYTES + EVENT_DATA
    return (
        nb.int64(events[at])
        | nb.int64(events[at + 1]) << 8
        | nb.int64(events[at + 2]) << 16
        | nb.int64(events[at + 3]) << 24
    )
