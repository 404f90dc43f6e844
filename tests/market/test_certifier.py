"""The certifier: our own bidder passes whole, and bidders with one fault each are told theirs."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dsp.base.config import BidderConfig, Config, LedgerConfig
from dsp.catalog.publish import publish
from dsp.catalog.store import apply_file, open_catalog
from dsp.market.certifier import Certifier, Check, Settings, score
from dsp.market.certify_cases import BASE, changed
from dsp.market.certify_response import judge
from dsp.market.roles import Roles, free_ports
from dsp.model.bootstrap import bootstrap_model

CATALOG = Path(__file__).parents[1] / "exchanges" / "catalog.yaml"
READY_S = 120.0


def test_our_own_bidder_passes_at_100_percent(tmp_path: Path) -> None:
    http, grpc, metrics, ledger, sync = free_ports(5)
    url = f"http://127.0.0.1:{ledger}"
    config = Config(
        data_dir=str(tmp_path / "var"),
        bidder=BidderConfig(http_port=http, grpc_port=grpc, metrics_port=metrics, grpc_workers=0),
        ledger=LedgerConfig(port=ledger, grpc_port=sync, public_url=url),
    )
    catalog = tmp_path / "catalog.yaml"
    text = CATALOG.read_text().replace("profile: ours.yaml, ", "").replace("id: 1, exp_s", "id: 1, token: t0k, exp_s")
    catalog.write_text(text)
    database = open_catalog(config.path("catalog.db"))
    apply_file(database, catalog)
    database.dispose()
    publish(config)
    bootstrap_model(config)
    file = tmp_path / "dsp.yaml"
    file.write_bytes(msgspec.json.encode(config))
    with Roles(file, tmp_path / "run") as roles:
        roles.wait_ready(roles.start("ledger", ["ledger"]), f"{url}/readyz", READY_S)
        roles.wait_ready(roles.start("bidder", ["bidder"]), f"http://127.0.0.1:{metrics}/readyz", READY_S)
        base = f"http://127.0.0.1:{http}/bid"
        plain = changed(BASE, 0, {}, {"secure": 0})  # on the loopback our own notices are http
        checks = Certifier(Settings(f"{base}/openrtb", token="t0k", base=plain, seconds=1.0)).run()
        again = Certifier(Settings(f"{base}/magnite", base=plain, seconds=0.2, notices=False)).run()
    assert [c for c in checks if c.outcome != "passed"] == []
    assert score(checks) == 1.0
    assert {c.area for c in checks} == {"protocol", "malformed", "blocks", "macros", "notices", "timing"}
    assert score(again) == 1.0, [c for c in again if c.outcome == "failed"]


class Faulty(BaseHTTPRequestHandler):
    """Bids properly, but for the one fault that its server names."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        fault = self.server.fault  # type: ignore[attr-defined]
        raw = self.rfile.read(int(self.headers.get("content-length", 0)))
        try:
            request = json.loads(raw.decode())
            imps = [imp["id"] for imp in request["imp"]]
            refused = not imps or not isinstance(request["id"], str)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            self.reply(500 if fault == "crash" else 400, b"")
            return
        if refused or (fault != "deaf" and self.forbids(request)):
            self.reply(204, b"")
            return
        bid: dict[str, Any] = {"id": "b", "impid": imps[0], "price": 1.0, "adm": "<b>", "adomain": ["a.example"]}
        bid |= {"crid": "c", "cat": ["IAB13"], "w": 300, "h": 250, "burl": "https://a.example/b?p=${AUCTION_PRICE}"}
        bid |= {"impid": "9"} if fault == "stranger" else {}
        bid |= {"burl": "https://a.example/b?p=${AUCTION_PRIZE}"} if fault == "macro" else {}
        self.reply(200, json.dumps({"id": request["id"], "seatbid": [{"seat": "s", "bid": [bid]}]}).encode())

    @staticmethod
    def forbids(request: dict[str, Any]) -> bool:
        imp = request["imp"][0]
        listed = request.get("badv") or request.get("bcat") or request.get("bseat") or request.get("wseat")
        sizes = imp.get("banner", {}).get("format", [])
        odd = imp.get("bidfloor", 0) > 1 or request.get("cur") == ["XTS"] or "pmp" in imp or "battr" in imp
        return bool(listed or odd or {"w": 300, "h": 250} not in sizes or request.get("tmax") == 1)

    def reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        if status != 204:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def faulty() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Faulty)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("fault", "area", "name", "seen"),
    [
        ("crash", "malformed", "truncated", "status 500"),
        ("deaf", "blocks", "badv", "is in badv"),
        ("stranger", "protocol", "answer", "impid '9' is none"),
        ("macro", "protocol", "answer", "AUCTION_PRIZE"),
    ],
)
def test_a_fault_is_found_and_named(faulty: ThreadingHTTPServer, fault: str, area: str, name: str, seen: str) -> None:
    faulty.fault = fault  # type: ignore[attr-defined]
    checks = Certifier(Settings(f"http://127.0.0.1:{faulty.server_port}/", seconds=0.05, notices=False)).run()
    found = next(check for check in checks if (check.area, check.name) == (area, name))
    assert found.outcome == "failed"
    assert seen in found.seen
    assert score(checks) < 1


def test_nobody_there_fails_and_does_not_end_the_run() -> None:
    (port,) = free_ports(1)
    checks = Certifier(Settings(f"http://127.0.0.1:{port}/", seconds=0.05)).run()
    assert {check.outcome for check in checks} <= {"failed", "skipped"}


REQUEST = {"id": "r", "cur": ["USD"], "imp": [{"id": "1", "bidfloor": 2, "banner": {"w": 300, "h": 250}}]}


@pytest.mark.parametrize(
    ("bid", "problem"),
    [
        ({}, ""),
        ({"price": 1.5}, "below the floor"),
        ({"price": "2.5"}, "is not a price"),
        ({"w": 728, "h": 90}, "is not offered"),
        ({"mtype": 2}, "mtype says video"),
        ({"dealid": "d"}, "none of the imp's"),
        ({"adomain": []}, "no adomain"),
        ({"crid": ""}, "no crid"),
        ({"adm": "", "nurl": ""}, "neither adm nor"),
        ({"burl": "/b"}, "is not a URL"),
    ],
)
def test_what_a_bid_may_not_be(bid: dict[str, Any], problem: str) -> None:
    whole = {"id": "b", "impid": "1", "price": 2.5, "adm": "<b>", "adomain": ["a.example"], "crid": "c", **bid}
    problems = judge(REQUEST, {"id": "r", "seatbid": [{"bid": [whole]}]})
    assert (problem in "; ".join(problems)) if problem else problems == []


def test_the_score_counts_what_was_asked() -> None:
    made = [Check("a", "x", "", outcome) for outcome in ("passed", "passed", "failed", "skipped")]
    assert score(made) == pytest.approx(2 / 3)
