"""What a TCF v2 consent string allows one vendor, read where it lies: base64url text in the batch's buffer.

IAB Tech Lab, "Transparency and Consent String with Global Vendor & CMP List Formats" v2.x, core segment: version at bit
0, purposes consented at 152 (24 bits), vendor consents from 213 (bit field or ranges), then legitimate interests and
the publisher's restrictions, which outrank the person's consent. We rely on consent alone: legitimate interest counts
for nothing, and a restriction to it takes the purpose away.

Anything that doesn't decode (wrong alphabet, cut short, version 1, impossible ranges) is no consent, never an error.
The work is bounded by the string's length: every step of every loop consumes bits.
"""

from __future__ import annotations

import numba as nb
import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]

MALFORMED = -1
TCF_VERSION = 2
PURPOSES_AT = 152
N_PURPOSES = 24
VENDORS_AT = 213
REQUIRE_CONSENT = 1  # the one restriction type that leaves a consent standing

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def _sextets() -> npt.NDArray[np.int8]:
    """The value of each base64url character, -1 for any other byte: int8[256]."""
    table = np.full(256, -1, np.int8)
    table[np.frombuffer(_ALPHABET, np.uint8)] = np.arange(64)
    return table


_SEXTETS = _sextets()


# One signature: left to itself numba compiles a copy for every literal position it is called with.
@nb.njit(nb.int64(nb.types.Array(nb.uint8, 1, "C", readonly=True), *[nb.int64] * 4), cache=True, nogil=True)
def read_bits(text: U8, off: int, end: int, at: int, count: int) -> int:
    """``count`` (≤ 36) bits from bit ``at`` of the base64url text in ``text[off:end]``; -1 past its end or alphabet."""
    value = 0
    char = off + at // 6
    skip = at % 6
    left = count
    while left > 0:
        if char >= end:
            return MALFORMED
        sextet = _SEXTETS[text[char]]
        if sextet < 0:
            return MALFORMED
        take = min(6 - skip, left)
        value = (value << take) | ((int(sextet) >> (6 - skip - take)) & ((1 << take) - 1))
        left -= take
        skip = 0
        char += 1
    return value


@nb.njit(cache=True, nogil=True)
def segment_end(text: U8, off: int, end: int) -> int:
    """Where the segment that starts at ``off`` ends: at a dot, or at ``end``."""
    for i in range(off, end):
        if text[i] == np.uint8(46):
            return i
    return end


@nb.njit(cache=True, nogil=True)
def _in_ranges(text: U8, off: int, end: int, at: int, vendor: int) -> tuple[int, int]:
    """(1, 0 or MALFORMED: is ``vendor`` among the range entries at ``at``; the bit after them)."""
    count = read_bits(text, off, end, at, 12)
    if count < 0:
        return MALFORMED, at
    at += 12
    found = 0
    for _ in range(count):
        is_range = read_bits(text, off, end, at, 1)
        first = read_bits(text, off, end, at + 1, 16)
        last = first
        at += 17
        if is_range == 1:
            last = read_bits(text, off, end, at, 16)
            at += 16
        if is_range < 0 or first < 1 or last < first:
            return MALFORMED, at
        if first <= vendor <= last:
            found = 1
    return found, at


@nb.njit(cache=True, nogil=True)
def _in_vendors(text: U8, off: int, end: int, at: int, vendor: int) -> tuple[int, int]:
    """(1, 0 or MALFORMED: is ``vendor`` in the vendor section at ``at``; the bit after it)."""
    largest = read_bits(text, off, end, at, 16)
    is_range = read_bits(text, off, end, at + 16, 1)
    at += 17
    if largest < 0 or is_range < 0:
        return MALFORMED, at
    if is_range == 1:
        return _in_ranges(text, off, end, at, vendor)
    found = 0
    if 1 <= vendor <= largest:
        found = read_bits(text, off, end, at + vendor - 1, 1)
    return found, at + largest


@nb.njit(cache=True, nogil=True)
def tcf_purposes(text: U8, off: int, length: int, vendor: int) -> int:
    """Purposes (bit p - 1 for purpose p) for which ``text[off:off+length]`` gives ``vendor`` consent.

    0 where the vendor has no consent; MALFORMED where the string can't be trusted.
    """
    end = segment_end(text, off, off + length)
    for i in range(off, end):  # also where nothing is read: a damaged string isn't trusted by halves
        if _SEXTETS[text[i]] < 0:
            return MALFORMED
    if read_bits(text, off, end, 0, 6) != TCF_VERSION:
        return MALFORMED
    packed = read_bits(text, off, end, PURPOSES_AT, N_PURPOSES)
    if packed < 0:
        return MALFORMED
    given, at = _in_vendors(text, off, end, VENDORS_AT, vendor)
    if given < 0:
        return MALFORMED
    if given == 0:
        return 0
    purposes = 0
    for p in range(N_PURPOSES):  # purpose 1 comes first, as the highest bit
        purposes |= ((packed >> (N_PURPOSES - 1 - p)) & 1) << p
    interest, at = _in_vendors(text, off, end, at, vendor)
    restrictions = read_bits(text, off, end, at, 12)
    if interest < 0 or restrictions < 0:
        return MALFORMED
    at += 12
    for _ in range(restrictions):
        purpose = read_bits(text, off, end, at, 6)
        kind = read_bits(text, off, end, at + 6, 2)
        if purpose < 0 or kind < 0:
            return MALFORMED
        named, at = _in_ranges(text, off, end, at + 8, vendor)
        if named < 0:
            return MALFORMED
        if named == 1 and kind != REQUIRE_CONSENT and 1 <= purpose <= N_PURPOSES:
            purposes &= ~(1 << (purpose - 1))
    return purposes
