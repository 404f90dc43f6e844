"""The sections of a GPP string (IAB Global Privacy Platform) that we can read where they lie in the batch's buffer.

A GPP string is ``header~section~section...``; the header (type 3, version 1) lists the section ids it carries as
Fibonacci-coded ranges, ascending, in the order of the sections. Read here: which text is section 2 (TCF EU v2), 6 (US
privacy v1) or 7 (US national: opt-outs of sale, sharing and targeted advertising, known child, GPC). Every other US
section counts as refused: what can't be read was not agreed to. Malformed is refused too, never an error.
"""

from __future__ import annotations

import numba as nb
import numpy as np
import numpy.typing as npt

from dsp.audience.tcf import read_bits, segment_end

U8 = npt.NDArray[np.uint8]

SECTION_TCF_EU = 2
SECTION_TCF_CANADA = 5
SECTION_US_PRIVACY = 6
SECTION_US_NATIONAL = 7  # and from here on, the states'

KEPT = 1  # read, and nothing was opted out of
REFUSED = 2  # opted out, or can't be read

_TYPE = 3
_VERSION = 1
# usnat core: version 6 bits, six 2-bit notices, then these 2-bit choices: 0 not applicable, 1 opted out, 2 did not.
_CHOICES_AT = (18, 20, 22)  # sale, sharing, targeted advertising
_SENSITIVE_AT = 24  # 12 choices of 2 bits in version 1, 16 in version 2; known child consents follow (2 or 3)
_MAX_SECTION = 64


@nb.njit(cache=True, nogil=True)
def _fibonacci(text: U8, off: int, end: int, at: int) -> tuple[int, int]:
    """(the Fibonacci-coded number at bit ``at`` or -1; the bit after it). Bounded to what a section id can be."""
    value, a, b, previous = 0, 1, 2, 0
    for _ in range(24):
        bit = read_bits(text, off, end, at, 1)
        at += 1
        if bit < 0:
            return -1, at
        if bit == 1 and previous == 1:
            return value, at
        value += a * bit
        a, b = b, a + b
        previous = bit
    return -1, at


@nb.njit(cache=True, nogil=True)
def _section_index(text: U8, off: int, end: int, section: int) -> int:
    """The position (0 first) of ``section`` by the header ``text[off:end]``, -1 where it isn't or makes no sense."""
    if read_bits(text, off, end, 0, 6) != _TYPE or read_bits(text, off, end, 6, 6) != _VERSION:
        return -1
    ranges = read_bits(text, off, end, 12, 12)
    at, index, last = 24, 0, 0
    for _ in range(max(ranges, 0)):
        is_range = read_bits(text, off, end, at, 1)
        step, at = _fibonacci(text, off, end, at + 1)
        if is_range < 0 or step < 1:
            return -1
        first = last + step
        last = first
        if is_range == 1:
            step, at = _fibonacci(text, off, end, at)
            if step < 1:
                return -1
            last = first + step
        if last > _MAX_SECTION:
            return -1
        if first <= section <= last:
            return index + section - first
        index += last - first + 1
    return -1


@nb.njit(cache=True, nogil=True)
def gpp_section(text: U8, off: int, length: int, section: int) -> tuple[int, int]:
    """(offset, length) of ``section``'s text in the GPP string ``text[off:off+length]``; length 0: there is none."""
    end = off + length
    start = off
    header_end = -1
    wanted = 0
    seen = -1  # of parts: the header is -1, sections count from 0
    for i in range(off, end + 1):
        if i < end and text[i] != np.uint8(126):
            continue
        if header_end < 0:
            header_end = i
            wanted = _section_index(text, off, header_end, section)
            if wanted < 0:
                return off, 0
        else:
            seen += 1
            if seen == wanted:
                return start, i - start
        start = i + 1
    return off, 0


@nb.njit(cache=True, nogil=True)
def us_privacy(text: U8, off: int, length: int) -> int:
    """KEPT or REFUSED by a US privacy string (IAB CCPA v1: "1", notice, opt-out of sale, LSPA; each Y, N or -)."""
    if length != 4 or text[off] != np.uint8(49):
        return REFUSED
    for k in range(1, 4):
        c = text[off + k] & np.uint8(0xDF)  # upper case; "-" becomes 0x0D
        if c not in (np.uint8(89), np.uint8(78), np.uint8(0x0D)):
            return REFUSED
    return REFUSED if (text[off + 2] & np.uint8(0xDF)) == np.uint8(89) else KEPT


@nb.njit(cache=True, nogil=True)
def us_national(text: U8, off: int, length: int) -> int:
    """KEPT or REFUSED by a US national section: any opt-out, a child without consent, or the GPC signal refuses."""
    all_end = off + length
    end = segment_end(text, off, all_end)
    version = read_bits(text, off, end, 0, 6)
    if version not in (1, 2):
        return REFUSED
    for at in _CHOICES_AT:
        choice = read_bits(text, off, end, at, 2)
        if choice not in (0, 2):
            return REFUSED
    child_at = _SENSITIVE_AT + (24 if version == 1 else 32)
    for k in range(version + 1):
        if read_bits(text, off, end, child_at + 2 * k, 2) not in (0, 2):
            return REFUSED
    while end < all_end:  # optional segments: 2-bit type (1 GPC), then the GPC bit
        start = end + 1
        end = segment_end(text, start, all_end)
        if read_bits(text, start, end, 0, 2) == 1 and read_bits(text, start, end, 2, 1) != 0:
            return REFUSED
    return KEPT
