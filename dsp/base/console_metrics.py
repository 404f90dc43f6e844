"""The console's metrics: one process, some requests a second, so prometheus_client's own objects and its own server.

Every label has a bounded set of values: routes are the templates of the route table (`UNKNOWN` for what is none),
methods are `METHODS`, statuses their class. They are served on a port of their own, which the edge does not route.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, start_http_server
from prometheus_client.metrics import MetricWrapperBase

UNKNOWN = "none"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.5, 5.0, 10.0)
SIGN_INS = (
    *(("password", "in"), ("password", "refused"), ("password", "limited")),
    *(("link", "in"), ("link", "refused"), ("key", "refused")),
)
JOBS = ("done", "failed")


class ConsoleMetrics:
    """What one console process counts. ``clock`` is monotonic."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._registry = clock, CollectorRegistry(auto_describe=False)
        self._all: list[MetricWrapperBase] = []
        self._requests = self._made(
            Counter, "dsp_console_requests", "Requests by route template and class of status.",
            ("method", "route", "status"),
        )  # fmt: skip
        self._seconds = self._made(
            Histogram, "dsp_console_request_seconds", "Time from a request's arrival to the end of its answer.",
            ("method", "route"), buckets=SECONDS,
        )  # fmt: skip
        self._open = self._made(Gauge, "dsp_console_requests_open", "Requests being answered.")
        self._sign_ins = self._made(
            Counter, "dsp_console_sign_ins", "Tries to come in, by password, link or API key; keys: wrong ones alone.",
            ("by", "outcome"),
        )  # fmt: skip
        self._jobs = self._made(Counter, "dsp_console_report_jobs", "Reports written as files.", ("outcome",))
        self._waiting = self._made(Gauge, "dsp_console_report_jobs_open", "Reports that wait or are being written.")
        self._publishing = self._made(
            Histogram, "dsp_console_publish_seconds", "Time of compiling and publishing a changed catalog.",
            buckets=SECONDS,
        )  # fmt: skip
        self._failures = self._made(Counter, "dsp_console_publish_failures", "Tries to publish that failed.")
        self._behind = self._made(
            Gauge, "dsp_console_publish_lag_seconds", "Since bidders were last known to have every change."
        )
        for by, outcome in SIGN_INS:  # from zero, so that the first one is an increase
            self._sign_ins.labels(by, outcome)
        for outcome in JOBS:
            self._jobs.labels(outcome)
        self._published_s = clock()
        self._behind.set_function(lambda: self._clock() - self._published_s)

    def _made(self, kind: type[Any], name: str, text: str, labels: tuple[str, ...] = (), **more: Any) -> Any:
        one = kind(name, text, labels, registry=self._registry, **more)
        self._all.append(one)
        return one

    def began(self) -> float:
        """A request came; what to hand to `ended`."""
        self._open.inc()
        return self._clock()

    def ended(self, began: float, method: str, route: str, status: int) -> None:
        """It was answered. ``route`` is a template of the route table, or `UNKNOWN`."""
        self._open.dec()
        method = method if method in METHODS else "other"
        self._requests.labels(method, route, f"{status // 100}xx").inc()
        self._seconds.labels(method, route).observe(self._clock() - began)

    def sign_in(self, by: str, status: int) -> None:
        """Somebody tried to come in and got ``status``."""
        outcome = "in" if status < 400 else "limited" if status == 429 else "refused"
        if (by, outcome) in SIGN_INS:
            self._sign_ins.labels(by, outcome).inc()

    def report_job(self, change: int, outcome: str = "") -> None:
        """``change`` more reports wait; ``outcome`` is of `JOBS` where one has ended."""
        self._waiting.inc(change)
        if outcome:
            self._jobs.labels(outcome).inc()

    def published(self, began: float | None) -> None:
        """Bidders have every change; ``began`` is when publishing the newest began, None where nothing was new."""
        self._published_s = self._clock()
        if began is not None:
            self._publishing.observe(self._published_s - began)

    def publish_failed(self) -> None:
        """A change could not be published."""
        self._failures.inc()

    def now(self) -> float:
        """This object's clock."""
        return self._clock()

    def text(self) -> str:
        """All of them in Prometheus' text format."""
        return generate_latest(self._registry).decode()

    def serve(self, host: str, port: int) -> Callable[[], None]:
        """GET /metrics on a thread of its own; what closes it. Raises OSError where the port is taken."""
        server, thread = start_http_server(port, host, self._registry)

        def close() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return close


def described() -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    """(name as in /metrics, kind, labels, help) of each."""
    for one in ConsoleMetrics()._all:  # of this file
        kind = str(one._type)
        yield (
            f"{one._name}_total" if kind == "counter" else one._name,
            "histogram, seconds" if kind == "histogram" else kind,
            tuple(one._labelnames),
            one._documentation,
        )
