"""The gRPC front on grpcio's own server: the reference the native front is tested against (bidder.grpc_front: grpcio).

Handlers run in a thread pool; each leaves its call with the one engine thread and waits. The engine thread takes
whatever is there, as every front does. Long-lived connections are ended after ``connection_max_age_s``. When draining,
grpcio itself loses a call that races with its ``stop()``: that call ends as CANCELLED instead of UNAVAILABLE.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc

from dsp.base.config import BidderConfig
from dsp.base.logs import logger
from dsp.base.metrics import OUTCOMES, SHED_REASONS, UNKNOWN_EXCHANGE, Metrics
from dsp.bidder.answer import BAD, BID, NO_BID, SHED, TOO_LARGE, Answer
from dsp.ingress.decider import Decider, poll
from dsp.ingress.grpc_side import BID as BID_METHOD
from dsp.ingress.grpc_side import SideServices
from dsp.openrtb.columns import FMT_PROTOBUF
from dsp.openrtb.limits import MAX_BATCH, MAX_BODY_BYTES

log = logger(__name__)

THREADS = 64  # handlers that can wait for the engine: the largest batch that can form
WAIT_S = 0.02
QUIET_NS = 500_000_000
CODES = {
    BAD: grpc.StatusCode.INVALID_ARGUMENT,
    TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    SHED: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
NO_TOKEN = "unknown or missing token: send metadata authorization: Bearer <token>"

Call = tuple[bytes, str, int, "queue.SimpleQueue[Answer]"]  # body, authorization, arrived_ns, where the answer goes


class GrpcioFront:
    """See the module. One front has one engine; `run` blocks its thread until it has drained."""

    def __init__(self, engine: Decider, config: BidderConfig, metrics: Metrics) -> None:
        self.engine = engine
        self.draining = False
        self._config = config
        self._max_batch = min(config.max_batch, MAX_BATCH)
        self._calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self._last_ns = time.monotonic_ns()
        self._requests = metrics.counter("dsp_bid_requests_total")
        self._shed = metrics.counter("dsp_shed_total")
        self._failures = metrics.counter("dsp_engine_errors_total")
        self._depth = metrics.gauge("dsp_queue_depth")
        options: list[tuple[str, Any]] = [
            ("grpc.so_reuseport", 1),
            ("grpc.max_receive_message_length", MAX_BODY_BYTES),
        ]
        if config.connection_max_age_s > 0:
            options.append(("grpc.max_connection_age_ms", int(config.connection_max_age_s * 1000)))
            options.append(("grpc.max_connection_age_grace_ms", int(config.drain_s * 1000)))
        self._pool = futures.ThreadPoolExecutor(THREADS)
        # Beyond the limit grpcio itself answers RESOURCE_EXHAUSTED.
        self._server = grpc.server(self._pool, options=options, maximum_concurrent_rpcs=config.queue_limit)
        self._server.add_generic_rpc_handlers((_BidHandler(self._bid),))
        self._side = SideServices(self._server)
        self.port: int = self._server.add_insecure_port(f"{config.grpc_host}:{config.grpc_port}")
        self._server.start()

    def _bid(self, body: bytes, context: grpc.ServicerContext) -> bytes:
        now_ns = time.monotonic_ns()
        key = dict(context.invocation_metadata()).get("authorization")
        exchange = self.engine.exchange_of_token(key) if key else -1
        if exchange < 0:
            self._requests[UNKNOWN_EXCHANGE, OUTCOMES.index("unauthorized")] += 1
            context.abort(grpc.StatusCode.UNAUTHENTICATED, NO_TOKEN)
        if self._calls.qsize() >= self._config.queue_limit:
            self._shed[SHED_REASONS.index("queue")] += 1
            self._requests[min(exchange, UNKNOWN_EXCHANGE), OUTCOMES.index("shed")] += 1
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "more calls wait than this worker's queue_limit")
        reply: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._calls.put((body, str(key), now_ns, reply))
        kind, payload = reply.get()
        if kind not in (BID, NO_BID):
            context.abort(CODES[kind], payload.decode("utf-8", "replace"))
        return payload

    def run(self, stopping: Callable[[], bool], idle: Callable[[], None] = lambda: None) -> None:
        """Serve until ``stopping()``, then until quiet; GOAWAY; both within ``drain_s``."""
        polled_ns, poll_ns = time.monotonic_ns(), int(self._config.snapshot_poll_s * 1e9)
        while not stopping():
            self._step()
            now_ns = time.monotonic_ns()
            if now_ns - polled_ns > poll_ns:
                polled_ns = now_ns
                poll(self.engine)
                idle()
        self.draining = True
        self._side.drain()
        begun_ns = time.monotonic_ns()
        drain_ns = int(self._config.drain_s * 1e9)
        while (now_ns := time.monotonic_ns()) - begun_ns < drain_ns // 2:
            if now_ns - max(self._last_ns, begun_ns) > QUIET_NS:
                break
            self._step()
        left_s = max(0.0, (drain_ns - (time.monotonic_ns() - begun_ns)) / 1e9)
        stopped = self._server.stop(left_s)  # GOAWAY; calls begun may end
        while not stopped.is_set():
            self._step()
        self._pool.shutdown()

    def _step(self) -> None:
        try:
            batch = [self._calls.get(timeout=WAIT_S)]
        except queue.Empty:
            return
        while len(batch) < self._max_batch:
            try:
                batch.append(self._calls.get_nowait())
            except queue.Empty:
                break
        self._last_ns = time.monotonic_ns()
        self._depth[0] = self._calls.qsize()
        exchanges = [self.engine.exchange_of_token(call[1]) for call in batch]  # of the snapshot that decides
        for call, exchange in zip(batch, exchanges, strict=True):
            if exchange < 0:
                call[3].put((NO_BID, b""))  # it has just been taken away
        if min(exchanges) < 0:
            batch = [call for call, exchange in zip(batch, exchanges, strict=True) if exchange >= 0]
            exchanges = [exchange for exchange in exchanges if exchange >= 0]
        if not batch:
            return
        try:
            answers = self.engine.decide(
                [call[0] for call in batch],
                [FMT_PROTOBUF] * len(batch),
                exchanges,
                [call[2] for call in batch],
                True,
            )
        except Exception:  # the bidder fails towards no-bid; an empty BidResponse is one
            log.exception("the engine failed on a batch", requests=len(batch))
            self._failures[0] += 1
            answers = [(NO_BID, b"")] * len(batch)
        for call, answer in zip(batch, answers, strict=False):
            call[3].put(answer)


class _BidHandler(grpc.GenericRpcHandler):
    """Serves `BID_METHOD` with bytes in and out."""

    def __init__(self, bid: Callable[[bytes, grpc.ServicerContext], bytes]) -> None:
        self._handler = grpc.unary_unary_rpc_method_handler(bid)

    def service(self, details: Any) -> Any:
        """The handler of a method, None where it is another service's."""
        return self._handler if details.method == BID_METHOD else None
