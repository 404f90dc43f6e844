"""What every account owes and is owed, by period and currency, and what a transaction changes of it. No I/O.

Invariant: debits equal credits over all accounts of the double entry (`check`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dsp.ledger.accounts import ROLLUPS
from dsp.ledger.periods import periods_of

Key = tuple[int, int, int, str]  # kind of account, whose, period, currency


class BrokenInvariantError(AssertionError):
    """The books contradict themselves; the message says where."""


class Balances:
    """Debits and credits of every account, micros."""

    def __init__(self) -> None:
        self._all: dict[Key, list[int]] = {}
        self._new: dict[Key, list[int]] = {}

    def load(self, rows: Iterable[Any]) -> None:
        """Rows of BALANCES."""
        for row in rows:
            self._all[row.kind, row.ref, row.period, row.currency] = [row.debit_micros, row.credit_micros]

    def book(self, kind: int, ref: int, period: int, currency: str, *, debit: int = 0, credit: int = 0) -> None:
        """Add to an account."""
        key = (kind, ref, period, currency)
        for table in (self._new, self._all):
            amounts = table.setdefault(key, [0, 0])
            amounts[0] += debit
            amounts[1] += credit

    def drain(self) -> list[tuple[Any, ...]]:
        """What was booked since the last time, as rows of BALANCES to be added."""
        rows = [(*key, *amounts) for key, amounts in self._new.items()]
        self._new.clear()
        return rows

    def of(self, kind: int, ref: int, period: int) -> int:
        """Debits less credits of an account in a period, over all currencies (an account has one), micros."""
        rows = (v for (k, r, p, _), v in self._all.items() if k == kind and r == ref and period in periods_of(p))
        return sum(debit - credit for debit, credit in rows)

    def of_kind(self, kind: int, refs: Iterable[int]) -> dict[int, list[tuple[int, int, int]]]:
        """(period, debits, credits) of each of these accounts of a kind."""
        found: dict[int, list[tuple[int, int, int]]] = {ref: [] for ref in refs}
        for (of, ref, period, _), (debit, credit) in self._all.items() if found else ():
            if of == kind and ref in found:
                found[ref].append((period, debit, credit))
        return found

    def all(self) -> dict[Key, tuple[int, int]]:
        """Every account: (kind, ref, period, currency) -> (debits, credits)."""
        return {key: (amounts[0], amounts[1]) for key, amounts in self._all.items()}

    def check(self) -> None:
        """Raise `BrokenInvariantError` where debits are not credits."""
        debits = sum(v[0] for k, v in self._all.items() if k[0] not in ROLLUPS)
        credits = sum(v[1] for k, v in self._all.items() if k[0] not in ROLLUPS)
        if debits != credits:
            raise BrokenInvariantError(f"debits {debits} are not credits {credits}")
