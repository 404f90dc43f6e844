"""An engine whose answers are told by the request's own first word, to test the fronts with."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from dsp.base.config import Config
from dsp.base.metrics import Metrics
from dsp.bidder.answer import BAD, BID, NO_BID, SHED, TOO_LARGE, Answer

EXCHANGES = {"alpha": "", "beta": "s3cret"}


class FakeEngine:
    """``bid ...`` gets a bid that repeats format, exchange and body; others: none, bad, shed, large, crash, exit."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.polls = self.rehearsals = 0
        self.closed = False
        self.gate = threading.Event()  # cleared: `decide` waits, so that a test can pile requests up
        self.gate.set()
        self.entered = threading.Event()

    def decide(
        self,
        bodies: list[bytes],
        formats: list[int],
        exchanges: list[int],
        arrived_ns: list[int] | None = None,
        nbr_bodies: bool = False,
    ) -> list[Answer]:
        self.batches.append(len(bodies))
        assert arrived_ns is not None
        assert len(bodies) == len(formats) == len(exchanges) == len(arrived_ns)
        self.entered.set()
        assert self.gate.wait(30)
        answers: list[Answer] = []
        for body, fmt, exchange in zip(bodies, formats, exchanges, strict=True):
            word = body.split(b" ")[0]
            if word == b"crash":
                raise RuntimeError("asked to crash")
            if word == b"exit":
                os._exit(3)
            if word == b"none":
                answers.append((NO_BID, b"nbr 2" if nbr_bodies else b""))
            elif word == b"bad":
                answers.append((BAD, "imp[0].bidfloor: not a number: naïve\n".encode()))
            elif word == b"shed":
                answers.append((SHED, b"over the QPS cap"))
            elif word == b"large":
                answers.append((TOO_LARGE, b"body too large"))
            else:
                answers.append((BID, b"%d %d " % (fmt, exchange) + body))
        return answers

    def exchange_callers(self, index: int) -> tuple[str, tuple[str, ...]]:
        return "", ()

    def exchange_of(self, name: str) -> int:
        return list(EXCHANGES).index(name) if name in EXCHANGES else -1

    def exchange_of_token(self, token: bytes | str) -> int:
        text = token.decode() if isinstance(token, bytes) else token
        names = {"Bearer open": 0, "Bearer s3cret": 1}
        return names.get(text, -1)

    def exchange_token(self, index: int) -> str:
        return list(EXCHANGES.values())[index]

    def poll(self) -> None:
        self.polls += 1

    def warm(self) -> None:
        pass

    @contextlib.contextmanager
    def rehearsing(self) -> Iterator[list[str]]:
        self.rehearsals += 1
        yield list(EXCHANGES)

    def close(self) -> None:
        self.closed = True


class CountingEngine(FakeEngine):
    """Counts its answers as the real engine does."""

    def __init__(self, metrics: Metrics) -> None:
        super().__init__()
        self._requests = metrics.counter("dsp_bid_requests_total")
        metrics.name_labels("exchange", list(EXCHANGES))

    def decide(self, *args: Any) -> list[Answer]:
        answers = super().decide(*args)
        for (kind, _), exchange in zip(answers, args[2], strict=True):
            self._requests[exchange, kind] += 1
        return answers

    @contextlib.contextmanager
    def rehearsing(self) -> Iterator[list[str]]:
        requests, self._requests = self._requests, np.zeros_like(self._requests)
        with super().rehearsing() as exchanges:
            yield exchanges
        self._requests = requests


def open_engine(config: Config, metrics: Metrics, worker: str, stopping: Callable[[], bool]) -> CountingEngine:
    """What a worker process is given to open."""
    assert not stopping()
    metrics.gauge("dsp_snapshot_version")[0] = 1
    return CountingEngine(metrics)
