"""Do budgets hold, and are they spent? Four workers bid on 1,000 line items until their flight ends. Simulated clock.

`python -m bench money [--lines 1000] [--seed 1] [--demand 8] [--workers 4]`. The real slices, grants and books run on
a simulated clock; only the exchanges are made up. Budgets are 100 to 1,000 maximum bids, win rates 5 to 50 %, every
other line item's exchange reports losses, prices are first or second; every 500th win notice comes after its
reservation has expired. In a second run every notice is delivered one to five times, shuffled, 10 % of them after
expiry, and the books must end as those that got each notice once and in order.

Bars: overspend 0 apart from late wins; unspent at the flight's end at most one bid and 3 %.
"""

from __future__ import annotations

import argparse
import heapq
import json
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import Progress

from bench.ledgers import EXCHANGE, MAX_BID
from dsp.base.config import Config, LedgerConfig
from dsp.bidder.slices import Slices
from dsp.control.grants import SyncReply, SyncRequest
from dsp.ledger.books import Books
from dsp.ledger.plan import Budget, LinePlan, Plan
from dsp.ledger.status import totals
from dsp.ledger.ticket import Notice, Ticket
from dsp.log.outcomes import BILLING, LOSS

I64 = npt.NDArray[np.int64]
START_MS = 1_700_000_000_000
EXP_S = 10.0
SKEW_S = 5.0
STEP_S = 0.5
DEMAND = 8.0


@dataclass(frozen=True)
class Setting:
    """One simulation."""

    seed: int = 1
    lines: int = 1_000
    workers: int = 4
    flight_s: float = 2_400.0
    win_rates: tuple[float, float] = (0.05, 0.5)
    late: float = 1 / 500  # share of wins whose notice comes after expiry
    demand: float = DEMAND  # times the bids that a budget needs, were each won at the maximum bid
    shuffled: bool = False  # each notice 1 to 5 times, out of order, 10 % after expiry


@dataclass
class Clock:
    """Simulated time."""

    ns: int = 10**12

    def __call__(self) -> int:
        """Monotonic nanoseconds."""
        return self.ns

    @property
    def ms(self) -> int:
        """Unix time."""
        return START_MS + (self.ns - 10**12) // 1_000_000


@dataclass
class Market:
    """Workers, exchanges and the mail between them and the ledger."""

    setting: Setting
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        s = self.setting
        self.rng = np.random.default_rng(s.seed)
        self.budgets = self.rng.integers(100, 1001, s.lines) * MAX_BID
        self.win_rate = self.rng.uniform(*s.win_rates, s.lines)
        self.reports_losses = np.arange(s.lines) % 2 == 0
        self.second_price = self.rng.random(s.lines) < 0.5
        self.demand = (
            s.demand * self.budgets / MAX_BID / self.win_rate / s.flight_s / s.workers
        )  # bids a second and worker
        config = Config(ledger=LedgerConfig(skew_s=SKEW_S, sync_s=STEP_S, win_rate_jump=0, price_jump=0))
        self.books = Books.open(":memory:", config.ledger, mono_ns=self.clock(), time_ms=self.clock.ms, durable=False)
        end_ms = self.clock.ms + int(s.flight_s * 1000)
        self.plan = Plan(
            [
                LinePlan(i, 10, 100, least_micros=8 * MAX_BID, budget=Budget(int(budget)), end_ms=end_ms)
                for i, budget in enumerate(self.budgets.tolist(), 1)
            ],
            exp_s=EXP_S,
        )
        with self.books.batch():
            self.books.adopt(self.plan, self.clock.ms)
        self.workers = [
            Slices(config, self, worker=f"w{i}", clock=self.clock, threaded=False) for i in range(s.workers)
        ]
        for worker in self.workers:
            worker.attach(np.arange(1, s.lines + 1))
        self.mail: list[tuple[int, int, Notice]] = []  # due ms, order, notice
        self.wins: list[Notice] = []
        self.bids = self.notices = self.next_bid = 0

    def sync(self, request: SyncRequest) -> SyncReply:
        """The workers' transport."""
        with self.books.batch():
            self.books.tick(self.clock(), self.clock.ms)
            return self.books.sync(request, self.clock(), self.clock.ms)

    def close(self) -> None:
        """The transport has nothing to close."""

    def step(self) -> None:
        """Half a second: bid, then deliver what is due."""
        self.clock.ns += int(STEP_S * 1e9)
        for worker in self.workers:
            worker.refresh(self.clock())
            if worker.live(self.clock()):
                self._bid(worker)
        self.deliver(self.clock.ms)

    def _bid(self, worker: Slices) -> None:
        n = self.rng.poisson(self.demand * STEP_S)
        reserve = (self.rng.uniform(0.3, 1.0, len(n)) * MAX_BID).astype(np.int64)
        n = np.minimum(n, np.maximum(worker.available, 0) // reserve)
        worker.available -= n * reserve
        worker.reserved += n * reserve
        wins = self.rng.binomial(n, self.win_rate)
        self.bids += int(n.sum())
        for row in np.flatnonzero(n).tolist():
            r = int(reserve[row])
            for k in range(int(n[row])):
                won = k < wins[row]
                if won or self.reports_losses[row]:
                    self._post(worker, row, r, won)

    def _post(self, worker: Slices, row: int, reserve: int, won: bool) -> None:
        self.next_bid += 1
        rng, now_ms = self.rng, self.clock.ms
        ticket = Ticket(
            kid=1,
            flags=0,
            exchange=EXCHANGE,
            line_item=row + 1,
            creative=5,
            reserve_micros=reserve,
            bid_cpm_micros=reserve * 1000,
            currency=b"USD",
            arm=0,
            fx=1.0,
            period=int(worker.period[row]),
            bucket=worker.bucket,
            lease=worker.lease,
            epoch=worker.epoch,
            bid_id=self.next_bid,
            time_s=now_ms // 1000,
            media=1,
            person=bytes(16),
            at=1,
        )
        cpm = int(reserve * 1000 * (rng.uniform(0.5, 1.0) if self.second_price[row] else 1.0))
        notice = Notice(BILLING if won else LOSS, ticket, now_ms, cpm if won else 0)
        self.notices += 1
        if won:
            self.wins.append(notice)
        for _ in range(int(rng.integers(1, 6)) if self.setting.shuffled else 1):
            late = rng.random() < (0.1 if self.setting.shuffled else self.setting.late if won else 0)
            after_s = rng.uniform(EXP_S + SKEW_S + 5, 60) if late else min(rng.exponential(1.0), EXP_S - 1)
            heapq.heappush(self.mail, (now_ms + int(after_s * 1000), int(rng.integers(1 << 40)), notice))

    def deliver(self, until_ms: int) -> None:
        """Book the mail that is due."""
        due = []
        while self.mail and self.mail[0][0] <= until_ms:
            due.append(heapq.heappop(self.mail)[2])
        if due:
            with self.books.batch():
                self.books.apply([notice._replace(time_ms=self.clock.ms) for notice in due])


def run(setting: Setting, progress: Progress | None = None) -> dict[str, Any]:
    """Simulate a flight; what was overspent and left, per line item, and whether the books are right."""
    began = time.perf_counter()
    market = Market(setting)
    task = (
        progress.add_task("shuffled" if setting.shuffled else "in order", total=setting.flight_s) if progress else None
    )
    for _ in range(int(setting.flight_s / STEP_S)):
        market.step()
        if progress is not None and task is not None:
            progress.advance(task, STEP_S)
    market.deliver(1 << 62)
    books = market.books
    books.check()
    spent = np.array([books.spend(i) for i in range(1, setting.lines + 1)])
    over = np.maximum(spent - market.budgets, 0)
    left = np.maximum(market.budgets - spent, 0)
    allowed = MAX_BID + 0.03 * market.budgets
    same = _same_as_once(market)
    result = {
        "lines": setting.lines,
        "workers": setting.workers,
        "seed": setting.seed,
        "demand": setting.demand,
        "shuffled": setting.shuffled,
        "bids": market.bids,
        "notices": market.notices,
        "spent_share": round(float(spent.sum() / market.budgets.sum()), 5),
        "overspent_lines": int((over > 0).sum()),
        "overspend_micros": int(over.sum()),
        "late_wins": books.counts["late_wins"],
        "overspend_beyond_late_wins_micros": int(np.maximum(over - _late_micros(market), 0).sum()),
        "worst_unspent_share": round(float((np.maximum(left - MAX_BID, 0) / market.budgets).max()), 5),
        "lines_left_with_too_much": int((left > allowed).sum()),
        "books_as_if_once_and_in_order": same,
        "seconds": round(time.perf_counter() - began, 1),
    }
    books.close()
    return result


def _late_micros(market: Market) -> I64:
    """What was posted after its bucket had closed, by line item."""
    late = np.zeros(market.setting.lines, np.int64)
    with market.books.journal.engine.connect() as connection:
        for line, micros in connection.exec_driver_sql(
            "SELECT line_item, SUM(micros) FROM entries WHERE late = 1 AND kind = 1 GROUP BY line_item"
        ):
            late[int(line) - 1] = int(micros)
    return late


def _same_as_once(market: Market) -> bool:
    """The balances and events of fresh books that get each notice once, in the order in which they happened."""
    # Losses move no money.
    fresh = Books.open(":memory:", LedgerConfig(win_rate_jump=0, price_jump=0), durable=False)
    with fresh.batch():
        fresh.adopt(market.plan, START_MS)
        fresh.apply(market.wins)
    same = fresh.balances() == market.books.balances()
    mine, theirs = totals(fresh)["events"], totals(market.books)["events"]
    del mine["loss"], theirs["loss"]  # not durable, so deduplicated within their bucket only
    fresh.close()
    return same and mine == theirs


def verdict(result: dict[str, Any]) -> bool:
    """Whether every bar is met."""
    return (
        result["overspend_beyond_late_wins_micros"] == 0
        and result["lines_left_with_too_much"] == 0
        and bool(result["books_as_if_once_and_in_order"])
    )


def main(args: list[str]) -> int:
    """Simulate both deliveries, print, fail where a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench money", description=__doc__)
    parser.add_argument("--lines", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--flight", type=float, default=2_400.0, help="simulated seconds")
    parser.add_argument("--demand", type=float, default=DEMAND, help="times the bids that a budget needs")
    parser.add_argument("--workers", type=int, default=4, help="1: what nobody who divides budgets can do better")
    parser.add_argument("--once", action="store_true", help="only the run with each notice once and in order")
    parser.add_argument("--json", action="store_true", help="JSON lines only")
    options = parser.parse_args(args)
    fine = True
    with Progress(console=Console(stderr=True)) as progress:
        for shuffled in (False,) if options.once else (False, True):
            setting = Setting(
                *(options.seed, options.lines, options.workers, options.flight),
                demand=options.demand,
                shuffled=shuffled,
            )
            result = run(setting, progress)
            fine = fine and verdict(result)
            if options.json:
                print(json.dumps(result))
            else:
                print(f"{'met' if verdict(result) else 'MISSED'}: " + ", ".join(f"{k} {v}" for k, v in result.items()))
    return int(not fine)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
