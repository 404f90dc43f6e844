"""The generator for an HTTP/1.1 server: POSTs to one path over many keep-alive connections, one in flight on each."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import numpy as np

from bench.load.h2wire import pack
from bench.load.http1kernel import IN_BYTES, W_LEFT, W_REQUEST, W_WIDTH, run_http1
from bench.load.request import Request
from bench.load.run import Runner
from bench.load.window import Window


def request_bytes(address: tuple[str, int], content_type: str, request: Request) -> bytes:
    """One whole request."""
    head = [
        f"POST {request.path} HTTP/1.1",
        f"host: {address[0]}:{address[1]}",
        f"content-type: {content_type}",
        "x-openrtb-version: 2.6",
        *(f"{name}: {value}" for name, value in request.headers),
        f"content-length: {len(request.body)}",
    ]
    return ("\r\n".join(head) + "\r\n\r\n").encode() + request.body


class HttpLoad:
    """``requests`` are sent in a shuffled, repeating order. ``spin`` as in `GrpcLoad`."""

    def __init__(
        self,
        address: tuple[str, int],
        requests: Sequence[Request],
        *,
        content_type: str = "application/json",
        connections: int = 48,
        spin: bool = True,
        seed: int = 1,
    ) -> None:
        self.pool, self.offsets = pack([request_bytes(address, content_type, each) for each in requests])
        self.conn = np.zeros((connections, W_WIDTH), np.int64)
        self.inb = np.zeros((connections, IN_BYTES), np.uint8)
        self.idle = np.zeros(connections, np.int64)
        self.runner = Runner(self, address, len(requests), seed, 0 if spin else 1)
        self.closed_loop(1, 0.0)  # compiles the kernel

    def fresh(self, c: int, sock: socket.socket) -> None:
        """Connection ``c`` has just been made."""
        self.conn[c, W_REQUEST] = -1
        self.conn[c, W_LEFT] = -1

    def kernel(self, run: Runner, in_flight: int, stop_ns: int, deadline_ns: int) -> int:
        """One stretch of the loop (`Runner` repeats it after a lost connection)."""
        arrays = (self.conn, self.inb, self.idle, self.pool, self.offsets)
        return int(run_http1(*run.args(), *arrays, in_flight, stop_ns, deadline_ns, run.patience_ns))

    def open_loop(self, rate: float, seconds: float, *, even: bool = False, patience_s: float = 0) -> Window:
        """``rate`` requests a second at times drawn beforehand (Poisson, or ``even``ly spaced).

        With ``patience_s`` what could not be sent for so long, every connection being taken, never is: status UNSENT.
        """
        return self.runner.open_loop(rate, seconds, even, patience_s)

    def closed_loop(self, in_flight: int, seconds: float, *, most_per_s: int = 250_000) -> Window:
        """Keep ``in_flight`` requests outstanding (at most one per connection)."""
        return self.runner.closed_loop(in_flight, seconds, int(seconds * most_per_s))

    def close(self) -> None:
        """Close the connections."""
        self.runner.close()
