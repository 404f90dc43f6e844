"""The one 64-bit hash by which strings are compared, in kernels and in the catalog compiler alike.

FNV-1a folded through a 64-bit finaliser (splitmix64's), over ASCII-lower-cased bytes: field values of OpenRTB that we
compare (countries, domains, categories, seats, languages) are compared without case. 0 is kept for "absent". Not
keyed: it decides targeting, never identity or money (those use keyed functions).
"""

from __future__ import annotations

import numba as nb
import numpy as np
import numpy.typing as npt

FNV_OFFSET = np.uint64(0xCBF29CE484222325)
FNV_PRIME = np.uint64(0x100000001B3)
_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)


@nb.njit(cache=True, inline="always")
def mix64(h: np.uint64) -> np.uint64:
    """splitmix64's finaliser: spreads every input bit over the whole word."""
    h = (h ^ (h >> np.uint64(30))) * _M1
    h = (h ^ (h >> np.uint64(27))) * _M2
    return h ^ (h >> np.uint64(31))


@nb.njit(cache=True)
def hash_bytes(buf: npt.NDArray[np.uint8], off: int, length: int) -> np.int64:
    """Case-folding hash of ``buf[off:off+length]`` as int64; 0 for an empty string, never 0 otherwise."""
    if length <= 0:
        return np.int64(0)
    h = FNV_OFFSET
    for i in range(off, off + length):
        c = buf[i]
        if np.uint8(65) <= c <= np.uint8(90):
            c = np.uint8(c + np.uint8(32))
        h = (h ^ np.uint64(c)) * FNV_PRIME
    h = mix64(h)
    if h == np.uint64(0):
        h = np.uint64(1)
    return np.int64(h)


@nb.njit(cache=True)
def hash_combine(a: np.int64, b: np.int64) -> np.int64:
    """Order-dependent combination of two hashes (country then region); 0 if either is absent."""
    if a == 0 or b == 0:
        return np.int64(0)
    h = mix64(np.uint64(a) * _M2 + np.uint64(b))
    if h == np.uint64(0):
        h = np.uint64(1)
    return np.int64(h)


def hash_text(text: str | bytes) -> int:
    """`hash_bytes` of a Python string (UTF-8); for compilers and tests, not for the hot path."""
    raw = text.encode() if isinstance(text, str) else text
    return int(hash_bytes(np.frombuffer(raw, np.uint8) if raw else np.zeros(1, np.uint8), 0, len(raw)))
