"""Stage 4, target: which line items want this request?

The bitmap index of a snapshot (`dsp.catalog.layout`) has a row of bits per (dimension, value). For each request the
rows of its values are looked up once; then one pass over the words of the bitmap ORs the rows within an inclusive
dimension, ANDs across dimensions, and clears what an exclusive row names. Words that become empty are left at once, so
the most selective dimensions come first. Cost is linear in line items / 64.
"""

from __future__ import annotations

import numba as nb
import numpy as np
import numpy.typing as npt

from dsp.audience.profile import (
    MAX_SEGMENTS,
    P_AGE_BAND,
    P_INCOME_BAND,
    P_N_SEGMENTS,
    P_SEGMENT_EXPIRY,
    P_SEGMENTS,
)
from dsp.bidder.gate import BROWSER_NAMES_HASH, GO, OS_NAMES_HASH, Q_BROWSER, Q_FOUND, Q_NBR, Q_OS, TIER1_HASH, tier1_of
from dsp.catalog.index import find_row
from dsp.catalog.layout import (
    DIM_ACAT,
    DIM_AGE,
    DIM_BADV,
    DIM_BAPP,
    DIM_BCAT,
    DIM_BROWSER,
    DIM_BSEAT,
    DIM_CATEGORY,
    DIM_CHANNEL,
    DIM_CONNECTION,
    DIM_DAYPART,
    DIM_DEVICETYPE,
    DIM_EXCHANGE,
    DIM_GEO,
    DIM_INCOME,
    DIM_LANGUAGE,
    DIM_NOT_CATEGORY,
    DIM_NOT_GEO,
    DIM_NOT_PUBLISHER,
    DIM_NOT_SEGMENT,
    DIM_NOT_SITE,
    DIM_OS,
    DIM_PUBLISHER,
    DIM_SEGMENT,
    DIM_SITE,
    DIM_WLANG,
    DIM_WSEAT,
)
from dsp.openrtb.columns import (
    CHANNEL_APP,
    R_ACAT0,
    R_ACATN,
    R_BADV0,
    R_BADVN,
    R_BAPP0,
    R_BAPPN,
    R_BCAT0,
    R_BCATN,
    R_BSEAT0,
    R_BSEATN,
    R_BUNDLE,
    R_CAT0,
    R_CATN,
    R_CATTAX,
    R_CHANNEL,
    R_CITY,
    R_CONNECTIONTYPE,
    R_COUNTRY,
    R_DEVICETYPE,
    R_DOMAIN,
    R_EXCHANGE,
    R_HOST_LEN,
    R_HOST_OFF,
    R_LANG,
    R_PUBLISHER,
    R_REGION,
    R_WLANG0,
    R_WLANGN,
    R_WSEAT0,
    R_WSEATN,
)
from dsp.openrtb.hashing import hash_bytes, hash_combine

MAX_ROWS = 4096  # rows looked up for one request; only values that some line item names have one

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
U64 = npt.NDArray[np.uint64]
U8 = npt.NDArray[np.uint8]


@nb.njit(cache=True)
def _add(dim: int, value: int, keys: U64, key_rows: I32, out: I32, count: int) -> int:
    """Append the row of (dim, value) to ``out`` if there is one; the new count."""
    if value != 0 and count < MAX_ROWS:
        row = find_row(keys, key_rows, dim, value)
        if row >= 0:
            out[count] = row
            return count + 1
    return count


@nb.njit(cache=True)
def _add_list(dim: int, pool: I64, start: int, n: int, keys: U64, key_rows: I32, out: I32, count: int) -> int:
    for k in range(start, start + n):
        count = _add(dim, pool[k], keys, key_rows, out, count)
    return count


@nb.njit(cache=True)
def _add_site(dim: int, row: I64, text: U8, keys: U64, key_rows: I32, out: I32, count: int) -> int:
    """The app's bundle, or the site's host and each parent domain of it ("m.news.com", "news.com")."""
    if row[R_CHANNEL] == CHANNEL_APP:
        return _add(dim, row[R_BUNDLE], keys, key_rows, out, count)
    count = _add(dim, row[R_DOMAIN], keys, key_rows, out, count)
    off, end = row[R_HOST_OFF], row[R_HOST_OFF] + row[R_HOST_LEN]
    for k in range(off, end):
        if text[k] == 46:  # "."
            count = _add(dim, hash_bytes(text, k + 1, end - k - 1), keys, key_rows, out, count)
    return count


@nb.njit(cache=True)
def _close(dim: int, any_row: I32, out: I32, count: int, ends: I32, groups: int) -> int:
    """End the group of an inclusive dimension; with no row found for it, its "any" row stands in."""
    begin = ends[groups - 1] if groups > 0 else 0
    if count == begin and any_row[dim] >= 0:
        out[count] = any_row[dim]
        count += 1
    ends[groups] = count
    return count


@nb.njit(cache=True)
def request_rows(
    row: I64,
    q: I64,
    pool: I64,
    text: U8,
    profile: U8,
    half_hour: int,
    today_d: int,
    keys: U64,
    key_rows: I32,
    any_row: I32,
    used: U8,
    tier1_keys: I64,
    tier1_values: I64,
    inc: I32,
    ends: I32,
    exc: I32,
) -> tuple[int, int]:
    """Look up the bitmap rows of one request's values.

    ``inc`` gets the inclusive rows, group g of them (one dimension) ending at ``ends[g]``; ``exc`` the exclusive rows.
    Returns (number of groups, number of exclusive rows).
    """
    g = 0
    c = 0
    country = row[R_COUNTRY]
    region = hash_combine(country, row[R_REGION])
    city = hash_combine(region, row[R_CITY])
    if used[DIM_GEO]:
        c = _add(DIM_GEO, country, keys, key_rows, inc, c)
        c = _add(DIM_GEO, region, keys, key_rows, inc, c)
        c = _add(DIM_GEO, city, keys, key_rows, inc, c)
        c = _close(DIM_GEO, any_row, inc, c, ends, g)
        g += 1
    if used[DIM_SITE]:
        c = _add_site(DIM_SITE, row, text, keys, key_rows, inc, c)
        c = _close(DIM_SITE, any_row, inc, c, ends, g)
        g += 1
    for k in range(8):
        if k == 0:
            dim, value = DIM_EXCHANGE, row[R_EXCHANGE] + 1
        elif k == 1:
            dim, value = DIM_DAYPART, half_hour + 1
        elif k == 2:
            dim, value = DIM_OS, OS_NAMES_HASH[q[Q_OS]] if q[Q_OS] > 0 else 0
        elif k == 3:
            dim, value = DIM_DEVICETYPE, row[R_DEVICETYPE] + 1 if row[R_DEVICETYPE] > 0 else 0
        elif k == 4:
            dim, value = DIM_LANGUAGE, row[R_LANG]
        elif k == 5:
            dim, value = DIM_PUBLISHER, row[R_PUBLISHER]
        elif k == 6:
            dim, value = DIM_CONNECTION, row[R_CONNECTIONTYPE] + 1 if row[R_CONNECTIONTYPE] > 0 else 0
        else:
            dim, value = DIM_CHANNEL, row[R_CHANNEL] + 1
        if used[dim]:
            c = _add(dim, value, keys, key_rows, inc, c)
            c = _close(dim, any_row, inc, c, ends, g)
            g += 1
    if used[DIM_BROWSER]:
        c = _add(DIM_BROWSER, BROWSER_NAMES_HASH[q[Q_BROWSER]] if q[Q_BROWSER] > 0 else 0, keys, key_rows, inc, c)
        c = _close(DIM_BROWSER, any_row, inc, c, ends, g)
        g += 1
    if used[DIM_CATEGORY]:
        for k in range(row[R_CAT0], row[R_CAT0] + row[R_CATN]):
            c = _add(DIM_CATEGORY, pool[k], keys, key_rows, inc, c)
            c = _add(DIM_CATEGORY, TIER1_HASH[tier1_of(pool[k], tier1_keys, tier1_values)], keys, key_rows, inc, c)
        c = _close(DIM_CATEGORY, any_row, inc, c, ends, g)
        g += 1
    found = q[Q_FOUND] != 0
    segments = 0
    if found:
        segments = min(int(profile[P_N_SEGMENTS]), MAX_SEGMENTS)
    if used[DIM_SEGMENT]:
        for s in range(segments):
            at = P_SEGMENT_EXPIRY + 2 * s
            if np.int64(profile[at]) + 256 * np.int64(profile[at + 1]) >= today_d:
                at = P_SEGMENTS + 2 * s
                number = np.int64(profile[at]) + 256 * np.int64(profile[at + 1])
                c = _add(DIM_SEGMENT, number + 1, keys, key_rows, inc, c)
        c = _close(DIM_SEGMENT, any_row, inc, c, ends, g)
        g += 1
    if used[DIM_AGE]:
        c = _add(DIM_AGE, np.int64(profile[P_AGE_BAND]) + 1 if found else 0, keys, key_rows, inc, c)
        c = _close(DIM_AGE, any_row, inc, c, ends, g)
        g += 1
    if used[DIM_INCOME]:
        c = _add(DIM_INCOME, np.int64(profile[P_INCOME_BAND]) + 1 if found else 0, keys, key_rows, inc, c)
        c = _close(DIM_INCOME, any_row, inc, c, ends, g)
        g += 1
    # Lists of the request that name what may bid at all: an absent list admits everybody, a present one only its own.
    cattax_1 = row[R_CATTAX] <= 1
    if row[R_ACATN] > 0 and cattax_1:
        c = _add_list(DIM_ACAT, pool, row[R_ACAT0], row[R_ACATN], keys, key_rows, inc, c)
        ends[g] = c
        g += 1
    if row[R_WSEATN] > 0:
        c = _add_list(DIM_WSEAT, pool, row[R_WSEAT0], row[R_WSEATN], keys, key_rows, inc, c)
        ends[g] = c
        g += 1
    if row[R_WLANGN] > 0:
        c = _add_list(DIM_WLANG, pool, row[R_WLANG0], row[R_WLANGN], keys, key_rows, inc, c)
        c = _close(DIM_WLANG, any_row, inc, c, ends, g)
        g += 1

    e = 0
    if used[DIM_NOT_GEO]:
        e = _add(DIM_NOT_GEO, country, keys, key_rows, exc, e)
        e = _add(DIM_NOT_GEO, region, keys, key_rows, exc, e)
        e = _add(DIM_NOT_GEO, city, keys, key_rows, exc, e)
    if used[DIM_NOT_SITE]:
        e = _add_site(DIM_NOT_SITE, row, text, keys, key_rows, exc, e)
    if used[DIM_NOT_PUBLISHER]:
        e = _add(DIM_NOT_PUBLISHER, row[R_PUBLISHER], keys, key_rows, exc, e)
    if used[DIM_NOT_CATEGORY]:
        for k in range(row[R_CAT0], row[R_CAT0] + row[R_CATN]):
            e = _add(DIM_NOT_CATEGORY, pool[k], keys, key_rows, exc, e)
            e = _add(DIM_NOT_CATEGORY, TIER1_HASH[tier1_of(pool[k], tier1_keys, tier1_values)], keys, key_rows, exc, e)
    if used[DIM_NOT_SEGMENT]:
        for s in range(segments):
            at = P_SEGMENTS + 2 * s
            number = np.int64(profile[at]) + 256 * np.int64(profile[at + 1])
            e = _add(DIM_NOT_SEGMENT, number + 1, keys, key_rows, exc, e)
    if cattax_1:
        e = _add_list(DIM_BCAT, pool, row[R_BCAT0], row[R_BCATN], keys, key_rows, exc, e)
    e = _add_list(DIM_BADV, pool, row[R_BADV0], row[R_BADVN], keys, key_rows, exc, e)
    e = _add_list(DIM_BAPP, pool, row[R_BAPP0], row[R_BAPPN], keys, key_rows, exc, e)
    e = _add_list(DIM_BSEAT, pool, row[R_BSEAT0], row[R_BSEATN], keys, key_rows, exc, e)
    return g, e


@nb.njit(cache=True)
def match_words(rows: U64, live: U64, inc: I32, ends: I32, groups: int, exc: I32, n_exc: int, out: U64) -> int:
    """AND the groups over the live line items into ``out`` uint64[W]; returns the number of non-empty words."""
    some = 0
    zero = np.uint64(0)
    for w in range(live.shape[0]):
        acc = live[w]
        begin = 0
        for g in range(groups):
            if acc == zero:
                break
            end = ends[g]
            either = zero
            for k in range(begin, end):
                either |= rows[inc[k], w]
            acc &= either
            begin = end
        if acc != zero:
            for k in range(n_exc):
                acc &= ~rows[exc[k], w]
        out[w] = acc
        if acc != zero:
            some += 1
    return some


@nb.njit(cache=True)
def target(
    n: int,
    req: I64,
    pool: I64,
    text: U8,
    profiles: U8,
    q: I64,
    half_hour: int,
    today_d: int,
    rows: U64,
    keys: U64,
    key_rows: I32,
    any_row: I32,
    used: U8,
    tier1_keys: I64,
    tier1_values: I64,
    live: U64,
    inc: I32,
    ends: I32,
    exc: I32,
    matched: U64,
    some: I64,
) -> None:
    """Fill ``matched`` uint64[n, W] with the line items that want each request, ``some`` with its non-empty words.

    ``live`` uint64[W] has the line items in flight, unpaused, with money left. ``inc``, ``ends``, ``exc`` are scratch.
    """
    for r in range(n):
        some[r] = 0
        if q[r, Q_NBR] != GO:
            continue
        groups, n_exc = request_rows(
            req[r], q[r], pool, text, profiles[r], half_hour, today_d, keys, key_rows, any_row, used,
            tier1_keys, tier1_values, inc, ends, exc,
        )  # fmt: skip
        some[r] = match_words(rows, live, inc, ends, groups, exc, n_exc, matched[r])
