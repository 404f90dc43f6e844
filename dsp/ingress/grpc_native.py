"""The gRPC front of production: HTTP/2 and gRPC in Rust (pygrpc-native), calls reach us as a list of events.

One thread takes what has arrived, decides it, answers. The exchange of a call is its ``authorization`` metadata. How it
is opened and drained: `dsp.ingress.native`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from socket import MSG_DONTWAIT

import numpy as np
from pygrpc_native import EVENT_CALL

from dsp.base.config import BidderConfig
from dsp.base.logs import logger
from dsp.base.metrics import OUTCOMES, SHED_REASONS, UNKNOWN_EXCHANGE, Metrics
from dsp.bidder.answer import BAD, NO_BID, Answer
from dsp.ingress.decider import Decider, poll
from dsp.ingress.grpc_side import BID as BID_METHOD
from dsp.ingress.grpc_side import SERVICE
from dsp.ingress.held import Held
from dsp.ingress.native import INVALID_ARGUMENT, NO_TOKEN, RESOURCE_EXHAUSTED, UNAUTHENTICATED, NativeServer
from dsp.ingress.rehearsal import Warmth
from dsp.ingress.shedder import Shedder
from dsp.openrtb.columns import FMT_PROTOBUF
from dsp.openrtb.limits import MAX_BATCH, MAX_BODY_BYTES

log = logger(__name__)

WAIT_MS = 20  # for calls, before looking at the clock again
PAUSE_MS = 1  # between a new worker's own requests; a wait for calls can't be shorter
HELD_NS = 50_000_000  # nothing came for so long: nobody needs to be held back

OVERLOADED = "overloaded: more is waiting than can be answered in time"
MAX_KNOWN = 1024  # ways of writing the tokens of all exchanges

Call = tuple[int, bytes, int, int]  # id, body, exchange, arrived_ns


class GrpcNativeFront:
    """See the module. One front has one engine; `run` blocks its thread until it has drained."""

    def __init__(self, engine: Decider, config: BidderConfig, metrics: Metrics) -> None:
        self.engine = engine
        self._config = config
        self._max_batch = min(config.max_batch, MAX_BATCH)
        self._waiting: list[Call] = []  # at most queue_limit
        self._formats = np.full(MAX_BATCH, FMT_PROTOBUF, np.int64)
        self._exchanges: dict[bytes | str | None, int] = {}  # by authorization, of the current snapshot
        self._last_ns = time.monotonic_ns()
        self._warmth: Warmth | None = None  # until the first request
        self._samples: list[Call] = []  # its own requests that have arrived
        self._requests = metrics.counter("dsp_bid_requests_total")
        self._shed = metrics.counter("dsp_shed_total")
        self._failures = metrics.counter("dsp_engine_errors_total")
        self._shedder = Shedder(config, metrics)
        self._held: Held[Call] = Held(self._refuse, 4 * config.queue_limit)
        self._depth = memoryview(metrics.gauge("dsp_queue_depth"))  # type: ignore[arg-type]
        self._native = NativeServer(
            SERVICE, BID_METHOD, f"{config.grpc_host}:{config.grpc_port}",
            streams=config.grpc_streams, drain_s=config.drain_s,
        )  # fmt: skip
        self._front = self._native.server
        self.port = self._native.port

    def run(
        self, stopping: Callable[[], bool], idle: Callable[[], None] = lambda: None, *, fresh: bool = False
    ) -> None:
        """Serve until ``stopping()``, then until quiet or for ``drain_s``. ``idle`` is called between batches.

        ``fresh``: keep warm until the first request.
        """
        polled_ns, poll_ns = time.monotonic_ns(), int(self._config.snapshot_poll_s * 1e9)
        if fresh:
            self._warmth = Warmth(self.engine, FMT_PROTOBUF, self._config.grpc_host, self.port)
        while True:
            self._receive(WAIT_MS if self._warmth is None else PAUSE_MS)
            if self._warmth is not None:
                self._keep_warm(self._warmth)
            if len(self._waiting) > self._shedder.limit:
                self._shed_excess()
            if self._waiting:
                self._decide()
            elif self._held and time.monotonic_ns() - self._last_ns > HELD_NS:
                self._held.let_go()
            now_ns = time.monotonic_ns()
            if now_ns - polled_ns > poll_ns:
                polled_ns = now_ns
                while self._waiting:  # addressed to the snapshot there is: its indices may be others' in the next
                    self._decide()
                poll(self.engine)
                self._shedder.update()
                self._exchanges.clear()
                idle()
            if self._native.over(stopping, now_ns, self._last_ns, waiting=bool(self._waiting)):
                break
        self._native.close()

    def _keep_warm(self, warmth: Warmth) -> None:
        """Answer the sample that has arrived; or, `PAUSE_MS` later, send the next one."""
        if self._samples:
            warmth.rehearse(lambda: self._respond(self._samples, self._ask(self._samples)))
            self._samples = []
        elif self._waiting or self._native.draining or warmth.over():
            warmth.close()
            self._warmth = None
        else:
            warmth.receive(MSG_DONTWAIT)
            warmth.send()

    def _receive(self, wait_ms: int) -> None:
        """Take every call there is: all get their time of arrival, and what exceeds the queue is shed.

        Waits for the first one up to ``wait_ms``, unless some are waiting already.
        """
        limit = self._config.queue_limit
        events = self._front.recv_batch(limit, 0 if self._waiting else wait_ms)
        if not events:
            return
        now_ns = time.monotonic_ns()
        self._last_ns = now_ns
        waiting, known = self._waiting, self._exchanges
        room = limit - len(waiting)
        for kind, call, method, body, key in events:
            if kind != EVENT_CALL:
                continue  # cancelled: answering it does no harm
            exchange = known.get(key, -1)
            if method == 0 and exchange >= 0 and room > 0 and len(body) <= MAX_BODY_BYTES:  # type: ignore[arg-type]
                waiting.append((call, body, exchange, now_ns))  # type: ignore[arg-type]
                room -= 1
            elif self._unusual(call, method, body or b"", key, now_ns, room):
                room -= 1

    def _unusual(self, call: int, method: int, body: bytes, key: bytes | str | None, now_ns: int, room: int) -> bool:
        """A call that is not simply one more bid request of a known exchange; whether it waits for the engine now."""
        if method != 0:
            self._native.health(call, body)
            return False
        exchange = self.engine.exchange_of_token(key) if key else -1
        if self._warmth is not None and key == self._warmth.key:
            self._samples.append((call, body, 0, now_ns))
            return False
        if exchange < 0:
            self._front.fail(call, UNAUTHENTICATED, NO_TOKEN)
            self._requests[UNKNOWN_EXCHANGE, OUTCOMES.index("unauthorized")] += 1
            return False
        if len(body) > MAX_BODY_BYTES:
            self._front.fail(call, RESOURCE_EXHAUSTED, f"message larger than {MAX_BODY_BYTES} bytes")
            self._requests[min(exchange, UNKNOWN_EXCHANGE), OUTCOMES.index("too_large")] += 1
            return False
        if room <= 0:
            self._front.fail(call, RESOURCE_EXHAUSTED, "more calls are waiting than this worker's queue_limit")
            self._shed[SHED_REASONS.index("queue")] += 1
            self._requests[min(exchange, UNKNOWN_EXCHANGE), OUTCOMES.index("shed")] += 1
            return False
        if len(self._exchanges) < MAX_KNOWN:
            self._exchanges[key] = exchange
        self._waiting.append((call, body, exchange, now_ns))
        return True

    def _shed_excess(self) -> None:
        """Refuse what would wait too long, before anything is spent on it."""
        excess = self._shedder.cut(self._waiting)
        for _, _, exchange, _ in excess:
            self._requests[min(exchange, UNKNOWN_EXCHANGE), OUTCOMES.index("shed")] += 1
        self._shed[SHED_REASONS.index("delay")] += len(excess)
        self._held.add(excess)

    def _refuse(self, call: Call) -> bool:
        return bool(self._front.fail(call[0], RESOURCE_EXHAUSTED, OVERLOADED))

    def _decide(self) -> None:
        batch = self._waiting[: self._max_batch]
        del self._waiting[: self._max_batch]
        self._depth[0] = len(self._waiting)
        try:
            answers = self._ask(batch)
        except Exception:  # the bidder fails towards no-bid; an empty BidResponse is one
            log.exception("the engine failed on a batch", requests=len(batch))
            self._failures[0] += 1
            answers = [(NO_BID, b"")] * len(batch)
        self._shedder.decided(len(batch), more=bool(self._waiting))
        if self._held:
            self._held.decided(len(batch))
        self._respond(batch, answers)

    def _ask(self, batch: list[Call]) -> list[Answer]:
        _, bodies, exchanges, arrived_ns = zip(*batch, strict=True)
        return self.engine.decide(bodies, self._formats[: len(batch)], exchanges, arrived_ns, True)

    def _respond(self, batch: list[Call], answers: list[Answer]) -> None:
        respond = self._front.respond
        for (call, *_), (kind, payload) in zip(batch, answers, strict=False):
            if kind <= NO_BID:
                respond(call, payload)
            else:
                code = INVALID_ARGUMENT if kind == BAD else RESOURCE_EXHAUSTED
                self._front.fail(call, code, payload.decode("utf-8", "replace"))
