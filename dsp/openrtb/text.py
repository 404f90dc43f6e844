"""What the walkers do with a string's bytes: unescape JSON, check UTF-8, find a URL's host, hash a country.

Kernels over ``Batch.text`` by its address; spans are (offset, length). None of them allocates.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from dsp.base.memory import at, constant, peek, peek64, put_byte, signed
from dsp.openrtb.columns import I64, U8
from dsp.openrtb.countries import ALPHA3
from dsp.openrtb.hashing import FNV_OFFSET, FNV_PRIME, hash_text, mix64


def _hex_values() -> U8:
    table = np.full(256, 255, np.uint8)
    for digit in "0123456789abcdefABCDEF":
        table[ord(digit)] = int(digit, 16)
    return table


def _escapes() -> U8:
    table = np.zeros(256, np.uint8)
    for escape, char in zip(b'"\\/bfnrt', b'"\\/\b\f\n\r\t', strict=True):
        table[escape] = char
    return table


def _country_hashes() -> I64:
    table = np.zeros(26 * 26, np.int64)
    for two, three in ALPHA3.items():
        table[(ord(two[0]) - 65) * 26 + ord(two[1]) - 65] = hash_text(three)
    return table


hex_values = constant("openrtb_hex", _hex_values())
escapes = constant("openrtb_escapes", _escapes())  # the character after a backslash -> what it stands for, or 0
countries = constant("openrtb_countries", _country_hashes())

LONE_SURROGATE = -1


@nb.njit(cache=True)
def hash_at(text: int, off: int, length: int) -> int:
    """`hash_bytes` of a text by its address."""
    if length <= 0:
        return 0
    h = FNV_OFFSET
    for i in range(off, off + length):
        ch = peek(text, i)
        if 65 <= ch <= 90:
            ch |= 32
        h = (h ^ np.uint64(ch)) * FNV_PRIME
    h = mix64(h)
    return signed(h) if h != np.uint64(0) else 1


@nb.njit(cache=True, forceinline=True)
def hex_at(text: int, p: int) -> int:
    """The value of a hexadecimal digit, 255 if it is none."""
    return peek(hex_values(), peek(text, p))


@nb.njit(cache=True)
def hex4(text: int, p: int) -> int:
    """The value of four hexadecimal digits at ``p``, -1 if they are not."""
    a, b, c, d = hex_at(text, p), hex_at(text, p + 1), hex_at(text, p + 2), hex_at(text, p + 3)
    if (a | b | c | d) > 15:
        return -1
    return a << 12 | b << 8 | c << 4 | d


@nb.njit(cache=True)
def put_utf8(text: int, to: int, code: int) -> int:
    """Write one code point at ``to``; returns where the next goes."""
    if code < 0x80:
        put_byte(text, to, code)
        return to + 1
    if code < 0x800:
        put_byte(text, to, 0xC0 | code >> 6)
        put_byte(text, to + 1, 0x80 | code & 63)
        return to + 2
    if code < 0x10000:
        put_byte(text, to, 0xE0 | code >> 12)
        put_byte(text, to + 1, 0x80 | code >> 6 & 63)
        put_byte(text, to + 2, 0x80 | code & 63)
        return to + 3
    put_byte(text, to, 0xF0 | code >> 18)
    put_byte(text, to + 1, 0x80 | code >> 12 & 63)
    put_byte(text, to + 2, 0x80 | code >> 6 & 63)
    put_byte(text, to + 3, 0x80 | code & 63)
    return to + 4


@nb.njit(cache=True)
def unescape(text: int, off: int, length: int, to: int) -> int:
    """Write the JSON string ``text[off:off+length]`` (escapes already known to be well formed) plainly at ``to``.

    Returns its length, which is less than ``length`` if there is an escape; LONE_SURROGATE if it has half a pair.
    """
    p, end, start = off, off + length, to
    while p < end:
        c = peek(text, p)
        if c != 92:
            put_byte(text, to, c)
            p += 1
            to += 1
            continue
        e = peek(text, p + 1)
        if e != 117:
            put_byte(text, to, peek(escapes(), e))
            p += 2
            to += 1
            continue
        code = hex4(text, p + 2)
        p += 6
        if 0xD800 <= code < 0xE000:
            low = 0
            if code < 0xDC00 and p + 6 <= end and peek(text, p) == 92 and peek(text, p + 1) == 117:
                low = hex4(text, p + 2)
            if low < 0xDC00 or low > 0xDFFF:
                return LONE_SURROGATE
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
            p += 6
        to = put_utf8(text, to, code)
    return to - start


@nb.njit(cache=True)
def is_utf8(text: int, off: int, length: int) -> bool:
    """Whether a span is well-formed UTF-8 (RFC 3629: shortest forms only, no surrogates)."""
    p, end = off, off + length
    while p < end:
        c = peek(text, p)
        p += 1
        if c < 0x80:
            continue
        if 0xC2 <= c <= 0xDF:
            more, low, high = 1, 0x80, 0xBF
        elif 0xE0 <= c <= 0xEF:
            more, low, high = 2, (0xA0 if c == 0xE0 else 0x80), (0x9F if c == 0xED else 0xBF)
        elif 0xF0 <= c <= 0xF4:
            more, low, high = 3, (0x90 if c == 0xF0 else 0x80), (0x8F if c == 0xF4 else 0xBF)
        else:
            return False
        if p + more > end:
            return False
        for k in range(more):
            d = peek(text, p + k)
            if d < low or d > high:
                return False
            low, high = 0x80, 0xBF
        p += more
    return True


@nb.njit(cache=True)
def host_span(text: int, off: int, length: int) -> tuple[int, int]:
    """(offset, length) of the host in a domain or URL, without user, port, trailing dot and a leading "www."."""
    p, end = off, off + length
    for i in range(p, min(end - 2, p + 16)):
        if peek(text, i) == 58 and peek(text, i + 1) == 47 and peek(text, i + 2) == 47:
            p = i + 3
            break
    if p == off and length >= 2 and peek(text, p) == 47 and peek(text, p + 1) == 47:
        p += 2
    start = p
    while p < end:
        c = peek(text, p)
        if c in (47, 63, 35):  # / ? #
            break
        if c == 64:  # user@
            start = p + 1
        p += 1
    stop = start
    while stop < p and peek(text, stop) != 58:
        stop += 1
    if stop > start and peek(text, stop - 1) == 46:
        stop -= 1
    if (
        stop - start > 4
        and (peek(text, start) | 32) == 119
        and (peek(text, start + 1) | 32) == 119
        and (peek(text, start + 2) | 32) == 119
        and peek(text, start + 3) == 46
    ):
        start += 4
    return start, stop - start


@nb.njit(cache=True)
def subtag_length(text: int, off: int, length: int) -> int:
    """Length of a language's primary subtag: what precedes "-" or "_"."""
    for i in range(length):
        c = peek(text, off + i)
        if c in (45, 95):
            return i
    return length


@nb.njit(cache=True)
def is_letter(c: int) -> bool:
    """Whether a byte is an ASCII letter."""
    return 97 <= (c | 32) <= 122


@nb.njit(cache=True)
def country_hash(text: int, off: int, length: int) -> int:
    """Hash of a country's alpha-3 code; alpha-2 codes are translated, anything else hashed as it is."""
    if length == 2:
        a, b = peek(text, off), peek(text, off + 1)
        if is_letter(a) and is_letter(b):
            known = at(countries(), ((a | 32) - 97) * 26 + (b | 32) - 97)
            if known != 0:
                return known
    return hash_at(text, off, length)


@nb.njit(cache=True)
def region_hash(text: int, off: int, length: int) -> int:
    """Hash of a region without its country: "US-CA" and "CA" are the same."""
    if length > 3 and peek(text, off + 2) == 45 and is_letter(peek(text, off)) and is_letter(peek(text, off + 1)):
        return hash_at(text, off + 3, length - 3)
    return hash_at(text, off, length)


@nb.njit(cache=True)
def version_number(text: int, off: int, length: int) -> int:
    """ "1.2" as 12, "1" as 10; 0 if it is no version."""
    if length < 1 or not 48 <= peek(text, off) <= 57:
        return 0
    major = peek(text, off) - 48
    if length >= 3 and peek(text, off + 1) == 46 and 48 <= peek(text, off + 2) <= 57:
        return major * 10 + peek(text, off + 2) - 48
    return major * 10


@nb.njit(cache=True)
def exact_hash(text: int, off: int, length: int) -> int:
    """Case-sensitive hash of a longer text, eight bytes a step; never 0."""
    h = np.uint64(length) * np.uint64(0x9E3779B97F4A7C15)
    end = off + length
    while off < end:
        word = peek64(text, off)
        if end - off < 8:
            word &= (np.uint64(1) << np.uint64(8 * (end - off))) - np.uint64(1)
        h = (h ^ word) * np.uint64(0xFF51AFD7ED558CCD)
        h ^= h >> np.uint64(32)
        off += 8
    return signed(h | np.uint64(1))
