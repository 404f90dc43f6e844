"""A simulated clock, a signer, and a worker that bids in a row of simulated steps."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from dsp.base.config import Config
from dsp.base.token import TOKEN, Signer
from dsp.bidder.slices import Slices
from dsp.ledger.books import Books
from dsp.ledger.local import LocalLedger
from dsp.ledger.plan import Budget, LinePlan, Plan

START_MS = 1_700_000_000_000  # 2023-11-14 22:13:20 UTC


@dataclass
class Clock:
    ns: int = 10**12

    def __call__(self) -> int:
        return self.ns

    def time_ms(self) -> int:
        return START_MS + (self.ns - 10**12) // 1_000_000

    def advance(self, seconds: float) -> None:
        self.ns += int(seconds * 1e9)


@dataclass
class World:
    """One ledger over books in a file (or memory), as many workers as asked for."""

    path: object
    clock: Clock = field(default_factory=Clock)
    signer: Signer = field(default_factory=lambda: Signer({1: b"k" * 32}))
    config: Config = field(default_factory=Config)
    next_bid: int = 1
    up: bool = True

    def __post_init__(self) -> None:
        self.plan = Plan([])
        self.open()

    def open(self) -> None:
        self.books = Books.open(
            self.path, self.config.ledger, mono_ns=self.clock(), time_ms=self.clock.time_ms(), durable=False
        )
        self.ledger = LocalLedger(self.books, self.signer, self.clock, self.clock.time_ms)
        self.adopt(self.plan)

    def restart(self) -> None:
        self.books.close()
        self.open()

    def adopt(self, plan: Plan) -> None:
        self.plan = plan
        with self.books.batch():
            self.books.adopt(plan, self.clock.time_ms())

    def sync(self, request):
        if not self.up:
            raise OSError("the ledger is away")
        return self.ledger.sync(request)

    def close(self) -> None:
        pass

    def worker(self, name: str = "w", lines: int | None = None) -> Slices:
        slices = Slices(self.config, self, worker=name, clock=self.clock, threaded=False)
        ids = [line.id for line in self.plan.lines][:lines]
        slices.attach(np.array(ids, np.int64))
        return slices

    def bid(self, slices: Slices, row: int, reserve: int, cpm: int | None = None, **fields) -> bytes | None:
        """What the engine does: refresh, reserve, seal. None when the slice does not allow it."""
        slices.refresh(self.clock())
        if slices.available[row] < reserve or not slices.live(self.clock()):
            return None
        slices.available[row] -= reserve
        slices.reserved[row] += reserve
        where = {
            "line_item": int(slices._ids[row]),
            "period": int(slices.period[row]),
            "bucket": slices.bucket,
            "lease": slices.lease,
            "epoch": slices.epoch,
        }
        return self.token(reserve_micros=reserve, bid_cpm_micros=cpm or reserve * 1000, **(where | fields))

    def token(self, **fields) -> bytes:
        record = np.zeros(1, TOKEN)
        defaults = {
            "kid": self.signer.kid,
            "currency": b"USD",
            "fx": 1.0,
            "line_item": 1,
            "exchange": 7,
            "creative": 5,
            "reserve_micros": 10_000,
            "bid_cpm_micros": 10_000_000,
            "bid_id": self.next_bid,
            "time_s": self.clock.time_ms() // 1000,
        }
        self.next_bid += 1
        for name, value in {**defaults, **fields}.items():
            record[name] = value
        return self.signer.seal(record.tobytes())


def simple_plan(lines: int = 1, total: int = 1_000_000, campaign: int | None = None, **settings) -> Plan:
    """``lines`` line items 1.. of campaign 10, advertiser 100; bids of 10,000 micros, slices of at least three."""
    campaigns = {} if campaign is None else {10: Budget(campaign)}
    items = [LinePlan(i, 10, 100, least_micros=30_000, budget=Budget(total)) for i in range(1, lines + 1)]
    return Plan(items, campaigns, **{"exp_s": 10.0, **settings})
