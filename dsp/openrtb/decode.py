"""Bodies in, columns out: a batch of bid requests, JSON or protobuf, decoded with one kernel call.

`decode_batch` copies the bodies into ``batch.text`` one after another, each followed by a zero byte, and calls
`decode_kernel` once; a table-driven walker for each wire (`dsp.openrtb.json_walk`, `dsp.openrtb.protobuf_walk`, both
driven by `dsp.openrtb.schema`) fills the columns of `dsp.openrtb.columns`. A request that is refused leaves nothing but
its row with R_STATUS and R_ERR_AT; the others in the batch do not notice.

What the columns say beyond their names:

- R_ID, I_ID and D_ID spans are the id as it was written (JSON escapes included), ready to be echoed; all other spans
  are plain UTF-8.
- (start, count) of EIDS, DURFLOORS and N_ASSETS count records of EID_WIDTH, DURFLOOR_WIDTH, ASSET_WIDTH values.
- I_N_REQ is the native request's JSON text.
"""

from __future__ import annotations

from collections.abc import Sequence

import numba as nb
import numpy as np

from dsp.base.memory import PADDING, at, constant, copy_words, peek, put
from dsp.openrtb import columns as c
from dsp.openrtb import record as r
from dsp.openrtb import schema as s
from dsp.openrtb.columns import I64, U8, Batch
from dsp.openrtb.dialect import Dialects, settle
from dsp.openrtb.json_walk import walk_dialect as walk_json_dialect
from dsp.openrtb.json_walk import walk_json
from dsp.openrtb.protobuf_walk import walk_dialect as walk_protobuf_dialect
from dsp.openrtb.protobuf_walk import walk_protobuf
from dsp.openrtb.tables import defaults
from dsp.openrtb.text import exact_hash, hash_at, host_span

# Columns of Batch.spans; the third is -1 or where the UTF-8 breaks, the last -1 or where the dialect's block begins.
_LENGTH, _FORMAT, _BAD_UTF8, _DIALECT = range(4)
_NO_DIALECT = np.zeros(1, np.int64)
_TEXT_ROOM = 4096 + PADDING
_I = r.IMP
_N_FALLBACKS = len(s.FALLBACKS)
fallbacks = constant("openrtb_fallbacks", np.array(s.FALLBACKS, np.int64))


@nb.njit(cache=True)
def same_bytes(text: int, a: int, b: int, length: int) -> bool:
    """Whether two spans hold the same bytes."""
    for k in range(length):
        if peek(text, a + k) != peek(text, b + k):
            return False
    return True


@nb.njit(cache=True)
def has_duplicate_ids(text: int, imps: int, first: int, count: int) -> bool:
    """Whether two of the considered imps share an id."""
    for i in range(first + 1, first + count):
        off, length = at(imps, i * c.I_WIDTH + c.I_ID_OFF), at(imps, i * c.I_WIDTH + c.I_ID_LEN)
        for j in range(first, i):
            if at(imps, j * c.I_WIDTH + c.I_ID_LEN) == length and same_bytes(
                text, off, at(imps, j * c.I_WIDTH + c.I_ID_OFF), length
            ):
                return True
    return False


@nb.njit(cache=True)
def finish_native(text: int, work: int, imps: int, base: int, readable: bool) -> None:
    """Take over what the walk of an imp's native request found (``base``: the imp's first word).

    One that can't be read marks the imp I_N_BAD and takes NATIVE off its media: the imp's other media can still be had.
    """
    off, length = at(imps, base + c.I_N_REQ_OFF), at(imps, base + c.I_N_REQ_LEN)
    put(imps, base + c.I_N_HASH, exact_hash(text, off, length) if length > 0 else 0)
    if not readable:
        put(imps, base + c.I_N_BAD, 1)
        put(imps, base + c.I_MEDIA, at(imps, base + c.I_MEDIA) & ~c.NATIVE)
        return
    put(imps, base + c.I_N_BAD, 0)
    if at(work, r.S_N_OWN_VER) != 0:
        put(imps, base + c.I_N_VER, at(work, r.S_N_OWN_VER))
    put(imps, base + c.I_N_WRAPPED, at(work, _I + c.I_N_WRAPPED))
    put(imps, base + c.I_N_ASSETS0, at(work, _I + c.I_N_ASSETS0))
    put(imps, base + c.I_N_ASSETSN, at(work, _I + c.I_N_ASSETSN))


@nb.njit(cache=True)
def finish(text: int, work: int, imps: int) -> int:
    """Check what can only be checked at the end of a request, and fill in what one field lends another."""
    if at(work, c.R_ID_LEN) == 0:
        return c.E_NO_ID
    first, count = at(work, c.R_IMP0), at(work, c.R_IMPN)
    if count == 0:
        return c.E_NO_IMP
    if has_duplicate_ids(text, imps, first, count):
        return c.E_DUP_IMP_ID
    for k in range(_N_FALLBACKS):
        column, other, absent = at(fallbacks(), 4 * k), at(fallbacks(), 4 * k + 1), at(fallbacks(), 4 * k + 3)
        if at(work, column) == absent and at(work, other) != absent:
            put(work, column, at(work, other))
            if at(fallbacks(), 4 * k + 2) == 2:
                put(work, column - 1, at(work, other - 1))
    if at(work, c.R_DOMAIN) == 0 and at(work, c.R_PAGE_LEN) > 0:
        off, length = host_span(text, at(work, c.R_PAGE_OFF), at(work, c.R_PAGE_LEN))
        put(work, c.R_DOMAIN, hash_at(text, off, length))
        put(work, c.R_HOST_OFF, off)
        put(work, c.R_HOST_LEN, length)
    return c.OK


@nb.njit(cache=True)
def next_native(work: int, imps: int, base: int) -> int:
    """The first word of the next native imp of this request at or after ``base``, -1 if there is none."""
    stop = (at(work, c.R_IMP0) + at(work, c.R_IMPN)) * c.I_WIDTH
    while base < stop:
        if at(imps, base + c.I_MEDIA) & c.NATIVE != 0:
            put(work, r.S_N_OWN_VER, 0)
            put(work, _I + c.I_N_WRAPPED, 0)
            put(work, _I + c.I_N_ASSETSN, 0)
            return base
        base += c.I_WIDTH
    return -1


@nb.njit(cache=True, nogil=True)
def decode_kernel(
    text_array: U8, spans: I64, n: int, scratch: I64, pool_array: I64, requests: I64, imp: I64, deal: I64, counts: I64,
    dialects: I64,
) -> None:  # fmt: skip
    """Fill the tables from ``n`` bodies that lie in ``text``, each followed by a zero byte; see `decode_batch`."""
    text, work = np.int64(text_array.ctypes.data), np.int64(scratch.ctypes.data)
    pool, rows = np.int64(pool_array.ctypes.data), np.int64(requests.ctypes.data)
    imps, deals = np.int64(imp.ctypes.data), np.int64(deal.ctypes.data)
    for column in range(r.ROOM, r.STACK):
        put(work, column, 0)
    put(work, r.W_TEXT, counts[3])
    put(work, r.W_POOL_SIZE, pool_array.size)
    off = np.int64(0)
    for i in range(n):
        length, fmt, bad_utf8 = spans[i, _LENGTH], spans[i, _FORMAT], spans[i, _BAD_UTF8]
        stop = off + length
        copy_words(defaults(), 0, work, 0, r.REGISTERS)
        marks = at(work, r.W_IMPS), at(work, r.W_DEALS), at(work, r.W_POOL), at(work, r.W_TEXT)
        put(work, c.R_FMT, fmt)
        put(work, c.R_IMP0, marks[0])
        put(work, r.W_NATIVES, 0)
        put(work, r.W_ERR_AT, off)
        put(work, r.W_ERR_ACTION, 0)
        put(work, r.W_ERR_CONTEXT, 0)
        block = spans[i, _DIALECT]
        put(work, r.W_QUIRKS, 0)
        if block >= 0:
            put(work, r.W_DIALECT, np.int64(dialects.ctypes.data) + 8 * block)
            put(work, r.W_QUIRKS, dialects[block])
        status = np.int64(c.OK)
        if bad_utf8 >= 0:
            status = np.int64(c.E_UTF8)
            put(work, r.W_ERR_AT, off + bad_utf8)
        elif fmt == c.FMT_PROTOBUF:
            if block < 0:
                status = walk_protobuf(text, off, stop, np.int64(s.C_REQUEST), work, pool, imps, deals)
            else:
                status = walk_protobuf_dialect(text, off, stop, np.int64(s.C_REQUEST), work, pool, imps, deals)
        else:
            if block < 0:
                status = walk_json(text, off, stop, np.int64(s.A_REQUEST), work, pool, imps, deals)
            else:
                status = walk_json_dialect(text, off, stop, np.int64(s.A_REQUEST), work, pool, imps, deals)
            if status == c.E_SYNTAX and at(work, r.W_ERR_AT) == stop:
                status = np.int64(c.E_TRUNCATED)
        if status == c.OK:
            status = finish(text, work, imps)
            for row in range(marks[0], at(work, r.W_IMPS)):
                put(imps, row * c.I_WIDTH + c.I_REQ, i)
            if block >= 0:
                settle(work, pool, imps, deals)
        if status == c.OK and at(work, r.W_NATIVES) > 0:
            base = next_native(work, imps, marks[0] * c.I_WIDTH)
            while base >= 0:
                start, size = at(imps, base + c.I_N_REQ_OFF), at(imps, base + c.I_N_REQ_LEN)
                if at(imps, base + c.I_N_BAD) == 0:
                    finish_native(text, work, imps, base, False)
                else:
                    read = walk_json(text, start, start + size, np.int64(s.A_NATIVE), work, pool, imps, deals)
                    finish_native(text, work, imps, base, read == c.OK)
                base = next_native(work, imps, base + c.I_WIDTH)
        if status != c.OK:
            where = at(work, r.W_ERR_AT) - off
            field = at(work, r.W_ERR_ACTION) << 8 | at(work, r.W_ERR_CONTEXT)
            copy_words(defaults(), 0, work, 0, r.REGISTERS)
            put(work, c.R_STATUS, status)
            put(work, c.R_FMT, fmt)
            put(work, c.R_ERR_AT, field << 32 | where)
            put(work, c.R_IMP0, marks[0])
            for k in range(4):
                put(work, r.COUNTERS + k, marks[k])
            for column in range(r.ROOM, r.COUNTERS):
                put(work, column, 0)
        copy_words(work, 0, rows, i * c.R_WIDTH, c.R_WIDTH)
        off = stop + 1
    for k in range(4):
        counts[k] = at(work, r.COUNTERS + k)


def _load(batch: Batch, bodies: Sequence[bytes], formats: Sequence[int] | I64) -> None:
    """Copy the bodies into the batch's text and describe them in its spans, growing the arrays where needed."""
    n = len(bodies)
    joined = b"\0".join([*bodies, b""])
    total = len(joined)
    # Unescaped copies are shorter than what they copy; twice the bodies hold them and one more, made to be hashed.
    if batch.text.size < 3 * total + _TEXT_ROOM:
        batch.text = np.zeros(3 * total + _TEXT_ROOM, np.uint8)
    if batch.pool.size < total + _TEXT_ROOM:
        batch.pool = np.zeros(total + _TEXT_ROOM, np.int64)
    batch.text[:total] = np.frombuffer(joined, np.uint8)
    batch.counts[3] = total
    spans = batch.spans
    spans[:n, _LENGTH] = list(map(len, bodies))
    spans[:n, _FORMAT] = formats
    spans[:n, _BAD_UTF8] = -1
    spans[:n, _DIALECT] = -1
    if not joined.isascii() and c.FMT_JSON in formats:
        for i, body in enumerate(bodies):
            if formats[i] == c.FMT_JSON and not body.isascii():
                try:
                    body.decode()
                except UnicodeDecodeError as error:
                    spans[i, _BAD_UTF8] = error.start


def decode_batch(
    batch: Batch,
    bodies: Sequence[bytes],
    formats: Sequence[int] | I64,
    exchanges: Sequence[int] | I64 = (),
    dialects: Dialects | None = None,
) -> None:
    """Decode up to MAX_BATCH requests into ``batch``; ``formats`` holds FMT_JSON or FMT_PROTOBUF for each body.

    With ``dialects`` each body is read in the dialect of its exchange (an index of ``dialects.first``).

    Never raises for what a body holds: a request that can't be used has its E_* in R_STATUS, an R_IMPN of 0 and no rows
    elsewhere. Valid until the next call. May replace ``batch.text`` and ``batch.pool`` by larger arrays.
    """
    n = len(bodies)
    _load(batch, bodies, formats)
    words = _NO_DIALECT
    if dialects is not None and dialects.any:
        words = dialects.words
        batch.spans[:n, _DIALECT] = dialects.first.take(exchanges)
    decode_kernel(
        batch.text,
        batch.spans,
        n,
        batch.work,
        batch.pool,
        batch.req,
        batch.imp,
        batch.deal,
        batch.counts,
        words,
    )
    batch.n = n


_MESSAGES = {
    c.E_SYNTAX: "not valid",
    c.E_UTF8: "not valid UTF-8",
    c.E_TYPE: "a value of the wrong type",
    c.E_NUMBER: "not a number, or out of range",
    c.E_DEPTH: "nested too deeply",
    c.E_NO_ID: "the request has no id (a non-empty string is needed)",
    c.E_NO_IMP: "the request has no imp",
    c.E_IMP_ID: "an imp has no id (a non-empty string is needed)",
    c.E_DUP_IMP_ID: "two imps have the same id",
    c.E_TRUNCATED: "the body ends too early",
    c.E_LIMIT: "more list values than can be taken",
}
_WHOLE = (c.E_NO_ID, c.E_NO_IMP, c.E_DUP_IMP_ID)  # errors of the request, not of a place in it


def error_text(batch: Batch, i: int) -> str:
    """What is wrong with request ``i`` and where, for its sender; "" if nothing is."""
    status, error_at = int(batch.req[i, c.R_STATUS]), int(batch.req[i, c.R_ERR_AT])
    if status == c.OK:
        return ""
    wire = "protobuf" if batch.req[i, c.R_FMT] == c.FMT_PROTOBUF else "JSON"
    text = _MESSAGES.get(status, f"error {status}")
    if status == c.E_SYNTAX:
        text = f"not valid {wire}"
    if status in _WHOLE:
        return text
    where = error_at & 0xFFFFFFFF
    path = s.path_of(error_at >> 40, (error_at >> 32) & 0xFF)
    return f"{text} at byte {where}" + (f", in {path}" if path else "")
