"""A circuit breaker around a profile store: a sick store makes bids contextual, never late and never failed.

Closed: reads go through. ``trip_after`` failures or slow reads in a row open it; open, every person is unknown at no
cost. After ``retry_s`` one read is let through (half-open): fast and right closes the circuit, anything else keeps it
open for another ``retry_s``. Time is an argument, so a test or a simulation decides how late it is.

A read that would outlast the bid's deadline isn't begun at all: where the caller sets ``budget_ms``, less than twice
what reads usually take means contextual, and is counted.

A mapped file can't be interrupted while it reads: the first ``trip_after`` slow reads are paid for, those after aren't.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from dsp.audience.store import I64, MAX_KEYS, U8, ProfileStore, StoreStats

CLOSED = 0
OPEN = 1
HALF_OPEN = 2
NO_LIMIT_MS = 1e9
ENOUGH = 2.0  # a read is begun where twice its usual time is left
SMOOTH = 0.1


class Guard:
    """A `ProfileStore` that never raises; ``stats`` are those of the store within, plus what was skipped."""

    def __init__(
        self,
        store: ProfileStore,
        *,
        trip_after: int = 5,
        slow_ms: float = 20.0,
        retry_s: float = 1.0,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Guard ``store``; a read slower than ``slow_ms`` counts as a failure, though its result is used."""
        self.store = store
        self.stats: StoreStats = store.stats
        self.state = CLOSED
        self.slow_reads = 0
        self.trips = 0
        self.hurried = 0  # batches not read because too little time was left
        self.budget_ms = NO_LIMIT_MS  # of the next read; set it before, where there is a deadline
        self.usual_ms = 0.0  # how long good reads take, smoothed
        self._trip_after = trip_after
        self._slow_ns = int(slow_ms * 1e6)
        self._retry_ns = int(retry_s * 1e9)
        self._clock_ns = clock_ns
        self._failures = 0
        self._retry_at_ns = 0

    def read(self, keys: U8, wanted: I64, out: U8, found: I64, keys_per_person: int = MAX_KEYS) -> None:
        """As `ProfileStore.read`, but a failed or skipped batch reads as nobody known."""
        started_ns = self._clock_ns()
        if self.state != CLOSED:
            if started_ns < self._retry_at_ns:
                self.stats.skipped += 1
                _unknown(out, found)
                return
            self.state = HALF_OPEN
        if self.budget_ms < self.usual_ms * ENOUGH:
            self.stats.skipped += 1
            self.hurried += 1
            self.usual_ms *= 1 - SMOOTH / 4  # so that one slow spell isn't held against it for ever
            _unknown(out, found)
            return
        try:
            self.store.read(keys, wanted, out, found, keys_per_person)
        except Exception:  # whatever a client library raises, the bid goes on
            self.stats.errors += 1
            _unknown(out, found)
            self._failed()
            return
        took_ns = self._clock_ns() - started_ns
        if self.budget_ms < NO_LIMIT_MS:
            self.usual_ms += SMOOTH * (took_ns / 1e6 - self.usual_ms)
        if took_ns > self._slow_ns:
            self.slow_reads += 1
            self._failed()
        else:
            self._failures = 0
            self.state = CLOSED

    def close(self) -> None:
        """Close the store within."""
        self.store.close()

    def _failed(self) -> None:
        """Count a failure; open the circuit where it is one too many, or a probe that failed."""
        self._failures += 1
        if self.state == HALF_OPEN or self._failures >= self._trip_after:
            if self.state == CLOSED:
                self.trips += 1
            self.state = OPEN
            self._retry_at_ns = self._clock_ns() + self._retry_ns


def _unknown(out: U8, found: I64) -> None:
    """Nobody of this batch is known."""
    found[:] = 0
    out[: len(found)] = 0
