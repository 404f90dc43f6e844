"""What every profile store does, whatever is behind it. A backend's test subclasses `StoreConformance`.

It provides a fixture ``store_of``: people -> an open store that holds them. A person is (identity keys, stored bytes);
the bytes are whatever the backend keeps for that person, valid or not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from dsp.audience.profile import P_AGE_BAND, P_LIFECYCLE, P_N_SEGMENTS, PROFILE, PROFILE_BYTES, PROFILE_VERSION
from dsp.audience.store import KEY_BYTES, MAX_KEYS, ProfileStore

Person = tuple[Sequence[bytes], bytes]
StoreOf = Callable[[list[Person]], ProfileStore]


def key(number: int) -> bytes:
    return number.to_bytes(KEY_BYTES, "big")


def record(person: int, **values: int) -> bytes:
    out = np.zeros(1, PROFILE)
    out["version"] = PROFILE_VERSION
    out["person"] = person
    out["age_band"] = 3
    for name, value in values.items():
        out[name] = value
    return out.tobytes()


def damaged(at: int, value: int) -> bytes:
    raw = bytearray(record(9))
    raw[at] = value
    return bytes(raw)


def read(
    store: ProfileStore, people: list[list[bytes | None]], keys_per_person: int = MAX_KEYS
) -> tuple[list[int], list[bytes]]:
    """(found, rows) for people given as their wanted keys in order; None is a place that isn't wanted."""
    n = len(people)
    keys = np.full((n * keys_per_person, KEY_BYTES), 0xAB, np.uint8)
    wanted = np.zeros(n * keys_per_person, np.int64)
    for i, ids in enumerate(people):
        for k, one in enumerate(ids):
            if one is not None:
                keys[i * keys_per_person + k] = np.frombuffer(one, np.uint8)
                wanted[i * keys_per_person + k] = 1
    out = np.full((n + 3, PROFILE_BYTES), 7, np.uint8)  # larger than asked, with old rows in it
    found = np.full(n, 7, np.int64)
    store.read(keys, wanted, out, found, keys_per_person)
    assert (out[n:] == 7).all()
    return found.tolist(), [row.tobytes() for row in out[:n]]


NOBODY = bytes(PROFILE_BYTES)


class StoreConformance:
    """The suite."""

    def test_a_known_person_is_found_by_any_id(self, store_of: StoreOf) -> None:
        store = store_of([([key(1), key(2), key(3)], record(10)), ([key(4)], record(20))])
        for one, person in ((1, 10), (2, 10), (3, 10), (4, 20)):
            assert read(store, [[key(one)]]) == ([1], [record(person)])

    def test_an_unknown_person_is_a_zeroed_row(self, store_of: StoreOf) -> None:
        store = store_of([([key(1)], record(10))])
        assert read(store, [[key(99)], [], [None, None]]) == ([0, 0, 0], [NOBODY] * 3)

    def test_the_first_key_that_resolves_wins(self, store_of: StoreOf) -> None:
        store = store_of([([key(1)], record(10)), ([key(2)], record(20))])
        wanted = [[key(1), key(2)], [key(2), key(1)], [key(98), key(2), key(1)], [None, key(99), None, key(1)]]
        assert read(store, wanted) == ([1, 1, 1, 1], [record(10), record(20), record(20), record(10)])

    def test_a_key_that_is_not_wanted_is_not_looked_up(self, store_of: StoreOf) -> None:
        store = store_of([([key(1)], record(10))])
        keys = np.frombuffer(key(1) * MAX_KEYS, np.uint8).reshape(MAX_KEYS, KEY_BYTES)
        out, found = np.ones((1, PROFILE_BYTES), np.uint8), np.ones(1, np.int64)
        store.read(keys, np.zeros(MAX_KEYS, np.int64), out, found)
        assert found.tolist() == [0]
        assert not out.any()
        assert store.stats.keys == 0

    @pytest.mark.parametrize("n", [1, 2, 31, 64])
    def test_a_batch_answers_each_row(self, store_of: StoreOf, n: int) -> None:
        store = store_of([([key(100 + i), key(1000 + i)], record(i + 1)) for i in range(0, 64, 2)])
        found, rows = read(store, [[key(5000 + i), key(1000 + i)] for i in range(n)])
        assert found == [1 - i % 2 for i in range(n)]
        assert rows == [NOBODY if i % 2 else record(i + 1) for i in range(n)]

    @pytest.mark.parametrize("keys_per_person", [1, 2, 3, 7])
    def test_any_number_of_keys_per_person(self, store_of: StoreOf, keys_per_person: int) -> None:
        store = store_of([([key(1)], record(10)), ([key(2)], record(20))])
        absent: list[bytes | None] = [key(90 + k) for k in range(keys_per_person - 1)]
        wanted = [[*absent, key(2)], [], [*absent, key(1)]]
        assert read(store, wanted, keys_per_person) == ([1, 0, 1], [record(20), NOBODY, record(10)])

    @pytest.mark.parametrize(
        "stored",
        [
            pytest.param(b"", id="empty"),
            pytest.param(b"\x01", id="short"),
            pytest.param(record(9)[:-1], id="a-byte-short"),
            pytest.param(record(9) + b"\0", id="a-byte-long"),
            pytest.param(damaged(0, PROFILE_VERSION + 1), id="a-later-version"),
            pytest.param(damaged(P_N_SEGMENTS, 17), id="too-many-segments"),
            pytest.param(damaged(P_AGE_BAND, 7), id="no-such-age-band"),
            pytest.param(damaged(P_LIFECYCLE + 4, 8), id="no-such-life-cycle"),
            pytest.param(b"\xff" * PROFILE_BYTES, id="noise"),
        ],
    )
    def test_a_corrupt_record_is_unknown_and_counted(self, store_of: StoreOf, stored: bytes) -> None:
        store = store_of([([key(1)], stored), ([key(2)], record(20))])
        assert read(store, [[key(1)], [key(2)]]) == ([0, 1], [NOBODY, record(20)])
        assert store.stats.corrupt == 1
        assert store.stats.found == 1

    def test_reads_are_counted(self, store_of: StoreOf) -> None:
        store = store_of([([key(1)], record(10))])
        read(store, [[key(1)], [key(2), key(1)], []])
        read(store, [[key(3)]])
        stats = store.stats
        assert (stats.reads, stats.keys, stats.found, stats.corrupt, stats.errors) == (2, 4, 2, 0, 0)

    def test_close_twice(self, store_of: StoreOf) -> None:
        store = store_of([([key(1)], record(10))])
        store.close()
        store.close()
