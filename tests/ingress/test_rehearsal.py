"""A worker's rehearsal: every exchange's requests go through a front of its kind, and nothing keeps it out."""

import http.client
import threading
import time
from functools import partial
from typing import Any

import grpc
import msgspec
import pytest
from fake_engine import EXCHANGES, FakeEngine

from dsp.base.config import Config
from dsp.base.metrics import Metrics
from dsp.bidder.warm import REQUESTS
from dsp.ingress import rehearsal
from dsp.ingress.grpc_side import BID
from dsp.ingress.rehearsal import ROUNDS, rehearse
from dsp.ingress.worker import open_front


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_sample_requests_of_every_exchange_go_through_the_front(kind: str) -> None:
    engine = FakeEngine()
    answered = rehearse(kind, partial(open_front, kind), Config(), engine)
    # HTTP: both formats of both exchanges; gRPC: protobuf of the one that has a token
    expected = len(EXCHANGES) * 2 if kind == "http" else 1
    assert answered == sum(engine.batches) == ROUNDS * len(REQUESTS) * expected
    assert engine.rehearsals == 1
    assert not [thread for thread in threading.enumerate() if thread.name == "rehearsal"]


def test_a_front_that_does_not_open_only_costs_the_rehearsal() -> None:
    def broken(config: Config, engine: Any, metrics: Metrics) -> Any:
        raise OSError("no more sockets")

    assert rehearse("http", broken, Config(), FakeEngine()) == 0


def test_an_engine_that_fails_still_lets_the_rehearsal_end() -> None:
    class Broken(FakeEngine):
        def decide(self, *args: Any, **more: Any) -> Any:
            raise RuntimeError("broken")

    assert rehearse("http", partial(open_front, "http"), Config(), Broken()) > 0  # a front answers no-bid then


class Fresh:
    """A front of that kind on an engine, serving as a new worker does."""

    def __init__(self, kind: str, engine: FakeEngine | None = None) -> None:
        self.kind, self.engine, self.metrics = kind, engine or FakeEngine(), Metrics.memory()
        settings = msgspec.structs.replace(
            Config().bidder, http_host="127.0.0.1", http_port=0, grpc_host="127.0.0.1", grpc_port=0, drain_s=0.0
        )
        front = open_front(kind, msgspec.structs.replace(Config(), bidder=settings), self.engine, self.metrics)
        self.port, self.done = front.port, threading.Event()
        self.thread = threading.Thread(target=front.run, args=(self.done.is_set, lambda: None), kwargs={"fresh": True})
        self.thread.start()

    def bid(self) -> bytes:
        """One real request's answer."""
        if self.kind == "grpc":
            with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
                metadata = (("authorization", "Bearer s3cret"),)
                return bytes(channel.unary_unary(BID)(b"bid me", metadata=metadata, timeout=10))
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("POST", "/bid/alpha", b"bid me")
        answer = connection.getresponse().read()
        connection.close()
        return answer

    def close(self) -> None:
        """Stop serving."""
        self.done.set()
        self.thread.join()


def until(condition: Any) -> None:
    """Poll for what another thread is about to do; the time is a bound on failure, not part of the test."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.001)


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_a_new_worker_rehearses_until_its_first_request(kind: str) -> None:
    fresh = Fresh(kind)
    engine = fresh.engine
    until(lambda: engine.rehearsals >= 3)
    assert not fresh.metrics.counter("dsp_bid_requests_total").any()
    assert fresh.bid().endswith(b"bid me")
    rehearsed, polls = engine.rehearsals, engine.polls
    until(lambda: engine.polls >= polls + 2)  # a second of service at the least
    assert engine.rehearsals <= rehearsed + 1  # one that had begun
    assert fresh.bid().endswith(b"bid me")
    fresh.close()


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_a_new_worker_that_nobody_asks_stops_rehearsing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "FRESH_S", 0.0)
    fresh = Fresh(kind)
    until(lambda: fresh.engine.polls >= 1)
    assert fresh.engine.rehearsals == 0
    assert fresh.bid().endswith(b"bid me")
    fresh.close()


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_a_rehearsal_that_fails_is_the_last_and_counts_nothing(kind: str) -> None:
    class Broken(FakeEngine):
        def rehearsing(self) -> Any:
            self.rehearsals += 1
            raise RuntimeError("broken")

    fresh = Fresh(kind, Broken())
    until(lambda: fresh.engine.polls >= 2)
    assert fresh.engine.rehearsals == 1
    assert not fresh.metrics.counter("dsp_engine_errors_total").any()
    assert not fresh.metrics.counter("dsp_bid_requests_total").any()
    assert fresh.bid().endswith(b"bid me")
    fresh.close()
