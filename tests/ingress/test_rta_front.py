"""The RTA front: always 200 for a platform, whatever it sends and however much."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence

import httpx
import pytest

from dsp.base.config import BidderConfig, Config, RtaConfig
from dsp.ingress import rta_http
from dsp.ingress.rta_http import RtaFront


class FakeRta:
    """Answers "yes " and the body; waits for its gate where it is closed; fails on "fail"."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.polls = 0

    def decide(self, platform: int, bodies: Sequence[bytes]) -> list[bytes]:
        self.entered.set()
        assert self.gate.wait(30)
        if b"fail" in bodies:
            raise RuntimeError("a fault")
        return [b"yes " + body for body in bodies]

    def default_answer(self, platform: int, body: bytes, outcome: int = 0) -> bytes:
        return b"default " + body

    def platform_of(self, name: str) -> int:
        return {"tencent": 0, "secret": 1, "elsewhere": 2}.get(name, -1)

    def token_of(self, platform: int) -> str:
        return "s3cret" if platform == 1 else ""

    def callers_of(self, platform: int) -> tuple[str, Sequence[str]]:
        return "", ("192.0.2.0/24",) if platform == 2 else ()

    def poll(self) -> None:
        self.polls += 1


class Served:
    def __init__(self, **settings: int) -> None:
        self.engine = FakeRta()
        config = Config(bidder=BidderConfig(drain_s=5.0, snapshot_poll_s=0.02), rta=RtaConfig(port=0, **settings))  # type: ignore[arg-type]
        self.front = RtaFront(self.engine, config)
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
    monkeypatch.setattr(rta_http, "QUIET_NS", 20_000_000)
    server = Served(queue_limit=2)
    yield server
    server.close()


def post(served: Served, body: bytes, path: str = "/rta/tencent", **more: str) -> httpx.Response:
    return httpx.post(served.url + path, content=body, headers=more)


def test_an_answer_is_200_and_protobuf(served: Served) -> None:
    answer = post(served, b"who")
    assert (answer.status_code, answer.content) == (200, b"yes who")
    assert answer.headers["content-type"] == "application/x-protobuf"


def test_a_fault_of_the_engine_is_a_default_answer(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    answer = post(served, b"fail")
    assert (answer.status_code, answer.content) == (200, b"default fail")
    assert "the RTA engine failed" in caplog.text
    assert post(served, b"who").content == b"yes who"


def test_a_body_that_is_too_large_gets_the_default(served: Served) -> None:
    answer = post(served, b"x" * 70_000)
    assert (answer.status_code, answer.content) == (200, b"default ")


def test_past_the_limit_everybody_gets_the_default_at_once_with_status_200(served: Served) -> None:
    waiting = [socket.create_connection(("127.0.0.1", served.front.port)) for _ in range(2)]
    for sock in waiting:  # the limit is 2: both places are taken by requests whose bodies are still to come
        sock.sendall(b"POST /rta/tencent HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\n")
    until = time.monotonic() + 20
    while len(served.front.reading) < 2:
        assert time.monotonic() < until
        time.sleep(0.001)
    for _ in range(3):
        answer = post(served, b"who")
        assert (answer.status_code, answer.content) == (200, b"default who")
    for sock in waiting:
        sock.sendall(b"who")
    for sock in waiting:
        assert b"yes who" in sock.recv(4096)
        sock.close()
    assert post(served, b"who").content == b"yes who"


def test_only_platforms_are_answered(served: Served) -> None:
    assert post(served, b"who", "/rta/nobody").status_code == 404
    assert post(served, b"who", "/rta/secret").status_code == 401
    assert post(served, b"who", "/rta/secret", authorization="Bearer s3cret").content == b"yes who"
    assert post(served, b"who", "/rta/secret", authorization="Bearer S3cret").status_code == 401
    assert post(served, b"who", "/rta/elsewhere").status_code == 401
    assert httpx.get(served.url + "/readyz").status_code == 200


def test_snapshots_are_looked_for_while_serving(served: Served) -> None:
    while served.engine.polls < 2:
        post(served, b"who")
