"""Every balance explained by its entries. Reads only, so it may run beside a working ledger."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from sqlalchemy import Engine, and_, case, func, or_, select

from dsp.ledger.accounts import DISPUTE, LINE_ITEM
from dsp.ledger.adjust import KINDS
from dsp.ledger.balances import BrokenInvariantError
from dsp.ledger.schema import (
    ADJUSTMENTS,
    BALANCES,
    ENTRIES,
    ENTRY_ADJUSTED_MARGIN,
    ENTRY_ADJUSTMENT,
    ENTRY_CHARGE,
    ENTRY_DISPUTE,
    ENTRY_MARGIN,
    EVENTS,
    token_id,
)
from dsp.log.outcomes import BILLING, IMPRESSION, WIN

_E = ENTRIES.c
_WHAT = {
    ENTRY_CHARGE: "impression",
    ENTRY_DISPUTE: "charged beyond the reservation: disputed, not spent",
    ENTRY_MARGIN: "agency margin",
    ENTRY_ADJUSTED_MARGIN: "agency margin given back",
}
_NAMES = tuple(KINDS)
PRICED = or_(  # events that say what was paid: our own pixel only where the exchange filled its price in
    EVENTS.c.kind.in_((WIN, BILLING)), and_(EVENTS.c.kind == IMPRESSION, EVENTS.c.price_micros > 0)
)


class Step(NamedTuple):
    """One entry of a line item and where it left the line item's spend."""

    time_ms: int
    bid_id: int  # 0 for adjustments
    exchange: int
    period: int
    currency: str
    disputed: bool
    late: bool
    micros: int
    spend_micros: int
    what: str
    reserve_micros: int
    price_micros: int | None  # what the notice said: CPM, bid currency; -1: nothing
    creative: int | None
    note: str  # of an adjustment: its key and note


def explain(engine: Engine, line_item: int, since_ms: int = 0) -> Iterator[Step]:
    """The trail of a line item's spend, in the order it was booked; disputed amounts are shown but not spent.

    ``since_ms`` leaves out earlier entries; ``spend_micros`` counts them all the same.
    """
    spend = 0
    adjusted = _E.kind >= ENTRY_ADJUSTMENT
    events = EVENTS.c
    joined = ENTRIES.outerjoin(
        EVENTS, and_(~adjusted, events.bid_id == _E.bid_id, PRICED, events.price_micros >= 0)
    ).outerjoin(ADJUSTMENTS, and_(adjusted, ADJUSTMENTS.c.id == _E.bid_id))
    said = func.max(events.price_micros).label("said")
    creative = func.max(events.creative).label("shown")
    a = ADJUSTMENTS.c
    query = (
        select(*ENTRIES.c, said, creative, a.key, a.note, a.kind.label("adjustment"))
        .select_from(joined)
        .where(_E.line_item == line_item)
        .group_by(*ENTRIES.c, a.key, a.note, a.kind)
        .order_by(_E.id)
    )
    with engine.connect() as connection:
        for row in connection.execute(query):
            effect = _effect(row, line_item)
            spend += effect
            if row.time_ms < since_ms:
                continue
            by_hand = row.kind >= ENTRY_ADJUSTMENT
            yield Step(
                row.time_ms,
                0 if by_hand else token_id(row.bid_id),
                row.exchange,
                row.period,
                row.currency,
                row.debit == DISPUTE,
                bool(row.late),
                effect or row.micros,
                spend,
                _WHAT.get(row.kind) or (_NAMES[row.adjustment - 1] if row.adjustment else "adjustment"),
                row.reserve_micros,
                row.said,
                row.shown,
                f"{row.key} {row.note or ''}".strip() if row.key else "",
            )


def _effect(row: Any, line_item: int) -> int:
    """What an entry adds to a line item's spend."""
    effect = 0
    if row.debit == LINE_ITEM and row.debit_ref in {0, line_item}:
        effect += row.micros
    if row.credit == LINE_ITEM and row.credit_ref == line_item:
        effect -= row.micros
    return effect


def balance_of(engine: Engine, line_item: int) -> int | None:
    """What the books say a line item has spent, micros; None where they have no account of it."""
    b = BALANCES.c
    query = select(func.sum(b.debit_micros - b.credit_micros)).where(b.kind == LINE_ITEM, b.ref == line_item)
    with engine.connect() as connection:
        found = connection.execute(query).scalar_one()
    return None if found is None else int(found)


def audit(engine: Engine) -> int:
    """Compare every line item's stored balance with its entries; how many there are. Raises `BrokenInvariantError`."""
    b = BALANCES.c
    spent = select(b.ref, func.sum(b.debit_micros - b.credit_micros)).where(b.kind == LINE_ITEM).group_by(b.ref)
    gained = case((_E.debit == LINE_ITEM, _E.micros), else_=0) - case((_E.credit == LINE_ITEM, _E.micros), else_=0)
    concerned = or_(_E.debit == LINE_ITEM, _E.credit == LINE_ITEM)
    booked = select(_E.line_item, func.sum(gained)).where(concerned).group_by(_E.line_item)
    with engine.connect() as connection:
        balances = {int(key): int(micros) for key, micros in connection.execute(spent)}
        entries = {int(key): int(micros) for key, micros in connection.execute(booked)}
    for line_item in balances.keys() | entries.keys():
        if balances.get(line_item, 0) != entries.get(line_item, 0):
            raise BrokenInvariantError(
                f"line item {line_item}: balance {balances.get(line_item, 0)}, entries {entries.get(line_item, 0)}"
            )
    return len(balances)
