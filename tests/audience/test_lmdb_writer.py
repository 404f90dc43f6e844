"""Bulk load and update of the LMDB store: what ends up findable, and in how much space."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_conformance import key, read

import dsp.audience.lmdb_writer as lmdb_writer
from dsp.audience.lmdb_store import LmdbProfileStore
from dsp.audience.lmdb_writer import LmdbWriter
from dsp.audience.profile import PROFILE
from dsp.audience.store import KEY_BYTES, U8, StoreError


def keys_of(people: list[list[int]]) -> U8:
    width = max(len(ids) for ids in people)
    packed = b"".join(b"".join(key(one) for one in ids).ljust(width * KEY_BYTES, b"\0") for ids in people)
    return np.frombuffer(packed, np.uint8).reshape(len(people), width, KEY_BYTES)


def records_of(persons: list[int]) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    records = np.zeros(len(persons), PROFILE)
    records["person"] = persons
    return records


def persons_of(path: Path, ids: list[int]) -> list[int]:
    """The person number found by each id, 0 where none."""
    store = LmdbProfileStore(path)
    _, rows = read(store, [[key(one)] for one in ids])
    store.close()
    return [int(np.frombuffer(row, PROFILE)["person"][0]) for row in rows]


def load(path: Path, persons: list[int], people: list[list[int]]) -> None:
    with LmdbWriter(path) as writer:
        writer.write(records_of(persons), keys_of(people))


def test_bulk_load_over_many_writes_and_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmdb_writer, "CHUNK", 100)
    rng = np.random.default_rng(3)
    keys = rng.integers(0, 256, (1000, 3, KEY_BYTES), np.uint8)
    keys[::3, 1:] = 0  # a third has one id
    with LmdbWriter(tmp_path) as writer:
        for start in range(0, 1000, 250):
            writer.write(records_of(list(range(start + 1, start + 251))), keys[start : start + 250])
    store = LmdbProfileStore(tmp_path)
    assert store.people() == 1000
    for place in range(3):
        there = keys[:, place].any(axis=1).nonzero()[0]
        _, rows = read(store, [[keys[i, place].tobytes()] for i in there])
        assert [int(np.frombuffer(row, PROFILE)["person"][0]) for row in rows] == (there + 1).tolist()
    store.close()
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["data.mdb", "lock.mdb"]


def test_a_bulk_load_packs_its_pages(tmp_path: Path) -> None:
    keys = np.random.default_rng(4).integers(0, 256, (20_000, 3, KEY_BYTES), np.uint8)
    with LmdbWriter(tmp_path) as writer:
        writer.write(records_of(list(range(1, 20_001))), keys)
    assert (tmp_path / "data.mdb").stat().st_size / 20_000 <= 250  # bytes a person with three ids


def test_an_update_replaces_whom_any_id_names(tmp_path: Path) -> None:
    load(tmp_path, [10, 20], [[1, 2], [3]])
    load(tmp_path, [11, 30], [[9, 2], [4, 5]])  # person 10 with a new first id; a new person
    assert persons_of(tmp_path, [1, 2, 9, 3, 4, 5, 6]) == [11, 11, 11, 20, 30, 30, 0]
    store = LmdbProfileStore(tmp_path)
    assert store.people() == 3
    store.close()


def test_of_a_key_given_twice_the_last_person_has_it(tmp_path: Path) -> None:
    load(tmp_path, [10, 20, 30], [[1, 7], [2, 7], [3]])
    assert persons_of(tmp_path, [1, 2, 3, 7]) == [10, 20, 30, 20]


def test_person_zero_gets_the_slot_as_its_number(tmp_path: Path) -> None:
    load(tmp_path, [0, 5, 0], [[1], [2], [3]])
    load(tmp_path, [0], [[4]])
    assert persons_of(tmp_path, [1, 2, 3, 4]) == [1, 5, 3, 4]


def test_nobody_is_findable_before_the_bulk_load_is_finished(tmp_path: Path) -> None:
    writer = LmdbWriter(tmp_path)
    writer.write(records_of([10]), keys_of([[1]]))
    writer.close()  # as after a crash
    assert persons_of(tmp_path, [1]) == [0]
    load(tmp_path, [20], [[1]])
    assert persons_of(tmp_path, [1]) == [20]
    store = LmdbProfileStore(tmp_path)
    assert store.people() == 1  # what the cut-off load left is gone
    store.close()


def test_an_error_inside_the_block_finishes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="uint8"), LmdbWriter(tmp_path) as writer:  # noqa: PT012
        writer.write(records_of([10]), keys_of([[1]]))
        writer.write(records_of([20]), keys_of([[2], [3]]))
    assert persons_of(tmp_path, [1]) == [0]


@pytest.mark.parametrize(
    ("records", "keys"),
    [
        (records_of([1]), np.zeros((1, 1, KEY_BYTES), np.uint8)),
        (records_of([1]), np.ones((2, 1, KEY_BYTES), np.uint8)),
        (records_of([1]), np.ones((1, KEY_BYTES), np.uint8)),
        (np.zeros((1, 128), np.uint8), np.ones((1, 1, KEY_BYTES), np.uint8)),
    ],
)
def test_wrong_shapes_and_people_without_keys_are_refused(
    tmp_path: Path, records: np.ndarray[tuple[int], np.dtype[np.void]], keys: U8
) -> None:
    with LmdbWriter(tmp_path) as writer, pytest.raises(ValueError, match=r"key|need"):
        writer.write(records, keys)


def test_nothing_to_write(tmp_path: Path) -> None:
    with LmdbWriter(tmp_path) as writer:
        writer.write(records_of([]), np.zeros((0, 2, KEY_BYTES), np.uint8))
    assert persons_of(tmp_path, [1]) == [0]


def test_a_store_that_cannot_be_opened_names_itself(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"x" * 9000)
    with pytest.raises(StoreError, match=str(tmp_path)):
        LmdbWriter(tmp_path)


def test_one_writer_at_a_time_in_a_process(tmp_path: Path) -> None:
    with LmdbWriter(tmp_path), pytest.raises(StoreError, match=str(tmp_path)):
        LmdbWriter(tmp_path)


people_lists = st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=4, unique=True), min_size=1, max_size=12)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(loads=st.lists(people_lists, min_size=1, max_size=3))
def test_any_sequence_of_loads_reads_as_a_dictionary_would(
    tmp_path_factory: pytest.TempPathFactory, loads: list[list[list[int]]]
) -> None:
    """The model: a bulk load gives each person a slot, an update reuses the slot of the first id that is known."""
    path = tmp_path_factory.mktemp("db")
    slot_of: dict[int, int] = {}
    person_in: dict[int, int] = {}
    person = 100
    for i, people in enumerate(loads):
        persons = list(range(person, person + len(people)))
        person += len(people)
        load(path, persons, people)
        for number, ids in zip(persons, people, strict=True):
            known = [slot_of[one] for one in ids if one in slot_of] if i else []
            slot = known[0] if known else len(person_in) + 1
            person_in[slot] = number
            slot_of.update(dict.fromkeys(ids, slot))
    expected = [person_in[slot_of[one]] if one in slot_of else 0 for one in range(1, 31)]
    assert persons_of(path, list(range(1, 31))) == expected
