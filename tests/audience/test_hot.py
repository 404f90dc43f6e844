"""Hot profiles: who is answered when the store isn't there, for how long, and how they are forgotten."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from store_conformance import NOBODY, key, read, record

from dsp.audience.guard import Guard
from dsp.audience.hot import HotProfiles, tell_forgotten
from dsp.audience.store import StoreError, StoreStats

S = 1_000_000_000


class Switched:
    """Knows everybody whose key is even; fails when told to."""

    def __init__(self) -> None:
        self.stats = StoreStats()
        self.broken = self.nobody = False

    def read(self, keys, wanted, out, found, keys_per_person=4) -> None:  # type: ignore[no-untyped-def]
        if self.broken:
            raise StoreError("gone")
        out[: len(found)] = 0
        for i in range(len(found)):
            name = int.from_bytes(keys[i * keys_per_person].tobytes(), "big")
            found[i] = int(bool(wanted[i * keys_per_person]) and name % 2 == 0 and not self.nobody)
            if found[i]:
                out[i] = np.frombuffer(record(name), np.uint8)

    def close(self) -> None:
        pass


def hot(tmp_path: Path, people: int = 64) -> tuple[Switched, HotProfiles, list[int]]:
    store, now_ns = Switched(), [10 * S]
    guard = Guard(store, trip_after=1, clock_ns=lambda: now_ns[0])
    return store, HotProfiles(guard, tmp_path, people, 60.0, clock_ns=lambda: now_ns[0]), now_ns


def test_people_seen_lately_are_answered_while_the_store_is_away(tmp_path: Path) -> None:
    store, cache, now_ns = hot(tmp_path)
    assert read(cache, [[key(2)], [key(3)], [key(4)]])[0] == [1, 0, 1]
    store.broken = True
    for _ in range(3):  # the failure itself, then the open circuit
        found, rows = read(cache, [[key(2)], [key(3)], [key(6)], []])
        assert (found, rows) == ([1, 0, 0, 0], [record(2), NOBODY, NOBODY, NOBODY])
    assert cache.served == 3
    assert (cache.stats.errors, cache.stats.skipped) == (1, 2)
    now_ns[0] += 61 * S
    assert read(cache, [[key(2)]])[0] == [0]
    store.broken = False
    now_ns[0] += 2 * S
    assert read(cache, [[key(2)]])[0] == [1]


def test_while_the_store_answers_its_word_counts(tmp_path: Path) -> None:
    store, cache, _ = hot(tmp_path)
    read(cache, [[key(2)]])
    store.nobody = True
    assert read(cache, [[key(2)]])[0] == [0]
    assert cache.served == 0


def test_memory_is_bounded_and_the_newest_stay(tmp_path: Path) -> None:
    store, cache, now_ns = hot(tmp_path, people=8)
    assert cache.people == 8
    for name in range(2, 2002, 2):
        now_ns[0] += 1000
        read(cache, [[key(name)]])
    store.broken = True
    found = [read(cache, [[key(name)]])[0][0] for name in range(2, 2002, 2)]
    assert 1 <= sum(found) <= 8
    assert found[-1] == 1


def test_an_erasure_empties_every_cache(tmp_path: Path) -> None:
    store, cache, _ = hot(tmp_path)
    read(cache, [[key(2)]])
    tell_forgotten(tmp_path)
    store.broken = True
    assert read(cache, [[key(2)]])[0] == [0]
    assert not cache._rows.any()
    assert not cache._keys.any()


def test_only_wanted_keys_are_recalled(tmp_path: Path) -> None:
    store, cache, _ = hot(tmp_path)
    read(cache, [[key(2)]])
    store.broken = True
    keys = np.frombuffer(key(2) * 4, np.uint8).reshape(4, 16)
    out, found = np.ones((1, 128), np.uint8), np.ones(1, np.int64)
    cache.read(keys, np.zeros(4, np.int64), out, found)
    assert found.tolist() == [0]
    assert not out.any()
