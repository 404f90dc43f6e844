"""The seam of the audience store: who resolves identity keys to profiles, one batched read per engine batch.

Everything above this line sees keys in and fixed records out; which store is behind it, nobody knows. What must hold of
every store is written down once, in ``tests/audience/store_conformance.py``:

- a profile is the record of the *first* wanted key of a person that resolves, in the order given;
- what isn't found, is corrupt or of an unknown version reads as ``found = 0`` and a zeroed row; corruption is counted;
- `read` allocates nothing that outlives it and keeps no reference to its arguments; one store belongs to one thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numba as nb
import numpy as np
import numpy.typing as npt

from dsp.audience.profile import (
    LIFECYCLE,
    MAX_SEGMENTS,
    P_AGE_BAND,
    P_GENDER,
    P_INCOME_BAND,
    P_LIFECYCLE,
    P_N_SEGMENTS,
    P_VERSION,
    PROFILE_BYTES,
    PROFILE_VERSION,
)

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

KEY_BYTES = 16
MAX_KEYS = 4  # K: candidate identities of one request, in match priority

N_PRODUCTS = 5
N_LIFECYCLES = len(LIFECYCLE)
MAX_AGE_BAND = 6
MAX_INCOME_BAND = 6
MAX_GENDER = 2


class StoreError(Exception):
    """The store can't be opened, read or written; the message says which and what to do."""


@dataclass
class StoreStats:
    """Counters since the store was opened; they only grow."""

    reads: int = 0  # batches
    keys: int = 0  # wanted keys
    found: int = 0
    corrupt: int = 0  # records that failed validation, and ids that point to no record
    errors: int = 0  # batches that failed
    skipped: int = 0  # batches not even tried, because the circuit was open


class ProfileStore(Protocol):
    """A batched reader of profiles. Implementations: `LmdbProfileStore`, `EmptyStore`; `Guard` wraps any of them."""

    stats: StoreStats

    def read(self, keys: U8, wanted: I64, out: U8, found: I64, keys_per_person: int = MAX_KEYS) -> None:
        """Look up one batch of n people.

        ``keys``: uint8[n*K, KEY_BYTES], C-contiguous, person i's keys at rows i*K .. i*K+K-1 in match priority.
        ``wanted``: int64[n*K], non-zero where the key is to be looked up. ``out``: uint8[n, PROFILE_BYTES], filled;
        ``found``: int64[n], set to 1 or 0. Longer arrays than ``found`` asks for are fine. Raises `StoreError` where
        the store fails; ``out`` and ``found`` are then unspecified.
        """
        ...

    def close(self) -> None:
        """Free what the store holds; idempotent."""
        ...


class EmptyStore:
    """A store that knows nobody: what the engine gets where no profiles were loaded yet."""

    def __init__(self) -> None:
        self.stats = StoreStats()

    def read(self, keys: U8, wanted: I64, out: U8, found: I64, keys_per_person: int = MAX_KEYS) -> None:
        """Find nobody."""
        self.stats.reads += 1
        found[:] = 0
        out[: len(found)] = 0

    def close(self) -> None:
        """Nothing to free."""


@nb.njit(cache=True, nogil=True)
def valid_record(records: U8, at: int) -> bool:
    """Whether row ``at`` of uint8[n, PROFILE_BYTES] is a record of a known version, bands and counts in range.

    Only what a kernel would use as an index or a count is checked: a wrong score is wrong, a wrong index is a crash.
    """
    version = records[at, P_VERSION]
    if version < 1 or version > PROFILE_VERSION or records[at, P_N_SEGMENTS] > MAX_SEGMENTS:
        return False
    if records[at, P_AGE_BAND] > MAX_AGE_BAND or records[at, P_INCOME_BAND] > MAX_INCOME_BAND:
        return False
    if records[at, P_GENDER] > MAX_GENDER:
        return False
    for product in range(N_PRODUCTS):
        if records[at, P_LIFECYCLE + product] >= N_LIFECYCLES:
            return False
    return True


@nb.njit(cache=True, nogil=True)
def settle_rows(records: U8, found: I64) -> tuple[int, int]:
    """Judge what a store put into ``records`` uint8[n, PROFILE_BYTES]: all zero is nobody, else a record or corrupt.

    Fills ``found`` int64[n] and zeroes corrupt rows. Returns (people found, corrupt records).
    """
    good = 0
    corrupt = 0
    for i in range(found.shape[0]):
        found[i] = 0
        if valid_record(records, i):
            found[i] = 1
            good += 1
            continue
        for j in range(PROFILE_BYTES):
            if records[i, j] != 0:
                corrupt += 1
                records[i] = np.uint8(0)
                break
    return good, corrupt
