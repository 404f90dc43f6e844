"""The ARTF front: ``RTBExtensionPoint/GetMutations`` over the native gRPC server, health checking beside it.

One thread takes what has arrived, decides it, answers. A call's time runs from its arrival, which a busy front does not
see: whatever was waiting when it looked is taken to have come right after it had looked before. So no answer is later
than ``tmax`` says, and under load a few get no mutations that would just have made it. More than can be decided in
half that time do not wait: the newest get an answer without mutations at once, with status OK, as a host's breaker
opens on any other.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from hmac import compare_digest
from typing import Protocol

from pygrpc_native import EVENT_CALL

from dsp.base.config import Config
from dsp.base.logs import logger
from dsp.base.metrics import ARTF_OUTCOMES, Metrics
from dsp.ingress.native import DEADLINE_EXCEEDED, INVALID_ARGUMENT, NO_TOKEN, UNAUTHENTICATED, NativeServer
from dsp.openrtb.limits import MAX_BODY_BYTES
from dsp.pb.com.iabtechlab.bidstream.mutation.services.v1 import service_pb2

log = logger(__name__)

SERVICE = "com.iabtechlab.bidstream.mutation.services.v1.RTBExtensionPoint"
GET_MUTATIONS = f"/{SERVICE}/GetMutations"
assert service_pb2.DESCRIPTOR.services_by_name["RTBExtensionPoint"].full_name == SERVICE

WAIT_MS = 20
MAX_RECEIVED = 1024
COST_MEMORY = 0.05  # weight of the newest batch
AT_ONCE_NS = 50_000  # a wait shorter than this found calls waiting
PROPOSED, NOTHING, BAD, SHED, LATE, FAILED = range(len(ARTF_OUTCOMES))

Call = tuple[int, bytes, int, int]  # id, body, arrived_ns, left_ns


class ArtfDecider(Protocol):
    """One thread's engine; `dsp.bidder.artf.ArtfEngine` is one."""

    def decide(
        self, bodies: list[bytes], arrived_ns: list[int], left_ns: list[int], send: Callable[[int, int, bytes], None]
    ) -> None:
        """Answer each request once: (position, slot of ARTF_OUTCOMES, payload or the text of a refusal)."""

    def decline(self, bodies: list[bytes], send: Callable[[int, int, bytes], None]) -> None:
        """Answer each without mutations, at once, because there are too many."""

    def poll(self) -> None:
        """Swap in a new snapshot or model."""


class ArtfFront:
    """See the module. One front has one engine; `run` blocks its thread until it has drained."""

    def __init__(self, engine: ArtfDecider, config: Config, metrics: Metrics) -> None:
        self.engine = engine
        self._settings = settings = config.artf
        self._poll_ns = int(config.bidder.snapshot_poll_s * 1e9)
        self._key = f"Bearer {settings.token}".encode() if settings.token else b""
        self._waiting: list[Call] = []
        self._most = self._room = settings.queue_limit  # may wait
        self._cost_ns = 50_000.0  # of a request, lately
        self._wait_ns = (settings.tmax_ms - settings.allowance_ms) * 1e6 / 2  # so that it can still be decided
        self._counted = metrics.counter("dsp_artf_requests_total")
        self._last_ns = self._looked_ns = time.monotonic_ns()
        self._native = NativeServer(
            SERVICE, GET_MUTATIONS, f"{settings.host}:{settings.port}",
            streams=settings.streams, drain_s=config.bidder.drain_s, call_details=True,
        )  # fmt: skip
        self._front = self._native.server
        self.port = self._native.port

    def run(self, stopping: Callable[[], bool], idle: Callable[[], None] = lambda: None) -> None:
        """Serve until ``stopping()``, then until quiet or for ``drain_s``. ``idle`` is called between batches."""
        polled_ns = time.monotonic_ns()
        while True:
            self._receive()
            if len(self._waiting) > self._room:
                surplus = self._waiting[self._room :]
                del self._waiting[self._room :]
                self._answer(surplus, self.engine.decline)
            if self._waiting:
                self._decide()
            now_ns = time.monotonic_ns()
            if now_ns - polled_ns > self._poll_ns:
                polled_ns = now_ns
                try:
                    self.engine.poll()
                except Exception:
                    log.exception("could not load a new snapshot or model; going on with the old one")
                idle()
            if self._native.over(stopping, now_ns, self._last_ns, waiting=bool(self._waiting)):
                break
        self._native.close()

    def _receive(self) -> None:
        os.sched_yield()  # to the front's own thread: answers leave, and calls are read, before the next batch
        asked_ns = time.monotonic_ns()
        events = self._front.recv_batch_details(MAX_RECEIVED, 0 if self._waiting else WAIT_MS)
        now_ns = time.monotonic_ns()
        arrived_ns = now_ns if now_ns - asked_ns > AT_ONCE_NS else self._looked_ns
        self._looked_ns = now_ns
        if not events:
            return
        self._last_ns = now_ns
        for kind, call, method, body, key, details in events:
            if kind != EVENT_CALL or body is None:
                continue  # given up: answering it does no harm
            if method != 0:
                self._native.health(call, body)
            elif self._key and not (isinstance(key, bytes) and compare_digest(key, self._key)):
                self._front.fail(call, UNAUTHENTICATED, NO_TOKEN)
            elif len(body) > MAX_BODY_BYTES:
                self._counted[BAD] += 1
                self._front.fail(call, INVALID_ARGUMENT, f"message larger than {MAX_BODY_BYTES} bytes")
            else:
                left_s = details[2] if details is not None else None
                self._waiting.append((call, body, arrived_ns, int(left_s * 1e9) if left_s else 0))

    def _decide(self) -> None:
        batch = self._waiting[: self._settings.max_batch]
        del self._waiting[: self._settings.max_batch]
        arrived_ns, left_ns = [call[2] for call in batch], [call[3] for call in batch]
        begun_ns = time.monotonic_ns()
        self._answer(batch, lambda bodies, send: self.engine.decide(bodies, arrived_ns, left_ns, send))
        if self._waiting:  # only where others wait is it known what one costs
            self._cost_ns += ((time.monotonic_ns() - begun_ns) / len(batch) - self._cost_ns) * COST_MEMORY
            self._room = max(self._settings.max_batch, min(self._most, int(self._wait_ns / self._cost_ns)))

    def _answer(
        self, batch: list[Call], decide: Callable[[list[bytes], Callable[[int, int, bytes], None]], None]
    ) -> None:
        """Have the batch's calls answered by ``decide``."""
        open_calls = {i: call[0] for i, call in enumerate(batch)}

        def send(i: int, outcome: int, payload: bytes) -> None:
            call = open_calls.pop(i)
            if outcome == BAD:
                self._front.fail(call, INVALID_ARGUMENT, payload.decode("utf-8", "replace"))
            elif outcome == LATE:
                self._front.fail(call, DEADLINE_EXCEEDED, "tmax is over")
            else:
                self._front.respond(call, payload)

        try:
            decide([call[1] for call in batch], send)
        except Exception:  # an agent that fails proposes nothing
            log.exception("the ARTF engine failed on a batch", requests=len(batch))
            self._counted[FAILED] += len(open_calls)
            for call in open_calls.values():
                self._front.respond(call, b"")
