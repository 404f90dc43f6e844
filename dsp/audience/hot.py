"""Hot profiles, kept for when the store doesn't answer: bounded, short-lived, and empty at a word.

A `ProfileStore` around another one. Whom the store finds is remembered; when it fails, or its circuit is open, the
people seen within ``cache_s`` are answered from memory and everybody else is unknown, so most of the traffic of a
sick minute stays personalised. Frequency isn't kept: without the store nobody knows what else was shown, so line items
with a cap don't bid then. The number of people is fixed; a set-associative table in two arrays, no growing dict.

An erasure must reach this memory too: it counts up a number in a file that every cache maps and compares per batch; a
cache that sees it change empties itself.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable
from pathlib import Path

import numba as nb
import numpy as np
import numpy.typing as npt

from dsp.audience.profile import PROFILE_BYTES
from dsp.audience.store import I64, MAX_KEYS, U8, ProfileStore, StoreStats

U64 = npt.NDArray[np.uint64]
FORGOTTEN = "forgotten.count"
WAYS = 4
_KEY_WORDS = 2


def tell_forgotten(root: Path) -> None:
    """Tell every cache of the data directory ``root`` to empty itself."""
    counter = _Counter(root / FORGOTTEN)
    counter.words[0] += np.uint64(1)
    counter.close()


class _Counter:
    """One number in a mapped file."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            if file.seek(0, 2) < 8:
                file.truncate(8)
            self._map = mmap.mmap(file.fileno(), 8)
        self.words: U64 = np.frombuffer(self._map, np.uint64)

    def close(self) -> None:
        del self.words
        self._map.close()


class HotProfiles:
    """See the module. It goes around a `Guard`, and like it never raises."""

    def __init__(
        self,
        store: ProfileStore,
        root: Path,
        people: int = 65_536,
        keep_s: float = 60.0,
        *,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """``people``: how many are kept at most (rounded up to a power of two)."""
        self.store = store
        self.stats: StoreStats = store.stats
        self.served = 0  # people answered from here
        sets = 1 << max(0, (people - 1).bit_length() - WAYS.bit_length() + 1)
        self._keys: U64 = np.zeros((sets * WAYS, _KEY_WORDS), np.uint64)
        self._rows: U8 = np.zeros((sets * WAYS, PROFILE_BYTES), np.uint8)
        self._until_ns: I64 = np.zeros(sets * WAYS, np.int64)
        self._keep_ns = int(keep_s * 1e9)
        self._clock_ns = clock_ns
        self._forgotten = _Counter(root / FORGOTTEN)
        self._seen = int(self._forgotten.words[0])

    @property
    def people(self) -> int:
        """How many may be kept."""
        return len(self._until_ns)

    def read(self, keys: U8, wanted: I64, out: U8, found: I64, keys_per_person: int = MAX_KEYS) -> None:
        """As `ProfileStore.read`; where the store within has no answer for the batch, from memory. Never raises."""
        now_ns = self._clock_ns()
        seen = int(self._forgotten.words[0])
        if seen != self._seen:
            self._seen = seen
            self.clear()
        before = self.stats.errors + self.stats.skipped
        try:
            self.store.read(keys, wanted, out, found, keys_per_person)
            answered = self.stats.errors + self.stats.skipped == before
        except Exception:  # whatever a client library raises, the bid goes on
            self.stats.errors += 1
            answered = False
        names = keys[: len(found) * keys_per_person].view(np.uint64)
        if answered:
            remember(names, wanted, keys_per_person, out, found, self._keys, self._rows, self._until_ns,
                     now_ns, now_ns + self._keep_ns)  # fmt: skip
        else:
            found[:] = 0
            out[: len(found)] = 0
            self.served += recall(names, wanted, keys_per_person, out, found, self._keys, self._rows, self._until_ns,
                                  now_ns)  # fmt: skip

    def clear(self) -> None:
        """Forget everybody, bytes included."""
        self._keys[:] = 0
        self._rows[:] = 0
        self._until_ns[:] = 0

    def close(self) -> None:
        """Close the store within."""
        self.clear()
        self.store.close()


@nb.njit(cache=True, nogil=True)
def remember(
    names: U64, wanted: I64, per: int, out: U8, found: I64, keys: U64, rows: U8, until_ns: I64, now_ns: int, new_ns: int
) -> None:
    """Keep the profile of everybody found, under their first wanted key, in place of the oldest of its set."""
    sets = until_ns.shape[0] // WAYS
    for i in range(found.shape[0]):
        if found[i] == 0:
            continue
        for k in range(i * per, (i + 1) * per):
            if wanted[k] == 0:
                continue
            base = int(names[k, 0] % np.uint64(sets)) * WAYS
            place = base
            for w in range(base, base + WAYS):
                if keys[w, 0] == names[k, 0] and keys[w, 1] == names[k, 1]:
                    place = w
                    break
                if until_ns[w] < until_ns[place]:
                    place = w
            keys[place, 0], keys[place, 1] = names[k, 0], names[k, 1]
            rows[place] = out[i]
            until_ns[place] = new_ns
            break


@nb.njit(cache=True, nogil=True)
def recall(
    names: U64, wanted: I64, per: int, out: U8, found: I64, keys: U64, rows: U8, until_ns: I64, now_ns: int
) -> int:
    """Answer a batch from what is kept and not too old; how many people."""
    sets = until_ns.shape[0] // WAYS
    served = 0
    for i in range(found.shape[0]):
        for k in range(i * per, (i + 1) * per):
            if wanted[k] == 0 or found[i]:
                continue
            base = int(names[k, 0] % np.uint64(sets)) * WAYS
            for w in range(base, base + WAYS):
                if keys[w, 0] == names[k, 0] and keys[w, 1] == names[k, 1] and until_ns[w] > now_ns:
                    out[i] = rows[w]
                    found[i] = 1
                    served += 1
                    break
    return served
