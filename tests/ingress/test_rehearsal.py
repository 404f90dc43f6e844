"""A worker's rehearsal: every exchange's requests go through a front of its kind, and nothing keeps it out."""

import threading
from functools import partial
from typing import Any

import pytest
from fake_engine import EXCHANGES, FakeEngine

from dsp.base.config import Config
from dsp.base.metrics import Metrics
from dsp.bidder.warm import REQUESTS
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
