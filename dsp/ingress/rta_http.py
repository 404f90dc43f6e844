"""The RTA front: ``POST /rta/{exchange}``, protobuf in and out, and always 200.

A platform takes 204 for an error and may take a status it doesn't know for a yes, so whatever happens the answer is 200
with a code: the engine's, or the platform's default where there is no room, no engine or no sense in the body. Only
somebody who is no platform (no such path, no token) is told so by a status.

Batches come about as in `dsp.ingress.http`: what arrives while a batch is decided is decided together. Past
``queue_limit`` requests in the worker, a request gets its default as soon as its body is there: the engine's share of a
request is saved, so that the queue shrinks.
"""

from __future__ import annotations

import threading
import time
from asyncio import CancelledError
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from dsp.base.config import Config
from dsp.base.logs import logger
from dsp.base.metrics import RTA_OUTCOMES
from dsp.ingress.access import Access
from dsp.ingress.http_rules import Headers, error_headers
from dsp.ingress.rsgi import Body, Exchange, RsgiServer, Scope

log = logger(__name__)

BATCH = 64  # decided at once; below rta.queue_limit, so that a batch is begun before anything is shed
TICK_S = 0.01
BODY_TIMEOUT_NS = 1_000_000_000  # the platform itself waits 60 ms
QUIET_NS = 500_000_000
BODY_BYTES = 64 << 10
HEADERS: Headers = [("content-type", "application/x-protobuf")]
O_FAILED = RTA_OUTCOMES.index("failed")
O_BAD = RTA_OUTCOMES.index("bad")
O_SHED = RTA_OUTCOMES.index("shed")


class RtaDecider(Protocol):
    """One thread's engine; `dsp.bidder.rta.RtaEngine` is one."""

    def decide(self, platform: int, bodies: Sequence[bytes]) -> list[bytes]:
        """Answers in the order of the requests."""

    def default_answer(self, platform: int, body: bytes, outcome: int = ...) -> bytes:
        """The answer of a request that isn't decided, counted as ``outcome``."""

    def platform_of(self, name: str) -> int:
        """A platform's number, -1 unknown."""

    def token_of(self, platform: int) -> str:
        """The bearer token it must send, "" for none."""

    def callers_of(self, platform: int) -> tuple[str, Sequence[str]]:
        """The header that names its certificate ("name: value", "" for none) and the networks it calls from."""
        ...

    def poll(self) -> None:
        """Swap in a new snapshot or model."""


class RtaFront:
    """See the module. One front has one engine; `run` blocks the main thread until it has drained."""

    def __init__(self, engine: RtaDecider, config: Config) -> None:
        self.engine = engine
        self._limit = config.rta.queue_limit
        self._client_ip_header = config.bidder.client_ip_header
        self._poll_ns = int(config.bidder.snapshot_poll_s * 1e9)
        self._drain_ns = int(config.bidder.drain_s * 1e9)
        self._pending: dict[int, tuple[list[Exchange], list[bytes]]] = {}  # by platform
        self._waiting = 0
        self.reading: dict[Exchange, tuple[Body, int]] = {}
        self._newest: Exchange | None = None
        self._routes: dict[str, tuple[int, Access | None]] = {}
        self._lock = threading.Lock()
        self._draining = False
        self._batches = 0
        self._polled_ns = 0
        self._last_ns = self._now_ns = time.monotonic_ns()  # the latter as of the last tick
        self._server = RsgiServer(self._arrive, config.rta.host, config.rta.port, 4096)
        self.port = self._server.port
        self._server.start()

    def _arrive(self, scope: Scope, proto: Exchange) -> None:
        route = self._routes.get(scope.path)
        if route is None:
            route = self._route(scope.path)
            if route is None:
                self._other(scope, proto)
                return
        platform, access = route
        headers = scope.headers
        if access is not None and (refusal := access.refusal(headers, scope)):
            proto.response_empty(401, error_headers(refusal, ("www-authenticate", "Bearer")))
            return
        length = headers.get("content-length")
        if length is None or len(length) > 5 or int(length) > BODY_BYTES or scope.method != "POST":
            proto.response_bytes(200, HEADERS, self.engine.default_answer(platform, b"", O_BAD))
            return
        body = proto()
        reading = self.reading
        full = len(reading) + self._waiting >= self._limit
        reading[proto] = (body, self._now_ns)
        if full:
            body.add_done_callback(partial(self._shed, proto, platform))
        else:
            self._newest = proto
            body.add_done_callback(partial(self._read, proto, platform))

    def _route(self, path: str) -> tuple[int, Access | None] | None:
        if not path.startswith("/rta/"):
            return None
        platform = self.engine.platform_of(path[5:])
        if platform < 0:
            return None
        header, ips = self.engine.callers_of(platform)
        access = Access(self.engine.token_of(platform), header, ips, self._client_ip_header)
        route = self._routes[path] = platform, access if access.asks else None
        return route

    def _other(self, scope: Scope, proto: Exchange) -> None:
        if scope.path == "/readyz" and self._draining:
            proto.response_str(503, [("content-type", "text/plain")], "draining\n")
        elif scope.path in ("/healthz", "/readyz"):
            proto.response_str(200, [("content-type", "text/plain")], "ok\n")
        else:
            proto.response_empty(404, error_headers("no such path: POST /rta/{exchange}, GET /healthz, GET /readyz"))

    def _shed(self, proto: Exchange, platform: int, body: Body, context: object = None) -> None:
        self.reading.pop(proto, None)
        try:
            raw, outcome = body.result(), O_SHED
        except (Exception, CancelledError):
            raw, outcome = b"", O_BAD
        proto.response_bytes(200, HEADERS, self.engine.default_answer(platform, raw, outcome))

    def _read(self, proto: Exchange, platform: int, body: Body, context: object = None) -> None:
        del self.reading[proto]
        try:
            raw = body.result()
        except (Exception, CancelledError):  # the sender is gone, or we gave up on it
            proto.response_bytes(200, HEADERS, self.engine.default_answer(platform, b"", O_BAD))
        else:
            pending = self._pending.get(platform)
            if pending is None:
                pending = self._pending[platform] = ([], [])
            pending[0].append(proto)
            pending[1].append(raw)
            self._waiting += 1
        if proto is self._newest:
            self._newest = None
        elif self._newest is not None and self._waiting < BATCH:
            return
        with self._lock:
            self._decide()

    def _decide(self) -> None:
        pending, self._pending, self._waiting = self._pending, {}, 0
        if pending:
            self._batches += 1
            self._last_ns = self._now_ns
        for platform, (protos, bodies) in pending.items():
            try:
                answers = self.engine.decide(platform, bodies)
            except Exception:
                log.exception("the RTA engine failed on a batch", requests=len(bodies))
                answers = [self.engine.default_answer(platform, body, O_FAILED) for body in bodies]
            for proto, answer in zip(protos, answers, strict=True):
                proto.response_bytes(200, HEADERS, answer)

    def run(self, stopping: Callable[[], bool], idle: Callable[[], None] = lambda: None) -> None:
        """Serve until ``stopping()``, then drain as `dsp.ingress.http` does."""
        while not stopping():
            self._tick()
            idle()
        self._draining = True
        begun_ns = time.monotonic_ns()
        while time.monotonic_ns() - begun_ns < self._drain_ns // 2:
            if time.monotonic_ns() - max(self._last_ns, begun_ns) > QUIET_NS and not self.reading:
                break
            self._tick()
        self._server.stop()
        while time.monotonic_ns() - begun_ns < self._drain_ns and not self._server.wait_stopped(TICK_S):
            self._tick()

    def _tick(self) -> None:
        batches = self._batches
        time.sleep(TICK_S)
        now_ns = self._now_ns = time.monotonic_ns()
        if self._waiting and self._batches == batches:  # the newest body stalls: decide the others
            with self._lock:
                self._decide()
        for body, since_ns in list(self.reading.values()):
            if now_ns - since_ns > BODY_TIMEOUT_NS:
                body.cancel()
        if now_ns - self._polled_ns > self._poll_ns and self._lock.acquire(timeout=0.1):
            self._polled_ns = now_ns
            try:
                self._decide()
                self.engine.poll()
                self._routes = {}
            except Exception:
                log.exception("could not load a new snapshot or model; going on with the old one")
            finally:
                self._lock.release()
