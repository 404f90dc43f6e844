"""States in LMDB: who is read, who isn't, and what a dead file does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from store_conformance import key

from dsp.audience.frequency import Shown, States, billed
from dsp.audience.lmdb_frequency import LmdbFrequency, LmdbFrequencyWriter, person_subject
from dsp.audience.profile import LIFECYCLE, P_PERSON, PROFILE_BYTES
from dsp.audience.store import MAX_KEYS, StoreError
from dsp.base.caps import LINE_ITEM

NOW = 1_790_000_000
SHOWN = Shown(NOW, 1, 2, 3, 4, 0)


def read(store: LmdbFrequency, people: list[tuple[int, int, list[bytes]]]) -> States:
    """People as (may be counted, person number or 0 where no profile was found, wanted keys)."""
    n = len(people)
    states = States(n + 2)
    states.known[:] = 7
    keys, wanted = np.zeros((n * MAX_KEYS, 16), np.uint8), np.zeros(n * MAX_KEYS, np.int64)
    profiles = np.zeros((n, PROFILE_BYTES), np.uint8)
    for i, (_, person, ids) in enumerate(people):
        profiles[i, P_PERSON : P_PERSON + 8] = np.frombuffer(person.to_bytes(8, "little"), np.uint8)
        for k, one in enumerate(ids):
            keys[i * MAX_KEYS + k], wanted[i * MAX_KEYS + k] = np.frombuffer(one, np.uint8), 1
    allowed = np.array([a for a, _, _ in people], np.int64)
    found = np.array([int(p > 0) for _, p, _ in people], np.int64)
    store.read(n, allowed, 1, keys, wanted, profiles, found, states)
    assert states.known[n:].tolist() == [7, 7]
    return states


def seen(states: States, i: int) -> int:
    return int(billed(states.rows[i], LINE_ITEM, 2, 60, NOW))


def test_a_person_is_counted_by_number_and_a_stranger_by_the_first_id(tmp_path: Path) -> None:
    writer = LmdbFrequencyWriter(tmp_path)
    writer.count([(person_subject(7), SHOWN), (key(1), SHOWN), (key(1), SHOWN)])
    store = LmdbFrequency(tmp_path)
    states = read(store, [(1, 7, [key(9)]), (1, 0, [key(1), key(2)]), (1, 0, [key(2), key(1)]), (1, 8, []), (1, 0, [])])
    assert states.known[:5].tolist() == [1, 1, 1, 1, 0]
    assert [seen(states, i) for i in range(4)] == [1, 2, 0, 0]
    writer.close()
    store.close()


def test_without_permission_nothing_is_read(tmp_path: Path) -> None:
    writer = LmdbFrequencyWriter(tmp_path)
    writer.count([(person_subject(7), SHOWN)])
    store = LmdbFrequency(tmp_path)
    states = read(store, [(0, 7, [key(1)]), (1, 7, [])])
    assert states.known[:2].tolist() == [0, 1]
    assert not states.rows[0].any()
    assert not states.subjects[0].any()
    writer.close()
    store.close()


def test_before_anything_was_counted_everybody_is_new(tmp_path: Path) -> None:
    now_ns = [0]
    store = LmdbFrequency(tmp_path / "later", clock_ns=lambda: now_ns[0])
    assert read(store, [(1, 7, [])]).known[0] == 1
    writer = LmdbFrequencyWriter(tmp_path / "later")
    writer.count([(person_subject(7), SHOWN)])
    now_ns[0] = 2_000_000_000
    assert seen(read(store, [(1, 7, [])]), 0) == 1
    writer.close()
    store.close()


def test_a_conversion_is_seen_by_the_next_read(tmp_path: Path) -> None:
    writer = LmdbFrequencyWriter(tmp_path)
    store = LmdbFrequency(tmp_path)
    writer.convert([(person_subject(7), 1, LIFECYCLE.index("applied"))])
    states = read(store, [(1, 7, [])])
    assert states.rows[0, 3:8].tolist() == [0, 2, 0, 0, 0]
    writer.close()
    store.close()


def test_forgetting_and_tidying(tmp_path: Path) -> None:
    writer = LmdbFrequencyWriter(tmp_path)
    writer.count([(person_subject(7), SHOWN), (key(1), SHOWN)])
    assert writer.forget([person_subject(7), key(5)]) == 1
    assert writer.get(person_subject(7)) is None
    assert writer.drop_old(NOW + 10**7) == 0  # its flight totals still count
    assert b"\x07" + bytes(15) not in (writer.wipe(), (tmp_path / "data.mdb").read_bytes())[1]
    writer.close()


def test_a_file_that_is_not_lmdb_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"x" * 9000)
    with pytest.raises(StoreError):
        LmdbFrequencyWriter(tmp_path)
    store = LmdbFrequency(tmp_path)
    assert read(store, [(1, 7, [])]).known[0] == 0  # nobody is known, rather than everybody new
    assert store.errors == 1
