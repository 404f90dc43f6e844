"""Start-up, which is recovery: what the disk holds becomes memory, whether the last life ended well or not."""

from __future__ import annotations

from dsp.base.config import LedgerConfig
from dsp.ledger.accounts import LINE_ITEM, MARGIN, ROLLUPS, Lease, Slot
from dsp.ledger.schema import (
    BALANCES,
    ENTRIES,
    ENTRY_CHARGE,
    GRANTS,
    LEASE_OPEN,
    LEASES,
    LINES,
    PACING,
    RATES,
    STOPS,
    TALLIES,
    token_id,
)
from dsp.ledger.state import State
from dsp.ledger.stops import Stops

_RECOVERY_SLACK_MS = 60_000  # clocks may have been set back a little between a mark and a notice


def recover(state: State, stops: Stops, config: LedgerConfig, mono_ns: int) -> None:
    """Read the books into memory."""
    journal = state.journal
    _load_accounts(state)
    state.pacer.load(journal.read(PACING))
    for row in journal.read(RATES):
        state.rates[row.code, row.day] = row.usd
    stops.load(journal.read(STOPS))
    state.tallies.load(journal.read(TALLIES))
    _load_leases(state, mono_ns + int(config.lease_s * 1e9))
    _load_grants(state)
    _load_settled(state)
    with journal.engine.connect() as connection:
        state.rollups.recover(connection, state.granting.line)


def _load_accounts(state: State) -> None:
    """Line items, and what has been posted to them and above."""
    granting, balances = state.granting, state.journal.read(BALANCES)
    for row in state.journal.read(LINES):
        granting.add_line(row.id, row.campaign, row.advertiser, row.currency, row.name, row.margin_ppm)
    granting.dirty_lines.clear()
    state.balances.load(balances)
    for row in balances:
        micros = row.debit_micros - row.credit_micros
        if row.kind in {LINE_ITEM, *ROLLUPS}:
            granting.account(row.kind, row.ref).post(row.period, micros)
        if row.kind in {LINE_ITEM, MARGIN}:
            line = granting.line(row.ref)
            line.media[row.period] = line.media.get(row.period, 0) + micros
        if row.kind == MARGIN:
            line.margin[row.period] = line.margin.get(row.period, 0) - micros


def _load_leases(state: State, expires_ns: int) -> None:
    """Open leases live on; each has a whole lease time, since nobody knows how much had passed."""
    for row in state.journal.read(LEASES):
        state.granting.next_lease = max(state.granting.next_lease, row.id + 1)
        if row.state == LEASE_OPEN:
            lease = state.granting.leases[row.id] = Lease(row.id, row.worker, row.opened_ms)
            lease.closed, lease.closed_ms, lease.expires_ns = row.closed, row.closed_ms, expires_ns


def _load_grants(state: State) -> None:
    for row in sorted(state.journal.read(GRANTS), key=lambda row: int(row.period)):
        lease = state.granting.leases.get(row.lease)
        if lease is None:
            continue
        slot = Slot(lease, state.granting.line(row.line_item), row.period)
        slot.move(granted=row.granted, returned=row.returned, posted=row.posted)
        older = lease.slots.get(row.line_item)
        if older is not None:
            older.switch_seq = lease.seq
            lease.retired[row.line_item, older.period] = older
        lease.slots[row.line_item] = slot
    for lease in state.granting.leases.values():
        for slot in lease.slots.values():
            lease.touch(slot)


def _load_settled(state: State) -> None:
    """What open buckets have posted; losses are forgotten, so their reservations live to the bucket's end."""
    leases = state.granting.leases
    if not leases:
        return
    since_ms = min(lease.closed_ms for lease in leases.values()) - _RECOVERY_SLACK_MS
    query = ENTRIES.select().where(ENTRIES.c.kind == ENTRY_CHARGE).order_by(ENTRIES.c.id.desc())
    with state.journal.engine.connect() as connection:
        for row in connection.execute(query):
            if row.time_ms < since_ms:
                break
            lease = leases.get(row.lease)
            slot = lease.slot(row.line_item, row.period) if lease is not None else None
            if lease is not None and slot is not None:
                lease.settle(slot, row.bucket, token_id(row.bid_id), row.reserve_micros)
