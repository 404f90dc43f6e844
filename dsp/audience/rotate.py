"""A change of encryption key, or the first one: every record is written anew with the current key, the old bytes wiped.

Readers need both keys until this has ended; see `dsp.audience.cipher`. Readable at every moment: chunks are
transactions, and each record says which key it is under.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lmdb
import numpy as np

from dsp.audience.cipher import ENCRYPTED, KEYS_VARIABLE, CipherError, RecordCipher
from dsp.audience.lmdb_pages import wipe
from dsp.audience.lmdb_store import MAP_BYTES, MAX_READERS, PEOPLE, profiles_path
from dsp.audience.profile import P_KEY_ID, P_VERSION, PROFILE_BYTES
from dsp.audience.store import StoreError
from dsp.base.config import Config

CHUNK = 1 << 14


def rotate_records(config: Config, progress: Callable[[int], None] = lambda people: None) -> int:
    """Encrypt every profile of the LMDB store with the current key; how many. Raises `StoreError`, `CipherError`."""
    cipher = RecordCipher.from_environment()
    if cipher is None:
        raise CipherError(f"set {KEYS_VARIABLE} to the old keys and the new one, the new one with the highest id")
    path = profiles_path(config.root)
    if not (path / "data.mdb").exists():
        raise StoreError(f"{path}: no profiles yet")
    try:
        env = lmdb.open(str(path), map_size=MAP_BYTES, max_dbs=4, max_readers=MAX_READERS, sync=False)
        people = env.open_db(PEOPLE, integerkey=True)
        done, after = 0, 0
        while True:
            slots, rows = _next_rows(env, people, after)
            if not slots:
                break
            raw = np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), PROFILE_BYTES).copy()
            stale = (raw[:, P_VERSION] < ENCRYPTED) | (raw[:, P_KEY_ID] != cipher.current)
            cipher.open(raw)
            good = stale & (raw[:, P_VERSION] < ENCRYPTED)
            sealed = raw[good].copy()
            cipher.seal(sealed)
            with env.begin(write=True, db=people) as txn:
                for slot, row in zip(np.flatnonzero(good).tolist(), sealed, strict=True):
                    txn.replace(slots[slot], row.tobytes())
            done += int((raw[:, P_VERSION] < ENCRYPTED).sum())
            after = int.from_bytes(slots[-1], "little") + 1
            progress(done)
        wipe(env, path)
        env.close()
    except lmdb.Error as error:
        raise StoreError(f"{path}: {error}") from error
    return done


def _next_rows(env: lmdb.Environment, people: Any, after: int) -> tuple[list[bytes], list[bytes]]:
    """Up to CHUNK whole records from slot ``after`` on."""
    slots: list[bytes] = []
    rows: list[bytes] = []
    with env.begin(db=people) as txn:
        cursor = txn.cursor()
        if cursor.set_range(after.to_bytes(4, "little")):
            for slot, raw in cursor.iternext():
                if len(raw) == PROFILE_BYTES:
                    slots.append(slot)
                    rows.append(raw)
                if len(slots) == CHUNK:
                    break
    return slots, rows
