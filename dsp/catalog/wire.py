"""The little of protobuf's wire format that bid templates need, so that their token slots can be of another length.

A template must state the lengths its strings will have once the 7-byte slot has become a token; generated code cannot
do that. Field numbers: OpenRTB 2.6, `com.iabtechlab.openrtb.v2.BidResponse.Bid`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from dsp.base.token import TOKEN_TEXT_BYTES
from dsp.catalog.layout import TOKEN_SLOT

_SLOT = TOKEN_SLOT.encode()
_GROWTH = TOKEN_TEXT_BYTES - len(_SLOT)
_VARINT, _BYTES = 0, 2


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_SMALL = [_varint(value) for value in range(1 << 14)]


def varint(value: int) -> bytes:
    """``value`` (0 or more) as a base-128 varint."""
    return _SMALL[value] if value < len(_SMALL) else _varint(value)


def text_field(number: int, text: str) -> bytes:
    """A string field whose length counts each token slot as a token."""
    raw = text.encode()
    return varint(number << 3 | _BYTES) + varint(len(raw) + _GROWTH * raw.count(_SLOT)) + raw


repeated_text_field = lru_cache(maxsize=4096)(text_field)  # for what many creatives share: URLs, domains, categories


def int_field(number: int, value: int) -> bytes:
    """An int32 field, ``value`` 0 or more."""
    return varint(number << 3 | _VARINT) + varint(value)


def ints_field(number: int, values: Iterable[int]) -> bytes:
    """A packed repeated int32 field, values 0 or more; nothing when empty."""
    packed = b"".join(varint(value) for value in values)
    return varint(number << 3 | _BYTES) + varint(len(packed)) + packed if packed else b""
