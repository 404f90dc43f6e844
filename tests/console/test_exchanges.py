"""What exchanges send and charge, as pages show it."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator

import msgspec
import pytest
from starlette.testclient import TestClient

from dsp.console.app import build
from dsp.console.edge import COOKIE
from dsp.console.services import Services

METRICS = b"""# TYPE dsp_bid_requests_total counter
dsp_bid_requests_total{exchange="alpha",outcome="bid"} 300
dsp_bid_requests_total{exchange="alpha",outcome="no_bid"} 680
dsp_bid_requests_total{exchange="alpha",outcome="shed"} 15
dsp_bid_requests_total{exchange="alpha",outcome="bad"} 5
"""


class _Bidder(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(METRICS)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def bidder() -> Iterator[int]:
    """A port at which a bidder's metrics are."""
    server = http.server.HTTPServer(("127.0.0.1", 0), _Bidder)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_bid_rate_timeouts_and_errors_are_the_bidders(owner: TestClient, services: Services, bidder: int) -> None:
    settings = msgspec.structs.replace(services.config.bidder, metrics_port=bidder)
    near = Services(**{**vars(services), "config": msgspec.structs.replace(services.config, bidder=settings)})
    client = TestClient(build(near))
    client.cookies.set(COOKIE, owner.cookies[COOKIE])
    text = client.get("/exchanges").text.replace("\u00a0", " ")
    for share in ("30.0 %", "1.50 %", "0.50 %"):
        assert share in text


def test_a_bill_is_compared_with_the_books(owner: TestClient) -> None:
    token = {"csrf": owner.headers["x-csrf-token"]}
    found = owner.post("/exchanges/1/bill", data={**token, "bill": "date,impressions,amount\n2026-01-05,10,0.25\n"})
    assert found.status_code == 200
    assert "2026-01-05" in found.text
    assert "not booked" in found.text
    assert "0.25" in found.text
    refused = owner.post("/exchanges/1/bill", data={**token, "bill": "day,<script>alert(1)</script>\n1,2\n"})
    assert refused.status_code == 422
    assert "<script>alert" not in refused.text
    assert owner.post("/exchanges/1/bill", data={"csrf": "forged", "bill": "x"}).status_code == 403
    assert owner.post("/exchanges/99/bill", data={**token, "bill": "date,impressions,amount\n"}).status_code == 404


def test_one_clients_people_see_no_bill(sign_in: Callable[..., TestClient]) -> None:
    admin = sign_in("admin", 1)
    assert admin.get("/exchanges/1/bill").status_code == 403
    form = {"csrf": admin.headers["x-csrf-token"], "bill": "date,impressions,amount\n2026-01-05,10,0.25\n"}
    assert admin.post("/exchanges/1/bill", data=form).status_code == 403
    assert "/bill" not in admin.get("/exchanges").text
