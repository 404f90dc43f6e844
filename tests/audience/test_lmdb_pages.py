"""Erasure: after a wipe the file holds live records and nothing else."""

from __future__ import annotations

import threading
from pathlib import Path

import lmdb
import numpy as np
import pytest
from store_conformance import key, read, record

from dsp.audience.lmdb_pages import Pages, ids_of_slots, wipe
from dsp.audience.lmdb_store import IDS, MAP_BYTES, PEOPLE, LmdbProfileStore
from dsp.audience.lmdb_writer import LmdbWriter
from dsp.audience.profile import PROFILE
from dsp.audience.store import KEY_BYTES, StoreError

N = 3000


def people(
    seed: int,
) -> tuple[np.ndarray[tuple[int], np.dtype[np.void]], np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    """N random people with three ids each; every record has 32 bytes that are its own."""
    rng = np.random.default_rng(seed)
    records = np.zeros(N, PROFILE)
    records["person"] = rng.integers(1, 2**62, N)
    records["segments"] = rng.integers(1, 65_535, (N, 16))
    records["n_segments"] = 16
    return records, rng.integers(0, 256, (N, 3, KEY_BYTES), np.uint8)


def traces(path: Path, needles: list[bytes]) -> int:
    raw = (path / "data.mdb").read_bytes()
    return sum(raw.count(needle) for needle in needles)


def test_nothing_of_the_deleted_is_left_and_the_others_are_whole(tmp_path: Path) -> None:
    records, keys = people(1)
    with LmdbWriter(tmp_path) as writer:
        writer.write(records, keys)
    changed = records.copy()
    changed["segments"] += 1
    with LmdbWriter(tmp_path) as writer:  # old versions of every record now lie in freed pages
        writer.write(changed, keys)
        assert writer.delete(keys[:500, 1:2]) == 500
    gone = [keys[i, k].tobytes() for i in range(500) for k in range(3)]
    gone += [r["segments"][i].tobytes() for r in (records, changed) for i in range(500)]
    replaced = [records["segments"][i].tobytes() for i in range(500, N)]
    assert traces(tmp_path, gone) > 500  # deleting alone erases nothing
    with LmdbWriter(tmp_path) as writer:
        done = writer.wipe()
    assert done.wiped_pages > 0
    assert done.wiped_bytes > 0
    assert traces(tmp_path, gone + replaced) == 0
    store = LmdbProfileStore(tmp_path)
    assert store.people() == N - 500
    for k in range(3):
        found, rows = read(store, [[keys[i, k].tobytes()] for i in range(N)])
        assert found == [0] * 500 + [1] * (N - 500)
        got = np.frombuffer(b"".join(rows[500:]), PROFILE)
        assert (got["segments"] == changed["segments"][500:]).all()
    assert store.stats.corrupt == 0
    store.close()
    load_more(tmp_path)


def load_more(path: Path) -> None:
    """The environment takes further writes and reads all of them back."""
    records, keys = people(2)
    with LmdbWriter(path) as writer:
        writer.write(records, keys)
    store = LmdbProfileStore(path)
    found, _ = read(store, [[keys[i, 2].tobytes()] for i in range(N)])
    assert sum(found) == N
    store.close()


def test_a_second_wipe_finds_nothing(tmp_path: Path) -> None:
    records, keys = people(3)
    for _ in range(2):
        with LmdbWriter(tmp_path) as writer:
            writer.write(records, keys)
    with LmdbWriter(tmp_path) as writer:
        writer.delete(keys[:10])
        writer.finish()
        assert writer.wipe().wiped_pages > 0
        second = writer.wipe()
    assert second.wiped_pages <= 8  # what its own commits freed


def test_overflow_values_survive_a_wipe(tmp_path: Path) -> None:
    env = lmdb.open(str(tmp_path), map_size=1 << 28, max_dbs=4)
    table = env.open_db(b"large")
    value = bytes(range(256)) * 64
    with env.begin(write=True) as txn:
        for i in range(20):
            txn.put(key(i), value, db=table)
    with env.begin(write=True) as txn:
        txn.delete(key(3), db=table)
    wipe(env, tmp_path)
    with env.begin() as txn:
        assert [txn.get(key(i), db=table) == value for i in range(20)] == [i != 3 for i in range(20)]
    env.close()


def test_a_reader_of_an_older_state_is_waited_for(tmp_path: Path) -> None:
    records, keys = people(4)
    with LmdbWriter(tmp_path) as writer:
        writer.write(records, keys)
    reader = lmdb.open(str(tmp_path), readonly=True, max_dbs=4, map_size=MAP_BYTES, lock=True)
    with pytest.raises(lmdb.Error):
        lmdb.open(str(tmp_path), max_dbs=4)  # one environment per process: the reader below is another thread's
    people_db = reader.open_db(PEOPLE, create=False, integerkey=True)
    reader.close()
    del people_db
    env = lmdb.open(str(tmp_path), map_size=MAP_BYTES, max_dbs=4)
    ids = env.open_db(IDS)
    begun, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with env.begin() as txn:
            assert txn.get(keys[0, 0].tobytes(), db=ids) is not None
            begun.set()
            let_go.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    begun.wait(30)
    with env.begin(write=True) as txn:
        txn.delete(keys[0, 0].tobytes(), db=ids)
    with pytest.raises(StoreError, match="still reads"):
        wipe(env, tmp_path, patience_s=0.05)
    let_go.set()
    thread.join()
    wipe(env, tmp_path)
    assert traces(tmp_path, [keys[0, 0].tobytes()]) == 0
    env.close()


def test_ids_of_slots(tmp_path: Path) -> None:
    records, keys = people(5)
    with LmdbWriter(tmp_path) as writer:
        writer.write(records, keys)
    got = {row.tobytes() for row in ids_of_slots(tmp_path, IDS, [1, 2, N], KEY_BYTES)}
    assert got == {keys[i, k].tobytes() for i in (0, 1, N - 1) for k in range(3)}
    assert len(ids_of_slots(tmp_path, b"no such table", [1], KEY_BYTES)) == 0


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(record(1) * 100)
    with pytest.raises(StoreError, match="not an LMDB file"):
        Pages(tmp_path)


def test_lookups_are_right_while_and_after_signposts_change(tmp_path: Path) -> None:
    """Half of all keys deleted, so that most signposts are renewed; every other key is still found, in order."""
    records, keys = people(6)
    with LmdbWriter(tmp_path) as writer:
        writer.write(records, keys)
    with LmdbWriter(tmp_path) as writer:
        writer.delete(keys[::2])
        writer.finish()
        writer.wipe()
    env = lmdb.open(str(tmp_path), map_size=MAP_BYTES, max_dbs=4)
    ids = env.open_db(IDS)
    with env.begin(db=ids) as txn:
        listed = [bytes(k) for k, _ in txn.cursor()]
    assert listed == sorted(keys[i, k].tobytes() for i in range(1, N, 2) for k in range(3))
    env.close()
    assert traces(tmp_path, [keys[i, k].tobytes() for i in range(0, N, 2) for k in range(3)]) == 0
