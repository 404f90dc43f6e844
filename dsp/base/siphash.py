"""SipHash-2-4 with 128 bits of output: the keyed function behind identity keys and token signatures.

Aumasson and Bernstein, "SipHash: a fast short-input PRF" (2012), and the 128-bit variant of the authors' reference code
(github.com/veorq/SipHash), whose 64 vectors are a test here. A keyed PRF: without the key its output neither reveals an
identifier nor can be forged. 128 bits: two of a billion people never share one.
"""

from __future__ import annotations

import numba as nb
import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]

_C0 = np.uint64(0x736F6D6570736575)
_C1 = np.uint64(0x646F72616E646F6D)
_C2 = np.uint64(0x6C7967656E657261)
_C3 = np.uint64(0x7465646279746573)
_EE = np.uint64(0xEE)
_DD = np.uint64(0xDD)
_EIGHT = np.uint64(8)


@nb.njit(cache=True, inline="always")
def _rotate(x: np.uint64, bits: int) -> np.uint64:
    return (x << np.uint64(bits)) | (x >> np.uint64(64 - bits))


@nb.njit(cache=True, inline="always")
def _round(
    v0: np.uint64, v1: np.uint64, v2: np.uint64, v3: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    v0 += v1
    v1 = _rotate(v1, 13) ^ v0
    v0 = _rotate(v0, 32)
    v2 += v3
    v3 = _rotate(v3, 16) ^ v2
    v0 += v3
    v3 = _rotate(v3, 21) ^ v0
    v2 += v1
    v1 = _rotate(v1, 17) ^ v2
    v2 = _rotate(v2, 32)
    return v0, v1, v2, v3


@nb.njit(cache=True, nogil=True)
def siphash128(message: U8, length: int, key: U64, out: U8) -> None:
    """Write the 16-byte SipHash-2-4-128 of ``message[:length]`` under ``key`` uint64[2] to ``out`` uint8[16]."""
    v0 = _C0 ^ key[0]
    v1 = _C1 ^ key[1] ^ _EE
    v2 = _C2 ^ key[0]
    v3 = _C3 ^ key[1]
    whole = length >> 3
    for block in range(whole + 1):
        m = np.uint64(0)
        rest = min(8, length - (block << 3))
        for j in range(rest - 1, -1, -1):
            m = (m << _EIGHT) | np.uint64(message[(block << 3) + j])
        if block == whole:
            m |= np.uint64(length & 0xFF) << np.uint64(56)
        v3 ^= m
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
        v0 ^= m
    v2 ^= _EE
    for half in range(2):
        for _ in range(4):
            v0, v1, v2, v3 = _round(v0, v1, v2, v3)
        word = v0 ^ v1 ^ v2 ^ v3
        for j in range(8):
            out[(half << 3) + j] = np.uint8((word >> np.uint64(j << 3)) & np.uint64(0xFF))
        v1 ^= _DD
