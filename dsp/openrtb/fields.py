"""Protobuf's wire format field by field, for kernels that read small messages without message objects."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dsp.base.kernel import inlined

U8 = npt.NDArray[np.uint8]

FIXED64 = 1 << 32  # what `field` adds to the number of a fixed64 or double
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@inlined
def varint(text: U8, at: int, end: int) -> tuple[int, int]:
    """(value, next position) of a varint before ``end``; next is -1 where there is none."""
    value = shift = 0
    while at < end and shift < 70:
        b = int(text[at])
        at += 1
        if shift < 64:
            value |= (b & 127) << shift
        if b < 128:
            return value, at
        shift += 7
    return value, -1


@inlined
def field(text: U8, at: int, end: int) -> tuple[int, int, int, int]:
    """(number, value or length, where the value starts, where the next field does) of a field; next is -1 if broken.

    The number of a length-delimited field is negated, a 64-bit one's has FIXED64 added, a 32-bit one's is 0.
    """
    tag, at = varint(text, at, end)
    if at < 0 or tag < 8:
        return 0, 0, 0, -1
    number, wire = tag >> 3, tag & 7
    if wire == _VARINT:
        value, at = varint(text, at, end)
        return number, value, at, at
    if wire == _BYTES:
        length, at = varint(text, at, end)
        if at < 0 or length < 0 or length > end - at:
            return 0, 0, 0, -1
        return -number, length, at, at + length
    if wire == _FIXED64 and end - at >= 8:
        return number + FIXED64, 8, at, at + 8
    if wire == _FIXED32 and end - at >= 4:
        return 0, 0, at + 4, at + 4
    return 0, 0, 0, -1
