"""The books: notices become events and entries, once each; slices are granted; everything survives a crash.

A `batch` is one SQL transaction. Whatever is returned from `apply` and `sync` inside it may leave the process only
after the batch ended well. When it did not, memory is ahead of the disk and the object refuses further work (`broken`):
open the books again, which is what start-up does, too. Sources: design section 5; two-phase transfers of TigerBeetle.
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
from dsp.ledger.accounts import (
    ADVERTISER,
    DISPUTE,
    LINE_ITEM,
    MARGIN,
    PAYABLE,
    PREPAID,
    ROLLUPS,
    Account,
    Lease,
    Line,
    Slot,
)
from dsp.ledger.adjust import NUMBERS, Adjustment, AdjustmentError
from dsp.ledger.brakes import Brakes
from dsp.ledger.database import open_database
from dsp.ledger.grants import Granting
from dsp.ledger.journal import FencedError, Journal
from dsp.ledger.pacer import Pacer
from dsp.ledger.periods import ALL_TIME, periods_of
from dsp.ledger.plan import BILLABLE_BILLING, BILLABLE_WIN, NO_LIMIT, Plan
from dsp.ledger.rollups import Rollups
from dsp.ledger.rows import Charge, Side, entry_row, event_row, grant_row, lease_row, line_row, ref
from dsp.ledger.schema import (
    BALANCES,
    ENTRIES,
    ENTRY_ADJUSTED_MARGIN,
    ENTRY_ADJUSTMENT,
    ENTRY_CHARGE,
    ENTRY_DISPUTE,
    ENTRY_MARGIN,
    GRANTS,
    LEASE_OPEN,
    LEASES,
    LINES,
    PACING,
    RATES,
    STOPS,
    TALLIES,
    sql_id,
    token_id,
)
from dsp.ledger.ticket import UNFILLED, Notice, charge_micros
from dsp.log.outcomes import BILLING, CLICK, LOSS, WIN

OutcomeRow = tuple[int, int, int, int, float]
EVERYTHING = (0, 0)  # the stop that is the kill switch
_RECOVERY_SLACK_MS = 60_000  # clocks may have been set back a little between a mark and a notice


class BrokenInvariantError(AssertionError):
    """The books contradict themselves; the message says where."""


class Books:
    """The ledger's state. One thread at a time. ``counts`` counts what users of notices should know."""

    def __init__(self, engine: Engine, config: LedgerConfig, mono_ns: int, time_ms: int) -> None:
        self.journal = Journal(engine)
        self.granting = Granting(config, self.journal.raise_epoch())
        self.brakes = Brakes(config)
        self.pacer = Pacer(self.granting)
        self.rollups = Rollups()
        self.counts: Counter[str] = Counter()
        self.stops: dict[tuple[int, int], tuple[str, str, int]] = {}  # (kind, ref) -> reason, detail, time ms
        self.rates: dict[tuple[str, str], float] = {}  # (code, ISO date) -> USD
        self.tallies: dict[tuple[int, int], list[float]] = {}  # (line item, kind) -> n, charge, posted, value
        self.outcomes: list[OutcomeRow] = []  # of batches that ended well, for whoever logs them
        self.keep_news = False  # whether somebody takes `news`
        self.news: list[Notice] = []  # new notices of batches that ended well, for the audience (`dsp.ledger.news`)
        self.broken = False
        self._new_news: list[Notice] = []
        self._balances: dict[tuple[int, int, int, str], list[int]] = {}
        self._new_outcomes: list[OutcomeRow] = []
        self._new_balances: dict[tuple[int, int, int, str], list[int]] = {}
        self._new_tallies: dict[tuple[int, int], list[float]] = {}
        self._open = False
        self._load(mono_ns, config)

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
        journal.add_balances([(*key, *amounts) for key, amounts in self._new_balances.items()])
        journal.add_tallies([(*key, *numbers) for key, numbers in self._new_tallies.items()])
        self.pacer.keep(journal)
        self.rollups.write(journal)
        granting.dirty_lines.clear()
        granting.dirty_leases.clear()
        granting.dirty_slots.clear()
        granting.dropped_slots.clear()
        self._new_balances.clear()
        self._new_tallies.clear()

    # --- operations, inside a batch ----------------------------------------------------------------------------------

    def adopt(self, plan: Plan, time_ms: int) -> None:
        """Take the budgets of a snapshot."""
        adopted = self.granting.adopt(plan, time_ms)
        posted: dict[int, list[tuple[int, int, int]]] = {line.id: [] for line, _ in adopted}
        for (kind, item, period, _), (debit, credit) in self._balances.items() if adopted else ():
            if kind == LINE_ITEM and item in posted:
                posted[item].append((period, debit, credit))
        for line, ancestors in adopted:
            for period, debit, credit in posted[line.id]:
                for account in ancestors:
                    account.post(period, debit - credit)
                    self._book(account.kind, account.ref, period, line.currency, debit=debit, credit=credit)
        rates = {(code, plan.rates_day): usd for code, usd in plan.rates.items() if plan.rates_day}
        changed = [(*key, usd) for key, usd in rates.items() if self.rates.get(key) != usd]
        self.rates |= rates
        self.journal.put_rates(changed)
        for advertiser in {ref(line, ADVERTISER) for line in self.granting.lines.values()}:
            self._fund(advertiser)

    def _fund(self, advertiser: int) -> None:
        prepaid = advertiser in self.granting.plan.prepaid
        self.granting.set_funds(advertiser, -self.balance(PREPAID, advertiser) if prepaid else NO_LIMIT)

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
            self._charge(billable)
        if clicks:
            self._claim(clicks)
        return results

    def _insert(self, notices: Sequence[Notice]) -> set[tuple[int, int]]:
        """Put events on record, conversions with their credit; the (bid, kind) of new ones."""
        others = [notice for notice in notices if not attribution.is_conversion(notice.kind)]
        fresh = self.journal.add_events([self._row(n) for n in others]) if others else set()
        conversions = [notice for notice in notices if attribution.is_conversion(notice.kind)]
        if conversions:
            fresh |= self._insert_conversions(conversions)
        return fresh

    def _row(self, notice: Notice) -> tuple[Any, ...]:
        line = self.granting.lines.get(notice.ticket.line_item)
        return event_row(notice, line.currency if line is not None else "")

    def _insert_conversions(self, notices: Sequence[Notice]) -> set[tuple[int, int]]:
        found = [attribution.conversion_of(notice) for notice in notices]
        credits = attribution.credits(self.journal.begin(), self.granting.lines, found)
        rows = zip(notices, credits, strict=True)
        fresh = self.journal.add_events([attribution.credited_row(self._row(n), c, n.external_id) for n, c in rows])
        left = set(fresh)
        for notice, credit in zip(notices, credits, strict=True):
            key = (sql_id(notice.ticket.bid_id), notice.kind)
            if key in left:
                left.discard(key)
                self._credit(notice.kind, notice.value_micros, credit)
                if credit.how:
                    self.pacer.acted(credit.line_item, notice.kind, credit.bid_ms // 1000, notice.time_ms)
        return fresh

    def _credit(self, kind: int, value: int, credit: attribution.Credit, n: int = 1) -> None:
        where = (credit.bid_ms, credit.exchange, credit.creative)
        self.rollups.happened(self.granting.line(credit.line_item), kind, *where, credit.how, value, n)

    def _claim(self, clicks: list[Notice]) -> None:
        """New clicks may take the credit of conversions that were heard of before them."""
        connection = self.journal.begin()
        for row, credit in attribution.claims(connection, self.granting.lines, clicks):
            had = attribution.bid_of(connection, row.credited) if row.credited is not None else None
            if had is not None:
                at = (had.bid_id, had.bid_ms, had.line_item, had.exchange, had.creative)
                self._credit(row.kind, row.value_micros, attribution.Credit(row.attribution, *at), -1)
            self._credit(row.kind, row.value_micros, credit)

    def _is_billable(self, notice: Notice) -> bool:
        how = self.granting.plan.billable.get(notice.ticket.exchange, BILLABLE_BILLING)
        return notice.kind == (WIN if how == BILLABLE_WIN else BILLING)

    def _void(self, notice: Notice) -> bool:
        """A loss releases its reservation early. Not journaled: forgotten in a crash, the bucket's end does it."""
        ticket = notice.ticket
        self.brakes.lost(self.granting.line(ticket.line_item), notice)
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
        if notice.price_micros == UNFILLED and notice.kind in {WIN, BILLING}:
            price = ticket.bid_cpm_micros
            self.counts["price_unfilled"] += 1
        self._new_outcomes.append((ticket.bid_id, notice.kind, notice.time_ms, price, value))
        charge = charge_micros(ticket, notice.price_micros) if notice.kind in {WIN, BILLING} else 0
        self._tally(ticket.line_item, notice.kind, 1, charge, 0, 0.0 if notice.kind == LOSS else value)
        if notice.kind == CLICK:
            where = (ticket.time_s * 1000, ticket.exchange, ticket.creative)
            self.rollups.happened(self.granting.line(ticket.line_item), CLICK, *where, 0, 0)
            self.pacer.acted(ticket.line_item, CLICK, ticket.time_s, notice.time_ms)

    def _charge(self, notices: list[Notice]) -> None:
        """Post billable events that have no entry yet: min(charge, r); the rest is disputed (rule 8)."""
        charges = [self._assess(notice) for notice in notices]
        rows = []
        for c in charges:
            spent, owed, contested = _sides(c)
            rows.append(entry_row(c, ENTRY_CHARGE, spent, owed, c.posted))
            if c.excess:
                rows.append(entry_row(c, ENTRY_DISPUTE, contested, owed, c.excess))
        fresh = self.journal.add_entries(rows)
        margins = []
        for charge in charges:
            key = (sql_id(charge.notice.ticket.bid_id), ENTRY_CHARGE)
            if key in fresh:
                fresh.discard(key)
                margin = self._post(charge)
                if margin:
                    owner = Side(MARGIN, charge.line.id)
                    margins.append(entry_row(charge, ENTRY_MARGIN, _sides(charge)[0], owner, margin))
            else:
                self.counts["billed_twice"] += 1  # by win and by billing notice: the first one counts
        self.journal.add_entries(margins)

    def _assess(self, notice: Notice) -> Charge:
        ticket = notice.ticket
        lease = self.granting.leases.get(ticket.lease)
        slot = lease.slot(ticket.line_item, ticket.period) if lease is not None else None
        charge = charge_micros(ticket, notice.price_micros)
        posted = min(charge, ticket.reserve_micros)
        late = ticket.lease != 0 and (lease is None or slot is None or ticket.bucket < lease.closed)
        return Charge(notice, self.granting.line(ticket.line_item), slot, posted, charge - posted, late)

    def _post(self, charge: Charge) -> int:
        """Move the accounts; returns the margin that is due on the charge."""
        ticket, line, slot = charge.notice.ticket, charge.line, charge.slot
        if slot is not None:
            slot.move(posted=charge.posted)
            slot.lease.touch(slot)
            self.granting.dirty_slots[slot] = None
            settled = slot.lease.settle(slot, ticket.bucket, ticket.bid_id, ticket.reserve_micros)
            if not settled and not charge.late:
                self.counts["wins_after_loss"] += 1
        self.counts["late_wins"] += charge.late
        margin = line.add_media(ticket.period, charge.posted)
        self._spend(line, ticket.period, charge.posted + margin)
        at = (ticket.time_s * 1000, ticket.exchange, ticket.creative)
        self.rollups.charged(line, *at, charge.posted, margin)
        self.pacer.charged(line, ticket.time_s, charge.notice.time_ms, charge.posted + margin)
        if margin:
            self._book(MARGIN, line.id, ticket.period, line.currency, credit=margin)
        self._book(PAYABLE, ticket.exchange, ticket.period, line.currency, credit=charge.posted + charge.excess)
        if charge.excess:
            self.counts["disputed"] += 1
            self._book(DISPUTE, ticket.exchange, ticket.period, line.currency, debit=charge.excess)
        self._tally(line.id, charge.notice.kind, 0, 0, charge.posted, 0.0)
        fault = self.brakes.charged(line, charge.notice, charge.posted)
        if fault is not None and (LINE_ITEM, line.id) not in self.stops:
            self.stop(LINE_ITEM, line.id, *fault, charge.notice.time_ms)
        return margin

    def _spend(self, line: Line, period: int, micros: int) -> None:
        """Cost of a line item and all above it; negative gives it back."""
        for account in line.chain:
            account.post(period, micros)
            self._book(account.kind, account.ref, period, line.currency, debit=max(micros, 0), credit=max(-micros, 0))

    # --- what people do ----------------------------------------------------------------------------------------------

    def adjust(self, adjustment: Adjustment, time_ms: int) -> bool:
        """Post an adjustment; False when its key was there. Raises `AdjustmentError` and then has changed nothing."""
        adjustment.check()
        line = self.granting.lines.get(adjustment.line_item)
        if adjustment.line_item and (line is None or not line.currency):
            raise AdjustmentError(f"no line item has the id {adjustment.line_item}")
        if line is not None:
            spent = sum(line.media.values()) if not adjustment.period else line.media.get(adjustment.period, 0)
            if adjustment.micros > spent:
                raise AdjustmentError(f"line item {line.id} has spent {spent} micros of media cost, no more")
        currency = line.currency if line is not None else adjustment.currency
        values = adjustment._asdict() | {"kind": NUMBERS[adjustment.kind], "time_ms": time_ms, "currency": currency}
        number = self.journal.add_adjustment(values)
        if number is None:
            return False
        self._enter(adjustment, number, currency, time_ms)
        return True

    def _enter(self, it: Adjustment, number: int, currency: str, time_ms: int) -> None:
        debit, credit = it.sides()
        line = self.granting.lines.get(it.line_item)
        margin = -line.add_media(it.period, -it.micros) if line is not None else 0
        head = (time_ms, it.line_item, it.exchange, currency, it.period)
        rows = [
            (number, ENTRY_ADJUSTMENT, *head, debit.kind, credit.kind, it.micros, 0, 0, 0, 0, debit.ref, credit.ref)
        ]
        if margin:
            sides = (MARGIN, LINE_ITEM)
            refs = (it.line_item, it.line_item)
            rows.append((number, ENTRY_ADJUSTED_MARGIN, *head, *sides, margin, 0, 0, 0, 0, *refs))
            self._book(MARGIN, it.line_item, it.period, currency, debit=margin)
        self.journal.add_entries(rows)
        self._book(debit.kind, debit.ref, it.period, currency, debit=it.micros)
        if line is not None:
            self._spend(line, it.period, -it.micros - margin)
            self.rollups.adjusted(line, time_ms, it.exchange, -it.micros - margin, -it.micros)
            self.granting.wake(line)
        else:
            self._book(credit.kind, credit.ref, it.period, currency, credit=it.micros)
        if PREPAID in (debit.kind, credit.kind):
            self._fund(it.advertiser)

    def stop(self, kind: int, ref: int, reason: str, detail: str, time_ms: int) -> None:
        """Stop an account, or `EVERYTHING`, until `resume`: slices are called back, nothing more is granted."""
        self.stops[kind, ref] = reason, detail, time_ms
        self.counts[f"stopped_{reason}"] += 1
        self.journal.put_stops([(kind, ref, reason, detail, time_ms)])
        self._heed_stops(time_ms)

    def resume(self, kind: int, ref: int, time_ms: int) -> bool:
        """End a stop; False when there was none."""
        if self.stops.pop((kind, ref), None) is None:
            return False
        self.journal.drop_stop(kind, ref)
        if kind == LINE_ITEM:
            self.brakes.reset(ref)
        self._heed_stops(time_ms)
        return True

    def _heed_stops(self, time_ms: int) -> None:
        self.granting.stops = set(self.stops)
        self.granting.stop = EVERYTHING in self.stops
        self.granting.activate(time_ms)

    def _book(self, kind: int, ref: int, period: int, currency: str, *, debit: int = 0, credit: int = 0) -> None:
        key = (kind, ref, period, currency)
        for table in (self._new_balances, self._balances):
            amounts = table.setdefault(key, [0, 0])
            amounts[0] += debit
            amounts[1] += credit

    def _tally(self, line_item: int, kind: int, n: int, charge: int, posted: int, value: float) -> None:
        for table in (self._new_tallies, self.tallies):
            numbers = table.setdefault((line_item, kind), [0, 0, 0, 0.0])
            numbers[0] += n
            numbers[1] += charge
            numbers[2] += posted
            numbers[3] += value

    # --- start-up, which is recovery ---------------------------------------------------------------------------------

    def _load(self, mono_ns: int, config: LedgerConfig) -> None:
        granting, journal = self.granting, self.journal
        for row in journal.read(LINES):
            granting.add_line(row.id, row.campaign, row.advertiser, row.currency, row.name, row.margin_ppm)
        granting.dirty_lines.clear()
        for row in journal.read(BALANCES):
            self._balances[row.kind, row.ref, row.period, row.currency] = [row.debit_micros, row.credit_micros]
            micros = row.debit_micros - row.credit_micros
            if row.kind in {LINE_ITEM, *ROLLUPS}:
                granting.account(row.kind, row.ref).post(row.period, micros)
            if row.kind in {LINE_ITEM, MARGIN}:
                line = granting.line(row.ref)
                line.media[row.period] = line.media.get(row.period, 0) + micros
            if row.kind == MARGIN:
                line.margin[row.period] = line.margin.get(row.period, 0) - micros
        self.pacer.load(journal.read(PACING))
        for row in journal.read(RATES):
            self.rates[row.code, row.day] = row.usd
        for row in journal.read(STOPS):
            self.stops[row.kind, row.ref] = row.reason, row.detail, row.time_ms
        granting.stops, granting.stop = set(self.stops), EVERYTHING in self.stops
        for row in journal.read(TALLIES):
            self.tallies[row.line_item, row.kind] = [row.n, row.charge_micros, row.posted_micros, row.value]
        self._load_leases(mono_ns + int(config.lease_s * 1e9))
        self._load_grants()
        self._load_settled()
        with journal.engine.connect() as connection:
            self.rollups.recover(connection, granting.line)

    def _load_leases(self, expires_ns: int) -> None:
        """Open leases live on; each has a whole lease time, since nobody knows how much had passed."""
        for row in self.journal.read(LEASES):
            self.granting.next_lease = max(self.granting.next_lease, row.id + 1)
            if row.state == LEASE_OPEN:
                lease = self.granting.leases[row.id] = Lease(row.id, row.worker, row.opened_ms)
                lease.closed, lease.closed_ms, lease.expires_ns = row.closed, row.closed_ms, expires_ns

    def _load_grants(self) -> None:
        for row in sorted(self.journal.read(GRANTS), key=lambda row: int(row.period)):
            lease = self.granting.leases.get(row.lease)
            if lease is None:
                continue
            slot = Slot(lease, self.granting.line(row.line_item), row.period)
            slot.move(granted=row.granted, returned=row.returned, posted=row.posted)
            older = lease.slots.get(row.line_item)
            if older is not None:
                older.switch_seq = lease.seq
                lease.retired[row.line_item, older.period] = older
            lease.slots[row.line_item] = slot
        for lease in self.granting.leases.values():
            for slot in lease.slots.values():
                lease.touch(slot)

    def _load_settled(self) -> None:
        """What open buckets have posted; losses are forgotten, so their reservations live to the bucket's end."""
        leases = self.granting.leases
        if not leases:
            return
        since_ms = min(lease.closed_ms for lease in leases.values()) - _RECOVERY_SLACK_MS
        query = ENTRIES.select().where(ENTRIES.c.kind == ENTRY_CHARGE).order_by(ENTRIES.c.id.desc())
        with self.journal.engine.connect() as connection:
            for row in connection.execute(query):
                if row.time_ms < since_ms:
                    break
                lease = leases.get(row.lease)
                slot = lease.slot(row.line_item, row.period) if lease is not None else None
                if lease is not None and slot is not None:
                    lease.settle(slot, row.bucket, token_id(row.bid_id), row.reserve_micros)

    # --- reading -----------------------------------------------------------------------------------------------------

    def balance(self, kind: int, ref: int, period: int = ALL_TIME) -> int:
        """Debits less credits of an account in a period, over all currencies (an account has one), micros."""
        rows = (v for (k, r, p, _), v in self._balances.items() if k == kind and r == ref and period in periods_of(p))
        return sum(debit - credit for debit, credit in rows)

    def spend(self, line_item: int, period: int = ALL_TIME) -> int:
        """Posted cost of a line item, micros."""
        return self.balance(LINE_ITEM, line_item, period)

    def balances(self) -> dict[tuple[int, int, int, str], tuple[int, int]]:
        """Every account: (kind, ref, period, currency) -> (debits, credits)."""
        return {key: (amounts[0], amounts[1]) for key, amounts in self._balances.items()}

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
        debits = sum(v[0] for k, v in self._balances.items() if k[0] not in ROLLUPS)
        credits = sum(v[1] for k, v in self._balances.items() if k[0] not in ROLLUPS)
        if debits != credits:
            raise BrokenInvariantError(f"debits {debits} are not credits {credits}")


def _sides(charge: Charge) -> tuple[Side, Side, Side]:
    """Whose cost it is, to whom it is owed, and the disputed account."""
    exchange = charge.notice.ticket.exchange
    return Side(LINE_ITEM, charge.line.id), Side(PAYABLE, exchange), Side(DISPUTE, exchange)
