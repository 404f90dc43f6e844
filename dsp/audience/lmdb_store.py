"""Profiles in LMDB: one machine, one writer, any number of worker processes that read a memory-mapped file.

Two tables. ``ids`` maps a 16-byte identity key to a person's slot (uint32, native), ``people`` maps the slot to the
128-byte record. Measured against the alternative (the record under its primary id, other ids pointing to it) with
200,000 people, Zipf-distributed, warm, on a shared core: the two look-ups cost 2.4 µs a profile, the alternative 1.7 µs
by primary and 2.9 µs by secondary id; 238 against 244 bytes a person with three ids. The hop buys what the alternative
can't have: a person whose ids come in another order tomorrow is still one record. The look-ups are made by a kernel in
the mapped pages (`dsp.audience.lmdb_lookup`), under a read transaction of the library; where the file is not of the
format it knows, by the library's `txn.get`.

One read transaction per batch, taken from the environment's spare, so a batch sees one state and no idle worker pins
old pages. Open in the process that reads, after any fork. A file that isn't there yet is an empty store that is looked
for again every second: profiles may be loaded after the bidder has started.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import lmdb
import numpy as np

from dsp.audience.cipher import CipherError, RecordCipher
from dsp.audience.lmdb_lookup import SMALL, STATE_WIDTH, STRANGE, WORK_ROWS, look_up, page_size
from dsp.audience.profile import PROFILE_BYTES
from dsp.audience.store import (
    I64,
    KEY_BYTES,
    MAX_KEYS,
    U8,
    EmptyStore,
    ProfileStore,
    StoreError,
    StoreStats,
    settle_rows,
)
from dsp.base.config import Config
from dsp.base.mapped import map_file, touch

FILE_NAME = "profiles.lmdb"
IDS = b"ids"
PEOPLE = b"people"
SLOT_BYTES = 4
MAP_BYTES = 1 << 38  # address space, not disk: a billion profiles
MAX_READERS = 1024
RETRY_OPEN_NS = 1_000_000_000

_NOBODY = bytes(PROFILE_BYTES)
TOUCH_BYTES = 256 << 20  # read when it is opened: profiles of ten million people, or the branches of more
_IDS, _PEOPLE = np.frombuffer(IDS, np.uint8), np.frombuffer(PEOPLE, np.uint8)
_TRIES = 4  # a writer that commits twice meanwhile makes one begin again


def profiles_path(root: Path) -> Path:
    """Where the profiles of the data directory ``root`` are."""
    return root / FILE_NAME


def open_profiles(config: Config) -> ProfileStore:
    """The configured profile store, for one reading process."""
    if not config.bidder.profile_reads:
        return EmptyStore()
    try:
        return LmdbProfileStore(profiles_path(config.root), cipher=RecordCipher.from_environment())
    except CipherError as error:
        raise StoreError(str(error)) from error


class LmdbProfileStore:
    """Read-only `ProfileStore` over the LMDB environment in directory ``path``, which need not exist yet."""

    def __init__(
        self, path: Path, *, clock_ns: Callable[[], int] = time.monotonic_ns, cipher: RecordCipher | None = None
    ) -> None:
        """Open ``path``, now or when it appears; ``cipher`` where records are encrypted.

        Raises `StoreError` where it exists and can't be used.
        """
        self.stats = StoreStats()
        self.path = path
        self._clock_ns = clock_ns
        self._cipher = cipher
        self._env: lmdb.Environment | None = None
        self._open_at_ns = 0
        self._map: U8 | None = None
        self._base = self._mapped_bytes = self._page_bytes = 0
        self._asked: I64 = np.zeros(1, np.int64)
        self._work: I64 = np.zeros((WORK_ROWS, 0), np.int64)
        self._open()

    def read(self, keys: U8, wanted: I64, out: U8, found: I64, keys_per_person: int = MAX_KEYS) -> None:
        """See `ProfileStore.read`. Raises `StoreError` where LMDB does."""
        n = len(found)
        m = n * keys_per_person
        stats = self.stats
        stats.reads += 1
        try:
            if self._env is None and not self._open():
                out[:n] = 0
            elif self._map is None or not self._read_pages(keys, wanted, out, n, keys_per_person):
                self._read_by_library(keys[:m].tobytes(), wanted[:m].nonzero()[0].tolist(), n, keys_per_person, out)
        except lmdb.Error as error:
            raise StoreError(f"{self.path}: {error}") from error
        if self._cipher is not None:
            self._cipher.open(out[:n])
        good, bad = settle_rows(out, found)
        stats.found += good
        stats.corrupt += bad

    def _read_pages(self, keys: U8, wanted: I64, out: U8, n: int, per_person: int) -> bool:
        """`look_up` in the mapped file; whether it could."""
        assert self._env is not None
        if self._work.shape[1] < n:
            self._work = np.zeros((WORK_ROWS, n), np.int64)
        for _ in range(_TRIES):
            txn = self._env.begin()
            try:
                came = look_up(
                    self._base, self._page_bytes, self._mapped_bytes, txn.id(), _IDS, _PEOPLE, self._state, keys,
                    wanted, per_person, n, out, self._work, self._asked,
                )  # fmt: skip
            finally:
                txn.abort()
            if came >= 0:
                self.stats.keys += int(self._asked[0])
                self.stats.corrupt += came
                return True
            if came == SMALL:
                self._map_file()
            elif came == STRANGE:
                return False
        return False

    def _map_file(self) -> None:
        """Map the file as it is now; unmapped where it is not of the format the kernel knows."""
        self._map = None
        with (self.path / "data.mdb").open("rb") as file:
            mapped = map_file(file)
        self._page_bytes = page_size(mapped[:64])
        if self._page_bytes:
            self._map = np.frombuffer(mapped, np.uint8)  # keeps the mapping
            self._base, self._mapped_bytes = self._map.ctypes.data, len(mapped)
            self._state = np.full(STATE_WIDTH, -1, np.int64)

    def _read_by_library(self, raw: bytes, positions: list[int], n: int, per_person: int, out: U8) -> None:
        """The same by `txn.get`."""
        assert self._env is not None
        records = [_NOBODY] * n
        self.stats.keys += len(positions)
        txn = self._env.begin()
        try:
            get, ids, people = txn.get, self._ids, self._people
            done = -1
            for position in positions:
                row = position // per_person
                if row == done:
                    continue
                at = position * KEY_BYTES
                slot = get(raw[at : at + KEY_BYTES], None, ids)
                if slot is None:
                    continue
                record = get(slot, None, people) if len(slot) == SLOT_BYTES else None
                if record is None or len(record) != PROFILE_BYTES:
                    self.stats.corrupt += 1
                    continue
                records[row] = record
                done = row
        finally:
            txn.abort()
        out.data.cast("B")[: n * PROFILE_BYTES] = b"".join(records)

    def people(self) -> int:
        """How many profiles there are."""
        if self._env is None and not self._open():
            return 0
        assert self._env is not None
        with self._env.begin() as txn:
            return int(txn.stat(self._people)["entries"])

    def close(self) -> None:
        """Close the environment; later reads would look for it again."""
        if self._env is not None:
            self._env.close()
            self._env = None
            self._map = None

    def _open(self) -> bool:
        """Open the environment if its file is there and a look is due; whether it is open."""
        now_ns = self._clock_ns()
        if now_ns < self._open_at_ns:
            return False
        self._open_at_ns = now_ns + RETRY_OPEN_NS
        if not (self.path / "data.mdb").exists():
            return False
        try:
            env = lmdb.open(
                str(self.path), readonly=True, create=False, readahead=False, map_size=MAP_BYTES, max_dbs=4,
                max_readers=MAX_READERS, max_spare_txns=1,
            )  # fmt: skip
            try:
                self._ids = env.open_db(IDS, create=False)
                self._people = env.open_db(PEOPLE, create=False, integerkey=True)
            except lmdb.NotFoundError:  # a loader has just begun
                env.close()
                return False
        except lmdb.Error as error:
            raise StoreError(f"{self.path}: {error}") from error
        self._env = env
        self._map_file()
        if self._map is not None:
            touch(self._map, TOUCH_BYTES)
        return True
