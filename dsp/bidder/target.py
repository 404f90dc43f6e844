"""Stage 4, target: which line items want this request?

The bitmap index of a snapshot (`dsp.catalog.layout`) has a row of bits per (dimension, value). For each request the
rows of its values are looked up once; then the rows within an inclusive dimension are ORed, dimensions ANDed, and what
an exclusive row names is cleared, each a vector operation over whole rows. Cost is linear in line items / 64.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dsp.audience.consent import JOIN
from dsp.audience.profile import (
    MAX_SEGMENTS,
    P_AGE_BAND,
    P_INCOME_BAND,
    P_N_SEGMENTS,
    P_SEGMENT_EXPIRY,
    P_SEGMENTS,
)
from dsp.base.kernel import kernel
from dsp.bidder.gate import (
    BROWSER_NAMES_HASH,
    GO,
    OS_NAMES_HASH,
    Q_BITS,
    Q_BROWSER,
    Q_FOUND,
    Q_NBR,
    Q_OS,
    Q_REASON,
    TIER1_HASH,
    tier1_of,
)
from dsp.bidder.match import NOBODY, find_rows, match_words, why_nobody
from dsp.bidder.reason import P_BLOCKED
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

MAX_VALUES = 16_384  # values looked up for one request; a longer block list than this and nobody bids
DOT = 46

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
U64 = npt.NDArray[np.uint64]
U8 = npt.NDArray[np.uint8]


@kernel
def request_values(
    r: int,
    req: I64,
    q: I64,
    pool: I64,
    text: U8,
    profiles: U8,
    half_hour: int,
    today_d: int,
    used: U8,
    tier1_keys: I64,
    tier1_values: I64,
    dims: I64,
    values: I64,
    ends: I64,
    absent: I64,
) -> tuple[int, int, int, int]:
    """List what request ``r`` says in every dimension that some line item has a rule in.

    Value m is ``values[m]`` of dimension ``dims[m]``; group g (one dimension) ends at ``ends[g]`` and, when none of its
    values has a row, falls back as ``absent[g]`` says: a dimension's "any" row, or NOBODY. Returns (inclusive groups of
    our own rules, all inclusive groups, end of the exclusive values of our own rules, of all): what the exchange's
    lists say comes last. The exclusive values follow those of the last group.
    """
    limit = dims.shape[0] - MAX_SEGMENTS - 8
    g = m = 0
    country = req[r, R_COUNTRY]
    region = hash_combine(country, req[r, R_REGION])
    city = hash_combine(region, req[r, R_CITY])
    if used[DIM_GEO]:
        dims[m], values[m] = DIM_GEO, country
        dims[m + 1], values[m + 1] = DIM_GEO, region
        dims[m + 2], values[m + 2] = DIM_GEO, city
        m += 3
        ends[g], absent[g] = m, DIM_GEO
        g += 1
    found = q[r, Q_FOUND] != 0
    for k in range(11):
        dim = value = 0
        if k == 0:
            dim, value = DIM_EXCHANGE, req[r, R_EXCHANGE] + 1
        elif k == 1:
            dim, value = DIM_DAYPART, half_hour + 1
        elif k == 2:
            dim = DIM_OS
            if q[r, Q_OS] > 0:
                value = OS_NAMES_HASH[q[r, Q_OS]]
        elif k == 3:
            dim = DIM_DEVICETYPE
            if req[r, R_DEVICETYPE] > 0:
                value = req[r, R_DEVICETYPE] + 1
        elif k == 4:
            dim, value = DIM_LANGUAGE, req[r, R_LANG]
        elif k == 5:
            dim, value = DIM_PUBLISHER, req[r, R_PUBLISHER]
        elif k == 6:
            dim = DIM_CONNECTION
            if req[r, R_CONNECTIONTYPE] > 0:
                value = req[r, R_CONNECTIONTYPE] + 1
        elif k == 7:
            dim, value = DIM_CHANNEL, req[r, R_CHANNEL] + 1
        elif k == 8:
            dim = DIM_BROWSER
            if q[r, Q_BROWSER] > 0:
                value = BROWSER_NAMES_HASH[q[r, Q_BROWSER]]
        elif k == 9:
            dim = DIM_AGE
            if found:
                value = int(profiles[r, P_AGE_BAND]) + 1
        else:
            dim = DIM_INCOME
            if found:
                value = int(profiles[r, P_INCOME_BAND]) + 1
        if used[dim]:
            dims[m], values[m] = dim, value
            m += 1
            ends[g], absent[g] = m, dim
            g += 1
    site = m
    if used[DIM_SITE] or used[DIM_NOT_SITE]:
        # The app's bundle, or the site's host and each parent domain of it ("m.news.com", "news.com").
        if req[r, R_CHANNEL] == CHANNEL_APP:
            dims[m], values[m] = DIM_SITE, req[r, R_BUNDLE]
            m += 1
        else:
            dims[m], values[m] = DIM_SITE, req[r, R_DOMAIN]
            m += 1
            end = req[r, R_HOST_OFF] + req[r, R_HOST_LEN]
            for at in range(req[r, R_HOST_OFF], end):
                if text[at] == DOT and m < limit:
                    dims[m], values[m] = DIM_SITE, hash_bytes(text, at + 1, end - at - 1)
                    m += 1
        ends[g], absent[g] = m, DIM_SITE
        g += 1
    site_end = m
    category = m
    if used[DIM_CATEGORY] or used[DIM_NOT_CATEGORY]:
        for k in range(req[r, R_CAT0], req[r, R_CAT0] + req[r, R_CATN]):
            if m + 1 < limit:
                dims[m], values[m] = DIM_CATEGORY, pool[k]
                tier = tier1_of(pool[k], tier1_keys, tier1_values)
                dims[m + 1], values[m + 1] = DIM_CATEGORY, TIER1_HASH[tier]
                m += 2
        ends[g], absent[g] = m, DIM_CATEGORY
        g += 1
    category_end = m
    segments = 0
    if found:
        segments = min(int(profiles[r, P_N_SEGMENTS]), MAX_SEGMENTS)
    if used[DIM_SEGMENT]:
        for s in range(segments):
            at = P_SEGMENT_EXPIRY + 2 * s
            if np.int64(profiles[r, at]) + 256 * np.int64(profiles[r, at + 1]) >= today_d:
                at = P_SEGMENTS + 2 * s
                dims[m] = DIM_SEGMENT
                values[m] = np.int64(profiles[r, at]) + 256 * np.int64(profiles[r, at + 1]) + 1
                m += 1
        ends[g], absent[g] = m, DIM_SEGMENT
        g += 1
    own_groups = g
    # Lists of the request that name who may bid at all: an absent list admits everybody, a present one only its own.
    cattax_1 = req[r, R_CATTAX] <= 1
    for k in range(3):
        if k == 0:
            dim, start, count = DIM_ACAT, req[r, R_ACAT0], req[r, R_ACATN] if cattax_1 else 0
        elif k == 1:
            dim, start, count = DIM_WSEAT, req[r, R_WSEAT0], req[r, R_WSEATN]
        else:
            dim, start, count = DIM_WLANG, req[r, R_WLANG0], req[r, R_WLANGN]
        if count > 0:
            for at in range(start, start + count):
                if m < limit:
                    dims[m], values[m] = dim, pool[at]
                    m += 1
            ends[g], absent[g] = m, NOBODY
            g += 1
    # From here on: exclusive values.
    if used[DIM_NOT_GEO]:
        dims[m], values[m] = DIM_NOT_GEO, country
        dims[m + 1], values[m + 1] = DIM_NOT_GEO, region
        dims[m + 2], values[m + 2] = DIM_NOT_GEO, city
        m += 3
    if used[DIM_NOT_SITE]:
        for k in range(site, site_end):
            if m < limit:
                dims[m], values[m] = DIM_NOT_SITE, values[k]
                m += 1
    if used[DIM_NOT_CATEGORY]:
        for k in range(category, category_end):
            if m < limit:
                dims[m], values[m] = DIM_NOT_CATEGORY, values[k]
                m += 1
    if used[DIM_NOT_PUBLISHER]:
        dims[m], values[m] = DIM_NOT_PUBLISHER, req[r, R_PUBLISHER]
        m += 1
    if used[DIM_NOT_SEGMENT]:
        for s in range(segments):
            at = P_SEGMENTS + 2 * s
            dims[m] = DIM_NOT_SEGMENT
            values[m] = np.int64(profiles[r, at]) + 256 * np.int64(profiles[r, at + 1]) + 1
            m += 1
    own_end = m
    for k in range(4):
        if k == 0:
            dim, start, count = DIM_BCAT, req[r, R_BCAT0], req[r, R_BCATN] if cattax_1 else 0
        elif k == 1:
            dim, start, count = DIM_BADV, req[r, R_BADV0], req[r, R_BADVN]
        elif k == 2:
            dim, start, count = DIM_BAPP, req[r, R_BAPP0], req[r, R_BAPPN]
        else:
            dim, start, count = DIM_BSEAT, req[r, R_BSEAT0], req[r, R_BSEATN]
        for at in range(start, start + count):
            if m == dims.shape[0]:
                return (
                    own_groups,
                    -1,
                    own_end,
                    m,
                )  # more blocks than we can look at: nobody bids, rather than a blocked one
            dims[m], values[m] = dim, pool[at]
            m += 1
    return own_groups, g, own_end, m


@kernel
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
    dims: I64,
    values: I64,
    ends: I64,
    absent: I64,
    found: I32,
    either: U64,
    matched: U64,
    some: I64,
) -> None:
    """Fill ``matched`` uint64[n, W] with the line items that want each request, ``some`` with 1 where there is any.

    ``live`` uint64[W] has the line items in flight, unpaused, with money left. ``dims``, ``values``, ``ends``,
    ``absent``, ``found`` and ``either`` are scratch.
    """
    for r in range(n):
        some[r] = 0
        if q[r, Q_NBR] != GO:
            continue
        own_groups, groups, own_end, end = request_values(
            r, req, q, pool, text, profiles, half_hour, today_d, used, tier1_keys, tier1_values, dims, values, ends,
            absent,
        )  # fmt: skip
        if groups < 0:
            q[r, Q_REASON] = P_BLOCKED
            continue
        own_end, end = find_rows(groups, own_end, end, dims, values, ends, absent, keys, key_rows, any_row, found)
        some[r] = match_words(rows, live, found, ends, groups, end, either, matched[r])
        if some[r] == 0:
            may_know = (q[r, Q_BITS] & JOIN) != 0
            q[r, Q_REASON] = why_nobody(
                rows, live, found, ends, absent, own_groups, own_end, groups, may_know, either, matched[r]
            )
            for w in range(live.shape[0]):
                matched[r, w] = np.uint64(0)
