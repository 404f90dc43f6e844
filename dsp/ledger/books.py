"""The books: notices become events and entries, once each; slices are granted; everything survives a crash.

A `batch` is one SQL transaction. Whatever is returned from `apply` and `sync` inside it may leave the process only
after the batch ended well. When it did not, memory is ahead of the disk and the object refuses further work (`broken`):
open the books again, which is what start-up does, too. Sources: design section 5; two-phase transfers of TigerBeetle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Engine

from dsp.base.config import LedgerConfig
from dsp.control.grants import SyncReply, SyncRequest
from dsp.ledger.accounts import ADVERTISER, CAMPAIGN, DISPUTE, LINE_ITEM, PAYABLE, Account, Lease, Line, Slot
from dsp.ledger.grants import Granting
from dsp.ledger.journal import Journal
from dsp.ledger.plan import ALL_TIME, BILLABLE_BILLING, BILLABLE_WIN, Plan
from dsp.ledger.schema import (
    BALANCES,
    ENTRIES,
    ENTRY_CHARGE,
    ENTRY_DISPUTE,
    GRANTS,
    LEASE_OPEN,
    LEASE_OVER,
    LEASES,
    LINES,
    TALLIES,
    open_database,
    sql_id,
    token_id,
)
from dsp.ledger.ticket import UNFILLED, Notice, charge_micros
from dsp.log.outcomes import BILLING, LOSS, WIN

OutcomeRow = tuple[int, int, int, int, float]
_RECOVERY_SLACK_MS = 60_000  # clocks may have been set back a little between a mark and a notice


class BrokenInvariantError(AssertionError):
    """The books contradict themselves; the message says where."""


class Charge(NamedTuple):
    """A billable event on its way into the books."""

    notice: Notice
    line: Line
    slot: Slot | None
    posted: int
    excess: int
    late: bool


class Books:
    """The ledger's state. One thread at a time. ``counts`` counts what users of notices should know."""

    def __init__(self, engine: Engine, config: LedgerConfig, mono_ns: int, time_ms: int) -> None:
        self.journal = Journal(engine)
        self.granting = Granting(config, self.journal.raise_epoch())
        self.counts: Counter[str] = Counter()
        self.tallies: dict[tuple[int, int], list[float]] = {}  # (line item, kind) -> n, charge, posted, value
        self.outcomes: list[OutcomeRow] = []  # of batches that ended well, for whoever logs them
        self.broken = False
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
        """Let go of the database."""
        self.journal.rollback()
        self.journal.engine.dispose()

    @property
    def epoch(self) -> int:
        """This ledger's number; workers ignore lower ones."""
        return self.journal.epoch

    # --- transactions ------------------------------------------------------------------------------------------------

    @contextmanager
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

    def _write(self) -> None:
        granting, journal = self.granting, self.journal
        journal.put_lines(
            [
                (line.id, _ref(line, CAMPAIGN), _ref(line, ADVERTISER), line.currency, line.name)
                for line in granting.dirty_lines
            ]
        )
        journal.put_leases([_lease_row(lease, granting) for lease in granting.dirty_leases])
        journal.put_grants(
            [(s.lease.id, s.line.id, s.period, s.granted, s.returned, s.posted) for s in granting.dirty_slots]
        )
        journal.drop_grants(granting.dropped_slots)
        journal.add_balances([(*key, *amounts) for key, amounts in self._new_balances.items()])
        journal.add_tallies([(*key, *numbers) for key, numbers in self._new_tallies.items()])
        granting.dirty_lines.clear()
        granting.dirty_leases.clear()
        granting.dirty_slots.clear()
        granting.dropped_slots.clear()
        self._new_balances.clear()
        self._new_tallies.clear()

    # --- operations, inside a batch ----------------------------------------------------------------------------------

    def adopt(self, plan: Plan, time_ms: int) -> None:
        """Take the budgets of a snapshot."""
        for line, ancestors in self.granting.adopt(plan, time_ms):
            by_period = dict(line.chain[0].posted)
            by_period[ALL_TIME] = 2 * by_period.get(ALL_TIME, 0) - sum(by_period.values())  # what is of no period
            for period, micros in by_period.items():
                for account in ancestors:
                    account.post(period, micros)
                    self._book(account.kind, account.ref, period, line.currency, debit=micros)

    def tick(self, mono_ns: int, time_ms: int) -> None:
        """Let time pass: leases end, buckets close, periods begin."""
        self.granting.tick(mono_ns, time_ms)

    def sync(self, request: SyncRequest, mono_ns: int, time_ms: int) -> SyncReply:
        """Answer a worker; the answer may go out after the batch."""
        self.granting.tick(mono_ns, time_ms)
        return self.granting.sync(request, mono_ns, time_ms)

    def apply(self, notices: Sequence[Notice]) -> list[bool]:
        """Book notices, in order; whether each was new. Notices of test requests are left out by the caller."""
        durable = [notice for notice in notices if notice.kind != LOSS]
        fresh = self.journal.add_events([_event_row(notice) for notice in durable]) if durable else set()
        results = []
        billable = []
        for notice in notices:
            if notice.kind == LOSS:
                new = self._void(notice)
            else:
                key = (sql_id(notice.ticket.bid_id), notice.kind)
                new = key in fresh
                fresh.discard(key)  # the next one like it in this batch is a duplicate
                if new and self._is_billable(notice):
                    billable.append(notice)
            results.append(new)
            if new:
                self._note(notice)
            else:
                self.counts["duplicates"] += 1
        if billable:
            self._charge(billable)
        return results

    def _is_billable(self, notice: Notice) -> bool:
        how = self.granting.plan.billable.get(notice.ticket.exchange, BILLABLE_BILLING)
        return notice.kind == (WIN if how == BILLABLE_WIN else BILLING)

    def _void(self, notice: Notice) -> bool:
        """A loss releases its reservation early. Not journaled: forgotten in a crash, the bucket's end does it."""
        ticket = notice.ticket
        lease = self.granting.leases.get(ticket.lease)
        slot = lease.slot(ticket.line_item, ticket.period) if lease is not None else None
        if lease is None or slot is None or ticket.bucket < lease.closed:
            self.counts["late_losses"] += 1
            return True
        return lease.settle(slot, ticket.bucket, ticket.bid_id, ticket.reserve_micros)

    def _note(self, notice: Notice) -> None:
        """Outcome and tally of a new event."""
        ticket, value = notice.ticket, notice.value_micros / 1e6
        price = max(0, notice.price_micros)
        if notice.price_micros == UNFILLED and notice.kind in {WIN, BILLING}:
            price = ticket.bid_cpm_micros
            self.counts["price_unfilled"] += 1
        self._new_outcomes.append((ticket.bid_id, notice.kind, notice.time_ms, price, value))
        charge = charge_micros(ticket, notice.price_micros) if notice.kind in {WIN, BILLING} else 0
        self._tally(ticket.line_item, notice.kind, 1, charge, 0, 0.0 if notice.kind == LOSS else value)

    def _charge(self, notices: list[Notice]) -> None:
        """Post billable events that have no entry yet: min(charge, r); the rest is disputed (rule 8)."""
        charges = [self._assess(notice) for notice in notices]
        rows = [_entry_row(c, ENTRY_CHARGE, LINE_ITEM, c.posted) for c in charges]
        rows += [_entry_row(c, ENTRY_DISPUTE, DISPUTE, c.excess) for c in charges if c.excess]
        fresh = self.journal.add_entries(rows)
        for charge in charges:
            key = (sql_id(charge.notice.ticket.bid_id), ENTRY_CHARGE)
            if key in fresh:
                fresh.discard(key)
                self._post(charge)
            else:
                self.counts["billed_twice"] += 1  # by win and by billing notice: the first one counts

    def _assess(self, notice: Notice) -> Charge:
        ticket = notice.ticket
        lease = self.granting.leases.get(ticket.lease)
        slot = lease.slot(ticket.line_item, ticket.period) if lease is not None else None
        charge = charge_micros(ticket, notice.price_micros)
        posted = min(charge, ticket.reserve_micros)
        late = ticket.lease != 0 and (lease is None or slot is None or ticket.bucket < lease.closed)
        return Charge(notice, self.granting.line(ticket.line_item), slot, posted, charge - posted, late)

    def _post(self, charge: Charge) -> None:
        ticket, line, slot = charge.notice.ticket, charge.line, charge.slot
        if slot is not None:
            slot.move(posted=charge.posted)
            slot.lease.touch(slot)
            self.granting.dirty_slots[slot] = None
            settled = slot.lease.settle(slot, ticket.bucket, ticket.bid_id, ticket.reserve_micros)
            if not settled and not charge.late:
                self.counts["wins_after_loss"] += 1
        self.counts["late_wins"] += charge.late
        for account in line.chain:
            account.post(ticket.period, charge.posted)
            self._book(account.kind, account.ref, ticket.period, line.currency, debit=charge.posted)
        self._book(PAYABLE, ticket.exchange, ticket.period, line.currency, credit=charge.posted + charge.excess)
        if charge.excess:
            self.counts["disputed"] += 1
            self._book(DISPUTE, ticket.exchange, ticket.period, line.currency, debit=charge.excess)
        self._tally(line.id, charge.notice.kind, 0, 0, charge.posted, 0.0)

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
            granting.add_line(row.id, row.campaign, row.advertiser, row.currency, row.name)
        granting.dirty_lines.clear()
        for row in journal.read(BALANCES):
            self._balances[row.kind, row.ref, row.period, row.currency] = [row.debit_micros, row.credit_micros]
            if row.kind in {LINE_ITEM, CAMPAIGN, ADVERTISER}:
                granting.account(row.kind, row.ref).post(row.period, row.debit_micros)
        for row in journal.read(TALLIES):
            self.tallies[row.line_item, row.kind] = [row.n, row.charge_micros, row.posted_micros, row.value]
        self._load_leases(mono_ns + int(config.lease_s * 1e9))
        self._load_grants()
        self._load_settled()

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
        rows = (v for (k, r, p, _), v in self._balances.items() if (k, r) == (kind, ref) and period in {ALL_TIME, p})
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
                    for period in {ALL_TIME, slot.period}:
                        held[account, period] = held.get((account, period), 0) + slot.outstanding
        for account in self.granting.accounts.values():
            for period, micros in account.outstanding.items():
                if held.get((account, period), 0) != micros:
                    raise BrokenInvariantError(
                        f"{account.kind}/{account.ref}: outstanding {micros} is not its slots' sum"
                    )
        debits = sum(v[0] for k, v in self._balances.items() if k[0] in {LINE_ITEM, DISPUTE})
        credits = sum(v[1] for k, v in self._balances.items() if k[0] == PAYABLE)
        if debits != credits:
            raise BrokenInvariantError(f"debits {debits} are not credits {credits}")


def _ref(line: Line, kind: int) -> int:
    return next((account.ref for account in line.chain if account.kind == kind), 0)


def _lease_row(lease: Lease, granting: Granting) -> tuple[Any, ...]:
    state = LEASE_OPEN if lease.id in granting.leases else LEASE_OVER
    return (lease.id, lease.worker, granting.epoch, lease.opened_ms, lease.closed, lease.closed_ms, state)


def _event_row(notice: Notice) -> tuple[int, ...]:
    ticket = notice.ticket
    return (
        sql_id(ticket.bid_id),
        notice.kind,
        notice.time_ms,
        ticket.line_item,
        ticket.creative,
        ticket.exchange,
        notice.price_micros,
        notice.value_micros,
    )


def _entry_row(charge: Charge, kind: int, debit: int, micros: int) -> tuple[Any, ...]:
    ticket = charge.notice.ticket
    return (
        sql_id(ticket.bid_id),
        kind,
        charge.notice.time_ms,
        ticket.line_item,
        ticket.exchange,
        charge.line.currency,
        ticket.period,
        debit,
        PAYABLE,
        micros,
        ticket.lease,
        ticket.bucket,
        ticket.reserve_micros,
        int(charge.late),
    )
