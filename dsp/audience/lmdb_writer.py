"""Writes profiles into LMDB: the bulk load of a new store, and updates of one that is in use.

A new store is loaded in order: records are appended under rising slots as they come, identity keys are spooled to disk
by their first bits (they are hashes, so the parts are equal) and appended part by part in sorted order at the end. So
pages are full, memory is bounded by a chunk and a part, and nobody is findable before everything is there. A load that
was cut off leaves no ids; the next one starts over. A store in use is updated person by person, each chunk in one
transaction: the first id that resolves names the record that is replaced, all ids then point to it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Self

import lmdb
import numpy as np
import numpy.typing as npt

from dsp.audience.lmdb_store import IDS, MAP_BYTES, MAX_READERS, PEOPLE, SLOT_BYTES
from dsp.audience.profile import P_PERSON, PROFILE, PROFILE_BYTES, PROFILE_VERSION
from dsp.audience.store import KEY_BYTES, U8, StoreError

CHUNK = 1 << 16  # people per transaction
PARTS = 64  # of the spooled identity keys, by their first 6 bits

_SPOOLED = np.dtype([("key", "u1", KEY_BYTES), ("slot", "<u4")])


class LmdbWriter:
    """The one writer of the store in directory ``path``. Use it as a context manager: leaving it finishes the load."""

    def __init__(self, path: Path) -> None:
        """Open ``path``, made when missing. Raises `StoreError`."""
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        try:
            self._env = lmdb.open(
                str(path), map_size=MAP_BYTES, max_dbs=4, max_readers=MAX_READERS, readahead=False, sync=False
            )
            self._env.reader_check()  # free the slots of workers that were killed
            self._ids = self._env.open_db(IDS)
            self._people = self._env.open_db(PEOPLE, integerkey=True)
            with self._env.begin(write=True) as txn:
                self._bulk = txn.stat(self._ids)["entries"] == 0
                if self._bulk:
                    txn.drop(self._people, delete=False)
                cursor = txn.cursor(self._people)
                self._next = int.from_bytes(cursor.key(), "little") + 1 if cursor.last() else 1
        except lmdb.Error as error:
            raise StoreError(f"{path}: {error}") from error
        self._spool: list[IO[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.finish()
        self.close()

    def write(self, records: npt.NDArray[np.void], keys: U8) -> None:
        """Write people: PROFILE[n] and their identity keys uint8[n, k, KEY_BYTES], the most trusted first.

        An all-zero key is none; a person without any is refused (ValueError). ``version`` is set here, ``person`` too
        where it is 0 (to the slot). Raises `StoreError`.
        """
        if keys.ndim != 3 or keys.shape[0] != len(records) or keys.shape[2] != KEY_BYTES or records.dtype != PROFILE:
            raise ValueError(f"need PROFILE[n] and uint8[n, k, {KEY_BYTES}], not {records.dtype}, {keys.shape}")
        if not keys.any(axis=(1, 2)).all():
            raise ValueError("a person without an identity key could never be found")
        try:
            for start in range(0, len(records), CHUNK):
                part = records[start : start + CHUNK].copy()
                part["version"] = PROFILE_VERSION
                write = self._append if self._bulk else self._update
                write(part, np.ascontiguousarray(keys[start : start + CHUNK]))
        except lmdb.Error as error:
            raise StoreError(f"{self.path}: {error}") from error

    def finish(self) -> None:
        """Make everything written findable and durable."""
        try:
            if self._spool:
                for part in self._spool:
                    self._append_ids(part)
                self._spool = []
                self._bulk = False
            self._env.sync(True)
        except lmdb.Error as error:
            raise StoreError(f"{self.path}: {error}") from error

    def close(self) -> None:
        """Close the environment; without `finish` a bulk load leaves nobody findable. Idempotent."""
        for part in self._spool:
            part.close()
        self._spool = []
        self._env.close()

    def _append(self, records: npt.NDArray[np.void], keys: U8) -> None:
        """Bulk: append the records, spool the ids."""
        slots = self._take_slots(records)
        raw, names = records.tobytes(), slots.tobytes()
        with self._env.begin(write=True) as txn:
            txn.cursor(self._people).putmulti(_pairs(names, SLOT_BYTES, raw, PROFILE_BYTES), append=True)
        person, place = np.nonzero(keys.any(axis=2))
        spooled = np.empty(len(person), _SPOOLED)
        spooled["key"] = keys[person, place]
        spooled["slot"] = slots[person]
        parts = spooled["key"][:, 0] // (256 // PARTS)
        order = np.argsort(parts, kind="stable")
        spooled, ends = spooled[order], np.searchsorted(parts[order], np.arange(PARTS + 1))
        if not self._spool:
            self._spool = [tempfile.TemporaryFile(dir=self.path) for _ in range(PARTS)]  # noqa: SIM115 (close)
        for i, part in enumerate(self._spool):
            part.write(spooled[ends[i] : ends[i + 1]].tobytes())

    def _append_ids(self, part: IO[bytes]) -> None:
        """Append one spooled part in key order; of equal keys the last one written counts."""
        part.seek(0)
        spooled = np.frombuffer(part.read(), _SPOOLED)
        part.close()
        if not len(spooled):
            return
        words = np.ascontiguousarray(spooled["key"]).view(">u8")
        order = np.lexsort((words[:, 1], words[:, 0]))  # stable, so arrival order survives among equals
        words = words[order]
        last = np.ones(len(order), bool)
        last[:-1] = (words[1:] != words[:-1]).any(axis=1)
        kept = spooled[order[last]]
        keys, slots = kept["key"].tobytes(), kept["slot"].tobytes()
        with self._env.begin(write=True) as txn:
            txn.cursor(self._ids).putmulti(_pairs(keys, KEY_BYTES, slots, SLOT_BYTES), append=True)

    def _update(self, records: npt.NDArray[np.void], keys: U8) -> None:
        """Replace or add people one by one, in one transaction."""
        raw, given = records.tobytes(), keys.tobytes()
        present = np.asarray(keys.any(axis=2)).tolist()
        width = keys.shape[1] * KEY_BYTES
        with self._env.begin(write=True) as txn:
            for i, have in enumerate(present):
                at = i * width
                ids = [given[at + KEY_BYTES * k : at + KEY_BYTES * (k + 1)] for k, there in enumerate(have) if there]
                slots = (txn.get(key, None, self._ids) for key in ids)
                slot = next((slot for slot in slots if slot is not None), None)
                if slot is None:
                    slot = self._next.to_bytes(SLOT_BYTES, "little")
                    self._next += 1
                record = raw[i * PROFILE_BYTES : (i + 1) * PROFILE_BYTES]
                if not any(record[P_PERSON : P_PERSON + 8]):
                    record = record[:P_PERSON] + slot.ljust(8, b"\0") + record[P_PERSON + 8 :]
                txn.put(slot, record, db=self._people)
                for key in ids:
                    txn.put(key, slot, db=self._ids)

    def _take_slots(self, records: npt.NDArray[np.void]) -> npt.NDArray[np.uint32]:
        """Rising slots for new records; they become the person number where there is none."""
        if self._next + len(records) > 1 << 32:
            raise StoreError(f"{self.path}: more than 2^32 people; shard the audience")
        slots = np.arange(self._next, self._next + len(records), dtype=np.uint32)
        self._next += len(records)
        records["person"] = np.where(records["person"] == 0, slots, records["person"])
        return slots


def _pairs(keys: bytes, key_bytes: int, values: bytes, value_bytes: int) -> Iterator[tuple[bytes, bytes]]:
    """Fixed-width keys and values out of two packed buffers."""
    for k, v in zip(range(0, len(keys), key_bytes), range(0, len(values), value_bytes), strict=True):
        yield keys[k : k + key_bytes], values[v : v + value_bytes]
