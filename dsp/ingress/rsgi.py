"""Granian's HTTP server without its event loop: the one module that knows how Granian is put together.

Granian is built to run a coroutine per request on an asyncio loop: a thread-safe wake-up, a task and a future each.
We need none of that, because a handler only hands bytes to the engine. So its scheduler gets a plain function to call
per request, and its "event loop" is an object that runs callbacks where they are: both happen on Granian's one Python
thread, and so does the engine. Measured on one core, echo of 1.9 kB requests and 0.9 kB answers: 43 µs of CPU per
request with coroutines on uvloop, 20 µs this way (64 connections); p50 of a lone client 110 µs and 56 µs.

It uses classes of ``granian._granian`` that Granian does not promise to keep; the dependency is pinned, and the
conformance tests of the ingress are what a new version has to pass.
"""

from __future__ import annotations

import operator
import os
import socket
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from granian import _granian
from granian.http import HTTP1Settings, HTTP2Settings

from dsp.ingress.scheduling import yielding_threads

Headers = list[tuple[str, str]]
_native: Any = _granian  # its stubs leave out what is used here


class Body(Awaitable[bytes], Protocol):
    """A body, or a piece of it, on its way."""

    def add_done_callback(self, callback: Callable[..., object]) -> None:
        """``callback(body, context=None)`` on the server's thread, once it is there."""

    def result(self) -> bytes:
        """The bytes. Raises RuntimeError when the client went away."""

    def cancel(self) -> bool:
        """Stop waiting for it."""


class Exchange(Protocol):
    """One request's way back: read the body by a call or by iteration, then respond once, from any thread."""

    def __call__(self) -> Body:
        """The whole body."""

    def __aiter__(self) -> Exchange:
        """Read it in pieces instead."""

    def __anext__(self) -> Body:
        """The next piece, empty after the last."""

    def response_empty(self, status: int, headers: Headers) -> None:
        """Answer without content."""

    def response_bytes(self, status: int, headers: Headers, body: bytes) -> None:
        """Answer with content."""

    def response_str(self, status: int, headers: Headers, body: str) -> None:
        """Answer with text."""


class RequestHeaders(Protocol):
    """Header lines; names in lower case."""

    def get(self, key: str, default: str | None = None) -> str | None:
        """The first line of that name."""

    def __contains__(self, key: str) -> bool:
        """Whether there is one."""


class Scope(Protocol):
    """A request's first lines."""

    path: str
    method: str
    http_version: str
    client: str
    headers: RequestHeaders


class _Inline:
    """Stands where Granian wants an event loop: runs a callback at once, on the thread that has it."""

    call_soon = call_soon_threadsafe = operator.call  # a built-in: looked up on an instance it stays unbound


class RsgiServer:
    """Serves HTTP/1.1 and h2 (prior knowledge) on one listening socket with SO_REUSEPORT, calling ``handle``."""

    def __init__(self, handle: Callable[[Scope, Any], None], host: str, port: int, connections: int) -> None:
        address = str(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0])
        self._handle = handle
        self._socket = _native.ListenerSpec(address, port, 1024).build()
        with socket.socket(fileno=os.dup(self._socket.get_fd())) as bound:
            self.port: int = bound.getsockname()[1]
        loop = _Inline()
        self._scheduler = _native.CallbackScheduler(loop, None, None, None, None)
        self._scheduler._schedule_fn = self._arrive
        self._stopped = threading.Event()
        self._signal = _native.WorkerSignal()
        self._signal.add_cb(self._stopped.set)
        h1 = HTTP1Settings(header_read_timeout=30_000)
        h2 = HTTP2Settings(max_concurrent_streams=256, max_headers_size=64 * 1024)
        self._loop = loop
        # worker id, socket, ipc, threads, blocking threads, python threads and their idle time, backpressure, mode, ...
        self._worker = _native.RSGIWorker(
            *(1, (None, self._socket), None, 1, 8, 1, 30, connections, "auto", h1, h2, False, None),
            *(False, None, None, None, "tls1.3", None, [], False, (None, None)),
        )

    def _arrive(self, watcher: Any) -> None:
        self._handle(watcher.scope, watcher.proto)

    def start(self) -> None:
        """Accept connections, on threads of its own."""
        with yielding_threads():
            self._worker.serve_async(self._scheduler, self._loop, self._signal)

    def stop(self) -> None:
        """Stop listening, close idle connections, let the others finish what they have begun. Returns at once."""
        self._signal.set()

    def wait_stopped(self, timeout_s: float) -> bool:
        """Whether every connection is done, waiting at most so long."""
        return self._stopped.wait(timeout_s)
