"""Adjustments become entries: once per key, and what a line item gets back opens its budget again."""

from __future__ import annotations

from dsp.ledger.accounts import LINE_ITEM, MARGIN, PREPAID
from dsp.ledger.adjust import KINDS, NUMBERS, Adjustment, AdjustmentError
from dsp.ledger.periods import ALL_TIME, day_of
from dsp.ledger.plan import NO_LIMIT
from dsp.ledger.posting import Posting
from dsp.ledger.schema import ENTRY_ADJUSTED_MARGIN, ENTRY_ADJUSTMENT
from dsp.ledger.state import State

_DAY_MS = 86_400_000


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
        if line is not None and KINDS[adjustment.kind][0] != LINE_ITEM:
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
        sign = 1 if debit.kind == LINE_ITEM else -1  # a cost more, or one given back
        margin = sign * line.add_media(it.period, sign * it.micros) if line is not None else 0
        head = (time_ms, it.line_item, it.exchange, currency, it.period)
        rows = [
            (number, ENTRY_ADJUSTMENT, *head, debit.kind, credit.kind, it.micros, 0, 0, 0, 0, debit.ref, credit.ref)
        ]
        if margin:
            sides = (LINE_ITEM, MARGIN) if sign > 0 else (MARGIN, LINE_ITEM)
            refs = (it.line_item, it.line_item)
            rows.append((number, ENTRY_ADJUSTED_MARGIN, *head, *sides, margin, 0, 0, 0, 0, *refs))
            self._book(MARGIN, it.line_item, it.period, currency, -sign * margin)
        self._state.journal.add_entries(rows)
        if line is not None:
            other = credit if sign > 0 else debit
            self._book(other.kind, other.ref, it.period, currency, -sign * it.micros)
            self._posting.spend(line, it.period, sign * (it.micros + margin))
            # What is of a period belongs to the day that it was delivered on, whenever the bill comes.
            at_ms = day_of(it.period) * _DAY_MS + _DAY_MS // 2 if it.period else time_ms
            self._state.rollups.adjusted(line, at_ms, it.exchange, sign * (it.micros + margin), sign * it.micros)
            self._state.granting.wake(line)
        else:
            self._book(debit.kind, debit.ref, it.period, currency, it.micros)
            self._book(credit.kind, credit.ref, it.period, currency, -it.micros)
        if PREPAID in (debit.kind, credit.kind):
            self.fund(it.advertiser)

    def _book(self, kind: int, ref: int, period: int, currency: str, micros: int) -> None:
        """Debit an account, or credit it where ``micros`` is negative."""
        self._state.balances.book(kind, ref, period, currency, debit=max(micros, 0), credit=max(-micros, 0))

    def fund(self, advertiser: int) -> None:
        """What an advertiser has paid in bounds what is granted, where it pays in advance."""
        granting = self._state.granting
        prepaid = advertiser in granting.plan.prepaid
        granting.set_funds(advertiser, -self._state.balances.of(PREPAID, advertiser, ALL_TIME) if prepaid else NO_LIMIT)
