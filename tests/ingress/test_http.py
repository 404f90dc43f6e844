"""The HTTP front: statuses, formats, gzip, limits, keep-alive, h2, batches, drain."""

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from fake_engine import FakeEngine

from dsp.base.config import BidderConfig
from dsp.base.metrics import BAD_REASONS, OUTCOMES, SHED_REASONS, Metrics
from dsp.ingress import http as http_module
from dsp.ingress.gzips import GzipError, GzipTooLargeError, accepts_gzip, gunzip, gzip_answer
from dsp.ingress.http import HttpFront
from dsp.openrtb.limits import MAX_BODY_BYTES

BETA = {"authorization": "Bearer s3cret"}


class Served:
    """A front on a free port, running in a thread."""

    def __init__(self, **settings: object) -> None:
        self.engine = FakeEngine()
        self.metrics = Metrics.memory()
        config = BidderConfig(http_port=0, drain_s=5.0, snapshot_poll_s=0.02, **settings)  # type: ignore[arg-type]
        self.front = HttpFront(self.engine, config, self.metrics)
        self.url = f"http://127.0.0.1:{self.front.port}"
        self.stop = threading.Event()
        self._thread = threading.Thread(target=self.front.run, args=(self.stop.is_set,))
        self._thread.start()

    def close(self) -> None:
        self.engine.gate.set()
        self.stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(http_module, "QUIET_NS", 20_000_000)
    server = Served()
    yield server
    server.close()


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Served]]:
    monkeypatch.setattr(http_module, "QUIET_NS", 20_000_000)
    servers: list[Served] = []

    def make(**settings: object) -> Served:
        servers.append(Served(**settings))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


@pytest.fixture(params=["1.1", "2"])
def client(request: pytest.FixtureRequest, served: Served) -> Iterator[httpx.Client]:
    h2 = request.param == "2"
    with httpx.Client(base_url=served.url, http1=not h2, http2=h2, timeout=30) as c:
        yield c


def until(condition: Callable[[], bool]) -> None:
    """Poll for what another thread is about to do; the time is a bound on failure, not part of the test."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.001)


def test_a_bid_is_answered_in_the_requests_format(client: httpx.Client) -> None:
    for content_type, expected, fmt in [
        (None, "application/json", b"0"),
        ("application/json; charset=utf-8", "application/json", b"0"),
        ("application/x-protobuf", "application/x-protobuf", b"1"),
    ]:
        headers = {"content-type": content_type} if content_type else {}
        answer = client.post("/bid/alpha", content=b"bid me", headers={**headers, "accept-encoding": "identity"})
        assert (answer.status_code, answer.content) == (200, fmt + b" 0 bid me")
        assert answer.headers["content-type"] == expected
        assert answer.headers["x-openrtb-version"] == "2.6"


def test_a_no_bid_is_204_without_content(client: httpx.Client) -> None:
    answer = client.post("/bid/alpha", content=b"none")
    assert (answer.status_code, answer.content) == (204, b"")


def test_a_malformed_request_is_400_without_content_and_says_why_in_a_header(client: httpx.Client) -> None:
    answer = client.post("/bid/alpha", content=b"bad")
    assert (answer.status_code, answer.content) == (400, b"")
    assert answer.headers["x-dsp-error"] == "imp[0].bidfloor: not a number: na?ve?"


def test_refusals_of_the_engine_have_their_statuses(client: httpx.Client) -> None:
    assert client.post("/bid/alpha", content=b"shed").status_code == 429
    assert client.post("/bid/alpha", content=b"large").status_code == 413


def test_an_engine_that_fails_is_a_no_bid_and_the_next_request_is_served(client: httpx.Client, served: Served) -> None:
    assert client.post("/bid/alpha", content=b"crash").status_code == 204
    assert client.post("/bid/alpha", content=b"bid").status_code == 200
    assert served.metrics.counter("dsp_engine_errors_total")[0] == 1


def test_wrong_addresses_and_methods_are_refused(client: httpx.Client) -> None:
    assert client.post("/bid/nobody", content=b"bid").status_code == 404
    assert client.post("/bid/", content=b"bid").status_code == 404
    assert client.get("/").status_code == 404
    answer = client.get("/bid/alpha")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert client.post("/healthz").status_code == 405


def test_unknown_types_and_encodings_are_415(client: httpx.Client) -> None:
    assert client.post("/bid/alpha", content=b"bid", headers={"content-type": "text/html"}).status_code == 415
    assert client.post("/bid/alpha", content=b"bid", headers={"content-encoding": "br"}).status_code == 415


def test_an_exchange_with_a_token_must_show_it(client: httpx.Client, served: Served) -> None:
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic s3cret"}):
        assert client.post("/bid/beta", content=b"bid", headers=headers).status_code == 401
    assert client.post("/bid/beta", content=b"bid", headers=BETA).status_code == 200
    assert served.metrics.counter("dsp_bid_requests_total")[1, OUTCOMES.index("unauthorized")] == 3


def test_gzip_goes_both_ways(client: httpx.Client) -> None:
    body = b"bid " + b"x" * 2000
    answer = client.post(
        "/bid/alpha", content=gzip.compress(body), headers={"content-encoding": "gzip", "accept-encoding": "gzip"}
    )
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.content == b"0 0 " + body
    assert int(answer.headers["content-length"]) < 200
    small = client.post("/bid/alpha", content=b"bid", headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in small.headers
    plain = client.post("/bid/alpha", content=body, headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers


def test_broken_gzip_is_400_and_a_bomb_413(client: httpx.Client, served: Served) -> None:
    packed = gzip.compress(b"bid")
    for broken in (b"bid", packed[:-4], packed + b"more"):
        answer = client.post("/bid/alpha", content=broken, headers={"content-encoding": "gzip"})
        assert answer.status_code == 400
        assert "gzip" in answer.headers["x-dsp-error"]
    bomb = gzip.compress(bytes(MAX_BODY_BYTES + 1))
    assert client.post("/bid/alpha", content=bomb, headers={"content-encoding": "gzip"}).status_code == 413
    assert served.metrics.counter("dsp_bad_requests_total")[BAD_REASONS.index("gzip")] == 3
    assert served.engine.batches == []


def test_a_body_over_the_limit_is_413_whether_its_length_is_stated_or_not(client: httpx.Client, served: Served) -> None:
    exact = b"bid ".ljust(MAX_BODY_BYTES, b"x")
    assert client.post("/bid/alpha", content=exact).status_code == 200
    assert client.post("/bid/alpha", content=exact + b"x").status_code == 413
    assert client.post("/bid/alpha", content=b"x" * 5_000_000).status_code == 413
    assert client.post("/bid/alpha", content=iter([b"x" * 1_000_000] * 5)).status_code == 413
    assert client.post("/bid/alpha", content=b"bid").status_code == 200
    until(lambda: not served.front.reading)


def test_a_body_of_unstated_length_is_read_in_pieces(client: httpx.Client) -> None:
    answer = client.post("/bid/alpha", content=iter([b"bid ", b"in ", b"pieces"]))
    assert answer.content == b"0 0 bid in pieces"


def test_health_and_readiness(client: httpx.Client) -> None:
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 200


def test_a_connection_serves_many_requests(start: Callable[..., Served]) -> None:
    served = start(connection_max_age_s=0.0)
    with httpx.Client(base_url=served.url) as c:
        ports = set()
        for _ in range(20):
            with c.stream("POST", "/bid/alpha", content=b"bid") as answer:
                ports.add(answer.extensions["network_stream"].get_extra_info("client_addr"))
                answer.read()
        assert len(ports) == 1


def raw_request(served: Served, body: bytes, claimed: int | None = None) -> socket.socket:
    s = socket.create_connection(("127.0.0.1", served.front.port), 20)
    s.sendall(b"POST /bid/alpha HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (claimed or len(body)) + body)
    return s


def test_requests_that_arrive_during_a_batch_make_the_next_one(served: Served) -> None:
    served.engine.gate.clear()
    first = raw_request(served, b"bid 0")
    assert served.engine.entered.wait(20)
    others = [raw_request(served, b"bid %d" % n) for n in range(1, 21)]
    until(lambda: _arrived(served, 20))
    served.engine.gate.set()
    answers = [s.recv(10_000) for s in (first, *others)]
    for n, answer in enumerate(answers):
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.endswith(b"bid %d" % n)
    assert served.engine.batches[0] == 1
    assert max(served.engine.batches) > 1
    for s in (first, *others):
        s.close()


def _arrived(served: Served, n: int) -> bool:
    """Whether the kernel has handed n more connections' bytes to the server: nothing is left to accept or read."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    port = f":{served.front.port:04X}"
    mine = [row for row in rows if row[1].endswith(port) and row[3] == "01"]
    return len(mine) >= n + 1 and all(row[4].endswith(":00000000") for row in mine)


def test_a_client_that_stalls_its_body_holds_up_nobody(served: Served) -> None:
    before = raw_request(served, b"bid first")
    assert before.recv(10_000).startswith(b"HTTP/1.1 200")
    stalled = raw_request(served, b"bi", claimed=100)
    until(lambda: len(served.front.reading) == 1)
    before.sendall(b"POST /bid/alpha HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nbid")
    assert before.recv(10_000).startswith(b"HTTP/1.1 200")
    stalled.close()
    before.close()
    until(lambda: not served.front.reading)
    assert served.metrics.counter("dsp_bad_requests_total")[BAD_REASONS.index("body_cut")] == 1


@pytest.mark.parametrize("gone", [False, True])
def test_a_request_under_way_while_exchanges_are_renumbered_stays_its_own(served: Served, gone: bool) -> None:
    order = {"alpha": 0, "beta": 1}
    served.engine.exchange_of = lambda name: order.get(name, -1)  # type: ignore[method-assign]
    slow = raw_request(served, b"bi", claimed=8)
    until(lambda: len(served.front.reading) == 1)
    order.clear()
    order.update({"beta": 0} if gone else {"beta": 0, "alpha": 1})  # as a new snapshot would
    polls = served.engine.polls
    until(lambda: served.engine.polls > polls + 2)
    slow.sendall(b"d slow")
    answer = slow.recv(10_000)
    slow.close()
    if gone:
        assert answer.startswith(b"HTTP/1.1 404")
    else:
        assert answer.endswith(b"0 1 bid slow")


def test_a_body_that_takes_too_long_is_given_up(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_module, "BODY_TIMEOUT_NS", 50_000_000)
    with raw_request(served, b"bi", claimed=100) as stalled:
        assert stalled.recv(10_000).startswith(b"HTTP/1.1 408")
    assert served.metrics.counter("dsp_bad_requests_total")[BAD_REASONS.index("body_late")] == 1
    assert not served.front.reading


def test_more_requests_than_the_queue_holds_are_shed(start: Callable[..., Served]) -> None:
    served = start(queue_limit=2)
    waiting = [raw_request(served, b"bi", claimed=100) for _ in range(2)]
    until(lambda: len(served.front.reading) == 2)
    with httpx.Client(base_url=served.url) as c:
        assert c.post("/bid/alpha", content=b"bid").status_code == 429
        waiting.pop().close()
        until(lambda: len(served.front.reading) == 1)
        assert c.post("/bid/alpha", content=b"bid").status_code == 200
    waiting.pop().close()
    assert served.metrics.counter("dsp_shed_total")[SHED_REASONS.index("queue")] == 1


def test_what_would_wait_too_long_is_shed_and_what_is_worth_least_first(start: Callable[..., Served]) -> None:
    served = start()
    shedder = served.front.shedder
    shedder.limit, shedder.share[0] = 4, 0.5  # alpha is worth least
    waiting = [raw_request(served, b"bi", claimed=100) for _ in range(2)]
    until(lambda: len(served.front.reading) == 2)
    with httpx.Client(base_url=served.url) as c:
        assert c.post("/bid/alpha", content=b"bid").status_code == 429
        assert c.post("/bid/beta", content=b"bid", headers=BETA).status_code == 200
        shedder.limit = 2
        assert c.post("/bid/beta", content=b"bid", headers=BETA).status_code == 429
    for each in waiting:
        each.close()
    assert served.metrics.counter("dsp_shed_total")[SHED_REASONS.index("delay")] == 2
    assert served.metrics.counter("dsp_bid_requests_total")[:2, OUTCOMES.index("shed")].tolist() == [1, 1]


def test_h2_streams_over_the_queue_limit_are_shed(start: Callable[..., Served]) -> None:
    served = start(queue_limit=2)
    served.engine.gate.clear()
    with httpx.Client(base_url=served.url, http1=False, http2=True, timeout=30) as c:
        statuses: list[int] = []
        threads = [
            threading.Thread(target=lambda: statuses.append(c.post("/bid/alpha", content=b"bid").status_code))
            for _ in range(12)
        ]
        for thread in threads:
            thread.start()
        assert served.engine.entered.wait(20)
        served.engine.gate.set()
        for thread in threads:
            thread.join(30)
    assert set(statuses) <= {200, 429}
    assert len(statuses) == 12


def test_the_engine_is_polled_between_batches_even_without_requests(served: Served) -> None:
    until(lambda: served.engine.polls > 2)


def test_draining_is_unready_closes_connections_and_answers_what_is_in_flight(start: Callable[..., Served]) -> None:
    served = start()
    with httpx.Client(base_url=served.url) as c:
        assert c.get("/readyz").status_code == 200
        served.engine.gate.clear()
        with raw_request(served, b"bid slow") as in_flight:
            assert served.engine.entered.wait(20)
            served.stop.set()
            until(lambda: served.front.draining)
            served.engine.gate.set()
            assert in_flight.recv(10_000).endswith(b"bid slow")
    served.close()
    with pytest.raises(httpx.ConnectError):
        httpx.get(served.url + "/readyz")


def test_while_draining_readiness_is_503_and_answers_close_the_connection(start: Callable[..., Served]) -> None:
    served = start()
    served.front.draining = True
    with httpx.Client(base_url=served.url) as c:
        assert c.get("/readyz").status_code == 503
        assert c.get("/healthz").status_code == 200
        answer = c.post("/bid/alpha", content=b"bid")
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
    served.front.draining = False


def test_connections_are_asked_to_come_anew_after_a_while(start: Callable[..., Served]) -> None:
    served = start(connection_max_age_s=0.16)
    with httpx.Client(base_url=served.url) as c:
        until(lambda: c.post("/bid/alpha", content=b"none").headers.get("connection") == "close")


def test_gunzip_is_bounded_and_names_what_is_wrong() -> None:
    assert gunzip(gzip.compress(b"abc")) == b"abc"
    assert gunzip(gzip.compress(bytes(100)), 100) == bytes(100)
    with pytest.raises(GzipTooLargeError):
        gunzip(gzip.compress(bytes(101)), 100)
    with pytest.raises(GzipError, match="cut short"):
        gunzip(b"")
    assert gzip_answer(b"x" * 512) is None


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        (None, False),
        ("gzip", True),
        ("gzip, deflate, br", True),
        ("deflate, gzip;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip; q=0.0, *", False),
        ("*", True),
        ("*;q=0", False),
        ("br", False),
        ("", False),
    ],
)
def test_accept_encoding_is_read_as_the_rfc_says(header: str | None, accepted: bool) -> None:
    assert accepts_gzip(header) is accepted
