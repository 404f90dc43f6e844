"""What the books hold in memory as rows of their tables, in the order of the tables' columns."""

from __future__ import annotations

from typing import Any, NamedTuple

from dsp.base.token import TOKEN_CONSENT
from dsp.ledger.accounts import ADVERTISER, CAMPAIGN, Lease, Line, Slot
from dsp.ledger.schema import ATTRIBUTION_NONE, LEASE_OPEN, LEASE_OVER, sql_id
from dsp.ledger.ticket import Notice, Ticket


class Charge(NamedTuple):
    """A billable event on its way into the books."""

    notice: Notice
    line: Line
    slot: Slot | None
    posted: int
    excess: int
    late: bool


class Side(NamedTuple):
    """One side of an entry."""

    kind: int
    ref: int


def ref(line: Line, kind: int) -> int:
    """The line item's ancestor of a kind, 0 where it has none."""
    return next((account.ref for account in line.chain if account.kind == kind), 0)


def line_row(line: Line) -> tuple[Any, ...]:
    """LINES."""
    return (line.id, ref(line, CAMPAIGN), ref(line, ADVERTISER), line.currency, line.name, line.margin_ppm)


def lease_row(lease: Lease, epoch: int, *, alive: bool) -> tuple[Any, ...]:
    """LEASES."""
    state = LEASE_OPEN if alive else LEASE_OVER
    return (lease.id, lease.worker, epoch, lease.opened_ms, lease.closed, lease.closed_ms, state)


def grant_row(slot: Slot) -> tuple[int, ...]:
    """GRANTS."""
    return (slot.lease.id, slot.line.id, slot.period, slot.granted, slot.returned, slot.posted)


def person_of(ticket: Ticket) -> int | None:
    """The person number in a ticket, where it may be used."""
    if not ticket.flags & TOKEN_CONSENT:
        return None
    return int.from_bytes(bytes(ticket.person)[:8], "little", signed=True)


def event_row(notice: Notice, currency: str) -> tuple[Any, ...]:
    """EVENTS; ``currency`` is the account's."""
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
        ticket.time_s * 1000,
        person_of(ticket),
        ticket.arm,
        ticket.media,
        currency,
        ATTRIBUTION_NONE,
        None,
        None,
    )


def entry_row(charge: Charge, kind: int, debit: Side, credit: Side, micros: int) -> tuple[Any, ...]:
    """ENTRIES, of a notice."""
    ticket = charge.notice.ticket
    return (
        sql_id(ticket.bid_id),
        kind,
        charge.notice.time_ms,
        ticket.line_item,
        ticket.exchange,
        charge.line.currency,
        ticket.period,
        debit.kind,
        credit.kind,
        micros,
        ticket.lease,
        ticket.bucket,
        ticket.reserve_micros,
        int(charge.late),
        debit.ref,
        credit.ref,
    )
