"""Posting: a billable event becomes an entry, once, and every account above it follows (rule 8 of design section 5)."""

from __future__ import annotations

from dsp.ledger.accounts import DISPUTE, LINE_ITEM, MARGIN, PAYABLE, Line
from dsp.ledger.rows import Charge, Side, entry_row
from dsp.ledger.schema import ENTRY_CHARGE, ENTRY_DISPUTE, ENTRY_MARGIN, sql_id
from dsp.ledger.state import State
from dsp.ledger.stops import Stops
from dsp.ledger.ticket import Notice, charge_micros


class Posting:
    """Works inside a transaction of the books. A brake that fires stops the line item."""

    def __init__(self, state: State, stops: Stops) -> None:
        self._state, self._stops = state, stops

    def charge(self, notices: list[Notice]) -> None:
        """Post billable events that have no entry yet: min(charge, r); the rest is disputed (rule 8)."""
        charges = [self._assess(notice) for notice in notices]
        rows = []
        for c in charges:
            spent, owed, contested = _sides(c)
            rows.append(entry_row(c, ENTRY_CHARGE, spent, owed, c.posted))
            if c.excess:
                rows.append(entry_row(c, ENTRY_DISPUTE, contested, owed, c.excess))
        fresh = self._state.journal.add_entries(rows)
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
                self._state.counts["billed_twice"] += 1  # by win and by billing notice: the first one counts
        self._state.journal.add_entries(margins)

    def _assess(self, notice: Notice) -> Charge:
        ticket = notice.ticket
        lease = self._state.granting.leases.get(ticket.lease)
        slot = lease.slot(ticket.line_item, ticket.period) if lease is not None else None
        charge = charge_micros(ticket, notice.price_micros)
        posted = min(charge, ticket.reserve_micros)
        late = ticket.lease != 0 and (lease is None or slot is None or ticket.bucket < lease.closed)
        return Charge(notice, self._state.granting.line(ticket.line_item), slot, posted, charge - posted, late)

    def _post(self, charge: Charge) -> int:
        """Move the accounts; returns the margin that is due on the charge."""
        ticket, line, slot = charge.notice.ticket, charge.line, charge.slot
        if slot is not None:
            slot.move(posted=charge.posted)
            slot.lease.touch(slot)
            self._state.granting.dirty_slots[slot] = None
            settled = slot.lease.settle(slot, ticket.bucket, ticket.bid_id, ticket.reserve_micros)
            if not settled and not charge.late:
                self._state.counts["wins_after_loss"] += 1
        self._state.counts["late_wins"] += charge.late
        margin = line.add_media(ticket.period, charge.posted)
        self.spend(line, ticket.period, charge.posted + margin)
        at = (ticket.time_s * 1000, ticket.exchange, ticket.creative)
        self._state.rollups.charged(line, *at, charge.posted, margin)
        self._state.pacer.charged(line, ticket.time_s, charge.notice.time_ms, charge.posted + margin)
        if margin:
            self._state.balances.book(MARGIN, line.id, ticket.period, line.currency, credit=margin)
        self._state.balances.book(
            PAYABLE, ticket.exchange, ticket.period, line.currency, credit=charge.posted + charge.excess
        )
        if charge.excess:
            self._state.counts["disputed"] += 1
            self._state.balances.book(DISPUTE, ticket.exchange, ticket.period, line.currency, debit=charge.excess)
        self._state.tallies.add(line.id, charge.notice.kind, 0, 0, charge.posted, 0.0)
        fault = self._state.brakes.charged(line, charge.notice, charge.posted)
        if fault is not None and (LINE_ITEM, line.id) not in self._stops.all:
            self._stops.stop(LINE_ITEM, line.id, *fault, charge.notice.time_ms)
        return margin

    def spend(self, line: Line, period: int, micros: int) -> None:
        """Cost of a line item and all above it; negative gives it back."""
        for account in line.chain:
            account.post(period, micros)
            self._state.balances.book(
                account.kind, account.ref, period, line.currency, debit=max(micros, 0), credit=max(-micros, 0)
            )


def _sides(charge: Charge) -> tuple[Side, Side, Side]:
    """Whose cost it is, to whom it is owed, and the disputed account."""
    exchange = charge.notice.ticket.exchange
    return Side(LINE_ITEM, charge.line.id), Side(PAYABLE, exchange), Side(DISPUTE, exchange)
