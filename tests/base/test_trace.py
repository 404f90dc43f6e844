"""Traces: a span per sampled batch with its stages, over OTLP to a real receiver, and nothing where it is off."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from dsp.base.config import TracesConfig
from dsp.base.metrics import STAGES
from dsp.base.trace import WAITING, Tracer, open_tracer

MARKS = tuple(range(1_000, 1_000 + 100 * len(STAGES), 100))


def test_a_batch_is_a_span_with_its_stages_below_it() -> None:
    kept = InMemorySpanExporter()
    tracer = Tracer(SimpleSpanProcessor(kept), "bidder", "http0", sample=1.0)
    tracer.offer(64, 500, 48, MARKS)
    tracer.close()
    spans = {span.name: span for span in kept.get_finished_spans()}
    assert set(spans) == {"decide", *STAGES[:-1]}
    batch = spans["decide"]
    assert batch.attributes == {"dsp.requests": 64, "dsp.candidates": 500, "dsp.bids": 48}
    assert batch.resource.attributes["service.name"] == "dsp-bidder"
    assert batch.start_time is not None
    assert batch.end_time is not None
    assert batch.end_time - batch.start_time == MARKS[-1] - MARKS[0]
    for i, stage in enumerate(STAGES[:-1]):
        span = spans[stage]
        assert span.parent is not None
        assert span.parent.span_id == batch.context.span_id
        assert span.start_time is not None
        assert span.start_time - batch.start_time == 100 * i


def test_one_batch_in_so_many_is_taken_and_a_flood_is_bounded() -> None:
    kept = InMemorySpanExporter()
    tracer = Tracer(SimpleSpanProcessor(kept), "bidder", "http0", sample=0.01, draw=lambda: 0.5)
    for _ in range(1_000):
        tracer.offer(1, 0, 0, MARKS)
    tracer.flush()
    assert sum(span.name == "decide" for span in kept.get_finished_spans()) == 10
    tracer.close()
    assert tracer._waiting.maxlen == WAITING


def test_spans_reach_a_collector_over_otlp() -> None:
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        endpoint = f"http://127.0.0.1:{server.server_port}/v1/traces"
        tracer = open_tracer(TracesConfig(endpoint=endpoint, sample=1.0), "bidder", "grpc1")
        assert tracer is not None
        tracer.offer(8, 20, 4, MARKS)
        tracer.close()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    (body,) = bodies
    (resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
    assert {span.name for scope in resource.scope_spans for span in scope.spans} == {"decide", *STAGES[:-1]}


def test_there_is_no_tracer_unless_one_is_asked_for() -> None:
    assert open_tracer(TracesConfig(), "bidder", "http0") is None
    assert open_tracer(TracesConfig(endpoint="http://127.0.0.1:1", sample=0.0), "bidder", "http0") is None
