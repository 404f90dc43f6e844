"""The console's metrics: what is counted under which labels, and where it can be read."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from console_names import OWNER, PASSWORD
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from dsp.base.config import Config
from dsp.base.console_metrics import ConsoleMetrics, described
from dsp.console.access import ALL
from dsp.console.app import build
from dsp.console.export import Exports
from dsp.console.models import NewReportJob, ReportSpec
from dsp.console.services import Services
from dsp.market.roles import free_ports


class Steady:
    """A monotonic clock that is moved by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def value(metrics: ConsoleMetrics, name: str, **labels: str) -> float:
    """One series' value; 0 where there is none."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(metrics.text())
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    )


@pytest.fixture
def metrics() -> ConsoleMetrics:
    return ConsoleMetrics(Steady())


@pytest.fixture
def visitor(services: Services, metrics: ConsoleMetrics) -> TestClient:
    return TestClient(build(services, metrics), raise_server_exceptions=False, follow_redirects=False)


def test_a_request_counts_under_its_routes_template_and_its_statuss_class(
    visitor: TestClient, metrics: ConsoleMetrics
) -> None:
    for ref in (1, 2, 99):
        visitor.get(f"/campaigns/{ref}")
    count = value(metrics, "dsp_console_requests_total", method="GET", route="/campaigns/{id}", status="3xx")
    assert count == 3
    assert value(metrics, "dsp_console_request_seconds_count", method="GET", route="/campaigns/{id}") == 3
    visitor.get("/api/v1/campaigns/7")
    assert value(metrics, "dsp_console_requests_total", method="GET", route="/api/v1/campaigns/{id}", status="4xx") == 1


def test_addresses_that_somebody_makes_up_are_one_series(visitor: TestClient, metrics: ConsoleMetrics) -> None:
    for i in range(50):
        visitor.get(f"/scan-{i}.php")
        visitor.request(f"ODD{i}", "/")
    visitor.post("/sign-in", content=b"x", headers={"content-length": str(1 << 30)})
    routes = re.findall(r'dsp_console_requests_total\{method="(\w+)",route="([^"]+)"', metrics.text())
    assert set(routes) == {("GET", "none"), ("other", "/"), ("POST", "none")}
    assert value(metrics, "dsp_console_requests_open") == 0


def test_a_request_that_breaks_us_counts_as_5xx(
    services: Services, visitor: TestClient, metrics: ConsoleMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services.accounts, "link_purpose", lambda _: 1 / 0)
    assert visitor.get("/enter?token=x").status_code == 500
    assert value(metrics, "dsp_console_requests_total", method="GET", route="/enter", status="5xx") == 1


def test_sign_ins_count_by_way_and_outcome(services: Services, visitor: TestClient, metrics: ConsoleMetrics) -> None:
    services.accounts.add_user(OWNER, "mei@bank.example", PASSWORD, {ALL: "owner"})
    assert visitor.post("/sign-in", data={"email": "mei@bank.example", "password": PASSWORD}).status_code == 303
    for _ in range(7):
        visitor.post("/sign-in", data={"email": "mei@bank.example", "password": "guessed"})
    visitor.post("/enter", data={"token": "made up"})
    visitor.get("/api/v1/me", headers={"authorization": "Bearer dsp_wrong"})
    visitor.get("/api/v1/me")  # nobody tries anything
    counts = {
        (by, outcome): value(metrics, "dsp_console_sign_ins_total", by=by, outcome=outcome)
        for by in ("password", "link", "key")
        for outcome in ("in", "refused", "limited")
    }
    assert {kind: n for kind, n in counts.items() if n} == {
        ("password", "in"): 1, ("password", "refused"): 5, ("password", "limited"): 2,
        ("link", "refused"): 1, ("key", "refused"): 1,
    }  # fmt: skip


def test_reports_count_when_they_are_written_and_when_they_fail(
    services: Services, metrics: ConsoleMetrics, tmp_path: Path
) -> None:
    spec = NewReportJob(ReportSpec(start="2026-01-01", end="2026-01-02"))
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    for directory in (tmp_path / "reports", blocked):
        exports = Exports(services.catalog.engine, services.reports, directory, services.catalog.clock, metrics)
        exports.start(OWNER, spec)
        exports._pool.submit(lambda: None).result()  # one at a time: that one is over
        exports.close()
    assert value(metrics, "dsp_console_report_jobs_total", outcome="done") == 1
    assert value(metrics, "dsp_console_report_jobs_total", outcome="failed") == 1
    assert value(metrics, "dsp_console_report_jobs_open") == 0


def test_the_lag_of_publishing_grows_until_bidders_have_every_change() -> None:
    clock = Steady()
    metrics = ConsoleMetrics(clock)
    clock.now_s += 40
    metrics.publish_failed()
    assert value(metrics, "dsp_console_publish_lag_seconds") == 40
    clock.now_s += 2
    metrics.published(metrics.now() - 2)
    assert value(metrics, "dsp_console_publish_lag_seconds") == 0
    assert value(metrics, "dsp_console_publish_seconds_sum") == 2
    metrics.published(None)
    assert value(metrics, "dsp_console_publish_seconds_count") == 1
    assert value(metrics, "dsp_console_publish_failures_total") == 1


def test_metrics_have_a_port_of_their_own_and_the_pages_port_has_none(visitor: TestClient, config: Config) -> None:
    assert visitor.get("/metrics").status_code == 404
    metrics, port = ConsoleMetrics(), free_ports(1)[0]
    close = metrics.serve("127.0.0.1", port)
    try:
        assert "dsp_console_sign_ins_total" in httpx.get(f"http://127.0.0.1:{port}/metrics").text
        with pytest.raises(OSError, match="in use"):
            metrics.serve("127.0.0.1", port)
    finally:
        close()


def test_every_metric_says_what_it_is() -> None:
    for name, _, _, text in described():
        assert name.startswith("dsp_console_")
        assert len(text) > 15, name
