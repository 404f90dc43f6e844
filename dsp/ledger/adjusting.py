"""Adjustments become entries: once per key, and what a line item gets back opens its budget again."""

from __future__ import annotations

from dsp.ledger.accounts import LINE_ITEM, MARGIN, PREPAID
from dsp.ledger.adjust import NUMBERS, Adjustment, AdjustmentError
from dsp.ledger.periods import ALL_TIME
from dsp.ledger.plan import NO_LIMIT
from dsp.ledger.posting import Posting
from dsp.ledger.schema import ENTRY_ADJUSTED_MARGIN, ENTRY_ADJUSTMENT
from dsp.ledger.state import State


class Adjusting:
    """Works inside a transaction of the books."""

    def __init__(self, state: State, posting: Posting) -> None:
        self._state, self._posting = state, posting

    def make(self, adjustment: Adjustment, time_ms: int) -> bool:
        """Post an adjustment; False when its key was there. Raises `AdjustmentError` and then has changed nothing."""
        adjustment.check()
        line = self._state.granting.lines.get(adjustment.line_item)
        if adjustment.line_item and (line is None or not line.currency):
            raise AdjustmentError(f"no line item has the id {adjustment.line_item}")
        if line is not None:
            spent = sum(line.media.values()) if not adjustment.period else line.media.get(adjustment.period, 0)
            if adjustment.micros > spent:
                raise AdjustmentError(f"line item {line.id} has spent {spent} micros of media cost, no more")
        currency = line.currency if line is not None else adjustment.currency
        values = adjustment._asdict() | {"kind": NUMBERS[adjustment.kind], "time_ms": time_ms, "currency": currency}
        number = self._state.journal.add_adjustment(values)
        if number is None:
            return False
        self._enter(adjustment, number, currency, time_ms)
        return True

    def _enter(self, it: Adjustment, number: int, currency: str, time_ms: int) -> None:
        debit, credit = it.sides()
        line = self._state.granting.lines.get(it.line_item)
        margin = -line.add_media(it.period, -it.micros) if line is not None else 0
        head = (time_ms, it.line_item, it.exchange, currency, it.period)
        rows = [
            (number, ENTRY_ADJUSTMENT, *head, debit.kind, credit.kind, it.micros, 0, 0, 0, 0, debit.ref, credit.ref)
        ]
        if margin:
            sides = (MARGIN, LINE_ITEM)
            refs = (it.line_item, it.line_item)
            rows.append((number, ENTRY_ADJUSTED_MARGIN, *head, *sides, margin, 0, 0, 0, 0, *refs))
            self._state.balances.book(MARGIN, it.line_item, it.period, currency, debit=margin)
        self._state.journal.add_entries(rows)
        self._state.balances.book(debit.kind, debit.ref, it.period, currency, debit=it.micros)
        if line is not None:
            self._posting.spend(line, it.period, -it.micros - margin)
            self._state.rollups.adjusted(line, time_ms, it.exchange, -it.micros - margin, -it.micros)
            self._state.granting.wake(line)
        else:
            self._state.balances.book(credit.kind, credit.ref, it.period, currency, credit=it.micros)
        if PREPAID in (debit.kind, credit.kind):
            self.fund(it.advertiser)

    def fund(self, advertiser: int) -> None:
        """What an advertiser has paid in bounds what is granted, where it pays in advance."""
        granting = self._state.granting
        prepaid = advertiser in granting.plan.prepaid
        granting.set_funds(advertiser, -self._state.balances.of(PREPAID, advertiser, ALL_TIME) if prepaid else NO_LIMIT)
