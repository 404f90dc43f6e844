"""The books: notices become events and entries, once each; slices are granted; everything survives a crash.

A `batch` is one SQL transaction. Whatever is returned from `apply` and `sync` inside it may leave the process only
after the batch ended well. When it did not, memory is ahead of the disk and the object refuses further work (`broken`):
open the books again, which is what start-up does, too. Sources: design section 5; two-phase transfers of TigerBeetle.
What a notice does is in its parts: `posting`, `crediting`, `adjusting`, `stops`; they share one `state`.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from dsp.base.config import LedgerConfig
from dsp.control.grants import SyncReply, SyncRequest
from dsp.ledger import attribution
from dsp.ledger.accounts import ADVERTISER, LINE_ITEM, Account
from dsp.ledger.adjust import Adjustment
from dsp.ledger.adjusting import Adjusting
from dsp.ledger.balances import BrokenInvariantError
from dsp.ledger.brakes import Brakes
from dsp.ledger.crediting import Crediting
from dsp.ledger.database import open_database
from dsp.ledger.grants import Granting
from dsp.ledger.journal import FencedError, Journal
from dsp.ledger.pacer import Pacer
from dsp.ledger.periods import ALL_TIME, periods_of
from dsp.ledger.plan import BILLABLE_BILLING, BILLED_BY, Plan
from dsp.ledger.posting import Posting
from dsp.ledger.recovery import recover
from dsp.ledger.rows import event_row, grant_row, lease_row, line_row, ref
from dsp.ledger.schema import sql_id
from dsp.ledger.state import State
from dsp.ledger.stops import Stops
from dsp.ledger.ticket import UNFILLED, Notice, charge_micros
from dsp.log.outcomes import BILLING, CLICK, LOSS, WIN

OutcomeRow = tuple[int, int, int, int, float]


class Books:
    """The ledger's state. One thread at a time. ``counts`` counts what users of notices should know."""

    def __init__(self, engine: Engine, config: LedgerConfig, mono_ns: int, time_ms: int) -> None:
        self.journal = Journal(engine)
        self.granting = Granting(config, self.journal.raise_epoch())
        self.pacer = Pacer(self.granting)
        self._state = State(self.journal, self.granting, Brakes(config), self.pacer)
        self.rollups = self._state.rollups
        self._stops = Stops(self._state)
        self._posting = Posting(self._state, self._stops)
        self._crediting = Crediting(self._state)
        self._adjusting = Adjusting(self._state, self._posting)
        self.outcomes: list[OutcomeRow] = []  # of batches that ended well, for whoever logs them
        self.keep_news = False  # whether somebody takes `news`
        self.news: list[Notice] = []  # new notices of batches that ended well, for the audience (`dsp.ledger.news`)
        self.broken = False
        self._new_news: list[Notice] = []
        self._new_outcomes: list[OutcomeRow] = []
        self._open = False
        recover(self._state, self._stops, config, mono_ns)

    @classmethod
    def open(
        cls,
        path: Path | str,
        config: LedgerConfig | None = None,
        *,
        mono_ns: int = 0,
        time_ms: int = 0,
        durable: bool = True,
    ) -> Books:
        """Open or create the books at ``path`` (":memory:" for simulation), fencing any other ledger on them."""
        return cls(open_database(path, durable=durable), config or LedgerConfig(), mono_ns, time_ms)

    def close(self) -> None:
        """Let go of the database; reports are whole then, if it allows."""
        if not self.broken and self.rollups.waiting:
            with contextlib.suppress(SQLAlchemyError, FencedError):  # or the next start does it
                self.roll()
        self.journal.rollback()
        self.journal.engine.dispose()

    def roll(self) -> None:
        """Bring reports up to date now, not within a second."""
        with self.batch():
            self.rollups.due = True

    @property
    def epoch(self) -> int:
        """This ledger's number; workers ignore lower ones."""
        return self.journal.epoch

    # --- transactions ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """Everything inside becomes durable together when the block ends."""
        if self.broken or self._open:
            raise RuntimeError("the books must be opened again" if self.broken else "a batch is open")
        self._open = True
        try:
            yield
            self._write()
            self.journal.commit()
        except BaseException:
            self.broken = True
            self.journal.rollback()
            raise
        finally:
            self._open = False
        self.outcomes += self._new_outcomes
        self._new_outcomes = []
        self.news += self._new_news
        self._new_news = []

    def _write(self) -> None:
        granting, journal = self.granting, self.journal
        journal.put_lines([line_row(line) for line in granting.dirty_lines])
        alive = granting.leases
        journal.put_leases([lease_row(x, granting.epoch, alive=x.id in alive) for x in granting.dirty_leases])
        journal.put_grants([grant_row(slot) for slot in granting.dirty_slots])
        journal.drop_grants(granting.dropped_slots)
        journal.add_balances(self._state.balances.drain())
        journal.add_tallies(self._state.tallies.drain())
        self.pacer.keep(journal)
        self.rollups.write(journal)
        granting.dirty_lines.clear()
        granting.dirty_leases.clear()
        granting.dirty_slots.clear()
        granting.dropped_slots.clear()

    # --- operations, inside a batch ----------------------------------------------------------------------------------

    def adopt(self, plan: Plan, time_ms: int) -> None:
        """Take the budgets of a snapshot."""
        adopted = self.granting.adopt(plan, time_ms)
        balances = self._state.balances
        posted = balances.of_kind(LINE_ITEM, [line.id for line, _ in adopted])
        for line, ancestors in adopted:
            for period, debit, credit in posted[line.id]:
                for account in ancestors:
                    account.post(period, debit - credit)
                    balances.book(account.kind, account.ref, period, line.currency, debit=debit, credit=credit)
        rates = {(code, plan.rates_day): usd for code, usd in plan.rates.items() if plan.rates_day}
        changed = [(*key, usd) for key, usd in rates.items() if self._state.rates.get(key) != usd]
        self._state.rates |= rates
        self.journal.put_rates(changed)
        for advertiser in {ref(line, ADVERTISER) for line in self.granting.lines.values()}:
            self._adjusting.fund(advertiser)

    def tick(self, mono_ns: int, time_ms: int, watermark_ns: int | None = None) -> None:
        """Let time pass: leases end, buckets close, periods begin.

        ``watermark_ns``: every notice that was received before it has been applied; now, where it is not given.
        """
        self.granting.tick(mono_ns, time_ms, watermark_ns)
        self.rollups.tick(mono_ns)
        self.pacer.tick(time_ms)

    def sync(self, request: SyncRequest, mono_ns: int, time_ms: int) -> SyncReply:
        """Answer a worker, after a `tick`; the answer may go out after the batch."""
        return self.granting.sync(request, mono_ns, time_ms)

    def apply(self, notices: Sequence[Notice]) -> list[bool]:
        """Book notices, in order; whether each was new. Notices of test requests are left out by the caller."""
        durable = [notice for notice in notices if notice.kind != LOSS]
        fresh = self._insert(durable) if durable else set()
        results = []
        billable = []
        clicks = []
        for notice in notices:
            if notice.kind == LOSS:
                new = self._void(notice)
            else:
                key = (sql_id(notice.ticket.bid_id), notice.kind)
                new = key in fresh
                fresh.discard(key)  # the next one like it in this batch is a duplicate
                if new and self._is_billable(notice):
                    billable.append(notice)
                elif new and notice.kind == CLICK:
                    clicks.append(notice)
            results.append(new)
            if new:
                self._note(notice)
            else:
                self.counts["duplicates"] += 1
        if billable:
            self._posting.charge(billable)
        if clicks:
            self._crediting.claim(clicks)
        return results

    def _insert(self, notices: Sequence[Notice]) -> set[tuple[int, int]]:
        """Put events on record, conversions with their credit; the (bid, kind) of new ones."""
        others = [notice for notice in notices if not attribution.is_conversion(notice.kind)]
        fresh = self.journal.add_events([self._row(n) for n in others]) if others else set()
        conversions = [notice for notice in notices if attribution.is_conversion(notice.kind)]
        if conversions:
            fresh |= self._crediting.insert(conversions, self._row)
        return fresh

    def _row(self, notice: Notice) -> tuple[Any, ...]:
        line = self.granting.lines.get(notice.ticket.line_item)
        return event_row(notice, line.currency if line is not None else "")

    def _is_billable(self, notice: Notice) -> bool:
        how = self.granting.plan.billable.get(notice.ticket.exchange, BILLABLE_BILLING)
        return notice.kind == BILLED_BY[how]

    def _void(self, notice: Notice) -> bool:
        """A loss releases its reservation early. Not journaled: forgotten in a crash, the bucket's end does it."""
        ticket = notice.ticket
        self._state.brakes.lost(self.granting.line(ticket.line_item), notice)
        lease = self.granting.leases.get(ticket.lease)
        slot = lease.slot(ticket.line_item, ticket.period) if lease is not None else None
        if lease is None or slot is None or ticket.bucket < lease.closed:
            self.counts["late_losses"] += 1
            return True
        return lease.settle(slot, ticket.bucket, ticket.bid_id, ticket.reserve_micros)

    def _note(self, notice: Notice) -> None:
        """Outcome, news and tally of a new event."""
        if self.keep_news:
            self._new_news.append(notice)
        ticket, value = notice.ticket, notice.value_micros / 1e6
        price = max(0, notice.price_micros)
        money = notice.kind in {WIN, BILLING} or self._is_billable(notice)
        if money and notice.price_micros == UNFILLED:
            price = ticket.bid_cpm_micros
            self.counts["price_unfilled"] += 1
        self._new_outcomes.append((ticket.bid_id, notice.kind, notice.time_ms, price, value))
        charge = charge_micros(ticket, notice.price_micros) if money else 0
        self._state.tallies.add(ticket.line_item, notice.kind, 1, charge, 0, 0.0 if notice.kind == LOSS else value)
        if notice.kind == CLICK:
            where = (ticket.time_s * 1000, ticket.exchange, ticket.creative)
            self.rollups.happened(self.granting.line(ticket.line_item), CLICK, *where, 0, 0)
            self.pacer.acted(ticket.line_item, CLICK, ticket.time_s, notice.time_ms)

    # --- what people do ----------------------------------------------------------------------------------------------

    def adjust(self, adjustment: Adjustment, time_ms: int) -> bool:
        """Post an adjustment; False when its key was there. Raises `AdjustmentError` and then has changed nothing."""
        return self._adjusting.make(adjustment, time_ms)

    def stop(self, kind: int, ref: int, reason: str, detail: str, time_ms: int) -> None:
        """Stop an account, or `EVERYTHING`, until `resume`: slices are called back, nothing more is granted."""
        self._stops.stop(kind, ref, reason, detail, time_ms)

    def resume(self, kind: int, ref: int, time_ms: int) -> bool:
        """End a stop; False when there was none."""
        return self._stops.resume(kind, ref, time_ms)

    # --- reading -----------------------------------------------------------------------------------------------------

    @property
    def counts(self) -> Counter[str]:
        """What users of notices should know."""
        return self._state.counts

    @counts.setter
    def counts(self, counts: Counter[str]) -> None:
        self._state.counts = counts

    @property
    def stops(self) -> dict[tuple[int, int], tuple[str, str, int]]:
        """What is stopped: (kind of account, ref) -> reason, detail, time in ms."""
        return self._stops.all

    @property
    def rates(self) -> dict[tuple[str, str], float]:
        """(code, ISO date) -> USD."""
        return self._state.rates

    @property
    def tallies(self) -> dict[tuple[int, int], list[float]]:
        """(line item, kind) -> n, charge micros, posted micros, value in whole units."""
        return self._state.tallies.totals

    def balance(self, kind: int, ref: int, period: int = ALL_TIME) -> int:
        """Debits less credits of an account in a period, over all currencies (an account has one), micros."""
        return self._state.balances.of(kind, ref, period)

    def spend(self, line_item: int, period: int = ALL_TIME) -> int:
        """Posted cost of a line item, micros."""
        return self.balance(LINE_ITEM, line_item, period)

    def balances(self) -> dict[tuple[int, int, int, str], tuple[int, int]]:
        """Every account: (kind, ref, period, currency) -> (debits, credits)."""
        return self._state.balances.all()

    def check(self) -> None:
        """Every invariant that memory can show. Raises `BrokenInvariantError`."""
        held: dict[tuple[Account, int], int] = {}
        for lease in self.granting.leases.values():
            for slot in (*lease.slots.values(), *lease.retired.values()):
                for account in slot.line.chain:
                    for period in periods_of(slot.period):
                        held[account, period] = held.get((account, period), 0) + slot.outstanding
        for account in self.granting.accounts.values():
            for period, micros in account.outstanding.items():
                if held.get((account, period), 0) != micros:
                    raise BrokenInvariantError(
                        f"{account.kind}/{account.ref}: outstanding {micros} is not its slots' sum"
                    )
        self._state.balances.check()
