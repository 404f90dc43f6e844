"""Every balance explained by its entries. Reads only, so it may run beside a working ledger."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sqlalchemy import Engine, func, select

from dsp.ledger.accounts import DISPUTE, LINE_ITEM
from dsp.ledger.books import BrokenInvariantError
from dsp.ledger.schema import BALANCES, ENTRIES, token_id


class Step(NamedTuple):
    """One entry of a line item and where it left the line item's spend."""

    time_ms: int
    bid_id: int
    exchange: int
    period: int
    currency: str
    disputed: bool
    late: bool
    micros: int
    spend_micros: int


def explain(engine: Engine, line_item: int) -> Iterator[Step]:
    """The trail of a line item's spend, in the order it was booked; disputed amounts are shown but not spent."""
    spend = 0
    query = ENTRIES.select().where(ENTRIES.c.line_item == line_item).order_by(ENTRIES.c.id)
    with engine.connect() as connection:
        for row in connection.execute(query):
            disputed = row.debit == DISPUTE
            spend += 0 if disputed else row.micros
            yield Step(
                row.time_ms,
                token_id(row.bid_id),
                row.exchange,
                row.period,
                row.currency,
                disputed,
                bool(row.late),
                row.micros,
                spend,
            )


def audit(engine: Engine) -> int:
    """Compare every line item's stored balance with its entries; how many there are. Raises `BrokenInvariantError`."""
    spent = select(BALANCES.c.ref, func.sum(BALANCES.c.debit_micros)).where(BALANCES.c.kind == LINE_ITEM)
    booked = select(ENTRIES.c.line_item, func.sum(ENTRIES.c.micros)).where(ENTRIES.c.debit == LINE_ITEM)
    with engine.connect() as connection:
        balances = {int(key): int(micros) for key, micros in connection.execute(spent.group_by(BALANCES.c.ref))}
        entries = {int(key): int(micros) for key, micros in connection.execute(booked.group_by(ENTRIES.c.line_item))}
    for line_item in balances.keys() | entries.keys():
        if balances.get(line_item, 0) != entries.get(line_item, 0):
            raise BrokenInvariantError(
                f"line item {line_item}: balance {balances.get(line_item, 0)}, entries {entries.get(line_item, 0)}"
            )
    return len(balances)
