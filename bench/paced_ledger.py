"""The same day of pacing through the product: a worker's slices, the ledger's grants, notices and books, on one clock.

`python -m bench pacing --ledger`. Every bid takes its reservation from a slice, every win and loss is a notice that
comes one step later, every multiplier arrives with a grant. What pacing knows at midnight is what a ledger keeps: the
traffic curve of the week before; nothing of today's auctions. Syncs come once a step of 10 s (in production every
0.25 s), so slices are made to last as long.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.pacing import DAY_S, FIRST_S, LEARN_DAYS, Case, Rivals, factor_of, traffic
from dsp.base.config import Config, LedgerConfig
from dsp.bidder.slices import Slices
from dsp.control import pacing as control
from dsp.control.pacing import Pacing
from dsp.control.traffic import learn
from dsp.ledger.books import Books
from dsp.ledger.plan import Budget, LinePlan, Plan
from dsp.ledger.ticket import Notice, Ticket
from dsp.log.outcomes import BILLING, LOSS

F64 = npt.NDArray[np.float64]
STEP_S = 10.0
_TICKET = Ticket(1, 0, 7, 0, 5, 0, 0, b"USD", 0, 1.0, 0, 0, 0, 0, 0, 0, 1, b"", 2)


@dataclass
class _Kept:
    line_item: int
    state: bytes


class _Clock:
    ns = 10**12

    def __call__(self) -> int:
        return self.ns


class _Direct:
    """The worker's way to the books."""

    def __init__(self, books: Books, clock: _Clock) -> None:
        self.books, self.clock = books, clock

    def sync(self, request: Any) -> Any:
        now_ms = time_ms(self.clock)
        with self.books.batch():
            self.books.tick(self.clock(), now_ms)
            return self.books.sync(request, self.clock(), now_ms)

    def close(self) -> None:
        pass


def time_ms(clock: _Clock) -> int:
    """The simulated wall clock: the first day that counts begins when the monotonic one stands at 10^12."""
    return int((FIRST_S + LEARN_DAYS * DAY_S) * 1000) + (clock.ns - 10**12) // 1_000_000


def day_through_ledger(cases: list[Case], seed: int = 1, hours: int = 24) -> dict[str, F64]:
    """Hourly spend as posted by bid time, plan, all there was to buy [1, 24, L]; delivered [1, L]; overspent micros."""
    n, clock = len(cases), _Clock()
    rng = np.random.default_rng(seed)
    x = traffic(False, STEP_S)
    config = Config(ledger=LedgerConfig(slice_s=15.0))
    books = Books.open(":memory:", config.ledger, mono_ns=clock(), time_ms=time_ms(clock), durable=False)
    taught = Pacing.fresh(n)
    for day in range(LEARN_DAYS):
        halves = x[day * 8640 : (day + 1) * 8640].reshape(48, -1).mean(1)
        learn(taught.traffic, (int(FIRST_S // DAY_S) + day + 3) % 7, np.tile(halves, (n, 1)))
    reach = [_reach(rng) for _ in cases]
    budget = [most * case.per_s * DAY_S * case.part for most, case in zip(reach, cases, strict=True)]
    states = control.dump(taught)
    books.pacer.load([_Kept(i + 1, states[i].tobytes()) for i in range(n)])
    lines = [
        LinePlan(i + 1, 10, 100, least_micros=50_000, budget=Budget(daily_micros=int(b)), pacing="even")
        for i, b in enumerate(budget)
    ]
    with books.batch():
        books.adopt(Plan(lines, exp_s=20.0), time_ms(clock))
    slices = Slices(config, _Direct(books, clock), worker="bench", clock=clock, threaded=False)
    slices.attach(np.arange(1, n + 1))
    run = _Day(books, slices, clock, rng, cases)
    for k in range(hours * 360 - 1):  # the step at midnight would be the next day's
        run.step(x[LEARN_DAYS * 8640 + k])
    run.finish()
    planned = taught_plan(taught, budget)
    posted = np.array([books.spend(i + 1) for i in range(n)], float)
    books.check()
    out = {
        "hourly": run.hourly[None],
        "planned": planned[None],
        "everything": (run.auctions * np.array(reach))[None],
        "delivered": (posted / np.array(budget))[None],
        "overspend": np.maximum(posted - np.floor(budget), 0.0),
    }
    books.close()
    return out


def taught_plan(taught: Pacing, budget: list[float]) -> F64:
    """The plan as of midnight, [24, L]."""
    n, start = len(budget), FIRST_S + LEARN_DAYS * DAY_S
    taught.replan(np.ones(n, bool), start)
    ones = np.ones(n)
    plans = control.Plans(
        *(start * ones, (start + DAY_S) * ones, np.array(budget), np.zeros(n, np.int8)),
        *(0 * ones, np.inf * ones, ones),
    )
    return np.diff([taught.planned(plans, start + 3600 * h) for h in range(25)], axis=0)


def _draw(rng: np.random.Generator, n: int) -> tuple[F64, F64]:
    """Values and prices to win of n auctions, micros."""
    rivals, z = Rivals(), rng.normal(size=n)
    value = 1000.0 * np.exp(rivals.value_sd * z)
    return value, 1000.0 * rivals.level * np.exp(rivals.follow * z + rivals.price_sd * rng.normal(size=n))


def _reach(rng: np.random.Generator) -> float:
    """Expected cost of an auction at multiplier 1."""
    value, price = _draw(rng, 200_000)
    return float(np.where(value >= price, price, 0.0).mean())


class _Day:
    """The market's side."""

    def __init__(
        self, books: Books, slices: Slices, clock: _Clock, rng: np.random.Generator, cases: list[Case]
    ) -> None:
        self.books, self.slices, self.clock, self.rng, self.cases = books, slices, clock, rng, cases
        self.hourly, self.auctions = np.zeros((2, 24, len(cases)))
        self.bid_id = 0
        self.due: deque[Notice] = deque()

    def step(self, level: float) -> None:
        """One step: yesterday's notices arrive, then auctions are held."""
        clock, slices = self.clock, self.slices
        clock.ns += int(STEP_S * 1e9)
        now_ms = time_ms(clock)
        with self.books.batch():
            self.books.apply([notice._replace(time_ms=now_ms) for notice in self.due])
        self.due.clear()
        slices.refresh(clock())
        hour = (now_ms / 1000 - FIRST_S) / 3600 % 24
        for i, case in enumerate(self.cases):
            auctions = self.rng.poisson(level * case.per_s * STEP_S * factor_of(case, hour))
            self.auctions[int(hour), i] += auctions
            self._trade(i, auctions, now_ms, int(hour))

    def _trade(self, i: int, auctions: int, now_ms: int, hour: int) -> None:
        slices = self.slices
        value, price = _draw(self.rng, auctions)
        bids = np.maximum(value * slices.multiplier[i], 1.0)
        base = _TICKET._replace(
            line_item=i + 1,
            period=int(slices.period[i]),
            bucket=slices.bucket,
            lease=slices.lease,
            epoch=slices.epoch,
            time_s=now_ms // 1000,
        )
        for bid, least in zip(np.floor(bids).astype(int).tolist(), np.ceil(price).astype(int).tolist(), strict=True):
            if slices.available[i] < bid:
                continue
            slices.available[i] -= bid
            slices.reserved[i] += bid
            self.bid_id += 1
            ticket = base._replace(bid_id=self.bid_id, reserve_micros=bid, bid_cpm_micros=bid * 1000)
            if bid >= least:
                self.hourly[hour, i] += least
                self.due.append(Notice(BILLING, ticket, now_ms, least * 1000))
            else:
                self.due.append(Notice(LOSS, ticket, now_ms, 0))

    def finish(self) -> None:
        """The last notices."""
        with self.books.batch():
            self.books.apply(list(self.due))
