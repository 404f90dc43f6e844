"""The generator for a gRPC server: unary calls of one method over a few HTTP/2 connections."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import numpy as np

from bench.load.h2kernel import H_STREAM_WINDOW, H_TAIL, H_WIDTH, H_WINDOW, IN_BYTES, OUT_BYTES, SLACK, run_h2
from bench.load.h2wire import GRPC_PREFIX_BYTES, pack
from bench.load.request import Request
from bench.load.run import LoadError, Runner
from bench.load.window import Window
from dsp.ingress.h2wire import DEFAULT_WINDOW_BYTES, header_block, preface, request_frames


class GrpcLoad:
    """``requests`` (their bodies serialized messages, their paths methods) are sent in a shuffled, repeating order.

    ``streams_per_connection``: after so many a connection is replaced, long before HTTP/2's ids run out.
    ``spin``: poll without sleeping, for a generator that has a core to itself.
    """

    def __init__(
        self,
        address: tuple[str, int],
        requests: Sequence[Request],
        *,
        connections: int = 8,
        in_flight_cap: int = 1000,
        streams_per_connection: int = 1 << 20,
        spin: bool = True,
        seed: int = 1,
    ) -> None:
        authority = f"{address[0]}:{address[1]}"
        heads = {(each.path, each.headers) for each in requests}
        blocks = {head: header_block(authority, *head) for head in heads}
        self.pool, self.offsets = pack(
            [request_frames(blocks[each.path, each.headers], each.body) for each in requests]
        )
        self.body_bytes = np.array([len(each.body) + GRPC_PREFIX_BYTES for each in requests], np.int64)
        if int(np.diff(self.offsets).max()) > OUT_BYTES - SLACK:
            raise LoadError(f"a body is larger than the send buffer of {OUT_BYTES - SLACK:,} bytes")
        self.conn = np.zeros((connections, H_WIDTH), np.int64)
        self.outb = np.zeros((connections, OUT_BYTES), np.uint8)
        self.inb = np.zeros((connections, IN_BYTES), np.uint8)
        self.req_of = np.full((connections, streams_per_connection), -1, np.int32)
        self.cap = in_flight_cap
        self.runner = Runner(self, address, len(requests), seed, 0 if spin else 1)
        self.closed_loop(1, 0.0)  # compiles the kernel

    def fresh(self, c: int, sock: socket.socket) -> None:
        """Connection ``c`` has just been made: it starts with the preface, and sends no call before the SETTINGS."""
        first = np.frombuffer(preface(), np.uint8)
        self.outb[c, : len(first)] = first
        self.req_of[c] = -1
        self.conn[c, H_TAIL] = len(first)
        self.conn[c, [H_WINDOW, H_STREAM_WINDOW]] = DEFAULT_WINDOW_BYTES

    def kernel(self, run: Runner, in_flight: int, stop_ns: int, deadline_ns: int) -> int:
        """One stretch of the loop (`Runner` repeats it after a lost connection)."""
        arrays = (self.conn, self.outb, self.inb, self.req_of, self.pool, self.offsets, self.body_bytes)
        return int(run_h2(*run.args(), *arrays, self.cap, in_flight, stop_ns, deadline_ns, run.patience_ns))

    def open_loop(self, rate: float, seconds: float, *, even: bool = False, patience_s: float = 0) -> Window:
        """``rate`` calls a second at times drawn beforehand (Poisson, or ``even``ly spaced).

        With ``patience_s`` what could not be sent for so long, every stream being taken, never is: status UNSENT.
        """
        return self.runner.open_loop(rate, seconds, even, patience_s)

    def closed_loop(self, in_flight: int, seconds: float, *, most_per_s: int = 250_000) -> Window:
        """Keep ``in_flight`` calls outstanding."""
        return self.runner.closed_loop(in_flight, seconds, int(seconds * most_per_s))

    def close(self) -> None:
        """Close the connections."""
        self.runner.close()
