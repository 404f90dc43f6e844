"""Sheds load by queue delay: what would wait too long is refused unread, the requests that are worth least first.

The queue may hold what is decided within ``queue_delay_ms``; how many requests that is follows from what one has cost
lately, so it shrinks by itself when the machine slows down or shedding itself takes time. While shedding lasts, it is a
quarter of that: a queue that stands gains nothing by being long, and what waits in a short one is still in the core's
caches (after CoDel, Nichols and Jacobson 2012: a long queue is for bursts).

What a request is worth is its exchange's: the expected surplus of its bids over its requests, recently. An exchange
whose requests are all shed drifts back to the average, so that it is tried again.

A front that has its whole queue in hand cuts it (`cut`). One that hands requests on as they come asks at the door
(`full`): there the exchanges that are worth least find the queue full at LEAST of what the best may fill.

Invariant: below the limit nothing is shed and nothing is spent but a comparison per round and two divisions per batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import compress
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from dsp.base.config import BidderConfig
from dsp.base.metrics import OUTCOMES, UNKNOWN_EXCHANGE, Metrics

C = TypeVar("C", bound=tuple[Any, ...])  # whose request, body, exchange, ...

COST_MEMORY = 0.05  # weight of the newest batch
WORTH_MEMORY = 0.2  # weight of the newest period
IDLE_NS = 500_000  # a front that takes longer to see the next request had none
LASTING = 4  # the queue is so many times shorter while shedding lasts
CALM_NS = 100_000_000  # it lasts once it has gone on for so long, and until there was none for as long
DRIFT = 0.05  # towards the average, per period without requests
DECIDED = (OUTCOMES.index("bid"), OUTCOMES.index("no_bid"))
LEAST = 0.75
SHED = OUTCOMES.index("shed")


class Shedder:
    """The limit of one front's queue, and who is to go. One thread uses it."""

    def __init__(self, config: BidderConfig, metrics: Metrics, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.limit = config.queue_limit
        self._most, self._least = config.queue_limit, min(config.max_batch, config.queue_limit)
        self._delay_ns = config.queue_delay_ms * 1e6
        self._clock_ns = clock_ns
        self._requests = metrics.counter("dsp_bid_requests_total")
        self._surplus = metrics.counter("dsp_bid_surplus_micros_total")
        self._seen = self._totals()
        self._seen_shed = self._requests[:, SHED].copy()
        self.worth = np.zeros(UNKNOWN_EXCHANGE + 1)  # by exchange, CPM micro-dollars per request
        self.share: list[float] = [1.0] * (UNKNOWN_EXCHANGE + 1)  # of the limit that an exchange may find taken
        self._busy_ns = self._done = 0.0  # of the last twenty batches that others waited behind
        self._since_ns = 0  # end of the batch before, 0 where nothing waited then
        self._first_ns = self._last_ns = -CALM_NS  # of the present spell of shedding

    def decided(self, n: int, *, more: bool) -> None:
        """A batch of ``n`` is done; whether ``more`` is waiting. Only busy rounds tell what a request costs."""
        now_ns = self._clock_ns()
        if self._since_ns and self._delay_ns:
            self._busy_ns += now_ns - self._since_ns - self._busy_ns * COST_MEMORY
            self._done += n - self._done * COST_MEMORY
        if self._done:
            lasts = self._last_ns - self._first_ns > CALM_NS and now_ns - self._last_ns <= CALM_NS
            delay_ns = self._delay_ns / LASTING if lasts else self._delay_ns
            self.limit = max(self._least, min(self._most, int(delay_ns * self._done / self._busy_ns)))
        self._since_ns = now_ns if more else 0

    def idle_until(self, arrived_ns: int) -> None:
        """For a front that cannot see what waits for it: the first request of the next batch arrived at ``arrived_ns``.
        Where that is well after the batch before, nobody waited.
        """
        if arrived_ns - self._since_ns > IDLE_NS:
            self._since_ns = 0

    def cut(self, waiting: list[C]) -> list[C]:
        """Take what exceeds the limit out of ``waiting``: the least worth, and of those the newest; the rest stays in
        its order. About a fifth of a microsecond for each that waits.
        """
        excess = len(waiting) - self.limit
        if excess <= 0:
            return []
        self._note()
        n = len(waiting)
        exchanges = np.fromiter((each[2] for each in waiting), np.int64, n)
        worth = self.worth[np.minimum(exchanges, UNKNOWN_EXCHANGE)]
        kept = np.ones(n, bool)
        kept[n - 1 - np.argsort(worth[::-1], kind="stable")[:excess]] = False  # of equals the newest first
        out = list(compress(waiting, (~kept).tolist()))
        waiting[:] = compress(waiting, kept.tolist())
        return out

    def full(self, exchange: int, waiting: int) -> bool:
        """Whether a queue of ``waiting`` has no room for ``exchange``; to be asked where it is over half the limit."""
        full = waiting >= self.limit * self.share[min(exchange, UNKNOWN_EXCHANGE)]
        if full:
            self._note()
        return full

    def _note(self) -> None:
        """Something is shed now."""
        now_ns = self._clock_ns()
        if now_ns - self._last_ns > CALM_NS:
            self._first_ns = now_ns
        self._last_ns = now_ns

    def update(self) -> None:
        """Learn from the counters what requests were worth since the last time; a few times a second."""
        requests, surplus = self._totals()
        n, value = requests - self._seen[0], surplus - self._seen[1]
        self._seen = requests, surplus
        if not n.any():
            return
        worth, mean = self.worth, float(value.sum() / n.sum())
        recent = value / np.maximum(n, 1)
        weight = np.where(worth > 0, WORTH_MEMORY, 1.0)
        worth = np.where(n > 0, worth + (recent - worth) * weight, worth + (mean - worth) * DRIFT)
        self.worth = worth
        shed = self._requests[:, SHED].copy()
        self.share = shares(worth, n + shed - self._seen_shed)
        self._seen_shed = shed

    def _totals(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        return self._requests[:, DECIDED].sum(axis=1), self._surplus.copy()


def shares(worth: npt.NDArray[np.float64], traffic: npt.NDArray[np.int64]) -> list[float]:
    """LEAST ... 1 by exchange: LEAST for what is worth least, and the more the more traffic is worth less than it.

    ``worth`` float64[n], ``traffic`` int64[n]. Who is worth as much has the same share; the best has all.
    """
    seen = traffic > 0
    if not seen.any():
        return [1.0] * len(worth)
    values, at = np.unique(np.where(seen, worth, worth[seen].max()), return_inverse=True)
    below = np.concatenate([[0], np.cumsum(np.bincount(at, traffic))])
    best = below[len(values) - 1]  # traffic that is worth less than the best
    return (LEAST + (1 - LEAST) * below[at] / best if best else np.ones(len(worth))).tolist()
