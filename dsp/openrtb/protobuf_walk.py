"""The protobuf walker: one pass over the wire format, no message objects, no recursion, no allocation.

Reads what the schema names and steps over the rest. As the official library does it: a field with another wire type
than declared is unknown; repeated numbers may be packed or not; the last value of a scalar counts and submessages
of one singular field merge; int32 is the low 32 bits of its varint. A field it doesn't read isn't looked into, so a
broken message there goes unnoticed.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from dsp.base.memory import at, at_i16, peek, peek_double, put, put_byte
from dsp.openrtb import columns as c
from dsp.openrtb import record as r
from dsp.openrtb import schema as s
from dsp.openrtb.dialect import Q_FIRST, find_number
from dsp.openrtb.json_walk import N_SEEN, fail
from dsp.openrtb.limits import MAX_DEPTH
from dsp.openrtb.store import UNPROVEN, enter, leave, put_int, put_price, put_text
from dsp.openrtb.tables import context_of, field_of, kind_of

_VARINT, _FIXED64, _BYTES, _GROUP, _END_GROUP, _FIXED32 = range(6)
_I = r.IMP


@nb.njit(cache=True)
def long_varint(text: int, p: int) -> tuple[int, int]:
    """(value, next position) of a varint of up to ten bytes; next is -1 if it is longer."""
    value, shift = 0, 0
    while shift < 70:
        b = peek(text, p)
        p += 1
        if shift < 64:
            value |= (b & 127) << shift
        if b < 128:
            return value, p
        shift += 7
    return value, -1


@nb.njit(cache=True, forceinline=True)
def varint(text: int, p: int) -> tuple[int, int]:
    """`long_varint`, quick where it is one or two bytes."""
    b = peek(text, p)
    if b < 128:
        return b, p + 1
    b2 = peek(text, p + 1)
    if b2 < 128:
        return (b & 127) | b2 << 7, p + 2
    return long_varint(text, p)


@nb.njit(cache=True, forceinline=True)
def as_int32(value: int) -> int:
    """The low 32 bits, sign extended."""
    return (value << 32) >> 32


@nb.njit(cache=True)
def put_packed(text: int, p: int, end: int, work: int, pool: int, action: int) -> int:
    """Store the packed numbers in ``text[p:end]``."""
    while p < end:
        value, p = varint(text, p)
        if p < 0 or p > end:
            return c.E_TRUNCATED
        status = put_int(work, pool, action, as_int32(value))
        if status != c.OK:
            return status
    return c.OK


@nb.njit(cache=True)
def put_native_bytes(text: int, work: int, off: int, length: int) -> int:
    """Note a native request; its JSON is copied, as its walker needs a zero byte behind it."""
    put(work, _I + c.I_N_REQ_LEN, length)
    to = at(work, r.W_TEXT)
    for k in range(length):
        put_byte(text, to + k, peek(text, off + k))
    put_byte(text, to + length, 0)
    put(work, r.W_TEXT, to + length + 1)
    put(work, _I + c.I_N_REQ_OFF, to)
    put(work, r.S_N_MARK, N_SEEN)
    return c.OK


@nb.njit(cache=True)
def put_rare_bytes(text: int, work: int, pool: int, action: int, off: int, length: int) -> int:
    """Store a length-delimited value that is neither text nor message."""
    kind = at(kind_of(), action)
    if kind in (s.MASK, s.INTS):
        return put_packed(text, off, off + length, work, pool, action)
    if kind == s.NATIVE:
        return put_native_bytes(text, work, off, length)
    return c.OK


@nb.njit(cache=True, forceinline=True)
def field_action(context: int, number: int) -> int:
    """The action of a field number in a context, 0 if the schema doesn't name it."""
    if number >= 100:
        number -= 400
        if number < 100 or number >= s.FIELD_SPAN:
            return 0
    return at_i16(field_of(), context * s.FIELD_SPAN + number)


@nb.njit(cache=True, forceinline=True)
def _walk(text: int, p: int, stop: int, root: int, work: int, pool: int, imps: int, deals: int, foreign: bool) -> int:
    """Both walkers; ``foreign`` is a constant to the compiler, so that standard requests pay nothing for dialects.

    The stack holds for each open message or group: the end and context of what is around it, and for a group
    its number (0 for a message).
    """
    quirks = at(work, r.W_QUIRKS) if foreign else np.int64(0)
    context, end, depth, group, action = root, stop, 0, 0, 0
    while True:
        while p == end:
            if group != 0:
                return fail(work, c.E_TRUNCATED, p, 0, context)
            status = leave(work, pool, imps, deals, context, p)
            if status != c.OK:
                return fail(work, status, p, 0, context)
            if depth == 0:
                return c.OK
            depth -= 1
            packed = at(work, r.STACK + 2 * depth)
            context, group = packed & 0xFFFF, packed >> 16
            end = at(work, r.STACK + 2 * depth + 1)
        start = p
        tag, p = varint(text, p)
        if p < 0 or tag < 8 or tag > 0xFFFFFFFF:
            return fail(work, c.E_TRUNCATED if p > end else c.E_SYNTAX, start, 0, context)
        wire, number = tag & 7, tag >> 3
        action = field_action(context, number)
        if foreign and context != 0 and (action == 0 or quirks & Q_FIRST != 0):
            alias = find_number(at(work, r.W_DIALECT), number, context)
            action = alias if alias != 0 else action
        kind = at(kind_of(), action)
        status = c.OK
        if wire == _BYTES:
            length, p = varint(text, p)
            if p < 0 or p > end or length < 0 or length > end - p:
                return fail(work, c.E_TRUNCATED, start, action, context)
            if s.FIRST_TEXT <= kind <= s.LAST_TEXT:
                status = put_text(text, work, pool, action, p, length, np.int64(UNPROVEN))
            elif kind in (s.OBJECT, s.OBJECTS, s.EXT):
                if depth >= MAX_DEPTH:
                    return fail(work, c.E_DEPTH, start, action, context)
                put(work, r.STACK + 2 * depth, group << 16 | context)
                put(work, r.STACK + 2 * depth + 1, end)
                depth += 1
                context = enter(work, at(context_of(), action), p)
                end = p + length
                group = 0
                continue
            elif kind != s.SKIP:
                status = put_rare_bytes(text, work, pool, action, p, length)
            p += length
        elif wire == _VARINT:
            value, p = varint(text, p)
            if p < 0 or p > end:
                return fail(work, c.E_TRUNCATED, start, action, context)
            if kind == s.FLAG:
                status = put_int(work, pool, action, np.int64(value != 0))
            elif kind in (s.INT, s.MASK, s.INTS):
                status = put_int(work, pool, action, as_int32(value))
        elif wire == _FIXED64:
            if end - p < 8:
                return fail(work, c.E_TRUNCATED, start, action, context)
            if kind in (s.MONEY, s.MICRO):
                status = put_price(work, action, peek_double(text, p))
            p += 8
        elif wire == _FIXED32:
            if end - p < 4:
                return fail(work, c.E_TRUNCATED, start, action, context)
            p += 4
        elif wire == _GROUP:
            if depth >= MAX_DEPTH:
                return fail(work, c.E_DEPTH, start, action, context)
            put(work, r.STACK + 2 * depth, group << 16 | context)
            put(work, r.STACK + 2 * depth + 1, end)
            depth += 1
            context, group = 0, number
        elif wire == _END_GROUP and group == number:
            depth -= 1
            packed = at(work, r.STACK + 2 * depth)
            context, group = packed & 0xFFFF, packed >> 16
        else:
            return fail(work, c.E_SYNTAX, start, 0, context)
        if status != c.OK:
            return fail(work, status, start, action, context)


@nb.njit(cache=True)
def walk_protobuf(text: int, p: int, stop: int, root: int, work: int, pool: int, imps: int, deals: int) -> int:
    """Read the message ``text[p:stop]`` as context ``root``. Returns an E_* status."""
    return _walk(text, p, stop, root, work, pool, imps, deals, False)


@nb.njit(cache=True)
def walk_dialect(text: int, p: int, stop: int, root: int, work: int, pool: int, imps: int, deals: int) -> int:
    """`walk_protobuf` in the dialect at W_DIALECT."""
    return _walk(text, p, stop, root, work, pool, imps, deals, True)
