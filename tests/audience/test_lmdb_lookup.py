"""The kernel that reads LMDB's pages: it must say what the library says, whatever was written before."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import lmdb
import numpy as np
import pytest
from store_conformance import key, record

from dsp.audience.lmdb_lookup import page_size
from dsp.audience.lmdb_store import IDS, PEOPLE, LmdbProfileStore
from dsp.audience.lmdb_writer import LmdbWriter
from dsp.audience.profile import PROFILE, PROFILE_BYTES

SEED = 20_260_711
PEOPLE_N = 6_000  # three levels of pages in the table of ids


def write(path: Path, numbers: np.ndarray, age: int) -> None:
    """Three scattered keys a person; the person with number p carries p and ``age``."""
    records = np.zeros(len(numbers), PROFILE)
    records["person"], records["age_band"] = numbers, age
    keys = np.stack([scattered(numbers, k) for k in range(3)], axis=1)
    with LmdbWriter(path) as writer:
        writer.write(records, keys)


def scattered(numbers: np.ndarray, k: int) -> np.ndarray:
    words = np.stack([numbers * np.uint64(0x9E3779B97F4A7C15 + 2 * k), numbers + np.uint64(k << 40)], axis=1)
    return np.ascontiguousarray(words.astype(">u8")).view(np.uint8).reshape(len(numbers), 16)


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Executor]:
    """Another process: an environment can be open but once in each."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield pool


def both(path: Path, keys: np.ndarray, wanted: np.ndarray, per_person: int) -> tuple[list, list]:
    """(rows, found, keys asked, corrupt) by the pages and by the library."""
    said = []
    for pages in (True, False):
        store = LmdbProfileStore(path)
        assert store._map is not None
        if not pages:
            store._map = None
        n = len(keys) // per_person
        out, found = np.full((n, PROFILE_BYTES), 7, np.uint8), np.zeros(n, np.int64)
        store.read(keys, wanted, out, found, per_person)
        said.append([out.tolist(), found.tolist(), store.stats.keys, store.stats.corrupt])
        store.close()
    return said[0], said[1]


def test_pages_and_library_agree_before_and_after_updates_and_deletions(tmp_path: Path) -> None:
    rng = np.random.default_rng(SEED)
    write(tmp_path, np.arange(1, PEOPLE_N + 1, dtype=np.uint64), 1)
    for turn in range(4):
        numbers = rng.integers(1, PEOPLE_N + 2_000, 400).astype(np.uint64)
        keys = np.stack([scattered(numbers, k) for k in (turn % 4, 2)], axis=1)  # 3: nobody's
        wanted = (rng.random((400, 2)) < 0.9).astype(np.int64)
        pages, library = both(tmp_path, keys.reshape(-1, 16), wanted.reshape(-1), 2)
        assert pages == library, f"seed {SEED}, turn {turn}"
        assert 0 < sum(pages[1]) < 400
        write(tmp_path, rng.choice(np.arange(1, PEOPLE_N + 500, dtype=np.uint64), 700, replace=False), turn + 2)
        env = lmdb.open(str(tmp_path), max_dbs=4, map_size=1 << 38)
        ids, people = env.open_db(IDS), env.open_db(PEOPLE, integerkey=True)
        with env.begin(write=True) as txn:
            for number in rng.integers(1, PEOPLE_N, 100):
                txn.delete(scattered(np.array([number], np.uint64), 0)[0].tobytes(), db=ids)
                txn.delete(int(number + 50).to_bytes(4, "little"), db=people)
        env.close()


def test_an_open_store_sees_what_was_written_since_even_past_its_mapping(tmp_path: Path, elsewhere: Executor) -> None:
    write(tmp_path, np.arange(1, 5, dtype=np.uint64), 1)
    store = LmdbProfileStore(tmp_path)
    mapped = store._mapped_bytes
    out, found = np.zeros((1, PROFILE_BYTES), np.uint8), np.zeros(1, np.int64)
    for last, age in ((4_000, 2), (40_000, 3)):
        elsewhere.submit(write, tmp_path, np.arange(1, last, dtype=np.uint64), age).result()
        store.read(scattered(np.array([last - 1], np.uint64), 2), np.ones(1, np.int64), out, found, 1)
        assert found[0] == 1
        assert out.view(PROFILE)[0, 0]["age_band"] == age
    assert store._mapped_bytes > mapped
    store.close()


def test_a_reader_between_two_commits_never_sees_a_mixture(tmp_path: Path, elsewhere: Executor) -> None:
    numbers = np.arange(1, 65, dtype=np.uint64)
    write(tmp_path, numbers, 1)
    store = LmdbProfileStore(tmp_path)
    keys, wanted = scattered(numbers, 0), np.ones(64, np.int64)
    out, found = np.zeros((64, PROFILE_BYTES), np.uint8), np.zeros(64, np.int64)
    for age in (2, 3, 4, 5, 6):
        elsewhere.submit(write, tmp_path, numbers, age).result()
        store.read(keys, wanted, out, found, 1)
        assert set(out.view(PROFILE)[:, 0]["age_band"].tolist()) == {age}
    store.close()


@pytest.mark.parametrize("at", [10, 16, 20, 40])
def test_a_file_of_another_format_is_left_to_the_library(tmp_path: Path, at: int) -> None:
    write(tmp_path, np.arange(1, 5, dtype=np.uint64), 1)
    head = bytearray((tmp_path / "data.mdb").read_bytes()[:64])
    assert page_size(bytes(head)) == 4096
    head[at] ^= 0xFF
    assert page_size(bytes(head)) == 0


def test_records_of_another_size_are_counted_as_corrupt(tmp_path: Path) -> None:
    write(tmp_path, np.arange(1, 5, dtype=np.uint64), 1)
    env = lmdb.open(str(tmp_path), max_dbs=4, map_size=1 << 38)
    ids, people = env.open_db(IDS), env.open_db(PEOPLE, integerkey=True)
    with env.begin(write=True) as txn:
        txn.put(key(1), (77).to_bytes(4, "little"), db=ids)
        txn.put((77).to_bytes(4, "little"), record(1) + b"x", db=people)
        txn.put(key(2), b"longer than a slot", db=ids)
        txn.put((78).to_bytes(4, "little"), bytes(9_000), db=people)  # on pages of its own
        txn.put(key(3), (78).to_bytes(4, "little"), db=ids)
    env.close()
    asked = np.frombuffer(key(1) + key(2) + key(3), np.uint8).reshape(3, 16)
    pages, library = both(tmp_path, asked, np.ones(3, np.int64), 1)
    assert pages == library
    assert pages[1] == [0, 0, 0]
    assert pages[3] == 3
