"""The gRPC side of the generator: one numba loop over a few HTTP/2 connections, from intended times to answers.

Invariant: a stream's request number stands in ``req_of[c, stream]`` from its sending to its end, then -1. Flow control
is respected in both directions: a request waits until the connection's send window holds it.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np

from bench.load.h2wire import (
    ACK,
    GOAWAY,
    GRPC_PREFIX_BYTES,
    GRPC_STATUS,
    GRPC_STATUS_HUFFMAN,
    PADDED,
    PING,
    PRIORITY,
    RST_STREAM,
    SETTINGS_MAX_CONCURRENT_STREAMS,
)
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
    INTENDED,
    ISSUED,
    LEAVING,
    LONGEST_NS,
    ROBIN,
    RUN_DONE,
    RUN_LOST,
    RUN_TOO_LARGE,
    SENT,
    SIZE,
    STALL_LIMIT_NS,
    STALL_NS,
    STATUS,
    UP,
)
from bench.load.window import GOAWAY as REFUSED
from bench.load.window import GRPC_UNSAID, LOST, RESET, UNREADABLE, UNSENT
from dsp.ingress.h2wire import (
    DATA,
    DEFAULT_WINDOW_BYTES,
    END_STREAM,
    HEADERS,
    SETTINGS,
    SETTINGS_INITIAL_WINDOW_SIZE,
    WINDOW_UPDATE,
)

# conn: int64[C, H_WIDTH]; columns 0 and 1 are shared with HTTP/1.1
(
    H_FD,
    H_STATE,
    H_NEXT,  # streams begun; the next id is 2 * H_NEXT + 1
    H_INFLIGHT,
    H_WINDOW,  # bytes of DATA we may still send on the connection
    H_STREAMS,  # how many may be open at once; 0 until the server's SETTINGS came
    H_STREAM_WINDOW,  # bytes of DATA a new stream may send
    H_HEAD,  # outb[c, head:tail] waits to be sent
    H_TAIL,
    H_IN,  # bytes in inb[c]
    H_UNACKED,  # DATA bytes received since our last WINDOW_UPDATE
) = range(11)
H_WIDTH = 12
assert (H_FD, H_STATE) == (C_FD, C_STATE)

OUT_BYTES = 1 << 20
IN_BYTES = 1 << 18
SLACK = 4096  # of outb, for acknowledgements
REPLENISH = 1 << 29
ISSUE_AT_ONCE = 256


@nb.njit(cache=True, nogil=True)
def grpc_status(block: Any, start: Any, end: Any) -> Any:
    """The code in a header block ``block[start:end]`` (uint8) with grpc-status as a literal; -1 if there is none."""
    for at in range(start, end - 2):
        for coded in range(2):
            name = GRPC_STATUS_HUFFMAN if coded else GRPC_STATUS
            n = len(name)
            if at + n + 1 >= end or block[at] != name[0]:
                continue
            same = True
            for i in range(1, n):
                if block[at + i] != name[i]:
                    same = False
                    break
            if same:
                length = nb.int64(block[at + n])
                first = at + n + 1
                if first + (length & 127) > end:
                    return -1
                return _number(block, first, length & 127, length >= 128)
    return -1


@nb.njit(cache=True, nogil=True)
def _number(block: Any, start: Any, length: Any, huffman: Any) -> Any:
    value = nb.int64(0)
    if not huffman:
        for i in range(length):
            value = value * 10 + nb.int64(block[start + i]) - 48
        return value
    bits, have, at = nb.int64(0), 0, 0
    while True:  # digits are 00000..00010 for 0-2 and 011001..011111 for 3-9 (RFC 7541, appendix B); padding is ones
        while have < 6 and at < length:
            bits = bits << 8 | nb.int64(block[start + at])
            have += 8
            at += 1
        if have < 5:
            return value
        five = bits >> (have - 5) & 31
        if five <= 2:
            value = value * 10 + five
            have -= 5
            continue
        if have < 6:
            return value
        six = bits >> (have - 6) & 63
        if six < 25 or six > 31:
            return value
        value = value * 10 + six - 22
        have -= 6


@nb.njit(cache=True, nogil=True)
def has_seatbid(message: Any, start: Any, end: Any) -> Any:
    """Whether a BidResponse ``message[start:end]`` (uint8, may be cut) holds field 2, seatbid."""
    at = start
    while at < end:
        tag = nb.int64(message[at])
        at += 1
        if tag == 0x12:
            return True
        kind = tag & 7
        if tag >= 128 or kind not in (0, 2):
            return False
        value, shift = nb.int64(0), 0
        while at < end:
            byte = nb.int64(message[at])
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        if kind == 2:
            at += value
    return False


@nb.njit(cache=True, nogil=True)
def _finish(
    c: Any, stream: Any, status: Any, now: Any, conn: Any, req_of: Any, times: Any, facts: Any, ctl: Any
) -> Any:
    k = req_of[c, stream]
    if k < 0:
        return
    req_of[c, stream] = -1
    conn[c, H_INFLIGHT] -= 1
    if status == GRPC_UNSAID and facts[SIZE, k] > 0:
        status = 0
    facts[STATUS, k] = status
    times[DONE, k] = now
    ctl[FINISHED] += 1


@nb.njit(cache=True, nogil=True)
def _kill(c: Any, status: Any, now: Any, conn: Any, req_of: Any, times: Any, facts: Any, ctl: Any) -> Any:
    """Everything outstanding on connection ``c`` ends with ``status``."""
    for stream in range(conn[c, H_NEXT]):
        if req_of[c, stream] >= 0:
            _finish(c, stream, status, now, conn, req_of, times, facts, ctl)
    conn[c, H_STATE] = DEAD


@nb.njit(cache=True, nogil=True)
def _control(c: Any, kind: Any, flags: Any, stream: Any, value: Any, length: Any, conn: Any, outb: Any) -> Any:
    """Append a small frame whose payload is ``length`` (0, 4 or 8) bytes of ``value``."""
    out = outb[c]
    at = conn[c, H_TAIL]
    if at + 9 + length > OUT_BYTES:
        return
    out[at : at + 3] = 0
    out[at + 2] = length
    out[at + 3] = kind
    out[at + 4] = flags
    for i in range(4):
        out[at + 5 + i] = stream >> (24 - 8 * i) & 255
    for i in range(length):
        out[at + 9 + i] = value >> (8 * (length - 1 - i)) & 255
    conn[c, H_TAIL] = at + 9 + length


@nb.njit(cache=True, nogil=True)
def _u32(buffer: Any, at: Any) -> Any:
    return (
        nb.int64(buffer[at]) << 24
        | nb.int64(buffer[at + 1]) << 16
        | nb.int64(buffer[at + 2]) << 8
        | nb.int64(buffer[at + 3])
    )


@nb.njit(cache=True, nogil=True)
def _settings(c: Any, row: Any, start: Any, end: Any, conn: Any, outb: Any, cap: Any) -> Any:
    streams = conn[c, H_STREAMS] if conn[c, H_STREAMS] else cap
    for at in range(start, end - 5, 6):
        key = nb.int64(row[at]) << 8 | nb.int64(row[at + 1])
        value = _u32(row, at + 2)
        if key == SETTINGS_MAX_CONCURRENT_STREAMS:
            streams = min(cap, value)
        elif key == SETTINGS_INITIAL_WINDOW_SIZE:
            conn[c, H_STREAM_WINDOW] = value
    conn[c, H_STREAMS] = streams
    _control(c, SETTINGS, ACK, 0, 0, 0, conn, outb)


@nb.njit(cache=True, nogil=True)
def _on_data(
    c: Any, row: Any, start: Any, end: Any, wire: Any, stream: Any, conn: Any, outb: Any, req_of: Any, facts: Any
) -> Any:
    k = req_of[c, stream]
    if k >= 0 and end > start:
        if facts[SIZE, k] == 0 and end - start > GRPC_PREFIX_BYTES:
            facts[BID, k] = has_seatbid(row, start + GRPC_PREFIX_BYTES, end)
        facts[SIZE, k] += end - start
    conn[c, H_UNACKED] += wire
    if conn[c, H_UNACKED] > REPLENISH:
        _control(c, WINDOW_UPDATE, 0, 0, conn[c, H_UNACKED], 4, conn, outb)
        conn[c, H_UNACKED] = 0


@nb.njit(cache=True, nogil=True)
def _on_goaway(c: Any, last: Any, now: Any, conn: Any, req_of: Any, times: Any, facts: Any, ctl: Any) -> Any:
    conn[c, H_STATE] = LEAVING
    for stream in range((last + 1) // 2, conn[c, H_NEXT]):
        _finish(c, stream, REFUSED, now, conn, req_of, times, facts, ctl)


@nb.njit(cache=True, nogil=True)
def parse_frames(
    c: Any, cap: Any, now: Any, conn: Any, inb: Any, outb: Any, req_of: Any, times: Any, facts: Any, ctl: Any
) -> Any:
    """Take every whole frame in ``inb[c, :H_IN]``; what is left over moves to the front."""
    row = inb[c]
    have, at = conn[c, H_IN], nb.int64(0)
    while have - at >= 9:
        length = nb.int64(row[at]) << 16 | nb.int64(row[at + 1]) << 8 | nb.int64(row[at + 2])
        if length > IN_BYTES - 9:
            _kill(c, UNREADABLE, now, conn, req_of, times, facts, ctl)
            return
        if have - at < 9 + length:
            break
        kind, flags = nb.int64(row[at + 3]), nb.int64(row[at + 4])
        stream_id = _u32(row, at + 5) & 0x7FFFFFFF
        stream = stream_id >> 1
        known = (stream_id & 1) == 1 and stream < conn[c, H_NEXT]
        start, end = at + 9, at + 9 + length
        if kind in (DATA, HEADERS):
            if flags & PADDED and length:
                end -= nb.int64(row[start])
                start += 1
            if kind == HEADERS and flags & PRIORITY:
                start += 5
        if kind == DATA and known:
            _on_data(c, row, start, end, length, stream, conn, outb, req_of, facts)
            if flags & END_STREAM:
                _finish(c, stream, GRPC_UNSAID, now, conn, req_of, times, facts, ctl)
        elif kind == HEADERS and known:
            if flags & END_STREAM:
                code = grpc_status(row, start, end)
                _finish(c, stream, code if code >= 0 else GRPC_UNSAID, now, conn, req_of, times, facts, ctl)
        elif kind == SETTINGS and not flags & ACK:
            _settings(c, row, start, end, conn, outb, cap)
        elif kind == WINDOW_UPDATE and stream_id == 0:
            conn[c, H_WINDOW] += _u32(row, start)
        elif kind == PING and not flags & ACK and length == 8:
            _control(c, PING, ACK, 0, _u32(row, start) << 32 | _u32(row, start + 4), 8, conn, outb)
        elif kind == RST_STREAM and known:
            _finish(c, stream, RESET + _u32(row, start), now, conn, req_of, times, facts, ctl)
        elif kind == GOAWAY:
            _on_goaway(c, _u32(row, start) & 0x7FFFFFFF, now, conn, req_of, times, facts, ctl)
        at += 9 + length
    for i in range(at, have):
        row[i - at] = row[i]
    conn[c, H_IN] = have - at


@nb.njit(cache=True, nogil=True)
def append_request(
    c: Any, k: Any, b: Any, pool: Any, offsets: Any, body_bytes: Any, conn: Any, outb: Any, req_of: Any
) -> Any:
    """Copy body ``b``'s frames behind connection ``c``'s output and give them the next stream id."""
    start, end = offsets[b], offsets[b + 1]
    out, tail = outb[c], conn[c, H_TAIL]
    out[tail : tail + end - start] = pool[start:end]
    stream = conn[c, H_NEXT]
    stream_id = 2 * stream + 1
    at, stop = tail, tail + end - start
    while at < stop:
        length = nb.int64(out[at]) << 16 | nb.int64(out[at + 1]) << 8 | nb.int64(out[at + 2])
        for i in range(4):
            out[at + 5 + i] = stream_id >> (24 - 8 * i) & 255
        at += 9 + length
    conn[c, H_TAIL] = stop
    conn[c, H_NEXT] += 1
    conn[c, H_INFLIGHT] += 1
    conn[c, H_WINDOW] -= body_bytes[b]
    req_of[c, stream] = k


@nb.njit(cache=True, nogil=True)
def _pick(need: Any, window: Any, conn: Any, ctl: Any) -> Any:
    """The next connection in turn that can take ``need`` bytes (``window`` of them flow-controlled); -1 if none."""
    n = len(conn)
    for step in range(n):
        c = (ctl[ROBIN] + step) % n
        if (
            conn[c, H_STATE] == UP
            and conn[c, H_INFLIGHT] < conn[c, H_STREAMS]
            and conn[c, H_WINDOW] >= window
            and conn[c, H_TAIL] + need + SLACK <= OUT_BYTES
        ):
            ctl[ROBIN] = c + 1
            return c
    return -1


@nb.njit(cache=True, nogil=True)
def _issue(
    now: Any,
    in_flight: Any,
    stop_ns: Any,
    order: Any,
    pool: Any,
    offsets: Any,
    body_bytes: Any,
    conn: Any,
    outb: Any,
    req_of: Any,
    times: Any,
    facts: Any,
    ctl: Any,
    patience_ns: Any,
) -> Any:
    """Queue what is due (at most ISSUE_AT_ONCE): how many, or -1 where a body cannot be sent at all."""
    n = nb.int64(0)
    while n < ISSUE_AT_ONCE and ctl[ISSUED] < times.shape[1]:
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
        b = order[ctl[CURSOR] % len(order)]
        c = _pick(offsets[b + 1] - offsets[b], body_bytes[b], conn, ctl)
        if c < 0:
            break
        if body_bytes[b] > conn[c, H_STREAM_WINDOW]:
            return -1
        append_request(c, k, b, pool, offsets, body_bytes, conn, outb, req_of)
        times[SENT, k] = now
        if in_flight:
            times[INTENDED, k] = now
        if conn[c, H_NEXT] >= req_of.shape[1]:
            conn[c, H_STATE] = LEAVING
        ctl[CURSOR] += 1
        ctl[ISSUED] += 1
        n += 1
    return n


@nb.njit(cache=True, nogil=True)
def _flush(c: Any, now: Any, conn: Any, outb: Any, req_of: Any, times: Any, facts: Any, ctl: Any) -> Any:
    head, tail = conn[c, H_HEAD], conn[c, H_TAIL]
    got = send(conn[c, H_FD], outb[c], head, tail)
    if got < 0:
        if got != -EAGAIN:
            _kill(c, LOST, now, conn, req_of, times, facts, ctl)
        return
    ctl[BYTES_OUT] += got
    head += got
    if head == tail:
        head = tail = 0
    elif tail > OUT_BYTES // 2:
        row = outb[c]
        for i in range(head, tail):
            row[i - head] = row[i]
        head, tail = 0, tail - head
    conn[c, H_HEAD], conn[c, H_TAIL] = head, tail


@nb.njit(cache=True, nogil=True)
def _receive(
    c: Any, cap: Any, scratch: Any, conn: Any, inb: Any, outb: Any, req_of: Any, times: Any, facts: Any, ctl: Any
) -> Any:
    got = recv(conn[c, H_FD], inb[c], conn[c, H_IN], IN_BYTES)
    if got == -EAGAIN:
        return
    now = monotonic_ns(scratch)
    if got <= 0:
        _kill(c, LOST, now, conn, req_of, times, facts, ctl)
        return
    ctl[BYTES_IN] += got
    conn[c, H_IN] += got
    parse_frames(c, cap, now, conn, inb, outb, req_of, times, facts, ctl)


@nb.njit(cache=True, nogil=True)
def run_h2(
    epoll_fd: Any, events: Any, by_fd: Any, order: Any, times: Any, facts: Any, ctl: Any, idle_ms: Any,
    conn: Any, outb: Any, inb: Any, req_of: Any, pool: Any, offsets: Any, body_bytes: Any, cap: Any,
    in_flight: Any, stop_ns: Any, deadline_ns: Any, patience_ns: Any,
) -> Any:  # fmt: skip
    """Run until everything is sent and answered, the deadline, or a lost connection: RUN_*.

    order int64[B], times int64[3, N], facts int32[3, N], ctl int64[CTL_WIDTH], conn int64[C, H_WIDTH],
    outb uint8[C, OUT_BYTES], inb uint8[C, IN_BYTES], req_of int32[C, streams], pool uint8 and offsets int64[B + 1] of
    `h2wire.pack`, body_bytes int64[B] (DATA payload). ``cap``: streams per connection. ``in_flight`` 0: open
    loop, in which what waits for a stream longer than ``patience_ns`` (0: for ever) is not sent.
    """
    scratch = np.zeros(2, np.int64)
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
        issued = _issue(
            now,
            in_flight,
            stop_ns,
            order,
            pool,
            offsets,
            body_bytes,
            conn,
            outb,
            req_of,
            times,
            facts,
            ctl,
            patience_ns,
        )
        if issued < 0:
            return RUN_TOO_LARGE
        worked = issued > 0
        for c in range(len(conn)):
            if conn[c, H_STATE] != DEAD and conn[c, H_TAIL] > conn[c, H_HEAD]:
                _flush(c, now, conn, outb, req_of, times, facts, ctl)
        ready = epoll_wait(epoll_fd, events, 0 if worked else idle_ms)
        worked = worked or ready > 0
        for i in range(ready):
            c = by_fd[event_fd(events, i)]
            if conn[c, H_STATE] != DEAD:
                _receive(c, cap, scratch, conn, inb, outb, req_of, times, facts, ctl)
        lost = False
        for c in range(len(conn)):
            if conn[c, H_STATE] == LEAVING and conn[c, H_INFLIGHT] == 0 and conn[c, H_TAIL] == conn[c, H_HEAD]:
                conn[c, H_STATE] = DEAD
            lost = lost or conn[c, H_STATE] == DEAD
        if lost:
            return RUN_LOST
        sent_all = ctl[ISSUED] == times.shape[1] or (in_flight > 0 and now >= stop_ns)
        if (sent_all and ctl[FINISHED] == ctl[ISSUED]) or now >= deadline_ns:
            return RUN_DONE


assert DEFAULT_WINDOW_BYTES == 65535
