"""The market in one process, on a simulated clock: days of decision and outcome logs in seconds, to learn from.

The engine is called directly; settlement and behaviour are the live market's own. Outcomes go to the outcome log and,
where asked for, through a ledger in memory (`InMemoryLedger`: budgets bind, every notice is booked). Auction times are
spread evenly over the simulated span, conversions follow within minutes.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from dsp.audience.guard import Guard
from dsp.audience.lmdb_store import open_profiles
from dsp.base.config import Config
from dsp.base.money import parse_micros
from dsp.base.token import Signer, load_signer
from dsp.bidder.answer import BID
from dsp.bidder.engine import Engine
from dsp.bidder.slices import Slices
from dsp.catalog.layout import LI_ID
from dsp.catalog.snapshot import Snapshot
from dsp.ledger.books import Books
from dsp.ledger.local import LocalLedger
from dsp.ledger.plan import plan_of
from dsp.ledger.ticket import Notice, open_ticket
from dsp.log.outcomes import BILLING, LOSS, OUTCOMES, WIN, OutcomeWriter
from dsp.market.supply import Scene
from dsp.market.truth import regret
from dsp.market.world import Sale, World
from dsp.openrtb.columns import FMT_JSON

BATCH = 64
DAY_S = 86_400
STEP_S = 60.0  # a second of the live market's delays is a minute here

OutcomeRow = tuple[int, int, int, int, float]
Progress = Callable[[int, int], None]


@dataclass
class Summary:
    """What a simulation did. Money in USD; ``regret_usd`` against the omniscient bid at true expected values."""

    requests: int = 0
    answered: int = 0
    bids: int = 0
    wins: int = 0
    spend_usd: float = 0.0
    value_usd: float = 0.0
    regret_usd: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    charges: Counter[int] = field(default_factory=Counter)  # micros by line item, account currency
    posted: dict[int, int] = field(default_factory=dict)  # the same, as the ledger posted it


class InMemoryLedger(LocalLedger):
    """Books in memory behind a worker's slices, on the simulated wall clock; durations run on the monotonic one."""

    def __init__(self, config: Config, snapshot: Snapshot, signer: Signer, clock: Callable[[], int]) -> None:
        def time_ms() -> int:
            return clock() // 1_000_000

        books = Books.open(":memory:", config.ledger, mono_ns=time.monotonic_ns(), time_ms=time_ms())
        super().__init__(books, signer, time_ms=time_ms)
        with books.batch():
            books.adopt(plan_of(snapshot), time_ms())

    def notify(self, sales: Sequence[Sale], rows: Sequence[OutcomeRow]) -> None:
        """Book the outcomes of ``sales`` in one transaction; each bid's token is in its billing URL."""
        tickets = {int(sale.bid["id"], 16): open_ticket(self.signer, token_of(sale)) for sale in sales}
        notices = [
            Notice(kind, tickets[bid_id], at_ms, price, parse_micros(f"{value:.6f}"))
            for bid_id, kind, at_ms, price, value in rows
        ]
        if notices:
            with self.books.batch():
                self.books.apply(notices)


def token_of(sale: Sale) -> str:
    """The signed token in a bid's billing URL."""
    rest: str = sale.bid["burl"].partition("/b/")[2]
    return rest.partition("?")[0]


def simulate(
    config: Config,
    world: World,
    snapshot: Snapshot,
    requests: int,
    *,
    first: int = 0,
    days: float = 3.0,
    end_s: float | None = None,
    explore: float = 1.0,
    ledger: bool = False,
    log: bool = True,
    progress: Progress | None = None,
    **parts: Any,
) -> Summary:
    """Hold auctions ``first`` .. ``first + requests`` over ``days`` that end at ``end_s`` (now).

    Decisions and outcomes go to ``config``'s logs where ``log``. ``explore`` multiplies what the engine thinks an
    impression is worth, to learn also of those it would not have bought. With ``ledger`` budgets bind and money is
    booked, else every line item has unlimited money. ``parts`` are further parts for `Engine.open` (scorer, ...).
    """
    end_s = time.time() if end_s is None else end_s
    clock = _Clock(int((end_s - days * DAY_S) * 1e9))
    signer = load_signer(config.path("secrets", "signing.json"))
    in_memory = InMemoryLedger(config, snapshot, signer, clock) if ledger else None
    slices = (
        Slices(config, in_memory, worker="simulation", threaded=False)
        if in_memory is not None
        else Slices.fixed(snapshot.li_i[:, LI_ID])
    )
    parts.setdefault("store", Guard(open_profiles(config)))
    if not log:
        bidder = msgspec.structs.replace(config.bidder, log_decisions=False)
        config = msgspec.structs.replace(config, bidder=bidder)
    engine = Engine.open(config, snapshot=snapshot, slices=slices, signer=signer, clock=clock, **parts)
    engine.slices.multiplier[:] = explore
    outcomes = OutcomeWriter(Path(config.path("log", "outcomes")), "simulation") if log else None
    run = _Run(world, engine, clock, in_memory, outcomes)
    try:
        step_ns = int(days * DAY_S * 1e9 / max(requests, 1))
        for start in range(first, first + requests, BATCH):
            size = min(BATCH, first + requests - start)
            run.batch(start, size)
            clock.now_ns += size * step_ns
            if progress is not None:
                progress(start + size - first, requests)
    finally:
        engine.close()
        if outcomes is not None:
            outcomes.close()
        if in_memory is not None:
            run.summary.posted = {line: in_memory.books.spend(line) for line in run.summary.charges}
            in_memory.books.check()
            in_memory.books.close()
    return run.summary


@dataclass
class _Clock:
    """The simulated wall clock."""

    now_ns: int

    def __call__(self) -> int:
        return self.now_ns


@dataclass
class _Run:
    """One simulation under way."""

    world: World
    engine: Engine
    clock: _Clock
    ledger: InMemoryLedger | None
    outcomes: OutcomeWriter | None
    summary: Summary = field(default_factory=Summary)

    def __post_init__(self) -> None:
        self._json = msgspec.json.Encoder()
        self._indices = [self.engine.exchange_of(venue.name) for venue in self.world.factory.venues]

    def batch(self, first: int, size: int) -> None:
        """Decide, settle and report auctions first .. first + size."""
        world, summary = self.world, self.summary
        scenes = [world.factory.scene(i) for i in range(first, first + size)]
        bodies = [self._json.encode(scene.body) for scene in scenes]
        answers = self.engine.decide(bodies, [FMT_JSON] * size, [self._indices[scene.venue] for scene in scenes])
        summary.requests += size
        sales: list[Sale] = []
        for scene, (kind, payload) in zip(scenes, answers, strict=True):
            if kind == BID:
                sales += self._sell(scene, payload)
        if sales:
            self._report(sales)

    def _sell(self, scene: Scene, payload: bytes) -> list[Sale]:
        self.summary.answered += 1
        return self.world.sell(scene, msgspec.json.decode(payload))

    def _report(self, sales: list[Sale]) -> None:
        """Value, regret and everything the viewers did, as outcome rows."""
        world, summary = self.world, self.summary
        hour = np.full(len(sales), self.clock.now_ns / 3.6e12 % 24)
        p = world.probabilities(sales, hour)
        value = world.value_cpm_usd(sales, p)
        won = np.array([sale.settlement.won for sale in sales])
        usd = np.array([sale.venue.usd for sale in sales])
        paid = np.array([sale.settlement.price_micros * 1e-6 for sale in sales]) * usd
        enough = np.array([sale.settlement.min_to_win_micros * 1e-6 for sale in sales]) * usd
        summary.bids += len(sales)
        summary.wins += int(won.sum())
        summary.spend_usd += float(paid.sum()) / 1000
        summary.value_usd += float(value[won].sum()) / 1000
        summary.regret_usd += float(regret(value, enough, won, paid).sum()) / 1000
        rows: list[OutcomeRow] = []
        for sale, row in zip(sales, p.tolist(), strict=True):
            rows += self._rows(sale, row)
        summary.outcomes.update(OUTCOMES[row[1]] for row in rows)
        if self.ledger is not None:
            self.ledger.notify(sales, rows)
        if self.outcomes is not None:
            self.outcomes.append(rows)

    def _rows(self, sale: Sale, p: list[float]) -> list[OutcomeRow]:
        bid_id, now_ms = int(sale.bid["id"], 16), self.clock.now_ns // 1_000_000
        settlement = sale.settlement
        if not settlement.won:
            return [(bid_id, LOSS, now_ms + 200, settlement.min_to_win_micros, float(sale.loss))]
        self.summary.charges[sale.ad.line_item] += sale.charge_micros
        price = settlement.price_micros
        rows: list[OutcomeRow] = [(bid_id, WIN, now_ms + 200, price, 0.0), (bid_id, BILLING, now_ms + 1000, price, 0.0)]
        at_ms = now_ms + 2000
        for deed in self.world.deeds(sale, p):
            at_ms += int(deed.after_s * STEP_S * 1000)
            rows.append((bid_id, OUTCOMES.index(deed.step), at_ms, 0, deed.value))
        return rows
