"""The fastest possible servers, to find the generator's own ceiling and to test it: one fixed answer to everything.

`python -m bench.load.sink grpc|http PORT BYTES` answers each request with BYTES bytes. Nothing is checked.
"""

from __future__ import annotations

import select
import socket
import struct
import sys
from typing import Any

import numba as nb
import numpy as np

from bench.load.h2wire import ACK, PING, SETTINGS_MAX_CONCURRENT_STREAMS
from bench.load.http1kernel import BLANK_LINE, CONTENT_LENGTH, find
from bench.load.posix import EAGAIN, EVENT_BYTES, MAX_EVENTS, epoll_wait, event_fd, recv, send
from dsp.ingress.h2wire import DATA, END_HEADERS, END_STREAM, HEADERS, MAX_WINDOW_BYTES, SETTINGS, WINDOW_UPDATE, frame

BUFFER_BYTES = 1 << 20
MAGIC_BYTES = 24
MAX_FD = 1024
REPLENISH = 1 << 28
# state: int64[MAX_FD, 4]
S_IN, S_OUT, S_MAGIC, S_UNACKED = range(4)


def grpc_answer(message: bytes) -> bytes:
    """Headers, one DATA frame, trailers grpc-status 0, all with stream id 0."""
    head = b"\x88\x0f\x10\x10application/grpc"  # :status 200, content-type
    trailers = b"\x00\x0bgrpc-status\x010"
    body = b"\0" + struct.pack(">I", len(message)) + message
    return (
        frame(HEADERS, END_HEADERS, 0, head)
        + frame(DATA, 0, 0, body)
        + frame(HEADERS, END_HEADERS | END_STREAM, 0, trailers)
    )


def grpc_greeting() -> bytes:
    """The server's SETTINGS, and a connection window that never fills."""
    settings = struct.pack(">HI", SETTINGS_MAX_CONCURRENT_STREAMS, 1024)
    return frame(SETTINGS, 0, 0, settings) + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", MAX_WINDOW_BYTES - 65535))


def http_answer(body: bytes) -> bytes:
    """200 with ``body``."""
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body


@nb.njit(cache=True, nogil=True)
def _append(fd: Any, part: Any, state: Any, outb: Any) -> Any:
    at = state[fd, S_OUT]
    outb[fd, at : at + len(part)] = part
    state[fd, S_OUT] = at + len(part)
    return at


@nb.njit(cache=True, nogil=True)
def _h2(fd: Any, answer: Any, ack: Any, state: Any, inb: Any, outb: Any) -> Any:
    """Answer every finished stream in ``inb[fd]``; how many bytes were taken."""
    row, have = inb[fd], state[fd, S_IN]
    at = nb.int64(0)
    if not state[fd, S_MAGIC]:
        if have < MAGIC_BYTES:
            return at
        state[fd, S_MAGIC], at = 1, MAGIC_BYTES
    while have - at >= 9:
        length = nb.int64(row[at]) << 16 | nb.int64(row[at + 1]) << 8 | nb.int64(row[at + 2])
        if have - at < 9 + length or state[fd, S_OUT] + len(answer) + 64 > BUFFER_BYTES:
            break
        kind, flags = row[at + 3], row[at + 4]
        if kind == SETTINGS and not flags & ACK:
            _append(fd, ack, state, outb)
        elif kind == PING and not flags & ACK:
            pong = _append(fd, row[at : at + 17], state, outb)
            outb[fd, pong + 4] = ACK
        elif kind == DATA:
            state[fd, S_UNACKED] += length
            if state[fd, S_UNACKED] > REPLENISH:
                update = _append(fd, ack, state, outb)  # 9 bytes of header, then the increment
                outb[fd, update + 2], outb[fd, update + 3], outb[fd, update + 4] = 4, WINDOW_UPDATE, 0
                for i in range(4):
                    outb[fd, update + 9 + i] = state[fd, S_UNACKED] >> (24 - 8 * i) & 255
                state[fd, S_OUT] += 4
                state[fd, S_UNACKED] = 0
            if flags & END_STREAM:
                start = _append(fd, answer, state, outb)
                stop = state[fd, S_OUT]
                while start < stop:
                    size = nb.int64(outb[fd, start]) << 16
                    size |= nb.int64(outb[fd, start + 1]) << 8 | nb.int64(outb[fd, start + 2])
                    outb[fd, start + 5 : start + 9] = row[at + 5 : at + 9]
                    start += 9 + size
        at += 9 + length
    return at


@nb.njit(cache=True, nogil=True)
def _http1(fd: Any, answer: Any, state: Any, inb: Any, outb: Any) -> Any:
    """Answer every whole request in ``inb[fd]``; how many bytes were taken."""
    row, have = inb[fd], state[fd, S_IN]
    at = nb.int64(0)
    while state[fd, S_OUT] + len(answer) <= BUFFER_BYTES:
        body = find(row, at, have, BLANK_LINE)
        number = find(row, at, body, CONTENT_LENGTH) if body >= 0 else -1
        if number < 0:
            break
        length = nb.int64(0)
        while row[number] != 13:
            if row[number] != 32:
                length = length * 10 + nb.int64(row[number]) - 48
            number += 1
        if body + length > have:
            break
        _append(fd, answer, state, outb)
        at = body + length
    return at


@nb.njit(cache=True, nogil=True)
def serve(
    epoll_fd: Any, events: Any, listener: Any, is_h2: Any, answer: Any, ack: Any, state: Any, inb: Any, outb: Any
) -> Any:
    """Answer until a connection waits to be accepted (0) or has ended (its descriptor); -1 without a listener."""
    while listener >= 0:
        accept = False
        for i in range(epoll_wait(epoll_fd, events, 1000)):
            fd = event_fd(events, i)
            if fd == listener:
                accept = True
                continue
            got = recv(fd, inb[fd], state[fd, S_IN], BUFFER_BYTES)
            if got == 0 or (got < 0 and got != -EAGAIN):
                return fd
            state[fd, S_IN] += max(0, got)
            taken = _h2(fd, answer, ack, state, inb, outb) if is_h2 else _http1(fd, answer, state, inb, outb)
            left = state[fd, S_IN] - taken
            for j in range(left):
                inb[fd, j] = inb[fd, taken + j]
            state[fd, S_IN] = left
            start = nb.int64(0)
            while start < state[fd, S_OUT]:  # the client always reads: waiting for it here cannot hang for long
                sent = send(fd, outb[fd], start, state[fd, S_OUT])
                if sent < 0 and sent != -EAGAIN:
                    return fd
                start += max(0, sent)
            state[fd, S_OUT] = 0
        if accept:
            return 0
    return -1


def main(kind: str, port: int, answer_bytes: int) -> None:
    """Serve for ever; prints the port when ready."""
    body = b"\x0a" + bytes([min(127, answer_bytes - 2)]) + b"x" * (answer_bytes - 2) if answer_bytes > 2 else b""
    answer = np.frombuffer(grpc_answer(body) if kind == "grpc" else http_answer(body), np.uint8)
    ack = np.frombuffer(frame(SETTINGS, ACK, 0, b""), np.uint8)
    epoll = select.epoll()
    events = np.zeros(MAX_EVENTS * EVENT_BYTES, np.uint8)
    state = np.zeros((MAX_FD, 4), np.int64)
    inb, outb = np.zeros((MAX_FD, BUFFER_BYTES), np.uint8), np.zeros((MAX_FD, BUFFER_BYTES), np.uint8)
    socks: dict[int, socket.socket] = {}
    serve(epoll.fileno(), events, -1, kind == "grpc", answer, ack, state, inb, outb)  # compile before anyone waits
    listener = socket.create_server(("127.0.0.1", port), backlog=256)
    epoll.register(listener.fileno(), select.EPOLLIN)
    print(listener.getsockname()[1], flush=True)
    while True:
        fd = int(serve(epoll.fileno(), events, listener.fileno(), kind == "grpc", answer, ack, state, inb, outb))
        if fd:
            epoll.unregister(fd)
            socks.pop(fd).close()
            continue
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if kind == "grpc":
            sock.sendall(grpc_greeting())
        sock.setblocking(False)
        socks[sock.fileno()] = sock
        state[sock.fileno()] = 0
        epoll.register(sock.fileno(), select.EPOLLIN)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
