"""One run of the generator: the arrays both kernels write, and the loop that hands them over.

A run is a window of one or two seconds. Open loop: the arrival times are drawn before it starts, and a request's
latency counts from its *intended* time, however late it could be sent (no coordinated omission). Closed loop:
``in_flight`` requests are kept outstanding, so the rate is the server's own. Every run ends drained, or with the rest
counted as timed out and the connections replaced, so no run inherits another's backlog.
"""

from __future__ import annotations

import select
import socket
import time
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bench.load.posix import EVENT_BYTES, MAX_EVENTS
from bench.load.window import Window

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
U8 = npt.NDArray[np.uint8]

# times: int64[3, N], monotonic ns
INTENDED, SENT, DONE = range(3)
# facts: int32[3, N]
STATUS, SIZE, BID = range(3)
# ctl: int64[CTL_WIDTH]
(
    ISSUED,
    FINISHED,
    CURSOR,  # next body
    ROBIN,  # next connection
    BUSY_NS,  # time in loop rounds that sent or received
    STALL_NS,  # time in rounds longer than a millisecond: the generator itself was not running
    LONGEST_NS,
    BYTES_IN,
    BYTES_OUT,
    IDLE_TOP,  # HTTP/1.1: how many connections are idle
) = range(10)
CTL_WIDTH = 16
STALL_LIMIT_NS = 1_000_000

# What a kernel returns.
RUN_DONE = 0
RUN_LOST = 1  # at least one connection is in state DEAD
RUN_TOO_LARGE = 2  # a body exceeds the server's stream window

# conn column 1, both kernels
UP = 0
LEAVING = 1  # no new requests; dead as soon as its outstanding ones are answered
DEAD = 2
C_FD = 0
C_STATE = 1

DRAIN_NS = 3_000_000_000
LOSSES = 100  # in a row, without one answer between them


class LoadError(Exception):
    """The server cannot be reached, or cannot take this load at all."""


class Front(Protocol):
    """What differs between the fronts: the kernel, and what a fresh connection starts with."""

    conn: I64

    def fresh(self, c: int, sock: socket.socket) -> None:
        """Set up connection ``c``'s row, all zeros but descriptor and state."""

    def kernel(self, run: Runner, in_flight: int, stop_ns: int, deadline_ns: int) -> int:
        """Run until done (RUN_DONE) or Python is needed. What waits longer than ``run.patience_ns`` isn't sent."""
        ...


class Runner:
    """Sockets, epoll and the arrays of the current run."""

    def __init__(self, front: Front, address: tuple[str, int], bodies: int, seed: int, idle_ms: int) -> None:
        self.front, self.address, self.idle_ms = front, address, idle_ms
        self.order: I64 = np.random.default_rng(seed).permutation(bodies).astype(np.int64)
        self.rng = np.random.default_rng(seed + 1)
        self.epoll = select.epoll()
        self.events: U8 = np.zeros(MAX_EVENTS * EVENT_BYTES, np.uint8)
        self.by_fd: I64 = np.zeros(65536, np.int64)
        self.socks: list[socket.socket | None] = [None] * len(front.conn)
        self.ctl: I64 = np.zeros(CTL_WIDTH, np.int64)
        self.times: I64 = np.zeros((3, 0), np.int64)
        self.facts: I32 = np.zeros((3, 0), np.int32)
        front.conn[:, C_STATE] = DEAD
        self.reconnects = 0
        self.patience_ns = 0
        self.revive()

    def revive(self) -> None:
        """Replace every dead connection by a fresh one. Raises `LoadError` when the server refuses."""
        for c in np.flatnonzero(self.front.conn[:, C_STATE] == DEAD):
            self._drop(int(c))
            try:
                sock = socket.create_connection(self.address, timeout=5)
            except OSError as error:
                raise LoadError(f"cannot connect to {self.address[0]}:{self.address[1]}: {error}") from error
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
            self.socks[c] = sock
            self.by_fd[sock.fileno()] = c
            self.front.conn[c] = 0
            self.front.conn[c, C_FD] = sock.fileno()
            self.front.fresh(int(c), sock)
            self.epoll.register(sock.fileno(), select.EPOLLIN)
        self.reconnects += 1

    def _drop(self, c: int) -> None:
        sock = self.socks[c]
        if sock is not None:
            self.epoll.unregister(sock.fileno())
            sock.close()
            self.socks[c] = None

    def close(self) -> None:
        """Close everything."""
        for c in range(len(self.socks)):
            self._drop(c)
        self.epoll.close()

    def open_loop(self, rate: float, seconds: float, even: bool, patience_s: float = 0) -> Window:
        """``rate`` requests a second for ``seconds``: a Poisson process, or evenly spaced."""
        self.patience_ns = int(patience_s * 1e9)
        n = max(1, round(rate * seconds))
        gaps = np.full(n, 1e9 / rate) if even else self.rng.exponential(1e9 / rate, n)
        self._allocate(n)
        self.times[INTENDED] = time.monotonic_ns() + np.cumsum(gaps).astype(np.int64)
        end_ns = int(self.times[INTENDED, -1])
        return self._run(0, end_ns, rate)

    def closed_loop(self, in_flight: int, seconds: float, most: int) -> Window:
        """Keep ``in_flight`` outstanding for ``seconds`` (at most ``most`` requests)."""
        self.patience_ns = 0
        self._allocate(most)
        return self._run(in_flight, time.monotonic_ns() + int(seconds * 1e9), 0.0)

    def _allocate(self, n: int) -> None:
        self.times = np.zeros((3, n), np.int64)
        self.facts = np.zeros((3, n), np.int32)
        cursor = self.ctl[CURSOR]
        self.ctl[:] = 0
        self.ctl[CURSOR] = cursor

    def _run(self, in_flight: int, stop_ns: int, rate: float) -> Window:
        started_ns, cpu_s = time.monotonic_ns(), time.thread_time()
        deadline_ns, losses, before = stop_ns + DRAIN_NS, 0, -1
        while (said := self.front.kernel(self, in_flight, stop_ns, deadline_ns)) != RUN_DONE:
            if said == RUN_TOO_LARGE:
                raise LoadError("a body is larger than the server's stream window")
            losses = 0 if self.ctl[FINISHED] > before else losses + 1
            before = int(self.ctl[FINISHED])
            if losses > LOSSES:
                raise LoadError(f"the server ended {LOSSES} connections in a row without an answer")
            self.revive()
        ended_ns, cpu_s = time.monotonic_ns(), time.thread_time() - cpu_s
        # An open loop owes every arrival an answer, also those it never got to send.
        n = int(self.ctl[ISSUED]) if in_flight else self.times.shape[1]
        late = int(self.ctl[FINISHED]) != n
        window = Window.of(
            self.times[:, :n], self.facts[:, :n], self.ctl, rate, in_flight, (started_ns, stop_ns, ended_ns), cpu_s
        )
        if late:  # answers still to come would be taken for another run's
            self.front.conn[:, C_STATE] = DEAD
            self.revive()
        return window

    def args(self) -> tuple[Any, ...]:
        """What every kernel takes first."""
        return self.epoll.fileno(), self.events, self.by_fd, self.order, self.times, self.facts, self.ctl, self.idle_ms
