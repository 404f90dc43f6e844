"""Stops: what a brake or a person has stopped, the kill switch among it, until somebody resumes it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dsp.ledger.accounts import LINE_ITEM
from dsp.ledger.state import State

EVERYTHING = (0, 0)  # the stop that is the kill switch


class Stops:
    """``all`` (kind of account, ref) -> reason, detail, time in ms."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.all: dict[tuple[int, int], tuple[str, str, int]] = {}

    def load(self, rows: Iterable[Any]) -> None:
        """Rows of STOPS."""
        for row in rows:
            self.all[row.kind, row.ref] = row.reason, row.detail, row.time_ms
        self._tell()

    def stop(self, kind: int, ref: int, reason: str, detail: str, time_ms: int) -> None:
        """Stop an account, or `EVERYTHING`, until `resume`: slices are called back, nothing more is granted."""
        self.all[kind, ref] = reason, detail, time_ms
        self._state.counts[f"stopped_{reason}"] += 1
        self._state.journal.put_stops([(kind, ref, reason, detail, time_ms)])
        self.heed(time_ms)

    def resume(self, kind: int, ref: int, time_ms: int) -> bool:
        """End a stop; False when there was none."""
        if self.all.pop((kind, ref), None) is None:
            return False
        self._state.journal.drop_stop(kind, ref)
        if kind == LINE_ITEM:
            self._state.brakes.reset(ref)
        self.heed(time_ms)
        return True

    def heed(self, time_ms: int) -> None:
        """Line items that are stopped get nothing, those that are not do."""
        self._tell()
        self._state.granting.activate(time_ms)

    def _tell(self) -> None:
        granting = self._state.granting
        granting.stops, granting.stop = set(self.all), EVERYTHING in self.all
