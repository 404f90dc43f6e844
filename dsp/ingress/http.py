"""The HTTP front: ``POST /bid/{exchange}``, ``GET /healthz``, ``GET /readyz``, over HTTP/1.1 and h2.

Everything happens on Granian's one Python thread, in the order of its queue: requests that arrive while a batch is
decided queue up, then their bodies, and the body of the newest of them completes the next batch. So whatever has
arrived is decided together, with no timer, no future and no second thread. Bodies come in the order they were asked
for, unless a client is slow: if the newest request's body stalls, `_tick` on the main thread decides the others. That,
swapping snapshots and giving up on slow bodies are all the main thread does; a lock that is otherwise never contended
keeps it out of a batch.

Malformed requests get 400 without content, as OpenRTB says; what is wrong is in ``x-dsp-error``.
"""

from __future__ import annotations

import threading
import time
from asyncio import CancelledError
from collections.abc import Callable, Sequence
from functools import partial

from dsp.base.config import BidderConfig
from dsp.base.logs import logger
from dsp.base.metrics import BAD_REASONS, OUTCOMES, SHED_REASONS, UNKNOWN_EXCHANGE, Metrics
from dsp.bidder.answer import BAD, BID, NO_BID, TOO_LARGE, Answer
from dsp.ingress.access import Access
from dsp.ingress.decider import Decider, poll
from dsp.ingress.gzips import GzipError, GzipTooLargeError, accepts_gzip, gunzip, gzip_answer
from dsp.ingress.held import Held
from dsp.ingress.http_rules import (
    BID_HEADERS,
    CLOSE,
    CLOSING,
    GZIPPED,
    NO_BID_HEADERS,
    Headers,
    error_headers,
    format_of,
)
from dsp.ingress.rehearsal import Warmth
from dsp.ingress.rsgi import Body, Exchange, RsgiServer, Scope
from dsp.ingress.shedder import Shedder
from dsp.openrtb.columns import FMT_JSON
from dsp.openrtb.limits import MAX_BATCH, MAX_BODY_BYTES

log = logger(__name__)

TICK_S = 0.01
PAUSE_S = 0.0003  # between a new worker's own requests
BODY_TIMEOUT_NS = 10_000_000_000
DISCARD_BYTES = 16 << 20  # of a body that is too large: read and dropped so that the client gets to see its 413
QUIET_NS = 500_000_000  # draining, nothing for so long means that nobody is left
HELD_NS = 50_000_000  # nothing to decide for so long: nobody needs to be held back
AGE_SLOTS = 16
SAMPLE = -1  # age of the route of a new worker's own requests
OVERLOADED = error_headers("overloaded: more is waiting than can be answered in time")

# proto, format, exchange, arrived_ns, body is gzip, answer may be gzip, close the connection, age of its route
Request = tuple[Exchange, int, int, int, bool, bool, bool, int]
# exchange (-1: none), what it must show, how many renumberings there had been
Route = tuple[int, Access | None, int]


class HttpFront:
    """See the module. One front has one engine; `run` blocks the main thread until it has drained."""

    def __init__(self, engine: Decider, config: BidderConfig, metrics: Metrics) -> None:
        self.engine = engine
        self.draining = False
        self._config = config
        self._max_batch = min(config.max_batch, MAX_BATCH)
        self._pending: list[tuple[Request, bytes]] = []
        self.reading: dict[Exchange, tuple[Body, int]] = {}  # bodies on their way and since when; at most queue_limit
        self.refused: dict[Exchange, tuple[Body, int]] = {}  # the same, of requests that will not be decided
        self._newest: Exchange | None = None  # whose body completes the batch
        self._routes: dict[str, Route] = {}  # of the current snapshot
        self._names: dict[int, str] = {}  # of the exchanges that had a route
        # Renumberings of exchanges by new snapshots, old index to new (-1: gone). One follows where an exchange was
        # added or taken away, which somebody decides; so there are few.
        self._moved: list[dict[int, int]] = []
        self._lock = threading.Lock()
        self._last_ns = time.monotonic_ns()
        self._batches = 0
        self._polled_ns = 0
        self._warmth: Warmth | None = None  # until the first request
        self._age_slot = -1
        self._requests = metrics.counter("dsp_bid_requests_total")
        self._bad = metrics.counter("dsp_bad_requests_total")
        self._shed = metrics.counter("dsp_shed_total")
        self._failures = metrics.counter("dsp_engine_errors_total")
        self.shedder = Shedder(config, metrics)
        self._held: Held[Exchange] = Held(_overloaded, 2 * config.queue_limit)
        self._depth = memoryview(metrics.gauge("dsp_queue_depth"))  # type: ignore[arg-type]
        self._server = RsgiServer(self._arrive, config.http_host, config.http_port, 2 * config.queue_limit)
        self.port = self._server.port
        self._server.start()

    # --- a request's way in -------------------------------------------------------------------------------------------

    def _arrive(self, scope: Scope, proto: Exchange) -> None:
        try:
            path = scope.path
            route = self._routes.get(path)
            if route is None:
                if not path.startswith("/bid/"):
                    self._other(path, scope, proto)
                    return
                route = self._route(path)
            self._bid(route, scope, proto)
        except Exception:  # whatever it was, the server's thread must live
            log.exception("a request failed before it was decided")
            proto.response_empty(204, NO_BID_HEADERS[0])

    def _route(self, path: str) -> Route:
        """What a path leads to in the current snapshot; kept where it leads to an exchange."""
        warmth = self._warmth
        if warmth is not None and path[5:] == warmth.secret:
            return 0, None, SAMPLE
        routes = self._routes  # read first: a swap meanwhile puts an empty dict in its place
        with self._lock:  # index and age belong to the same snapshot
            exchange, age = self.engine.exchange_of(path[5:]), len(self._moved)
            if exchange < 0:
                return exchange, None, age
            self._names[exchange] = path[5:]
            header, ips = self.engine.exchange_callers(exchange)
            access = Access(self.engine.exchange_token(exchange), header, ips, self._config.client_ip_header)
            route = routes[path] = exchange, access if access.asks else None, age
        return route

    def _bid(self, route: Route, scope: Scope, proto: Exchange) -> None:
        headers = scope.headers
        get = headers.get
        length = get("content-length")
        if scope.method != "POST":
            self._turn_away(proto, length, 405, error_headers("use POST", ("allow", "POST")))
            return
        exchange, access, age = route
        if exchange < 0:
            self._count_bad(UNKNOWN_EXCHANGE, "bad", "unknown_exchange")
            self._turn_away(proto, length, 404, error_headers(f"no exchange named {scope.path[5:]}"))
            return
        if access is not None and (refusal := access.refusal(headers, scope)):
            self._count(exchange, "unauthorized")
            self._turn_away(proto, length, 401, error_headers(refusal, ("www-authenticate", "Bearer")))
            return
        fmt = format_of(get("content-type"))
        if fmt < 0:
            self._count_bad(exchange, "bad", "content_type")
            self._turn_away(proto, length, 415, error_headers("use application/json or application/x-protobuf"))
            return
        encoding = get("content-encoding")
        packed = encoding is not None and encoding.lower() in ("gzip", "x-gzip")
        if encoding is not None and not packed and encoding.lower() != "identity":
            self._count_bad(exchange, "bad", "content_encoding")
            self._turn_away(proto, length, 415, error_headers("content-encoding: gzip or none"))
            return
        waiting = len(self.reading) + len(self._pending)
        if 2 * waiting >= self.shedder.limit and self.shedder.full(exchange, waiting):
            self._shed[SHED_REASONS.index("queue" if waiting >= self._config.queue_limit else "delay")] += 1
            self._count(exchange, "shed")
            self._turn_away(proto, length, 429, OVERLOADED)
            return
        now_ns = time.monotonic_ns()
        close = self.draining
        if now_ns & 15 == 0 and self._age_slot >= 0 and not close and age >= 0:  # one request in 16 will do
            close = hash(scope.client) % AGE_SLOTS == self._age_slot
        if close and scope.http_version == "2":
            close = False
        request = (proto, fmt, exchange, now_ns, packed, accepts_gzip(get("accept-encoding")), close, age)
        if length is None or "transfer-encoding" in headers:
            _Pieces(self, request)
        elif len(length) <= 7 and int(length) <= MAX_BODY_BYTES:
            body = proto()
            self.reading[proto] = (body, now_ns)
            self._newest = proto
            body.add_done_callback(partial(self._read, request))
        else:
            _Pieces(self, request, DISCARD_BYTES)

    def _turn_away(self, proto: Exchange, length: str | None, status: int, headers: Headers) -> None:
        """Answer without the engine, after the body: left unread, it would cost the client its connection."""
        if length is None or len(length) > 7 or not 0 < int(length) <= MAX_BODY_BYTES:
            proto.response_empty(status, headers)
            return
        body = proto()
        self.refused[proto] = (body, time.monotonic_ns())
        body.add_done_callback(partial(self._turned_away, proto, status, headers))

    def _turned_away(self, proto: Exchange, status: int, headers: Headers, body: Body, context: object = None) -> None:
        self.refused.pop(proto, None)
        if headers is OVERLOADED:
            self._held.add((proto,))
        else:
            proto.response_empty(status, headers)

    def _read(self, request: Request, body: Body, context: object = None) -> None:
        """The whole body is there, or its sender is not."""
        proto = request[0]
        self.reading.pop(proto, None)
        try:
            raw = body.result()
        except (Exception, CancelledError) as error:
            self.cut(proto, error)
        else:
            self.add(request, raw)
        if proto is self._newest:
            self._newest = None
            self._flush()

    def add(self, request: Request, raw: bytes) -> None:
        """Queue a request whose body is complete; decide if there is no reason to wait."""
        if request[4]:
            try:
                raw = gunzip(raw)
            except GzipError as error:
                self._count_bad(request[2], "bad", "gzip")
                request[0].response_empty(400, error_headers(str(error)))
                return
            except GzipTooLargeError as error:
                self.too_large(request, str(error))
                return
        self._pending.append((request, raw))
        if self._newest is None or len(self._pending) >= self._max_batch:
            self._flush()

    def _count(self, exchange: int, outcome: str) -> None:
        """Count what never reaches the engine (what reaches it, the engine counts)."""
        self._requests[min(exchange, UNKNOWN_EXCHANGE), OUTCOMES.index(outcome)] += 1

    def _count_bad(self, exchange: int, outcome: str, reason: str) -> None:
        self._count(exchange, outcome)
        self._bad[BAD_REASONS.index(reason)] += 1

    def too_large(self, request: Request, text: str = f"body larger than {MAX_BODY_BYTES} bytes") -> None:
        """Refuse a request whose body is over the limit."""
        self._count_bad(request[2], "too_large", "body_too_large")
        request[0].response_empty(413, error_headers(text, CLOSE))

    def cut(self, proto: Exchange, error: BaseException) -> None:
        """Drop a request whose sender hung up, or on whom `_give_up` gave up."""
        late = isinstance(error, CancelledError)
        self._bad[BAD_REASONS.index("body_late" if late else "body_cut")] += 1
        if late:
            proto.response_empty(408, error_headers("the body took too long", CLOSE))
        else:
            proto.response_empty(400, error_headers("the body was cut short"))

    # --- deciding -----------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        with self._lock:
            self._decide()

    def _decide(self) -> None:
        pending = self._pending
        if pending:
            self.shedder.idle_until(pending[0][0][3])
        while pending:
            batch = pending[: self._max_batch]
            del pending[: len(batch)]  # the main thread may be here while the server's thread appends
            requests, bodies = zip(*batch, strict=True)
            _, formats, exchanges, arrived_ns, *_, ages = zip(*requests, strict=True)
            if min(ages) < len(self._moved):
                pending[:0] = self._readdressed(batch)
                continue
            self._batches += 1
            self._last_ns = time.monotonic_ns()
            self._depth[0] = len(pending) + len(self.reading)
            try:
                answers = self.engine.decide(bodies, formats, exchanges, arrived_ns)
            except Exception:  # the bidder fails towards no-bid
                log.exception("the engine failed on a batch", requests=len(batch))
                self._failures[0] += 1
                answers = [(NO_BID, b"")] * len(batch)
            self._respond(requests, answers)
            self.shedder.decided(len(batch), more=True)
            if self._held:
                self._held.decided(len(batch))

    def _respond(self, requests: Sequence[Request], answers: Sequence[Answer]) -> None:
        for (proto, fmt, _, _, _, may_pack, close, _), (kind, payload) in zip(requests, answers, strict=False):
            if kind == BID:
                index = fmt + CLOSING if close else fmt
                if may_pack and (small := gzip_answer(payload)) is not None:
                    payload = small  # noqa: PLW2901
                    index += GZIPPED
                proto.response_bytes(200, BID_HEADERS[index], payload)
            elif kind == NO_BID and payload:  # an exchange that wants a response in any case
                proto.response_bytes(200, BID_HEADERS[fmt + CLOSING if close else fmt], payload)
            elif kind == NO_BID:
                proto.response_empty(204, NO_BID_HEADERS[close])
            else:
                status = 400 if kind == BAD else 413 if kind == TOO_LARGE else 429
                more = (CLOSE,) if close else ()
                proto.response_empty(status, error_headers(payload.decode("utf-8", "replace"), *more))

    def _rehearse(self, batch: list[tuple[Request, bytes]]) -> None:
        """Answer a new worker's own requests: the same work as in `_decide`, without a trace."""
        requests, bodies = zip(*batch, strict=True)
        _, formats, exchanges, arrived_ns, *_ = zip(*requests, strict=True)
        self._respond(requests, self.engine.decide(bodies, formats, exchanges, arrived_ns))

    def _readdressed(self, batch: list[tuple[Request, bytes]]) -> list[tuple[Request, bytes]]:
        """``batch`` by the indices of the current snapshot; whose exchange is gone is told so, samples are answered."""
        kept = []
        samples = [each for each in batch if each[0][7] == SAMPLE]
        if samples and self._warmth is not None:
            self._warmth.rehearse(partial(self._rehearse, samples))
        for request, raw in batch:
            exchange = request[2]
            if request[7] == SAMPLE:
                continue
            for moved in self._moved[request[7] :]:
                exchange = moved.get(exchange, exchange)
            if exchange < 0:
                self._count_bad(UNKNOWN_EXCHANGE, "bad", "unknown_exchange")
                request[0].response_empty(404, error_headers("this exchange has just been taken away"))
            else:
                kept.append(((*request[:2], exchange, *request[3:7], len(self._moved)), raw))
        return kept

    def _renumber(self) -> None:
        """After a poll: note which exchanges have another index now. Under the lock."""
        now = {index: self.engine.exchange_of(name) for index, name in self._names.items()}
        if any(index != new for index, new in now.items()):
            self._moved.append(now)
            self._names = {new: self._names[index] for index, new in now.items() if new >= 0}
        self._routes = {}

    def _other(self, path: str, scope: Scope, proto: Exchange) -> None:
        more = (CLOSE,) if self.draining and scope.http_version != "2" else ()
        if path not in ("/healthz", "/readyz"):
            proto.response_empty(404, error_headers("no such path: POST /bid/{exchange}, GET /healthz, GET /readyz"))
        elif scope.method not in ("GET", "HEAD"):
            proto.response_empty(405, error_headers("use GET", ("allow", "GET")))
        elif path == "/readyz" and self.draining:
            proto.response_str(503, [("content-type", "text/plain"), *more], "draining\n")
        else:
            proto.response_str(200, [("content-type", "text/plain"), *more], "ok\n")

    # --- the main thread ----------------------------------------------------------------------------------------------

    def run(
        self, stopping: Callable[[], bool], idle: Callable[[], None] = lambda: None, *, fresh: bool = False
    ) -> None:
        """Serve until ``stopping()``, then drain: unready, until quiet; then close; both within ``drain_s``.

        ``idle`` is called every tick. ``fresh``: keep warm until the first request.
        """
        if fresh:
            self._warmth = Warmth(self.engine, FMT_JSON, self._config.http_host, self.port)
        while not stopping():
            self._tick()
            idle()
        self.draining = True
        begun_ns = time.monotonic_ns()
        drain_ns = int(self._config.drain_s * 1e9)
        while time.monotonic_ns() - begun_ns < drain_ns // 2:
            if time.monotonic_ns() - max(self._last_ns, begun_ns) > QUIET_NS and not self.reading:
                break
            self._tick()
        self._server.stop()
        while time.monotonic_ns() - begun_ns < drain_ns:
            if self._server.wait_stopped(TICK_S):
                break
            self._tick()

    def _keep_warm(self, warmth: Warmth) -> None:
        if self._batches or self.reading or self._pending or self.draining or warmth.over():
            warmth.close()
            self._warmth = None
        else:
            warmth.send()
            warmth.receive()

    def _tick(self) -> None:
        batches = self._batches
        if self._warmth is None:
            time.sleep(TICK_S)
        else:
            time.sleep(PAUSE_S)
            self._keep_warm(self._warmth)
        now_ns = time.monotonic_ns()
        if self._pending and self._batches == batches:
            self._flush()
        if self._held and now_ns - self._last_ns > HELD_NS:
            self._held.let_go()
        if now_ns - self._polled_ns > self._config.snapshot_poll_s * 1e9:
            self._give_up(now_ns)
            if self._lock.acquire(timeout=0.1):  # else a long batch: at the next tick
                self._polled_ns = now_ns
                try:
                    self._decide()  # what is queued was addressed to the old snapshot
                    poll(self.engine)
                    self._renumber()
                    self.shedder.update()
                finally:
                    self._lock.release()
        age_s = self._config.connection_max_age_s
        # In each sixteenth of the age another sixteenth of the connections is asked to come anew: no list of them.
        self._age_slot = int(now_ns / 1e9 / age_s * AGE_SLOTS) % AGE_SLOTS if age_s > 0 else -1

    def _give_up(self, now_ns: int) -> None:
        """Stop waiting for bodies that take too long: whoever holds them back holds a place in the queue."""
        for body, since_ns in [*self.reading.values(), *self.refused.values()]:
            if now_ns - since_ns > BODY_TIMEOUT_NS:
                body.cancel()  # calls what waits for it


def _overloaded(proto: Exchange) -> bool:
    proto.response_empty(429, OVERLOADED)
    return True


class _Pieces:
    """Reads a body of unstated length piece by piece, so that it can be stopped; or discards one that is too large."""

    def __init__(self, front: HttpFront, request: Request, discard_bytes: int = 0) -> None:
        self._front = front
        self._request = request
        self._pieces: list[bytes] = []
        self._left = discard_bytes or MAX_BODY_BYTES
        self._discarding = discard_bytes > 0
        if self._discarding:
            front.too_large(request)
        self._stream = request[0].__aiter__()
        self._next()

    def _next(self) -> None:
        body = self._stream.__anext__()
        self._front.reading[self._request[0]] = (body, self._request[3])
        body.add_done_callback(self._piece)

    def _piece(self, body: Body, context: object = None) -> None:
        proto = self._request[0]
        self._front.reading.pop(proto, None)
        try:
            piece = body.result()
        except (Exception, CancelledError) as error:
            self._front.cut(proto, error)
            return
        self._left -= len(piece)
        if not piece:
            if not self._discarding:
                self._front.add(self._request, b"".join(self._pieces))
        elif self._left >= 0:
            if not self._discarding:
                self._pieces.append(piece)
            self._next()
        elif not self._discarding:
            self._discarding = True
            self._pieces.clear()
            self._left = DISCARD_BYTES
            self._front.too_large(self._request)
            self._next()
