"""The JSON walker: one pass over the text, no tree, no recursion, no allocation.

Strict RFC 8259 (UTF-8 is proven before): what it accepts, `json.loads` accepts. Keys are looked up in the perfect hash
of their context by their first and last eight bytes; what the schema doesn't name is checked for syntax and passed
over. Strings are scanned 32 bytes at a time. Values are taken as exchanges send them: numbers in strings, flags as
numbers or booleans, single values where a list belongs, null as absent.

The stack holds, for an object, its context, and for an array ~(the action of its values). ``text[stop]`` is a zero byte
(or, for a slice of checked JSON, what follows it), so no scan passes it and none needs to compare with it.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from dsp.base.memory import at, at_u64, peek, peek64, put, put_byte, signed, special_at
from dsp.openrtb import columns as c
from dsp.openrtb import record as r
from dsp.openrtb import schema as s
from dsp.openrtb.dialect import Q_FIRST, Q_LENIENT, Q_NUMERIC_IDS, find_alias
from dsp.openrtb.limits import MAX_DEPTH
from dsp.openrtb.number import clamp_int32, decimal_to_double, decimal_to_int, scan_number
from dsp.openrtb.store import enter, leave, put_id, put_int, put_price, put_text
from dsp.openrtb.tables import column_of, context_of, key_first, key_multiplier, key_shift, keys, kind_of
from dsp.openrtb.text import escapes, hex4, unescape

_QUOTE, _COMMA, _COLON, _OPEN, _CLOSE, _OPEN_LIST, _CLOSE_LIST = 34, 44, 58, 123, 125, 91, 93
_I = r.IMP

N_SEEN = 1  # S_N_MARK: the imp has a native request


@nb.njit(cache=True, forceinline=True)
def skip_space(text: int, p: int) -> int:
    """The first position from ``p`` that holds no JSON white space."""
    ch = peek(text, p)
    while ch <= 32 and (ch == 32 or 9 <= ch <= 10 or ch == 13):
        p += 1
        ch = peek(text, p)
    return p


@nb.njit(cache=True, forceinline=True)
def scan_string(text: int, p: int) -> int:
    """``end << 1 | has escapes`` of the string whose text starts at ``p``; -1 - (where it breaks) if it does."""
    escaped = 0
    while True:
        k = special_at(text, p)
        p += k
        if k == 32:
            continue
        ch = peek(text, p)
        if ch == _QUOTE:
            return p << 1 | escaped
        if ch != 92:
            return -1 - p
        e = peek(text, p + 1)
        if peek(escapes(), e) != 0:
            p += 2
        elif e == 117 and hex4(text, p + 2) >= 0:
            p += 6
        else:
            return -1 - p
        escaped = 1


@nb.njit(cache=True, forceinline=True)
def find_key(text: int, off: int, length: int, context: int) -> int:
    """The action of a key in a context, 0 if the schema doesn't name it."""
    if length > s.MAX_KEY:
        return 0
    first, last = peek64(text, off), np.uint64(0)
    if length < 8:
        first &= (np.uint64(1) << np.uint64(8 * length)) - np.uint64(1)
    elif length > 8:
        last = peek64(text, off + length - 8)
    hashed = (first ^ (last >> np.uint64(3))) * at_u64(key_multiplier(), context) >> at_u64(key_shift(), context)
    slot = (at(key_first(), context) + signed(hashed)) * s.SLOT
    if at_u64(keys(), slot) != first or at_u64(keys(), slot + 1) != last:
        return 0
    packed = at(keys(), slot + 2)
    return packed >> 8 if packed & 255 == length else 0


@nb.njit(cache=True)
def find_escaped_key(text: int, work: int, off: int, length: int, context: int) -> int:
    """`find_key` of a key written with escapes."""
    if length > 6 * s.MAX_KEY:
        return 0
    to = at(work, r.W_TEXT)
    length = unescape(text, off, length, to)
    return find_key(text, to, length, context) if length >= 0 else 0


@nb.njit(cache=True)
def put_number_text(text: int, work: int, pool: int, action: int, off: int, length: int) -> int:
    """Store a number that came as a string; an empty one is absent."""
    if length == 0:
        return c.OK
    end, negative, mantissa, exponent = scan_number(text, off)
    if end != off + length:
        return c.E_TYPE
    return put_decimal(work, pool, action, negative, mantissa, exponent)


@nb.njit(cache=True)
def put_decimal(work: int, pool: int, action: int, negative: bool, mantissa: int, exponent: int) -> int:
    """Store ±mantissa · 10^exponent as schema row ``action`` says."""
    kind = at(kind_of(), action)
    if kind in (s.MONEY, s.MICRO):
        value = decimal_to_double(mantissa, exponent)
        return put_price(work, action, -value if negative else value)
    if kind == s.FLAG:
        return put_int(work, pool, action, mantissa)
    return put_int(work, pool, action, clamp_int32(decimal_to_int(negative, mantissa, exponent)))


@nb.njit(cache=True)
def put_native_text(text: int, work: int, off: int, length: int, escaped: bool) -> int:
    """Note a native request that came in a string, plain and zero-terminated; it is walked after the request."""
    if escaped:
        to = at(work, r.W_TEXT)
        length = unescape(text, off, length, to)
        length = max(length, 0)
        put_byte(text, to + length, 0)
        put(work, r.W_TEXT, to + length + 1)
        off = to
    put(work, _I + c.I_N_REQ_OFF, off)
    put(work, _I + c.I_N_REQ_LEN, length)
    put(work, r.S_N_MARK, N_SEEN)
    return c.OK


@nb.njit(cache=True)
def put_odd_string(text: int, work: int, pool: int, action: int, off: int, length: int, escaped: bool) -> int:
    """Store a string where the schema wants no text."""
    kind = at(kind_of(), action)
    if s.FIRST_NUMBER <= kind <= s.LAST_NUMBER:
        return put_number_text(text, work, pool, action, off, length)
    if kind == s.NATIVE:
        return put_native_text(text, work, off, length, escaped)
    return c.OK if kind == s.EXT else c.E_TYPE


@nb.njit(cache=True)
def put_odd_number(text: int, work: int, pool: int, action: int, off: int, end: int) -> int:
    """Store a number where the schema wants none: as its text, but not as an id, which must be a string."""
    kind = at(kind_of(), action)
    if kind in (s.ID, s.DEAL_ID) and at(work, r.W_QUIRKS) & Q_NUMERIC_IDS != 0:
        return put_id(text, work, kind, at(column_of(), action), off, end - off, np.int64(0))
    if kind in (s.ID, s.DEAL_ID, s.EXT):
        return c.OK
    if s.FIRST_TEXT <= kind <= s.LAST_TEXT:
        return put_text(text, work, pool, action, off, end - off, np.int64(0))
    return c.E_TYPE


@nb.njit(cache=True)
def literal_end(text: int, p: int) -> int:
    """Where the ``true``, ``false`` or ``null`` at ``p`` ends; 0 if there is none."""
    word = peek64(text, p)
    if word & np.uint64(0xFFFFFFFF) == np.uint64(0x65757274) or word & np.uint64(0xFFFFFFFF) == np.uint64(0x6C6C756E):
        return p + 4
    if word & np.uint64(0xFFFFFFFFFF) == np.uint64(0x65736C6166):
        return p + 5
    return 0


@nb.njit(cache=True)
def put_literal(work: int, pool: int, action: int, first: int, in_list: bool) -> int:
    """Store true or false, or ignore null, which is absent; but an element of a list of objects can't be."""
    kind = at(kind_of(), action)
    if first == 110:
        return c.E_TYPE if kind == s.OBJECTS and in_list else c.OK
    if kind in (s.FLAG, s.INT):
        return put_int(work, pool, action, np.int64(first == 116))
    return c.OK if kind == s.EXT else c.E_TYPE


@nb.njit(cache=True)
def object_context(action: int, in_list: bool) -> int:
    """The context of an object where ``action`` is due; -1 if it wants none."""
    kind = at(kind_of(), action)
    if kind in (s.SKIP, s.OBJECT, s.EXT) or (kind == s.OBJECTS and in_list):
        return at(context_of(), action)
    if kind == s.NATIVE:
        return s.C_NATIVE_OBJECT
    return -1


@nb.njit(cache=True)
def list_action(action: int, in_list: bool) -> int:
    """The action of the elements of an array where ``action`` is due; -1 if it wants none."""
    kind = at(kind_of(), action)
    if kind in (s.SKIP, s.EXT):
        return s.A_SKIP
    if in_list:
        return -1
    return action if kind in (s.OBJECTS, s.HASHES, s.HOSTS, s.LANGS, s.MASK, s.INTS) else -1


@nb.njit(cache=True)
def fail(work: int, status: int, position: int, action: int, context: int) -> int:
    """Note where a request failed; returns ``status``."""
    put(work, r.W_ERR_AT, position)
    put(work, r.W_ERR_ACTION, action)
    put(work, r.W_ERR_CONTEXT, max(context, 0))
    return status


@nb.njit(cache=True, forceinline=True)
def _walk(
    text: int, p: int, stop: int, root: int, work: int, pool: int, imps: int, deals: int, foreign: bool
) -> int:  # fmt: skip
    """Both walkers; ``foreign`` is a constant to the compiler, so that standard requests pay nothing for dialects."""
    action, depth, top, want_key = root, 0, 0, False
    quirks = at(work, r.W_QUIRKS) if foreign else np.int64(0)
    p = skip_space(text, p)
    if peek(text, p) != _OPEN:
        return fail(work, c.E_SYNTAX, p, root, 0)
    while True:
        if want_key:
            p = skip_space(text, p)
            if peek(text, p) != _QUOTE:
                return fail(work, c.E_SYNTAX, p, 0, top)
            end = scan_string(text, p + 1)
            if end < 0:
                return fail(work, c.E_SYNTAX, -1 - end, 0, top)
            action = 0
            if top != 0:
                if end & 1 == 0:
                    action = find_key(text, p + 1, (end >> 1) - p - 1, top)
                else:
                    action = find_escaped_key(text, work, p + 1, (end >> 1) - p - 1, top)
                if foreign and (action == 0 or quirks & Q_FIRST != 0):
                    alias = find_alias(at(work, r.W_DIALECT), text, p + 1, (end >> 1) - p - 1, top)
                    action = alias if alias != 0 else action
            p = skip_space(text, (end >> 1) + 1)
            if peek(text, p) != _COLON:
                return fail(work, c.E_SYNTAX, p, action, top)
            p += 1
        p = skip_space(text, p)
        ch = peek(text, p)
        status = c.OK
        start = p
        if ch == _QUOTE:
            end = scan_string(text, p + 1)
            if end < 0:
                return fail(work, c.E_SYNTAX, -1 - end, action, top)
            p = (end >> 1) + 1
            if action != 0:
                kind = at(kind_of(), action)
                if s.FIRST_TEXT <= kind <= s.LAST_TEXT:
                    status = put_text(text, work, pool, action, start + 1, p - start - 2, end & 1)
                else:
                    status = put_odd_string(text, work, pool, action, start + 1, p - start - 2, end & 1 != 0)
        elif 48 <= ch <= 57 or ch == 45:
            value, digits = np.int64(0), 0
            next_ch = ch
            while 48 <= next_ch <= 57 and digits < 18:
                value = value * 10 + (next_ch - 48)
                digits += 1
                next_ch = peek(text, p + digits)
            kind = at(kind_of(), action)
            if digits != 0 and not (ch == 48 and digits > 1) and next_ch not in (46, 69, 101) and digits < 18:
                p += digits
                if s.FIRST_NUMBER <= kind <= s.LAST_NUMBER:
                    status = put_int(work, pool, action, value)
                elif kind != s.SKIP:
                    status = put_odd_number(text, work, pool, action, start, p)
            else:
                p, negative, mantissa, exponent = scan_number(text, p)
                if p < 0:
                    return fail(work, c.E_SYNTAX, -1 - p, action, top)
                if s.FIRST_NUMBER <= kind <= s.LAST_NUMBER:
                    status = put_decimal(work, pool, action, negative, mantissa, exponent)
                elif kind != s.SKIP:
                    status = put_odd_number(text, work, pool, action, start, p)
        elif ch == _OPEN:
            context = object_context(action, top < 0)
            if foreign and context < 0 and quirks & Q_LENIENT != 0:
                context = np.int64(0)
            if context < 0:
                return fail(work, c.E_TYPE, p, action, top)
            if depth >= MAX_DEPTH:
                return fail(work, c.E_DEPTH, p, action, top)
            if context == s.C_NATIVE_OBJECT:
                put(work, r.S_N_MARK, N_SEEN)
            put(work, r.STACK + depth, top)
            depth += 1
            top = enter(work, context, p)
            p = skip_space(text, p + 1)
            if peek(text, p) != _CLOSE:
                want_key = True
                continue
            p += 1
            status = leave(work, pool, imps, deals, top, p)
            depth -= 1
            top = at(work, r.STACK + depth)
        elif ch == _OPEN_LIST:
            element = list_action(action, top < 0)
            if foreign and element < 0 and quirks & Q_LENIENT != 0:
                element = s.A_SKIP
            if element < 0:
                return fail(work, c.E_TYPE, p, action, top)
            if depth >= MAX_DEPTH:
                return fail(work, c.E_DEPTH, p, action, top)
            after = skip_space(text, p + 1)
            if peek(text, after) != _CLOSE_LIST:
                put(work, r.STACK + depth, top)
                depth += 1
                top = ~element
                action = element
                want_key = False
                p = after
                continue
            p = after + 1
        else:
            p = literal_end(text, p)
            if p == 0:
                return fail(work, c.E_SYNTAX, start, action, top)
            if action != 0:
                status = put_literal(work, pool, action, ch, top < 0)
        if status != c.OK and not (foreign and status == c.E_TYPE and quirks & Q_LENIENT != 0):
            return fail(work, status, start, action, top)
        # what follows a value: close what ends here, up to the next key or element
        while True:
            if depth == 0:
                if p != stop:  # a slice of a document ends here, whatever follows it
                    p = skip_space(text, p)
                return c.OK if p == stop else fail(work, c.E_SYNTAX, p, 0, 0)
            p = skip_space(text, p)
            ch = peek(text, p)
            p += 1
            if top >= 0:
                if ch == _COMMA:
                    want_key = True
                    break
                if ch != _CLOSE:
                    return fail(work, c.E_SYNTAX, p - 1, 0, top)
                status = leave(work, pool, imps, deals, top, p)
                if status != c.OK:
                    return fail(work, status, p - 1, 0, top)
            else:
                if ch == _COMMA:
                    action = ~top
                    want_key = False
                    break
                if ch != _CLOSE_LIST:
                    return fail(work, c.E_SYNTAX, p - 1, 0, 0)
            depth -= 1
            top = at(work, r.STACK + depth)


@nb.njit(cache=True)
def walk_json(text: int, p: int, stop: int, root: int, work: int, pool: int, imps: int, deals: int) -> int:
    """Read the JSON document ``text[p:stop]``, an object, as action ``root`` says. Returns an E_* status."""
    return _walk(text, p, stop, root, work, pool, imps, deals, False)


@nb.njit(cache=True)
def walk_dialect(text: int, p: int, stop: int, root: int, work: int, pool: int, imps: int, deals: int) -> int:
    """`walk_json` in the dialect at W_DIALECT."""
    return _walk(text, p, stop, root, work, pool, imps, deals, True)
