"""How many people, ids and states a data directory has, and what they take."""

from __future__ import annotations

from dataclasses import dataclass

import lmdb

from dsp.audience.lmdb_frequency import frequency_path
from dsp.audience.lmdb_pages import WIPED
from dsp.audience.lmdb_store import IDS, MAP_BYTES, PEOPLE, profiles_path
from dsp.audience.store import StoreError
from dsp.base.config import Config


@dataclass(frozen=True)
class Counts:
    """See the module; bytes are of files."""

    people: int = 0
    ids: int = 0
    states: int = 0
    profile_bytes: int = 0
    state_bytes: int = 0


def count(config: Config) -> Counts:
    """Count what is in LMDB. Raises `StoreError`."""
    people = ids = states = 0
    path, frequency = profiles_path(config.root), frequency_path(config.root)
    sizes = [file.stat().st_size if file.exists() else 0 for file in (path / "data.mdb", frequency / "data.mdb")]
    try:
        if sizes[0]:
            env = lmdb.open(str(path), readonly=True, create=False, max_dbs=4, map_size=MAP_BYTES)
            try:
                with env.begin() as txn:
                    ids = txn.stat(env.open_db(IDS, txn, create=False))["entries"]
                    people = txn.stat(env.open_db(PEOPLE, txn, create=False, integerkey=True))["entries"]
            except lmdb.NotFoundError:  # a loader has just begun
                pass
            env.close()
        if sizes[1]:
            env = lmdb.open(str(frequency), readonly=True, create=False, map_size=MAP_BYTES)
            with env.begin() as txn:
                states = txn.stat()["entries"] - (txn.get(WIPED) is not None)
            env.close()
    except lmdb.Error as error:
        raise StoreError(f"{config.root}: {error}") from error
    return Counts(people, ids, states, *sizes)
