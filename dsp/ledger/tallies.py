"""Events added up by line item and kind: how many, what they amount to, what of it was posted. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class Tallies:
    """``totals`` (line item, kind) -> n, charge micros, posted micros, value in whole units."""

    def __init__(self) -> None:
        self.totals: dict[tuple[int, int], list[float]] = {}
        self._new: dict[tuple[int, int], list[float]] = {}

    def load(self, rows: Iterable[Any]) -> None:
        """Rows of TALLIES."""
        for row in rows:
            self.totals[row.line_item, row.kind] = [row.n, row.charge_micros, row.posted_micros, row.value]

    def add(self, line_item: int, kind: int, n: int, charge: int, posted: int, value: float) -> None:
        """Add to a line item's."""
        for table in (self._new, self.totals):
            numbers = table.setdefault((line_item, kind), [0, 0, 0, 0.0])
            numbers[0] += n
            numbers[1] += charge
            numbers[2] += posted
            numbers[3] += value

    def drain(self) -> list[tuple[Any, ...]]:
        """What was added since the last time, as rows of TALLIES to be added."""
        rows = [(*key, *numbers) for key, numbers in self._new.items()]
        self._new.clear()
        return rows
