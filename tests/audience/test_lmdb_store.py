"""The LMDB store: the conformance suite, and what is LMDB's own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import lmdb
import numpy as np
import pytest
from store_conformance import Person, StoreConformance, StoreOf, key, read, record

from dsp.audience.lmdb_store import IDS, PEOPLE, LmdbProfileStore, open_profiles, profiles_path
from dsp.audience.lmdb_writer import LmdbWriter
from dsp.audience.load import write_people
from dsp.audience.profile import PROFILE, PROFILE_BYTES
from dsp.audience.store import EmptyStore, StoreError
from dsp.base.config import BidderConfig, Config


def write(path: Path, people: list[Person]) -> None:
    """Write people, then replace what the writer wouldn't write (corrupt records) by force."""
    width = max(len(ids) for ids, _ in people)
    keys = np.zeros((len(people), width, 16), np.uint8)
    records = np.zeros(len(people), PROFILE)
    for i, (ids, stored) in enumerate(people):
        for k, one in enumerate(ids):
            keys[i, k] = np.frombuffer(one, np.uint8)
        if len(stored) == PROFILE_BYTES:
            records[i] = np.frombuffer(stored, PROFILE)[0]
    with LmdbWriter(path) as writer:
        writer.write(records, keys)
    env = lmdb.open(str(path), max_dbs=4, map_size=1 << 38)
    ids_db, people_db = env.open_db(IDS), env.open_db(PEOPLE, integerkey=True)
    with env.begin(write=True) as txn:
        for ids, stored in people:
            txn.put(txn.get(ids[0], db=ids_db), stored, db=people_db)
    env.close()


class TestLmdbConformance(StoreConformance):
    @pytest.fixture
    def store_of(self, tmp_path: Path) -> Iterator[StoreOf]:
        opened: list[LmdbProfileStore] = []

        def make(people: list[Person]) -> LmdbProfileStore:
            write(tmp_path / "db", people)
            opened.append(LmdbProfileStore(tmp_path / "db"))
            return opened[0]

        yield make
        for store in opened:
            store.close()


def test_an_id_that_points_nowhere_is_counted_and_the_next_one_tried(tmp_path: Path) -> None:
    write(tmp_path, [([key(1)], record(10))])
    env = lmdb.open(str(tmp_path), max_dbs=4, map_size=1 << 38)
    ids_db = env.open_db(IDS)
    with env.begin(write=True) as txn:
        txn.put(key(7), (77).to_bytes(4, "little"), db=ids_db)
        txn.put(key(8), b"oddly long slot", db=ids_db)
    env.close()
    store = LmdbProfileStore(tmp_path)
    assert read(store, [[key(7), key(1)], [key(8), key(1)], [key(7)]])[0] == [1, 1, 0]
    assert store.stats.corrupt == 3
    store.close()


def test_profiles_may_be_loaded_after_the_store_was_opened(tmp_path: Path) -> None:
    now_ns = [0]
    store = LmdbProfileStore(tmp_path / "db", clock_ns=lambda: now_ns[0])
    assert read(store, [[key(1)]])[0] == [0]
    write(tmp_path / "db", [([key(1)], record(10))])
    assert read(store, [[key(1)]])[0] == [0]  # looked for once a second, not once a batch
    now_ns[0] = 1_000_000_000
    assert read(store, [[key(1)]]) == ([1], [record(10)])
    assert store.people() == 1
    store.close()


def test_a_directory_without_tables_is_an_empty_store(tmp_path: Path) -> None:
    lmdb.open(str(tmp_path), max_dbs=4).close()
    store = LmdbProfileStore(tmp_path)
    assert read(store, [[key(1)]])[0] == [0]
    assert store.people() == 0


def test_a_file_that_is_not_lmdb_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreError, match=str(tmp_path)):
        LmdbProfileStore(tmp_path)


def test_a_writer_in_another_process_is_seen_by_the_next_batch(tmp_path: Path) -> None:
    write(tmp_path, [([key(1)], record(10))])
    store = LmdbProfileStore(tmp_path)
    assert read(store, [[key(2)]])[0] == [0]
    script = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "from dsp.audience.lmdb_writer import LmdbWriter; from dsp.audience.profile import PROFILE\n"
        "records = np.zeros(1, PROFILE); records['person'] = 20; records['age_band'] = 3\n"
        "keys = np.frombuffer((2).to_bytes(16, 'big'), np.uint8).reshape(1, 1, 16)\n"
        "with LmdbWriter(Path(sys.argv[1])) as writer: writer.write(records, keys)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=60)
    assert read(store, [[key(2)], [key(1)]]) == ([1, 1], [record(20), record(10)])
    store.close()


def test_the_configured_store(tmp_path: Path) -> None:
    config = Config(data_dir=str(tmp_path))
    write_people(tmp_path, np.frombuffer(record(10), PROFILE), [[key(1)]])
    assert profiles_path(tmp_path).exists()
    store = open_profiles(config)
    assert read(store, [[key(1)]])[0] == [1]
    store.close()
    off = open_profiles(Config(data_dir=str(tmp_path), bidder=BidderConfig(profile_reads=False)))
    assert isinstance(off, EmptyStore)
    assert read(off, [[key(1)]])[0] == [0]
