"""The kernel behind encode: responses written byte by byte into one buffer, JSON or protobuf as the request came.

A bid is its creative's pre-rendered template with the slots filled (`dsp.bidder.marks`). Protobuf wants the length of a
message before it: a message is written four bytes late, then moved to where its length ended. Field numbers are
OpenRTB 2.6's. The caller guarantees that ``out`` is long enough (`Encoder` states the bound).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dsp.base.kernel import inlined, kernel
from dsp.bidder.answer import BAD, BID, NO_BID, SHED
from dsp.bidder.gate import BAD_REQUEST, GO, OVER_QPS, Q_CURRENCY, Q_NBR, Q_REASON
from dsp.bidder.marks import PERCENT
from dsp.bidder.native import S_END, S_FIRST, S_LAST, S_START
from dsp.bidder.price import B_CAND, B_PRICE
from dsp.bidder.rank import C_CR, C_DEAL, C_IMP, C_LI
from dsp.catalog.layout import CR_DURATION_S, CR_H, CR_MEDIA, CR_W, EX_EXP_S, EX_NO_BID, EX_STYLE, LI_SEAT, NO_BIDS
from dsp.openrtb.columns import (
    BANNER,
    D_ID_LEN,
    D_ID_OFF,
    FMT_JSON,
    I_B_SIZES0,
    I_B_SIZESN,
    I_ID_LEN,
    I_ID_OFF,
    R_EXCHANGE,
    R_FMT,
    R_ID_LEN,
    R_ID_OFF,
    VIDEO,
)

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]


def _text(text: bytes) -> U8:
    return np.frombuffer(text, np.uint8)


_OPEN, _SEATBID, _SEAT, _BID = _text(b'{"id":"'), _text(b'","seatbid":['), _text(b'{"seat":"'), _text(b'","bid":[')
_CLOSE_SEAT, _CUR, _END = _text(b"]}"), _text(b'],"cur":"'), _text(b'"}')
_W, _H, _DUR, _EXP = _text(b',"w":'), _text(b',"h":'), _text(b',"dur":'), _text(b',"exp":')
_DEAL, _ADM, _QUOTE = _text(b',"dealid":"'), _text(b',"adm":"'), 34
_NBR, _BRACE, _NO_SEATBID = _text(b'","nbr":'), 125, _text(b'","seatbid":[]}')
NO_CONTENT, EMPTY = NO_BIDS.index("204"), NO_BIDS.index("empty")
_HEX = _text(b"0123456789abcdef")
# Keys of protobuf fields: number << 3 | wire type.
_PB_BID_ID, _PB_IMPID, _PB_PRICE, _PB_ADM, _PB_DEAL = 1 << 3 | 2, 2 << 3 | 2, 3 << 3 | 1, 6 << 3 | 2, 13 << 3 | 2
_PB_W, _PB_H, _PB_EXP = 16 << 3, 17 << 3, 21 << 3
_PB_RESPONSE_ID, _PB_SEATBID, _PB_CUR, _PB_NBR = 1 << 3 | 2, 2 << 3 | 2, 4 << 3 | 2, 6 << 3
_PB_SEAT_BID, _PB_SEAT = 1 << 3 | 2, 2 << 3 | 2
_ROOM = 4  # for a message's length: up to 256 MB


@inlined
def _copy(out: U8, o: int, source: U8, start: int, end: int) -> int:
    # Views, so that the index counts from 0 and needs no check for Python's negative indexes: that makes vector code.
    size = end - start
    to, fro = out[o : o + size], source[start:end]
    for k in range(size):
        to[k] = fro[k]
    return o + size


@inlined
def _all(out: U8, o: int, source: U8) -> int:
    to = out[o : o + source.shape[0]]
    for k in range(source.shape[0]):
        to[k] = source[k]
    return o + source.shape[0]


@kernel
def _decimal(out: U8, o: int, value: int) -> int:
    """A non-negative integer in digits."""
    digits, rest = 1, value // 10
    while rest > 0:
        digits += 1
        rest //= 10
    for k in range(digits - 1, -1, -1):
        out[o + k] = np.uint8(48 + value % 10)
        value //= 10
    return o + digits


@kernel
def _varint(out: U8, o: int, value: int) -> int:
    while value >= 0x80:
        out[o] = np.uint8((value & 0x7F) | 0x80)
        value >>= 7
        o += 1
    out[o] = np.uint8(value)
    return o + 1


@kernel
def _hex16(out: U8, o: int, value: int) -> int:
    for k in range(16):
        out[o + k] = _HEX[(value >> (60 - 4 * k)) & 15]
    return o + 16


@kernel
def _close(out: U8, begin: int, end: int) -> int:
    """Put the length of the message ``out[begin+_ROOM:end]`` at ``begin`` and move the message to it."""
    start = begin + _ROOM
    return _copy(out, _varint(out, begin, end - start), out, start, end)


@inlined
def _fill(out: U8, o: int, source: U8, start: int, end: int, marks: I64, first: int, last: int, token: U8) -> int:
    """Copy a %-format whose slots, ``marks[first:last]``, are all the token."""
    p = start
    for m in range(first, last):
        at = marks[m] if marks[m] >= 0 else ~marks[m]
        o = _copy(out, o, source, p, at)
        p = at + 2
        if marks[m] < 0:
            out[o] = PERCENT
            o += 1
        else:
            o = _all(out, o, token)
    return _copy(out, o, source, p, end)


@inlined
def _native(out: U8, o: int, native: U8, marks: I64, span: I64, token: U8) -> int:
    return _fill(out, o, native, span[S_START], span[S_END], marks, span[S_FIRST], span[S_LAST], token)


@kernel
def _extra_json(
    out: U8, o: int, b: int, c: int, imp: I64, i: int, deal: int, deals: I64, exp_s: int, cr_i: I64, pool: I64,
    text: U8, native: U8, native_at: I64, span: I64, texts: U8,
) -> int:  # fmt: skip
    """The members of a JSON bid that are not in its template."""
    if cr_i[c, CR_MEDIA] == BANNER:
        w, h = cr_i[c, CR_W], cr_i[c, CR_H]
        if w == 0 and imp[i, I_B_SIZESN] > 0:  # flexible: takes the slot's size
            w, h = pool[imp[i, I_B_SIZES0]] >> 16, pool[imp[i, I_B_SIZES0]] & 0xFFFF
        if w > 0:
            o = _decimal(out, _all(out, o, _W), w)
            o = _decimal(out, _all(out, o, _H), h)
    elif cr_i[c, CR_MEDIA] == VIDEO:
        o = _decimal(out, _all(out, o, _DUR), cr_i[c, CR_DURATION_S])
    if exp_s > 0:
        o = _decimal(out, _all(out, o, _EXP), exp_s)
    if deal >= 0:
        off = deals[deal, D_ID_OFF]
        o = _copy(out, _all(out, o, _DEAL), text, off, off + deals[deal, D_ID_LEN])
        out[o] = _QUOTE
        o += 1
    if span[S_END] > span[S_START]:
        o = _native(out, _all(out, o, _ADM), native, native_at, span, texts[b])
        out[o] = _QUOTE
        o += 1
    return o


@kernel
def _bid_json(
    out: U8, o: int, b: int, bids: I64, cand: I64, imp: I64, deals: I64, exp_s: int, cr_i: I64, pool: I64, text: U8,
    template: U8, offset: I64, marks: I64, first: I64, native: U8, native_at: I64, span: I64, texts: U8, bid_id: int,
    templates: int,
) -> int:  # fmt: skip
    """One Bid; ``templates`` is the first of its exchange's style."""
    a = bids[b, B_CAND]
    c, i = cand[a, C_CR], cand[a, C_IMP]
    t = c + templates
    p = offset[t]
    slot = 0
    for m in range(first[t], first[t + 1]):
        at = marks[m] if marks[m] >= 0 else ~marks[m]
        o = _copy(out, o, template, p, at)
        p = at + 2
        if marks[m] < 0:
            out[o] = PERCENT
            o += 1
            continue
        if slot == 0:
            o = _hex16(out, o, bid_id)
        elif slot == 1:
            o = _copy(out, o, text, imp[i, I_ID_OFF], imp[i, I_ID_OFF] + imp[i, I_ID_LEN])
        elif slot == 2:
            mils = bids[b, B_PRICE] // 1000
            o = _decimal(out, o, mils // 1000)
            out[o] = 46
            out[o + 1] = np.uint8(48 + mils // 100 % 10)
            out[o + 2] = np.uint8(48 + mils // 10 % 10)
            out[o + 3] = np.uint8(48 + mils % 10)
            o += 4
        elif slot == 3:
            o = _extra_json(
                out, o, b, c, imp, i, cand[a, C_DEAL], deals, exp_s, cr_i, pool, text, native, native_at, span,
                texts,
            )  # fmt: skip
        else:
            o = _all(out, o, texts[b])
        slot += 1
    return _copy(out, o, template, p, offset[t + 1])


@kernel
def _bid_pb(
    out: U8, o: int, b: int, bids: I64, cand: I64, imp: I64, deals: I64, exp_s: int, cr_i: I64, pool: I64, text: U8,
    template: U8, offset: I64, marks: I64, first: I64, native: U8, native_at: I64, span: I64, texts: U8, bid_id: int,
    price: F64, price_bytes: U8, templates: int,
) -> int:  # fmt: skip
    """One Bid message, without its own key and length; ``price_bytes`` uint8[8] is a view of ``price`` float64[1]."""
    a = bids[b, B_CAND]
    c, i, deal = cand[a, C_CR], cand[a, C_IMP], cand[a, C_DEAL]
    t = c + templates
    out[o], out[o + 1] = _PB_BID_ID, 16
    o = _hex16(out, o + 2, bid_id)
    out[o] = _PB_IMPID
    o = _varint(out, o + 1, imp[i, I_ID_LEN])
    o = _copy(out, o, text, imp[i, I_ID_OFF], imp[i, I_ID_OFF] + imp[i, I_ID_LEN])
    out[o] = _PB_PRICE
    price[0] = bids[b, B_PRICE] / 1e6
    o = _all(out, o + 1, price_bytes)
    o = _fill(out, o, template, offset[t], offset[t + 1], marks, first[t], first[t + 1], texts[b])
    if cr_i[c, CR_MEDIA] == BANNER:
        w, h = cr_i[c, CR_W], cr_i[c, CR_H]
        if w == 0 and imp[i, I_B_SIZESN] > 0:
            w, h = pool[imp[i, I_B_SIZES0]] >> 16, pool[imp[i, I_B_SIZES0]] & 0xFFFF
        if w > 0:
            o = _varint(out, _varint(out, o, _PB_W), w)
            o = _varint(out, _varint(out, o, _PB_H), h)
    if exp_s > 0:
        o = _varint(out, _varint(out, o, _PB_EXP), exp_s)
    if deal >= 0:
        out[o] = _PB_DEAL
        o = _varint(out, o + 1, deals[deal, D_ID_LEN])
        o = _copy(out, o, text, deals[deal, D_ID_OFF], deals[deal, D_ID_OFF] + deals[deal, D_ID_LEN])
    if span[S_END] > span[S_START]:
        out[o] = _PB_ADM
        end = _native(out, o + 1 + _ROOM, native, native_at, span, texts[b])
        o = _close(out, o + 1, end)
    return o


@kernel
def _no_bid(out: U8, o: int, as_json: bool, text: U8, id_off: int, id_len: int, nbr: int) -> int:
    """A BidResponse with the request's id and the no-bid reason; without a reason where ``nbr`` is negative."""
    if as_json:
        o = _copy(out, _all(out, o, _OPEN), text, id_off, id_off + id_len)
        if nbr < 0:
            return _all(out, o, _NO_SEATBID)
        o = _decimal(out, _all(out, o, _NBR), nbr)
        out[o] = _BRACE
        return o + 1
    out[o] = _PB_RESPONSE_ID
    o = _copy(out, _varint(out, o + 1, id_len), text, id_off, id_off + id_len)
    if nbr < 0:
        return o
    out[o] = _PB_NBR
    return _varint(out, o + 1, nbr)


@kernel
def write_responses(
    n: int, req: I64, imp: I64, deals: I64, pool: I64, text: U8, q: I64, cand: I64, bids: I64, first_bid: I64,
    li_i: I64, cr_i: I64, ex_i: I64, cur_code: U8, seats: U8, seat_off: I64,
    json_text: U8, json_off: I64, json_at: I64, json_first: I64,
    pb_text: U8, pb_off: I64, pb_at: I64, pb_first: I64,
    native: U8, native_at: I64, spans: I64, texts: U8, first_bid_id: int, price: F64, price_bytes: U8,
    nbr_bodies: bool, reasons: I64, out: U8, kinds: I64, ends: I64,
) -> int:  # fmt: skip
    """Write every response to ``out``; request r's ends at ``ends[r]`` and begins where the one before it ends.

    ``kinds[r]`` becomes BID, NO_BID, BAD or SHED. A request without bids has an empty response, or with ``nbr_bodies``
    one that says why it is a no-bid; or what its exchange wants. Bids of one seat stand together, seats in the order of
    their first bid. Returns how many requests are BAD or SHED.
    """
    o = refused = 0
    for r in range(n):
        begin, end = first_bid[r], first_bid[r + 1]
        if begin == end:
            code = q[r, Q_NBR]
            if code in (BAD_REQUEST, OVER_QPS):
                kinds[r] = BAD if code == BAD_REQUEST else SHED
                refused += 1
            else:
                kinds[r] = NO_BID
                style = ex_i[req[r, R_EXCHANGE], EX_NO_BID]
                if nbr_bodies or style != NO_CONTENT:
                    nbr = -1 if style == EMPTY and not nbr_bodies else reasons[q[r, Q_REASON]] if code == GO else code
                    o = _no_bid(out, o, req[r, R_FMT] == FMT_JSON, text, req[r, R_ID_OFF], req[r, R_ID_LEN], nbr)
            ends[r] = o
            continue
        kinds[r] = BID
        as_json = req[r, R_FMT] == FMT_JSON
        x = req[r, R_EXCHANGE]
        exp_s, templates = ex_i[x, EX_EXP_S], ex_i[x, EX_STYLE] * cr_i.shape[0]
        id_off, id_len = req[r, R_ID_OFF], req[r, R_ID_LEN]
        if as_json:
            o = _copy(out, _all(out, o, _OPEN), text, id_off, id_off + id_len)
            o = _all(out, o, _SEATBID)
        else:
            out[o] = _PB_RESPONSE_ID
            o = _copy(out, _varint(out, o + 1, id_len), text, id_off, id_off + id_len)
        for b in range(begin, end):
            seat = li_i[cand[bids[b, B_CAND], C_LI], LI_SEAT]
            seen = False
            for before in range(begin, b):
                seen = seen or li_i[cand[bids[before, B_CAND], C_LI], LI_SEAT] == seat
            if seen:
                continue
            message = o + 1
            if as_json:
                if b > begin:
                    out[o] = 44
                    o += 1
                o = _copy(out, _all(out, o, _SEAT), seats, seat_off[x, seat], seat_off[x, seat + 1])
                o = _all(out, o, _BID)
            else:
                out[o] = _PB_SEATBID
                o = message + _ROOM
            for other in range(b, end):
                if li_i[cand[bids[other, B_CAND], C_LI], LI_SEAT] != seat:
                    continue
                if as_json:
                    if other > b:
                        out[o] = 44
                        o += 1
                    o = _bid_json(
                        out, o, other, bids, cand, imp, deals, exp_s, cr_i, pool, text, json_text, json_off, json_at,
                        json_first, native, native_at, spans[other], texts, first_bid_id + other, templates,
                    )  # fmt: skip
                else:
                    out[o] = _PB_SEAT_BID
                    stop = _bid_pb(
                        out, o + 1 + _ROOM, other, bids, cand, imp, deals, exp_s, cr_i, pool, text, pb_text, pb_off,
                        pb_at, pb_first, native, native_at, spans[other], texts, first_bid_id + other, price,
                        price_bytes, templates,
                    )  # fmt: skip
                    o = _close(out, o + 1, stop)
            if as_json:
                o = _all(out, o, _CLOSE_SEAT)
            else:
                out[o] = _PB_SEAT
                o = _varint(out, o + 1, seat_off[x, seat + 1] - seat_off[x, seat])
                o = _copy(out, o, seats, seat_off[x, seat], seat_off[x, seat + 1])
                o = _close(out, message, o)
        currency = q[r, Q_CURRENCY]
        if as_json:
            o = _all(out, o, _CUR)
        else:
            out[o], out[o + 1] = _PB_CUR, 3
            o += 2
        for k in range(3):
            out[o + k] = cur_code[currency, k]
        o += 3
        if as_json:
            o = _all(out, o, _END)
        ends[r] = o
    return refused
