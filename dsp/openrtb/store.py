"""What becomes of a decoded value: the half of the walkers that does not care which wire it came from.

`put_text`, `put_int` and `put_price` store one value as its schema row says; `enter` and `leave` open and close a
context (an imp, a deal, an eid). All work on the flat record of `dsp.openrtb.record` and return an E_* status; `enter`
returns the context to use: 0, which reads nothing, for the imps and deals beyond the bound.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from dsp.base.memory import at, copy_words, peek, put
from dsp.openrtb import columns as c
from dsp.openrtb import record as r
from dsp.openrtb import schema as s
from dsp.openrtb.limits import MAX_ASSETS, MAX_DEALS_PER_IMP, MAX_EIDS, MAX_IMPS, MAX_LIST_NUMBERS, MAX_SIZES_PER_IMP
from dsp.openrtb.number import BAD_MONEY, clamp_int32, degree_micros, price_micros
from dsp.openrtb.tables import column_of, defaults, hook_of, kind_of
from dsp.openrtb.text import (
    country_hash,
    hash_at,
    host_span,
    is_utf8,
    region_hash,
    subtag_length,
    unescape,
    version_number,
)

_I, _D = r.IMP, r.DEAL
NO_ROOM = -1
ESCAPED, UNPROVEN = 1, 2  # traits of a string


@nb.njit(cache=True)
def room_for(work: int, pool: int, column: int, width: int) -> int:
    """Make room for one more record of ``width`` values in the list of ``column``; its pool index, or NO_ROOM.

    A list must lie in one piece, but protobuf may interleave two repeated fields, and `site.cat` and `site.pagecat` are
    one list here. A list that is no longer last in the pool moves to the end and gets twice its room, so moving costs a
    constant per value on average, whatever order the values come in.
    """
    start, count, top = at(work, column), at(work, column + 1), at(work, r.W_POOL)
    used = count * width
    end = start + used
    size = at(work, r.W_POOL_SIZE)
    room = r.ROOM + 2 * column
    if count == 0 or end == top:
        if top + width > size:
            return NO_ROOM
        if count == 0:
            put(work, column, top)
        put(work, r.W_POOL, top + width)
        end = top
    elif not (at(work, room) == start and end + width <= at(work, room + 1)):
        needed = 2 * used + 4 * width
        if top + needed > size:
            return NO_ROOM
        copy_words(pool, start, pool, top, used)
        put(work, column, top)
        put(work, r.W_POOL, top + needed)
        put(work, room, top)
        put(work, room + 1, top + needed)
        end = top + used
    put(work, column + 1, count + 1)
    return end


@nb.njit(cache=True)
def push(work: int, pool: int, column: int, value: int) -> int:
    """Append one value to the list of ``column``."""
    i = room_for(work, pool, column, 1)
    if i == NO_ROOM:
        return c.E_LIMIT
    put(pool, i, value)
    return c.OK


@nb.njit(cache=True)
def put_list_text(text: int, work: int, pool: int, kind: int, column: int, off: int, length: int) -> int:
    """Append the hash of a string to a list (HASHES, HOSTS, LANGS); empty strings are no values."""
    if kind == s.HOSTS:
        off, length = host_span(text, off, length)
    elif kind == s.LANGS:
        length = subtag_length(text, off, length)
    if length == 0:
        return c.OK
    return push(work, pool, column, hash_at(text, off, length))


@nb.njit(cache=True)
def put_rare_text(text: int, work: int, kind: int, column: int, off: int, length: int) -> int:
    """Store a string of one of the kinds that need more than a look."""
    if kind == s.HOST:
        off, length = host_span(text, off, length)
        put(work, column, hash_at(text, off, length))
        put(work, c.R_HOST_OFF, off)
        put(work, c.R_HOST_LEN, length)
    elif kind == s.LANG:
        put(work, column, hash_at(text, off, subtag_length(text, off, length)))
    elif kind == s.COUNTRY:
        put(work, column, country_hash(text, off, length))
    elif kind == s.REGION:
        put(work, column, region_hash(text, off, length))
    elif kind == s.VERSION:
        number = version_number(text, off, length)
        if number != 0:
            put(work, column, number)
    elif kind == s.GENDER:
        first = peek(text, off) if length > 0 else 0
        put(work, column, first - 32 if 97 <= first <= 122 else first)
    return c.OK


@nb.njit(cache=True)
def put_id(text: int, work: int, kind: int, column: int, off: int, length: int, traits: int) -> int:
    """Store an id as it was written, since it is echoed; a deal's also as the hash of what it says."""
    if traits & UNPROVEN != 0 and not is_utf8(text, off, length):
        return c.E_UTF8
    put(work, column, off)
    put(work, column + 1, length)
    if kind == s.DEAL_ID:
        if traits & ESCAPED != 0:
            to = at(work, r.W_TEXT)
            length = unescape(text, off, length, to)
            if length < 0:
                return c.E_UTF8
            off = to
        put(work, column + 2, hash_at(text, off, length))
    return c.OK


@nb.njit(cache=True)
def put_text(text: int, work: int, pool: int, action: int, off: int, length: int, traits: int) -> int:
    """Store a string as schema row ``action`` says; ``traits``: ESCAPED (it has JSON escapes), UNPROVEN (its UTF-8)."""
    kind, column = at(kind_of(), action), at(column_of(), action)
    if kind in (s.ID, s.DEAL_ID):
        return put_id(text, work, kind, column, off, length, traits)
    if traits & ESCAPED != 0:
        to = at(work, r.W_TEXT)
        length = unescape(text, off, length, to)
        if length < 0:
            return c.E_UTF8
        off = to
        if kind in (s.TEXT, s.HOST):
            put(work, r.W_TEXT, to + length)
    if kind == s.TEXT:
        put(work, column, off)
        put(work, column + 1, length)
        return c.OK
    if kind == s.HASH:
        put(work, column, hash_at(text, off, length))
        return c.OK
    if kind in (s.HASHES, s.HOSTS, s.LANGS):
        return put_list_text(text, work, pool, kind, column, off, length)
    return put_rare_text(text, work, kind, column, off, length)


@nb.njit(cache=True)
def put_int(work: int, pool: int, action: int, value: int) -> int:
    """Store a whole number as schema row ``action`` says."""
    kind, column = at(kind_of(), action), at(column_of(), action)
    if kind == s.INT:
        put(work, column, clamp_int32(value))
    elif kind == s.FLAG:
        put(work, column, np.int64(value != 0))
    elif kind == s.MASK:
        if 0 < value < 63:
            put(work, column, at(work, column) | np.int64(1) << value)
    elif kind == s.INTS:
        if at(work, column + 1) < MAX_LIST_NUMBERS:
            return push(work, pool, column, clamp_int32(value))
    else:
        return put_price(work, action, float(value))
    return c.OK


@nb.njit(cache=True)
def put_price(work: int, action: int, value: float) -> int:
    """Store a fractional number: money as CPM micros, rounded up; degrees in millionths."""
    column = at(column_of(), action)
    if at(kind_of(), action) == s.MICRO:
        put(work, column, degree_micros(value))
        return c.OK
    micros = price_micros(value)
    if micros == BAD_MONEY:
        return c.E_NUMBER
    put(work, column, micros)
    return c.OK


@nb.njit(cache=True)
def set_channel(work: int, channel: int) -> None:
    """Begin site, app or dooh; of two different ones the last counts, as in protobuf's oneof."""
    if at(work, c.R_CHANNEL) == channel:
        return
    put(work, c.R_CHANNEL, channel)
    for column in range(c.R_CH_ID, c.R_CONTENT_LANG + 1):
        put(work, column, 0)
    put(work, c.R_HOST_OFF, 0)
    put(work, c.R_HOST_LEN, 0)
    put(work, r.S_X_CONTENT_LANG, 0)


@nb.njit(cache=True)
def enter(work: int, context: int, position: int) -> int:
    """Open a context whose value starts at ``position``; returns the context to read it with."""
    hook = at(hook_of(), context)
    if hook == s.NOTHING:
        return context
    if hook == s.ON_IMP:
        if at(work, c.R_IMPN) >= MAX_IMPS:
            put(work, c.R_IMPS_DROPPED, at(work, c.R_IMPS_DROPPED) + 1)
            return 0
        copy_words(defaults(), r.IMP, work, r.IMP, c.I_WIDTH)
        put(work, _I + c.I_DEAL0, at(work, r.W_DEALS))
        put(work, r.S_B_W, 0)
        put(work, r.S_B_H, 0)
        put(work, r.S_N_MARK, 0)
    elif hook <= s.ON_NATIVE:  # the media, in the order of their bits
        put(work, _I + c.I_MEDIA, at(work, _I + c.I_MEDIA) | np.int64(1) << (hook - s.ON_BANNER))
    elif hook == s.ON_FORMAT:
        put(work, r.S_F_W, 0)
        put(work, r.S_F_H, 0)
        put(work, r.S_F_WRATIO, 0)
    elif hook == s.ON_DEAL:
        if at(work, _I + c.I_DEALN) >= MAX_DEALS_PER_IMP:
            return 0
        copy_words(defaults(), r.DEAL, work, r.DEAL, c.D_WIDTH)
    elif hook <= s.ON_DOOH:
        set_channel(work, hook - s.ON_SITE + c.CHANNEL_SITE)
    else:
        enter_rare(work, hook, position)
    return context


@nb.njit(cache=True)
def enter_rare(work: int, hook: int, position: int) -> None:
    """`enter` of the less frequent contexts."""
    if hook in (s.ON_VIDEO_DURFLOOR, s.ON_DEAL_DURFLOOR):
        put(work, r.S_DF_MIN, -1)
        put(work, r.S_DF_MAX, -1)
        put(work, r.S_DF_FLOOR, 0)
    elif hook in (s.ON_EID, s.ON_EXT_EID):
        put(work, r.S_EID_SOURCE, 0)
        put(work, r.S_EID_FIRST, at(work, (c.R_EIDS0 if hook == s.ON_EID else r.S_X_EIDS0) + 1))
    elif hook in (s.ON_UID, s.ON_EXT_UID):
        put(work, r.S_UID_LEN, 0)
    elif hook in (s.ON_NODE, s.ON_EXT_NODE):
        put(work, r.S_NODE_ASI, 0)
        put(work, r.S_NODE_SID, 0)
    elif hook == s.ON_NATIVE_OBJECT:
        put(work, _I + c.I_N_REQ_OFF, position)
    elif hook == s.ON_WRAPPED:
        put(work, _I + c.I_N_WRAPPED, 1)
    elif hook == s.ON_ASSET:
        for column in range(r.S_A_ID, r.S_A_HMIN + 1):
            put(work, column, 0)
        put(work, r.S_A_ID, -1)
        put(work, r.S_A_KIND, c.ASSET_OTHER)
    elif hook >= s.ON_TITLE and at(work, r.S_A_KIND) != hook - s.ON_TITLE + c.ASSET_TITLE:
        put(work, r.S_A_KIND, hook - s.ON_TITLE + c.ASSET_TITLE)
        for column in range(r.S_A_TYPE, r.S_A_HMIN + 1):
            put(work, column, 0)


@nb.njit(cache=True)
def leave(work: int, pool: int, imps: int, deals: int, context: int, position: int) -> int:
    """Close a context whose value ends at ``position``."""
    hook = at(hook_of(), context)
    if hook == s.NOTHING:
        return c.OK
    if hook == s.ON_FORMAT:
        if at(work, r.S_F_W) > 0 and at(work, r.S_F_H) == 0 and at(work, r.S_F_WRATIO) <= 0:
            return push(work, pool, _I + c.I_B_SIZES0, c.NO_SIZE)  # a width alone: nothing is that flat
        return push_size(work, pool, at(work, r.S_F_W), at(work, r.S_F_H), at(work, r.S_F_WRATIO))
    if hook == s.ON_IMP:
        return leave_imp(work, pool, imps)
    if hook == s.ON_DEAL:
        if at(work, _D + c.D_ID_LEN) == 0:
            return c.OK  # nobody can bid on it
        row = at(work, r.W_DEALS)
        copy_words(work, r.DEAL, deals, row * c.D_WIDTH, c.D_WIDTH)
        put(work, r.W_DEALS, row + 1)
        put(work, _I + c.I_DEALN, at(work, _I + c.I_DEALN) + 1)
    elif hook in (s.ON_UID, s.ON_EXT_UID):
        return push_uid(work, pool, c.R_EIDS0 if hook == s.ON_UID else r.S_X_EIDS0)
    elif hook in (s.ON_EID, s.ON_EXT_EID):
        column = c.R_EIDS0 if hook == s.ON_EID else r.S_X_EIDS0
        for k in range(at(work, r.S_EID_FIRST), at(work, column + 1)):
            put(pool, at(work, column) + k * c.EID_WIDTH, at(work, r.S_EID_SOURCE))
    elif hook in (s.ON_NODE, s.ON_EXT_NODE):
        i = room_for(work, pool, c.R_SCHAIN0 if hook == s.ON_NODE else r.S_X_SCHAIN0, c.NODE_WIDTH)
        if i == NO_ROOM:
            return c.E_LIMIT
        copy_words(work, r.S_NODE_ASI, pool, i, c.NODE_WIDTH)
    elif hook in (s.ON_VIDEO_DURFLOOR, s.ON_DEAL_DURFLOOR):
        column = _I + c.I_V_DURFLOORS0 if hook == s.ON_VIDEO_DURFLOOR else _D + c.D_DURFLOORS0
        if at(work, column + 1) < MAX_LIST_NUMBERS:
            i = room_for(work, pool, column, c.DURFLOOR_WIDTH)
            if i == NO_ROOM:
                return c.E_LIMIT
            copy_words(work, r.S_DF_MIN, pool, i, c.DURFLOOR_WIDTH)
    elif hook == s.ON_NATIVE_OBJECT:
        put(work, _I + c.I_N_REQ_LEN, position - at(work, _I + c.I_N_REQ_OFF))
    elif hook == s.ON_ASSET:
        return push_asset(work, pool)
    return c.OK


@nb.njit(cache=True)
def push_size(work: int, pool: int, w: int, h: int, ratio: int) -> int:
    """Append a banner size as ``w << 16 | h``; one without width or height is none, an absurd one fits nothing."""
    if ratio > 0:
        put(work, _I + c.I_B_FLEX, 1)
    if min(w, h) < 0 or max(w, h) > 65535:
        return push(work, pool, _I + c.I_B_SIZES0, c.NO_SIZE)
    if not (0 < w < 65536 and 0 < h < 65536) or at(work, _I + c.I_B_SIZESN) >= MAX_SIZES_PER_IMP:
        return c.OK
    return push(work, pool, _I + c.I_B_SIZES0, w << 16 | h)


@nb.njit(cache=True)
def push_uid(work: int, pool: int, column: int) -> int:
    """Append an eid; its source is filled in when the eid's object ends, as it may come after the uids."""
    if at(work, r.S_UID_LEN) == 0 or at(work, column + 1) >= MAX_EIDS:
        return c.OK
    i = room_for(work, pool, column, c.EID_WIDTH)
    if i == NO_ROOM:
        return c.E_LIMIT
    put(pool, i, 0)
    put(pool, i + 1, at(work, r.S_UID_OFF))
    put(pool, i + 2, at(work, r.S_UID_LEN))
    return c.OK


@nb.njit(cache=True)
def push_asset(work: int, pool: int) -> int:
    """Append a native asset; a minimal size stands in for a missing exact one, which its flag bit says."""
    if at(work, _I + c.I_N_ASSETSN) >= MAX_ASSETS:
        return c.E_LIMIT
    i = room_for(work, pool, _I + c.I_N_ASSETS0, c.ASSET_WIDTH)
    if i == NO_ROOM:
        return c.E_LIMIT
    copy_words(work, r.S_A_ID, pool, i, c.ASSET_WIDTH - 1)  # id .. h
    flags = 0
    for axis in range(2):
        minimum = at(work, r.S_A_WMIN + axis)
        if at(work, r.S_A_W + axis) == 0 and minimum > 0:
            put(pool, i + 5 + axis, minimum)
            flags |= 1 << axis
    put(pool, i + 7, flags)
    return c.OK


@nb.njit(cache=True)
def leave_imp(work: int, pool: int, imps: int) -> int:
    """Copy a finished imp to its table."""
    if at(work, _I + c.I_ID_LEN) == 0:
        return c.E_IMP_ID
    status = push_size(work, pool, at(work, r.S_B_W), at(work, r.S_B_H), 0)
    if status != c.OK:
        return status
    if at(work, _I + c.I_MEDIA) & c.NATIVE != 0:
        put(work, r.W_NATIVES, at(work, r.W_NATIVES) + 1)
        put(work, _I + c.I_N_BAD, at(work, r.S_N_MARK))
    row = at(work, r.W_IMPS)
    copy_words(work, r.IMP, imps, row * c.I_WIDTH, c.I_WIDTH)
    put(work, r.W_IMPS, row + 1)
    put(work, c.R_IMPN, at(work, c.R_IMPN) + 1)
    return c.OK
