"""Frequency states in LMDB: an environment of its own, so that the loader's writer lock never makes the ledger wait.

One writer (the ledger), any number of reading workers. Key: the 16-byte subject; value: the state. A write is a few
microseconds in the page cache; states are counters, not money, so they are synced in the background of the operating
system: after a power cut the last seconds of counts may be missing, never a wrong one.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import lmdb
import numpy as np

from dsp.audience.frequency import KEEP_S, Shown, States, add_event, set_lifecycle
from dsp.audience.lmdb_lookup import SMALL, page_size
from dsp.audience.lmdb_pages import WIPED, Wiped, wipe
from dsp.audience.state_lookup import read_states
from dsp.audience.store import I64, KEY_BYTES, MAX_KEYS, U8, StoreError

FILE_NAME = "frequency.lmdb"
MAP_BYTES = 1 << 36
MAX_READERS = 1024
RETRY_OPEN_NS = 1_000_000_000
_TRIES = 4  # a writer that commits twice meanwhile makes one begin again

_WRITERS: dict[str, lmdb.Environment] = {}  # of this process: LMDB opens a file once per process, a simulation is one


def frequency_path(root: Path) -> Path:
    """Where the frequency states of the data directory ``root`` are."""
    return root / FILE_NAME


def person_subject(person: int) -> bytes:
    """The subject of a person whose profile is known."""
    return person.to_bytes(8, "little") + bytes(8)


class LmdbFrequency:
    """Reads states; the file need not exist yet, and is looked for every second. One per thread; see `read`.

    Before there is a file everybody is new. That a worker sees a new file a second late is no way past a cap: what is
    billed lingers longer in the table of bids in flight.
    """

    def __init__(self, path: Path, *, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.path = path
        self.errors = 0
        self._clock_ns = clock_ns
        self._env: lmdb.Environment | None = None
        self._shared = self._broken = False
        self._open_at_ns = 0
        self._map: U8 | None = None
        self._page_bytes = self._mapped_bytes = 0
        self._open()

    def read(
        self,
        n: int,
        bits: I64,
        mask: int,
        keys: U8,
        wanted: I64,
        profiles: U8,
        found: I64,
        out: States,
        per: int = MAX_KEYS,
    ) -> None:
        """Fill ``out`` for the people i < n with ``bits[i] & mask``; of the others nothing is read.

        ``keys``, ``wanted``, ``profiles``, ``found``: as `ProfileStore.read` left them. Never raises: what can't be
        read isn't known.
        """
        if self._env is None and not self._open():
            if self._broken:
                out.known[:n] = 0
                return
            read_states(0, 0, 0, 0, n, bits, mask, keys, wanted, per, profiles, found, out.rows, out.known,
                        out.subjects)  # fmt: skip
            return
        assert self._env is not None
        try:
            for _ in range(_TRIES):
                if self._map is None:
                    self._map_file()
                assert self._map is not None
                txn = self._env.begin()
                try:
                    came = read_states(
                        self._map.ctypes.data, self._page_bytes, self._mapped_bytes, txn.id(), n, bits, mask, keys,
                        wanted, per, profiles, found, out.rows, out.known, out.subjects,
                    )  # fmt: skip
                finally:
                    txn.abort()
                if came == 0:
                    return
                if came == SMALL:
                    self._map = None
        except (lmdb.Error, OSError):
            pass
        self.errors += 1
        out.known[:n] = 0

    def close(self) -> None:
        """Close; idempotent."""
        if self._env is not None and not self._shared:
            self._env.close()
        self._env = None
        self._map = None

    def _map_file(self) -> None:
        """Map the file as it is now. Raises OSError where it is not of the format that the kernel knows."""
        with (self.path / "data.mdb").open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        self._page_bytes = page_size(mapped[:64])
        if not self._page_bytes:
            raise OSError(f"{self.path}: not a file of states")
        self._map, self._mapped_bytes = np.frombuffer(mapped, np.uint8), len(mapped)

    def _open(self) -> bool:
        now_ns = self._clock_ns()
        if now_ns < self._open_at_ns:
            return False
        self._open_at_ns = now_ns + RETRY_OPEN_NS
        if not (self.path / "data.mdb").exists():
            return False
        shared = _WRITERS.get(str(self.path.resolve()))
        if shared is not None:
            self._env, self._shared = shared, True
            return True
        try:
            self._env = lmdb.open(
                str(self.path), readonly=True, create=False, readahead=False, map_size=MAP_BYTES,
                max_readers=MAX_READERS, max_spare_txns=1,
            )  # fmt: skip
        except lmdb.Error:  # a file that isn't one: nothing is known until it is mended
            self.errors += 1
            self._broken = True
            return False
        self._shared = self._broken = False
        return True


class LmdbFrequencyWriter:
    """The one writer of the states in directory ``path``."""

    def __init__(self, path: Path) -> None:
        """Open, made when missing. Raises `StoreError`."""
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        try:
            self._env = lmdb.open(
                str(path), map_size=MAP_BYTES, max_readers=MAX_READERS, readahead=False, sync=False, subdir=True
            )
            self._env.reader_check()
        except lmdb.Error as error:
            raise StoreError(f"{path}: {error}") from error
        _WRITERS[str(path.resolve())] = self._env

    def count(self, shown: Iterable[tuple[bytes, Shown]]) -> None:
        """Add billed impressions (subject, what was shown), in one transaction. Raises `StoreError`."""
        self._change([(subject, partial(add_event, shown=one)) for subject, one in shown])

    def convert(self, reached: Iterable[tuple[bytes, int, int]]) -> None:
        """Conversions: (subject, product, LIFECYCLE index), in one transaction. Raises `StoreError`."""
        self._change([(subject, partial(set_lifecycle, product=p, stage=s)) for subject, p, s in reached])

    def _change(self, changes: list[tuple[bytes, Callable[[bytes], bytes]]]) -> None:
        try:
            with self._env.begin(write=True) as txn:
                for subject, change in changes:
                    txn.put(subject, change(txn.get(subject) or b""))
        except lmdb.Error as error:
            raise StoreError(f"{self.path}: {error}") from error

    def get(self, subject: bytes) -> bytes | None:
        """The state of a subject."""
        with self._env.begin() as txn:
            return txn.get(subject)

    def forget(self, subjects: Iterable[bytes]) -> int:
        """Delete states; how many there were. Raises `StoreError`."""
        try:
            with self._env.begin(write=True) as txn:
                return sum(txn.delete(subject) for subject in subjects)
        except lmdb.Error as error:
            raise StoreError(f"{self.path}: {error}") from error

    def drop_old(self, now_s: int, limit: int = 100_000) -> int:
        """Delete states that say nothing any more: no event within a week, no total, no life cycle; how many."""
        gone = []
        with self._env.begin() as txn:
            for subject, state in txn.cursor():
                if len(subject) != KEY_BYTES:
                    continue
                newest = int.from_bytes(state[8 + 24 * (state[1] - 1) :][:4], "little") if state[1] else 0
                if newest <= now_s - KEEP_S and not state[2] and not any(state[3:8]):
                    gone.append(bytes(subject))
                    if len(gone) == limit:
                        break
        return self.forget(gone)

    def people(self) -> int:
        """How many states there are."""
        with self._env.begin() as txn:
            return int(txn.stat()["entries"]) - (txn.get(WIPED) is not None)

    def wipe(self) -> Wiped:
        """Overwrite what deleted states left in the file. Raises `StoreError`."""
        return wipe(self._env, self.path)

    def close(self) -> None:
        """Sync and close; idempotent."""
        if _WRITERS.pop(str(self.path.resolve()), None) is not None:
            self._env.sync(True)
            self._env.close()


def hold_writes(path: Path, seconds: float) -> None:
    """Keep the only writer's place for so long: nobody else can write, readers go on (a drill's frozen store)."""
    env = lmdb.open(str(path), create=False, readahead=False)
    try:
        with env.begin(write=True):
            time.sleep(seconds)
    finally:
        env.close()
