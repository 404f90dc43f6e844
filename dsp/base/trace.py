"""OpenTelemetry traces of sampled batches: one span per batch, one below it per stage, exported from a side thread.

The hot path does one comparison per batch, and for one batch in many an append to a bounded queue. What that has no
room for is left out: tracing never waits. Spans say how many and how long, never who: no id, address or URL is in them.
Needs the packages of ``pip install dsp[traces]``, which are imported only when ``traces.endpoint`` is set.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from dsp.base.config import TracesConfig
from dsp.base.logs import logger
from dsp.base.metrics import STAGES

log = logger(__name__)

WAITING = 256  # batches
DRAIN_S = 0.5
CLOSE_MS = 2_000
Marks = tuple[int, ...]


class Tracer:
    """Takes batches with `offer` from one thread; a thread of its own makes spans of them for ``processor``."""

    def __init__(
        self, processor: Any, role: str, worker: str, sample: float, draw: Callable[[], float] = random.random
    ) -> None:
        """``processor`` is an OpenTelemetry ``SpanProcessor``; ``sample`` the share of batches, 0 < sample ≤ 1."""
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider

        resource = Resource.create({"service.name": f"dsp-{role}", "service.instance.id": worker})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("dsp")
        self._every = 1.0 / sample
        self._left = draw() * self._every  # workers don't sample in step
        self._waiting: deque[tuple[int, int, int, Marks]] = deque(maxlen=WAITING)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._thread.start()

    def offer(self, requests: int, candidates: int, bids: int, marks: Marks) -> None:
        """A batch that is done; ``marks[i]`` to ``marks[i + 1]`` (`time.perf_counter_ns`) is stage i. Never blocks."""
        self._left -= 1.0
        if self._left < 0.0:
            self._left += self._every
            self._waiting.append((requests, candidates, bids, marks))

    def flush(self) -> None:
        """Make spans of what waits and export them."""
        self._drain()
        self._provider.force_flush(CLOSE_MS)

    def close(self) -> None:
        """Export what waits and end; a collector that is away is waited for two seconds at most."""
        self._stop.set()
        self._thread.join()
        self.flush()
        self._provider.shutdown()

    def _run(self) -> None:
        while not self._stop.wait(DRAIN_S):
            try:
                self._drain()
            except Exception:
                log.exception("a batch could not be traced")

    def _drain(self) -> None:
        from opentelemetry.trace import set_span_in_context

        unix_ns = time.time_ns() - time.perf_counter_ns()
        while self._waiting:
            requests, candidates, bids, marks = self._waiting.popleft()
            counted = {"dsp.requests": requests, "dsp.candidates": candidates, "dsp.bids": bids}
            batch = self._tracer.start_span("decide", start_time=unix_ns + marks[0], attributes=counted)
            inside = set_span_in_context(batch)
            for stage, begun, ended in zip(STAGES, marks, marks[1:], strict=False):
                span = self._tracer.start_span(stage, inside, start_time=unix_ns + begun)
                span.end(unix_ns + ended)
            batch.end(unix_ns + marks[-1])


def open_tracer(config: TracesConfig, role: str, worker: str) -> Tracer | None:
    """A tracer as the settings ask for it; None where there is to be none, or its packages are missing."""
    if not config.endpoint or config.sample <= 0.0:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        log.error("no traces: install dsp[traces]", error=str(error))
        return None
    processor = BatchSpanProcessor(OTLPSpanExporter(endpoint=config.endpoint, timeout=5))
    return Tracer(processor, role, worker, min(config.sample, 1.0))
