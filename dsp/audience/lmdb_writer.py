"""Writes profiles into LMDB: the bulk load of a new store, and updates of one that is in use.

A new store is loaded in order: records are appended under rising slots as they come, identity keys are spooled to disk
by their first bits (they are hashes, so the parts are equal) and appended part by part in sorted order at the end. So
pages are full, memory is bounded by a chunk and a part, and nobody is findable before everything is there. A load that
was cut off leaves no ids: it is resumed from the `BulkState` that its last `checkpoint` gave, or starts over. A store
in use is updated person by person, each chunk in one transaction: the first id that resolves names the record that is
replaced (or, with ``given``, changed in the bytes that are given), all ids then point to it.

A person goes with all their ids, also those that the deleting side doesn't know: see `dsp.audience.lmdb_pages`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Self

import lmdb
import msgspec
import numpy as np
import numpy.typing as npt

from dsp.audience.cipher import RecordCipher
from dsp.audience.lmdb_pages import Wiped, ids_of_slots, wipe
from dsp.audience.lmdb_store import IDS, MAP_BYTES, MAX_READERS, PEOPLE, SLOT_BYTES
from dsp.audience.profile import P_PERSON, PROFILE, PROFILE_BYTES, PROFILE_VERSION
from dsp.audience.store import KEY_BYTES, U8, StoreError
from dsp.base.mapped import uncache

CHUNK = 1 << 16  # people per transaction
PARTS = 64  # of the spooled identity keys, by their first 6 bits
LAST_SLOT = b"last slot"  # in the main table: the highest ever given, so that no number is given to another person
SPOOL = "load"  # directory of the spooled keys while a bulk load runs

_SPOOLED = np.dtype([("key", "u1", KEY_BYTES), ("slot", "<u4")])


class BulkState(msgspec.Struct, frozen=True):
    """How far a bulk load is: enough to go on after a crash."""

    next_slot: int
    spooled: tuple[int, ...]  # bytes of each part


class LmdbWriter:
    """The one writer of the store in directory ``path``. Use it as a context manager: leaving it finishes the load."""

    def __init__(self, path: Path, *, resume: BulkState | None = None, cipher: RecordCipher | None = None) -> None:
        """Open ``path``, made when missing; with ``resume`` go on with that bulk load. Raises `StoreError`."""
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._cipher = cipher
        self._spool: list[IO[bytes]] = []
        self._deleted: set[int] = set()
        self._loaded = False  # whether a bulk load was finished
        try:
            self._env = lmdb.open(
                str(path), map_size=MAP_BYTES, max_dbs=4, max_readers=MAX_READERS, readahead=False, sync=False
            )
            self._env.reader_check()  # free the slots of workers that were killed
            self._ids = self._env.open_db(IDS)
            self._people = self._env.open_db(PEOPLE, integerkey=True)
            with self._env.begin(write=True) as txn:
                self.bulk = txn.stat(self._ids)["entries"] == 0
                if self.bulk and resume is None:
                    txn.drop(self._people, delete=False)
                elif self.bulk and resume is not None:
                    self._cut_back(txn, resume)
                cursor = txn.cursor(self._people)
                last = int.from_bytes(cursor.key(), "little") if cursor.last() else 0
                self._next = max(last, int.from_bytes(txn.get(LAST_SLOT) or b"", "little")) + 1
        except lmdb.Error as error:
            raise StoreError(f"{path}: {error}") from error
        if self.bulk:
            self._open_spool(resume)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.finish()
        self.close()

    def write(self, records: npt.NDArray[np.void], keys: U8, given: U8 | None = None) -> None:
        """Write people: PROFILE[n] and their identity keys uint8[n, k, KEY_BYTES], the most trusted first.

        An all-zero key is none; a person without any is refused (ValueError). ``version`` is set here, ``person`` too
        where it is 0 (to the slot). ``given`` uint8[PROFILE_BYTES] is non-zero in the bytes to change of a person who
        is there already (all of them without it). Raises `StoreError`.
        """
        if keys.ndim != 3 or keys.shape[0] != len(records) or keys.shape[2] != KEY_BYTES or records.dtype != PROFILE:
            raise ValueError(f"need PROFILE[n] and uint8[n, k, {KEY_BYTES}], not {records.dtype}, {keys.shape}")
        if not keys.any(axis=(1, 2)).all():
            raise ValueError("a person without an identity key could never be found")
        try:
            for start in range(0, len(records), CHUNK):
                part = records[start : start + CHUNK].copy()
                part["version"] = PROFILE_VERSION
                part_keys = np.ascontiguousarray(keys[start : start + CHUNK])
                if self.bulk:
                    self._append(part, part_keys)
                else:
                    self._update(part, part_keys, given)
        except lmdb.Error as error:
            raise StoreError(f"{self.path}: {error}") from error

    def delete(self, keys: U8) -> int:
        """Delete the people that uint8[n, k, KEY_BYTES] name, with all their ids (at `finish`); how many were there."""
        try:
            with self._env.begin(write=True) as txn:
                before = len(self._deleted)
                for row in keys:
                    for one in row[row.any(axis=1)]:
                        slot = txn.get(one.tobytes(), None, self._ids)
                        if slot is not None:
                            self._deleted.add(int.from_bytes(slot, "little"))
                            txn.delete(slot, db=self._people)
                            break
                return len(self._deleted) - before
        except lmdb.Error as error:
            raise StoreError(f"{self.path}: {error}") from error

    def checkpoint(self) -> BulkState:
        """Make what was written so far durable; what to resume a bulk load from. Raises `StoreError`."""
        try:
            self._env.sync(True)
        except lmdb.Error as error:
            raise StoreError(f"{self.path}: {error}") from error
        for part in self._spool:
            part.flush()
        return BulkState(self._next, tuple(part.tell() for part in self._spool))

    def finish(self) -> None:
        """Make everything written findable and durable."""
        try:
            if self.bulk and self._next > 1:
                for part in self._spool:
                    self._append_ids(part)
                self.bulk, self._loaded = False, True
                self._drop_spool()
            if self._deleted:
                self._drop_ids()
            self._env.sync(True)
        except lmdb.Error as error:
            raise StoreError(f"{self.path}: {error}") from error

    def wipe(self) -> Wiped:
        """Overwrite what deleted and replaced records left in the file. Raises `StoreError`."""
        try:
            return wipe(self._env, self.path)
        except lmdb.Error as error:
            raise StoreError(f"{self.path}: {error}") from error

    def close(self) -> None:
        """Close the environment; without `finish` a bulk load leaves nobody findable. Idempotent."""
        for part in self._spool:
            part.close()
        self._spool = []
        self._env.close()
        if self._loaded:
            uncache(self.path / "data.mdb")

    def _cut_back(self, txn: lmdb.Transaction, resume: BulkState) -> None:
        """Drop the records that were appended after the checkpoint."""
        cursor = txn.cursor(self._people)
        while cursor.last() and int.from_bytes(cursor.key(), "little") >= resume.next_slot:
            cursor.delete()

    def _open_spool(self, resume: BulkState | None) -> None:
        directory = self.path / SPOOL
        if resume is None:
            shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(exist_ok=True)
        for i in range(PARTS):
            file = directory / f"{i:02d}"
            if resume is not None and file.stat().st_size < resume.spooled[i]:
                raise StoreError(f"{file}: shorter than the checkpoint says; load anew with --fresh")
            part = file.open("r+b" if resume is not None else "w+b")
            if resume is not None:
                part.truncate(resume.spooled[i])
                part.seek(0, 2)
            self._spool.append(part)

    def _drop_spool(self) -> None:
        for part in self._spool:
            part.close()
        self._spool = []
        shutil.rmtree(self.path / SPOOL, ignore_errors=True)

    def _append(self, records: npt.NDArray[np.void], keys: U8) -> None:
        """Bulk: append the records, spool the ids."""
        slots = self._take_slots(records)
        self._seal(records)
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
        for i, part in enumerate(self._spool):
            part.write(spooled[ends[i] : ends[i + 1]].tobytes())

    def _append_ids(self, part: IO[bytes]) -> None:
        """Append one spooled part in key order; of equal keys the last one written counts."""
        part.seek(0)
        spooled = np.frombuffer(part.read(), _SPOOLED)
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

    def _update(self, records: npt.NDArray[np.void], keys: U8, given: U8 | None) -> None:
        """Replace, change or add people one by one, in one transaction."""
        plain = records.view(np.uint8).reshape(len(records), PROFILE_BYTES)
        given_keys = keys.tobytes()
        present = np.asarray(keys.any(axis=2)).tolist()
        width = keys.shape[1] * KEY_BYTES
        with self._env.begin(write=True) as txn:
            for i, have in enumerate(present):
                at = i * width
                ids = [
                    given_keys[at + KEY_BYTES * k : at + KEY_BYTES * (k + 1)] for k, there in enumerate(have) if there
                ]
                slots = (txn.get(key, None, self._ids) for key in ids)
                slot = next((slot for slot in slots if slot is not None), None)
                row = plain[i : i + 1]
                old = None if slot is None or given is None else txn.get(slot, None, self._people)
                if old is not None and given is not None and len(old) == PROFILE_BYTES:
                    self._merge(row, old, given)
                if slot is None:
                    slot = self._next.to_bytes(SLOT_BYTES, "little")
                    self._next += 1
                if not row[0, P_PERSON : P_PERSON + 8].any():
                    row[0, P_PERSON : P_PERSON + 8] = np.frombuffer(slot.ljust(8, b"\0"), np.uint8)
                self._seal(records[i : i + 1])
                txn.put(slot, row.tobytes(), db=self._people)
                for key in ids:
                    txn.put(key, slot, db=self._ids)

    def _merge(self, row: U8, old: bytes, given: U8) -> None:
        """Bytes of ``row`` uint8[1, PROFILE_BYTES] that aren't given come from the record that is there."""
        before = np.frombuffer(old, np.uint8).reshape(1, PROFILE_BYTES).copy()
        if self._cipher is not None:
            self._cipher.open(before)
        row[:, 1:] = np.where(given[1:] > 0, row[:, 1:], before[:, 1:])

    def _seal(self, records: npt.NDArray[np.void]) -> None:
        if self._cipher is not None:
            self._cipher.seal(records.view(np.uint8).reshape(len(records), PROFILE_BYTES))

    def _take_slots(self, records: npt.NDArray[np.void]) -> npt.NDArray[np.uint32]:
        """Rising slots for new records; they become the person number where there is none."""
        if self._next + len(records) > 1 << 32:
            raise StoreError(f"{self.path}: more than 2^32 people; shard the audience")
        slots = np.arange(self._next, self._next + len(records), dtype=np.uint32)
        self._next += len(records)
        records["person"] = np.where(records["person"] == 0, slots, records["person"])
        return slots

    def _drop_ids(self) -> None:
        """Delete every id of the deleted people, also those nobody named."""
        self._env.sync(True)
        slots = sorted(self._deleted)
        ids = ids_of_slots(self.path, IDS, slots, KEY_BYTES)
        with self._env.begin(write=True) as txn:
            for one in ids:
                txn.delete(one.tobytes(), db=self._ids)
            txn.put(LAST_SLOT, (self._next - 1).to_bytes(SLOT_BYTES, "little"))
        self._deleted.clear()


def _pairs(keys: bytes, key_bytes: int, values: bytes, value_bytes: int) -> Iterator[tuple[bytes, bytes]]:
    """Fixed-width keys and values out of two packed buffers."""
    for k, v in zip(range(0, len(keys), key_bytes), range(0, len(values), value_bytes), strict=True):
        yield keys[k : k + key_bytes], values[v : v + value_bytes]
