"""Conversions get the credit of a click or view, and reports hear of it (`dsp.ledger.attribution` says whose it is)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dsp.ledger import attribution
from dsp.ledger.schema import sql_id
from dsp.ledger.state import State
from dsp.ledger.ticket import Notice

EventRow = Callable[[Notice], tuple[Any, ...]]


class Crediting:
    """Works inside a transaction of the books."""

    def __init__(self, state: State) -> None:
        self._state = state

    def insert(self, notices: Sequence[Notice], event: EventRow) -> set[tuple[int, int]]:
        """Put conversions on record with their credit; the (bid, kind) of new ones."""
        found = [attribution.conversion_of(notice) for notice in notices]
        credits = attribution.credits(self._state.journal.begin(), self._state.granting.lines, found)
        rows = zip(notices, credits, strict=True)
        fresh = self._state.journal.add_events([attribution.credited_row(event(n), c, n.external_id) for n, c in rows])
        left = set(fresh)
        for notice, credit in zip(notices, credits, strict=True):
            key = (sql_id(notice.ticket.bid_id), notice.kind)
            if key in left:
                left.discard(key)
                self._credit(notice.kind, notice.value_micros, credit)
                if credit.how:
                    self._state.pacer.acted(credit.line_item, notice.kind, credit.bid_ms // 1000, notice.time_ms)
        return fresh

    def _credit(self, kind: int, value: int, credit: attribution.Credit, n: int = 1) -> None:
        where = (credit.bid_ms, credit.exchange, credit.creative)
        self._state.rollups.happened(self._state.granting.line(credit.line_item), kind, *where, credit.how, value, n)

    def claim(self, clicks: Sequence[Notice]) -> None:
        """New clicks may take the credit of conversions that were heard of before them."""
        connection = self._state.journal.begin()
        for row, credit in attribution.claims(connection, self._state.granting.lines, clicks):
            had = attribution.bid_of(connection, row.credited) if row.credited is not None else None
            if had is not None:
                at = (had.bid_id, had.bid_ms, had.line_item, had.exchange, had.creative)
                self._credit(row.kind, row.value_micros, attribution.Credit(row.attribution, *at), -1)
            self._credit(row.kind, row.value_micros, credit)
