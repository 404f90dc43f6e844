"""A small, fast HTTP/1.1 client for the market: kept-alive connections, one request at a time on each.

The general-purpose clients cost more per call than the bidder's whole answer does; a market that shares two cores with
what it measures can't afford that. Redirects are not followed, nothing is decoded; latency is taken when the last byte
arrives, not when a coroutine gets to run.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import NamedTuple, cast

MAX_HEAD = 64 << 10


class Reply(NamedTuple):
    """An HTTP response."""

    status: int
    head: bytes  # status line and headers
    body: bytes
    seconds: float  # from sending to the last byte


class _Connection(asyncio.Protocol):
    """One connection; ``ask`` may be called again when its future is done."""

    def __init__(self, idle: list[_Connection]) -> None:
        self._idle = idle  # the pool to leave when the other side hangs up
        self.transport: asyncio.Transport | None = None
        self._buffer = b""
        self._waiting: asyncio.Future[Reply] | None = None
        self._timer: asyncio.TimerHandle
        self._sent_at = 0.0
        self._need = -1  # bytes of the whole response, -1 before its head is in
        self._head_end = 0
        self.open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are not its subclasses
        self.open = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if self in self._idle:
            self._idle.remove(self)
        self._fail(exc if isinstance(exc, OSError) else ConnectionResetError("connection closed before the response"))

    def ask(self, message: bytes, timeout_s: float) -> asyncio.Future[Reply]:
        assert self.transport is not None
        loop = asyncio.get_running_loop()
        self._waiting = loop.create_future()
        self._timer = loop.call_later(timeout_s, self._fail, TimeoutError("no answer in time"))
        self._buffer, self._need = b"", -1
        self._sent_at = time.perf_counter()
        self.transport.write(message)
        return self._waiting

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        try:
            reply = self._parse()
        except ValueError as error:
            self._fail(ConnectionError(str(error)))
            return
        if reply is not None and self._waiting is not None and not self._waiting.done():
            self._timer.cancel()
            self._waiting.set_result(reply)

    def _parse(self) -> Reply | None:
        """The response, once it is complete. Raises ValueError where it is none that this client understands."""
        buffer = self._buffer
        if self._need < 0:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(buffer) > MAX_HEAD:
                    raise ValueError("response head too long")
                return None
            self._head_end = end + 4
            self._need = self._head_end + _body_length(buffer[:end].lower(), int(buffer[9:12]))
        if len(buffer) < self._need:
            return None
        body = buffer[self._head_end : self._need]
        seconds = time.perf_counter() - self._sent_at
        return Reply(int(buffer[9:12]), buffer[: self._head_end - 4], body, seconds)

    def _fail(self, error: OSError) -> None:
        """Whoever waits gets ``error``; a late answer must not be taken for the next request's."""
        if self._waiting is not None and not self._waiting.done():
            self._timer.cancel()
            self._waiting.set_exception(error)
        self.close()

    def close(self) -> None:
        self.open = False
        if self.transport is not None:
            self.transport.close()


def _body_length(head: bytes, status: int) -> int:
    """Bytes of the body by a lower-cased head. Raises ValueError where the length is not given."""
    at = head.find(b"\r\ncontent-length:")
    if at >= 0:
        end = head.find(b"\r\n", at + 2)
        return int(head[at + 17 : end if end >= 0 else len(head)])
    if status in (204, 304) or status < 200:
        return 0
    raise ValueError("response without content-length")


class HttpClient:
    """A pool of connections to one server. Raises OSError (ConnectionError, TimeoutError) from `ask`."""

    def __init__(self, host: str, port: int, *, connections: int = 64, timeout_s: float = 2.0) -> None:
        self.host, self.port = host, port
        self._timeout_s = timeout_s
        self._idle: list[_Connection] = []
        self._room = asyncio.Semaphore(connections)

    @property
    def idle(self) -> int:
        """Open connections that wait for work."""
        return len(self._idle)

    async def ask(self, message: bytes, timeout_s: float | None = None) -> Reply:
        """Send a whole request (see `http_message`) and wait for its response, at most the timeout."""
        async with self._room:
            connection = self._idle.pop() if self._idle else await self._connect()
            try:
                reply = await connection.ask(message, self._timeout_s if timeout_s is None else timeout_s)
            except BaseException:
                connection.close()
                raise
            if connection.open and b"connection: close" not in reply.head.lower():
                self._idle.append(connection)
            else:
                connection.close()
            return reply

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._timeout_s):
            _, made = await loop.create_connection(lambda: _Connection(self._idle), self.host, self.port)
        return made

    async def close(self) -> None:
        """Close idle connections."""
        while self._idle:
            self._idle.pop().close()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)


def http_message(method: str, path: str, host: str, headers: str = "", body: bytes = b"") -> bytes:
    """A request as bytes; ``headers`` are further lines, each ending in CRLF."""
    length = f"content-length: {len(body)}\r\n" if body or method == "POST" else ""
    return f"{method} {path} HTTP/1.1\r\nhost: {host}\r\n{headers}{length}\r\n".encode() + body
