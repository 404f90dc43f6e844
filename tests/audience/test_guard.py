"""The circuit breaker, with a store and a clock under our thumb."""

import numpy as np
from store_conformance import NOBODY, key, read

from dsp.audience.guard import CLOSED, HALF_OPEN, OPEN, Guard
from dsp.audience.store import EmptyStore, StoreError, StoreStats

MS = 1_000_000


class ScriptedStore:
    """Finds everybody (rows of 1), after ``takes_ms``, unless ``broken``."""

    def __init__(self) -> None:
        self.stats = StoreStats()
        self.now_ns = 0
        self.takes_ms = 0
        self.broken: Exception | None = None
        self.closed = 0
        self.states: list[int] = []
        self.guard: Guard | None = None

    def clock_ns(self) -> int:
        return self.now_ns

    def read(self, keys: object, wanted: object, out: np.ndarray, found: np.ndarray, keys_per_person: int = 4) -> None:
        self.stats.reads += 1
        assert self.guard is not None
        self.states.append(self.guard.state)
        self.now_ns += self.takes_ms * MS
        out[: len(found)] = 1
        found[:] = 1
        if self.broken is not None:
            raise self.broken

    def close(self) -> None:
        self.closed += 1


def guarded() -> tuple[ScriptedStore, Guard]:
    store = ScriptedStore()
    store.guard = Guard(store, trip_after=3, slow_ms=20, retry_s=1, clock_ns=store.clock_ns)
    return store, store.guard


def look(guard: Guard) -> tuple[list[int], list[bytes]]:
    return read(guard, [[key(1)], []])


UNKNOWN = ([0, 0], [NOBODY] * 2)
KNOWN = ([1, 1], [b"\1" * 128] * 2)


def test_a_healthy_store_is_read_through() -> None:
    store, guard = guarded()
    for _ in range(10):
        assert look(guard) == KNOWN
    assert (guard.state, store.stats.errors, store.stats.skipped) == (CLOSED, 0, 0)


def test_a_failed_read_is_nobody_known_and_counted() -> None:
    store, guard = guarded()
    for error in (StoreError("gone"), OSError("io"), ValueError("anything")):
        store.broken = error
        assert look(guard) == UNKNOWN
    assert store.stats.errors == 3


def test_failures_in_a_row_open_the_circuit_and_then_cost_nothing() -> None:
    store, guard = guarded()
    store.broken = StoreError("gone")
    for _ in range(10):
        assert look(guard) == UNKNOWN
    assert guard.state == OPEN
    assert guard.trips == 1
    assert (store.stats.reads, store.stats.errors, store.stats.skipped) == (3, 3, 7)


def test_a_success_between_failures_keeps_it_closed() -> None:
    store, guard = guarded()
    for broken in (True, True, False) * 4:
        store.broken = StoreError("gone") if broken else None
        look(guard)
    assert (guard.state, store.stats.skipped) == (CLOSED, 0)


def test_slow_reads_are_used_but_open_the_circuit_too() -> None:
    store, guard = guarded()
    store.takes_ms = 21
    assert [look(guard) for _ in range(3)] == [KNOWN] * 3
    assert guard.state == OPEN
    assert look(guard) == UNKNOWN
    assert (guard.slow_reads, store.stats.errors) == (3, 0)


def test_a_read_at_the_limit_is_not_slow() -> None:
    store, guard = guarded()
    store.takes_ms = 20
    for _ in range(9):
        look(guard)
    assert guard.state == CLOSED


def test_one_probe_after_a_second_closes_it_again() -> None:
    store, guard = guarded()
    store.broken = StoreError("gone")
    for _ in range(3):
        look(guard)
    store.broken = None
    store.now_ns += 999 * MS
    assert look(guard) == UNKNOWN
    store.now_ns += 1 * MS
    assert look(guard) == KNOWN
    assert store.states[-1] == HALF_OPEN
    assert guard.state == CLOSED
    assert look(guard) == KNOWN


def test_a_failed_or_slow_probe_waits_another_second() -> None:
    store, guard = guarded()
    store.broken = StoreError("gone")
    for _ in range(3):
        look(guard)
    store.now_ns += 1000 * MS
    look(guard)  # the probe, which fails
    assert (guard.state, store.stats.reads) == (OPEN, 4)
    store.now_ns += 999 * MS
    look(guard)
    assert store.stats.reads == 4
    store.broken, store.takes_ms = None, 50
    store.now_ns += 1 * MS
    assert look(guard) == KNOWN  # its answer is used all the same
    assert guard.state == OPEN
    assert guard.trips == 1


def test_after_recovery_it_takes_as_many_failures_again() -> None:
    store, guard = guarded()
    store.broken = StoreError("gone")
    for _ in range(3):
        look(guard)
    store.broken = None
    store.now_ns += 1000 * MS
    look(guard)
    store.broken = StoreError("gone")
    look(guard)
    look(guard)
    assert guard.state == CLOSED
    look(guard)
    assert (guard.state, guard.trips) == (OPEN, 2)


def test_close_closes_the_store() -> None:
    store, guard = guarded()
    guard.close()
    assert store.closed == 1


def test_the_empty_store_knows_nobody() -> None:
    store = EmptyStore()
    assert read(store, [[key(1)], []]) == UNKNOWN
    assert store.stats.reads == 1
    store.close()


def test_a_read_that_would_outlast_the_deadline_is_not_begun() -> None:
    store, guard = guarded()
    store.takes_ms = 4
    guard.budget_ms = 50.0
    for _ in range(60):
        assert look(guard) == KNOWN
    assert 3.9 < guard.usual_ms <= 4.0
    guard.budget_ms = 7.0  # less than twice what reads take
    reads = store.stats.reads
    assert look(guard) == UNKNOWN
    assert (store.stats.reads, guard.hurried, store.stats.skipped) == (reads, 1, 1)
    assert guard.state == CLOSED  # the store is well, the bid was in a hurry
    guard.budget_ms = 9.0
    assert look(guard) == KNOWN


def test_a_slow_spell_is_not_held_against_the_store_for_ever() -> None:
    store, guard = guarded()
    store.takes_ms = 19
    guard.budget_ms = 100.0
    for _ in range(60):
        look(guard)
    store.takes_ms = 1
    guard.budget_ms = 10.0
    looks = [look(guard) for _ in range(200)]
    assert looks[0] == UNKNOWN
    assert looks[-1] == KNOWN
