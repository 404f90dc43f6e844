"""The HTTP/1.1 side of the generator: many keep-alive connections, one request in flight on each.

A request is sent straight from the shared pool of ready-made bytes; an answer must carry Content-Length (or be a 204),
which is all a bidder ever sends. A connection that the server closes is replaced; a request it took with it is LOST.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np

from bench.load.posix import EAGAIN, epoll_wait, event_fd, monotonic_ns, recv, send
from bench.load.run import (
    BID,
    BUSY_NS,
    BYTES_IN,
    BYTES_OUT,
    C_FD,
    C_STATE,
    CURSOR,
    DEAD,
    DONE,
    FINISHED,
    IDLE_TOP,
    INTENDED,
    ISSUED,
    LONGEST_NS,
    RUN_DONE,
    RUN_LOST,
    SENT,
    SIZE,
    STALL_LIMIT_NS,
    STALL_NS,
    STATUS,
    UP,
)
from bench.load.window import LOST, UNREADABLE, UNSENT

# conn: int64[C, W_WIDTH]
(
    W_FD,
    W_STATE,
    W_REQUEST,  # request number in flight, -1 none
    W_FROM,  # pool[from:to] waits to be sent
    W_TO,
    W_IN,  # bytes of header in inb[c]
    W_STATUS,
    W_LEFT,  # body bytes still to come; -1 while in the header
    W_CLOSE,  # the answer said Connection: close
) = range(9)
W_WIDTH = 12
assert (W_FD, W_STATE) == (C_FD, C_STATE)

IN_BYTES = 1 << 16
CONTENT_LENGTH = np.frombuffer(b"\r\ncontent-length:", np.uint8)
CONNECTION_CLOSE = np.frombuffer(b"\r\nconnection: close", np.uint8)
CHUNKED = np.frombuffer(b"\r\ntransfer-encoding:", np.uint8)
BLANK_LINE = np.frombuffer(b"\r\n\r\n", np.uint8)


@nb.njit(cache=True, nogil=True)
def find(buffer: Any, start: Any, end: Any, needle: Any) -> Any:
    """Where ``needle`` (lower case, uint8[n]) ends in ``buffer[start:end]``, ignoring case there; -1 if nowhere."""
    n = len(needle)
    for at in range(start, end - n + 1):
        same = True
        for i in range(n):
            byte = buffer[at + i]
            if byte != needle[i] and not (65 <= byte <= 90 and byte + 32 == needle[i]):
                same = False
                break
        if same:
            return at + n
    return -1


@nb.njit(cache=True, nogil=True)
def _finish(c: Any, status: Any, now: Any, conn: Any, idle: Any, times: Any, facts: Any, ctl: Any) -> Any:
    """End the request on ``c``; the connection is idle again, or dead where it cannot be used again."""
    k = conn[c, W_REQUEST]
    if k >= 0:
        facts[STATUS, k] = status
        facts[BID, k] = status == 200
        times[DONE, k] = now
        ctl[FINISHED] += 1
        conn[c, W_REQUEST] = -1
    if status in (LOST, UNREADABLE) or conn[c, W_CLOSE]:
        conn[c, W_STATE] = DEAD
        return
    conn[c, W_IN] = 0
    conn[c, W_LEFT] = -1
    idle[ctl[IDLE_TOP]] = c
    ctl[IDLE_TOP] += 1


@nb.njit(cache=True, nogil=True)
def parse_head(c: Any, conn: Any, inb: Any) -> Any:
    """Read a whole header in ``inb[c, :W_IN]``: 1 done, 0 not whole yet, -1 not an answer this client understands."""
    row, have = inb[c], conn[c, W_IN]
    body = find(row, 0, have, BLANK_LINE)
    if body < 0:
        return -1 if have == IN_BYTES else 0
    status = nb.int64(0)
    for i in range(9, 12):
        status = status * 10 + nb.int64(row[i]) - 48
    if row[0] != 72 or status < 100 or status > 599 or find(row, 0, body, CHUNKED) >= 0:
        return -1
    length, at = nb.int64(0), find(row, 0, body, CONTENT_LENGTH)
    if at < 0 and status not in (204, 304):
        return -1
    while 0 <= at < body and row[at] != 13:
        if row[at] != 32:
            length = length * 10 + nb.int64(row[at]) - 48
        at += 1
    conn[c, W_STATUS] = status
    conn[c, W_CLOSE] = find(row, 0, body, CONNECTION_CLOSE) >= 0
    conn[c, W_LEFT] = length - (have - body)
    return 1


@nb.njit(cache=True, nogil=True)
def _receive(c: Any, scratch: Any, conn: Any, inb: Any, idle: Any, times: Any, facts: Any, ctl: Any) -> Any:
    start = conn[c, W_IN] if conn[c, W_LEFT] < 0 else 0
    got = recv(conn[c, W_FD], inb[c], start, IN_BYTES)
    if got == -EAGAIN:
        return
    now = monotonic_ns(scratch)
    if got <= 0 or conn[c, W_REQUEST] < 0:  # closed, or an answer nobody asked for
        if conn[c, W_REQUEST] < 0:  # it is among the idle ones: take it out
            keep = 0
            for i in range(ctl[IDLE_TOP]):
                if idle[i] != c:
                    idle[keep] = idle[i]
                    keep += 1
            ctl[IDLE_TOP] = keep
        _finish(c, LOST, now, conn, idle, times, facts, ctl)
        return
    ctl[BYTES_IN] += got
    k = conn[c, W_REQUEST]
    if conn[c, W_LEFT] < 0:
        conn[c, W_IN] += got
        said = parse_head(c, conn, inb)
        if said == 0:
            return
        if said < 0:
            _finish(c, UNREADABLE, now, conn, idle, times, facts, ctl)
            return
        facts[SIZE, k] = conn[c, W_LEFT] + conn[c, W_IN]  # made exact below: header bytes go off
        facts[SIZE, k] -= find(inb[c], 0, conn[c, W_IN], BLANK_LINE)
    else:
        conn[c, W_LEFT] -= got
    if conn[c, W_LEFT] == 0 and conn[c, W_FROM] == conn[c, W_TO]:
        _finish(c, conn[c, W_STATUS], now, conn, idle, times, facts, ctl)
    elif conn[c, W_LEFT] <= 0:  # more than it announced, or an answer before the whole request was sent
        status = conn[c, W_STATUS] if conn[c, W_LEFT] == 0 else UNREADABLE
        conn[c, W_CLOSE] = 1
        _finish(c, status, now, conn, idle, times, facts, ctl)


@nb.njit(cache=True, nogil=True)
def _send(c: Any, now: Any, pool: Any, conn: Any, idle: Any, times: Any, facts: Any, ctl: Any) -> Any:
    got = send(conn[c, W_FD], pool, conn[c, W_FROM], conn[c, W_TO])
    if got >= 0:
        conn[c, W_FROM] += got
        ctl[BYTES_OUT] += got
    elif got != -EAGAIN:
        _finish(c, LOST, now, conn, idle, times, facts, ctl)


@nb.njit(cache=True, nogil=True)
def _issue(
    scratch: Any,
    in_flight: Any,
    stop_ns: Any,
    order: Any,
    pool: Any,
    offsets: Any,
    conn: Any,
    idle: Any,
    times: Any,
    facts: Any,
    ctl: Any,
    patience_ns: Any,
) -> Any:
    """Send what is due while a connection is idle: how many."""
    n = nb.int64(0)
    now = monotonic_ns(scratch)
    while ctl[ISSUED] < times.shape[1]:
        k = ctl[ISSUED]
        if in_flight:
            if now >= stop_ns or k - ctl[FINISHED] >= in_flight:
                break
        elif times[INTENDED, k] > now:
            break
        elif patience_ns > 0 and now - times[INTENDED, k] > patience_ns:
            facts[STATUS, k] = UNSENT
            times[SENT, k] = times[DONE, k] = now
            ctl[ISSUED] += 1
            ctl[FINISHED] += 1
            continue
        if ctl[IDLE_TOP] == 0:
            break
        ctl[IDLE_TOP] -= 1
        c = idle[ctl[IDLE_TOP]]
        b = order[ctl[CURSOR] % len(order)]
        conn[c, W_REQUEST], conn[c, W_FROM], conn[c, W_TO] = k, offsets[b], offsets[b + 1]
        times[SENT, k] = now
        if in_flight:
            times[INTENDED, k] = now
        ctl[CURSOR] += 1
        ctl[ISSUED] += 1
        n += 1
        _send(c, now, pool, conn, idle, times, facts, ctl)
        now = monotonic_ns(scratch)  # each request is its own system call, so time has passed
    return n


@nb.njit(cache=True, nogil=True)
def run_http1(
    epoll_fd: Any, events: Any, by_fd: Any, order: Any, times: Any, facts: Any, ctl: Any, idle_ms: Any,
    conn: Any, inb: Any, idle: Any, pool: Any, offsets: Any,
    in_flight: Any, stop_ns: Any, deadline_ns: Any, patience_ns: Any,
) -> Any:  # fmt: skip
    """Run until everything is sent and answered, the deadline, or a lost connection: RUN_*.

    As `h2kernel.run_h2`, with conn int64[C, W_WIDTH], inb uint8[C, IN_BYTES], idle int64[C] (rebuilt on entry).
    """
    scratch = np.zeros(2, np.int64)
    ctl[IDLE_TOP] = 0
    for c in range(len(conn)):
        if conn[c, W_STATE] == UP and conn[c, W_REQUEST] < 0:
            idle[ctl[IDLE_TOP]] = c
            ctl[IDLE_TOP] += 1
    before = monotonic_ns(scratch)
    worked = True
    while True:
        now = monotonic_ns(scratch)
        if worked:
            ctl[BUSY_NS] += now - before
        if now - before > STALL_LIMIT_NS and (worked or idle_ms == 0):
            ctl[STALL_NS] += now - before
        ctl[LONGEST_NS] = max(ctl[LONGEST_NS], now - before)
        before = now
        worked = (
            _issue(scratch, in_flight, stop_ns, order, pool, offsets, conn, idle, times, facts, ctl, patience_ns) > 0
        )
        lost = False
        for c in range(len(conn)):
            if conn[c, W_REQUEST] >= 0 and conn[c, W_FROM] < conn[c, W_TO]:
                _send(c, now, pool, conn, idle, times, facts, ctl)
            lost = lost or conn[c, W_STATE] == DEAD
        ready = epoll_wait(epoll_fd, events, 0 if worked else idle_ms)
        worked = worked or ready > 0
        for i in range(ready):
            c = by_fd[event_fd(events, i)]
            if conn[c, W_STATE] != DEAD:
                _receive(c, scratch, conn, inb, idle, times, facts, ctl)
            lost = lost or conn[c, W_STATE] == DEAD
        if lost:
            return RUN_LOST
        sent_all = ctl[ISSUED] == times.shape[1] or (in_flight > 0 and now >= stop_ns)
        if (sent_all and ctl[FINISHED] == ctl[ISSUED]) or now >= deadline_ns:
            return RUN_DONE
