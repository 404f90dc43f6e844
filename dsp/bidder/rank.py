"""Stages 5 and 6, eligibility and pre-rank: the best K line items of each imp that may really bid.

Per imp: which of the request's matched line items have an ad for it, through the open auction or one of its deals;
of these the K with the best cheap score, each with a creative that fits, its deal and its floor. Cheap scores of all
come first; creatives, deals and floors are looked up best first until K line items fit, as most never get that far.

The cheap score is the line item's prior value per impression in USD, its pacing multiplier and the person's intent for
its product, times a random factor in [0.5, 1.5): what is never scored can never be learned.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dsp.audience.profile import P_INTENT
from dsp.base.kernel import inlined, kernel
from dsp.bidder.fit import fits
from dsp.bidder.gate import GO, Q_AT, Q_FOUND, Q_NBR, Q_REASON
from dsp.catalog.index import find_row
from dsp.catalog.layout import (
    CR_DURATION_S,
    CR_MEDIA,
    DIM_DEAL,
    DIM_MEDIA,
    DIM_SIZE,
    LI_ADVERTISER,
    LI_CREATIVE0,
    LI_CREATIVES,
    LI_FLAGS,
    LI_PRODUCT,
    LI_SEAT,
    LIF_DEAL_ONLY,
)
from dsp.openrtb.columns import (
    BANNER,
    D_AT,
    D_DURFLOORS0,
    D_DURFLOORSN,
    D_FLOOR,
    D_FLOORCUR,
    D_ID,
    D_WADOMAIN0,
    D_WADOMAINN,
    D_WSEAT0,
    D_WSEATN,
    DURFLOOR_WIDTH,
    I_B_FLEX,
    I_B_SIZES0,
    I_B_SIZESN,
    I_DEAL0,
    I_DEALN,
    I_FLOOR,
    I_FLOORCUR,
    I_MEDIA,
    I_PRIVATE_AUCTION,
    I_REQ,
    I_V_DURFLOORS0,
    I_V_DURFLOORSN,
    I_V_MINCPMPERSEC,
    NATIVE,
    VIDEO,
)
from dsp.openrtb.hashing import mix64

# --- candidate columns: int64[n, C_WIDTH] ---------------------------------------------------------------------------
(
    C_IMP,  # row of the imp table
    C_LI,  # line item index
    C_CR,  # creative index
    C_DEAL,  # row of the deal table, -1 open auction
    C_FLOOR,  # CPM micros in C_FLOORCUR
    C_FLOORCUR,  # currency index
    C_AT,  # 1 first price, 2 second price, 3 the floor is the price
) = range(7)
C_WIDTH = 7

# --- packed line items: int32[L, IT_WIDTH], half a cache line of what ranking reads of li_i -----------------------
(IT_CREATIVE0, IT_CREATIVES, IT_FLAGS, IT_SEAT, IT_ADVERTISER, IT_PRODUCT) = range(6)
IT_WIDTH = 8

MAX_K = 32
TOP = 32  # line items tried per round, best cheap score first
ROUNDS = 8  # then the imp makes do with what it has
UNIT = 1.0 / 9007199254740992.0  # 2^-53

# How far the best line item came: the index of the check that stopped it, and the no-bid reason that says so.
REASONS = np.array([500, 506, 501, 509, 503, 502, 507], np.int64)
(P_NONE, P_FORMAT, P_BUDGET, P_DEAL, P_CURRENCY, P_FLOOR, P_VALUE) = range(7)

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
U64 = npt.NDArray[np.uint64]
U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]


_DE_BRUIJN = np.uint64(0x03F79D71B4CB0A89)
_BIT_OF = np.zeros(64, np.int8)
for _bit in range(64):
    _BIT_OF[((1 << _bit) * int(_DE_BRUIJN) & 0xFFFFFFFFFFFFFFFF) >> 58] = _bit


@inlined
def next_random(state: U64) -> np.uint64:
    """The next word of a splitmix64 sequence; good enough to vary a ranking."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    return mix64(state[0])


@inlined
def lowest_bit(word: np.uint64) -> int:
    """Index of the lowest set bit of a non-zero word, by a de Bruijn sequence: no branch to mispredict."""
    return int(_BIT_OF[((word & (~word + np.uint64(1))) * _DE_BRUIJN) >> np.uint64(58)])


@kernel
def imp_rows(imp: I64, i: int, pool: I64, keys: U64, key_rows: I32, any_row: I32, out: I32) -> int:
    """Rows of the line items with an ad of an offered medium and, for banners, size; returns how many."""
    count = 0
    media = imp[i, I_MEDIA]
    if media & BANNER:
        if imp[i, I_B_SIZESN] == 0 or imp[i, I_B_FLEX] != 0:
            row = find_row(keys, key_rows, DIM_MEDIA, BANNER + 1)
            if row >= 0:
                out[count] = row
                count += 1
        else:
            for k in range(imp[i, I_B_SIZES0], imp[i, I_B_SIZES0] + imp[i, I_B_SIZESN]):
                row = find_row(keys, key_rows, DIM_SIZE, pool[k] + 1)
                if row < 0:
                    row = any_row[DIM_SIZE]  # flexible banners only
                if row >= 0 and count < out.shape[0] - 3:
                    out[count] = row
                    count += 1
    if media & VIDEO:
        row = find_row(keys, key_rows, DIM_MEDIA, VIDEO + 1)
        if row >= 0:
            out[count] = row
            count += 1
    if media & NATIVE:
        row = find_row(keys, key_rows, DIM_MEDIA, NATIVE + 1)
        if row >= 0:
            out[count] = row
            count += 1
    return count


@kernel
def duration_floor(pool: I64, start: int, count: int, duration_s: int) -> int:
    """The floor of the duration band that holds ``duration_s`` (OpenRTB 2.6 durfloors), -1 if none does."""
    for k in range(count):
        at = start + k * DURFLOOR_WIDTH
        if (pool[at] < 0 or duration_s >= pool[at]) and (pool[at + 1] < 0 or duration_s <= pool[at + 1]):
            return pool[at + 2]
    return -1


@inlined
def imp_floor(imp: I64, i: int, pool: I64, cr_i: I64, c: int) -> int:
    """The open auction's floor for this creative: durations, then mincpmpersec, then imp.bidfloor (CPM micros)."""
    if cr_i[c, CR_MEDIA] == VIDEO:
        floor = duration_floor(pool, imp[i, I_V_DURFLOORS0], imp[i, I_V_DURFLOORSN], cr_i[c, CR_DURATION_S])
        if floor >= 0:
            return floor
        if imp[i, I_V_MINCPMPERSEC] > 0:
            return imp[i, I_V_MINCPMPERSEC] * cr_i[c, CR_DURATION_S]
    return imp[i, I_FLOOR]


@kernel
def deal_floor(deals: I64, d: int, imp: I64, i: int, pool: I64, cr_i: I64, c: int, usd: int) -> tuple[int, int]:
    """(floor, hash of its currency) of a bid through a deal; the deal's own currency is USD unless named."""
    if cr_i[c, CR_MEDIA] == VIDEO:
        floor = duration_floor(pool, deals[d, D_DURFLOORS0], deals[d, D_DURFLOORSN], cr_i[c, CR_DURATION_S])
        if floor >= 0:
            return floor, (deals[d, D_FLOORCUR] if deals[d, D_FLOORCUR] != 0 else usd)
    if deals[d, D_FLOOR] > 0:
        return deals[d, D_FLOOR], (deals[d, D_FLOORCUR] if deals[d, D_FLOORCUR] != 0 else usd)
    return imp_floor(imp, i, pool, cr_i, c), (imp[i, I_FLOORCUR] if imp[i, I_FLOORCUR] != 0 else usd)


@inlined
def currency_index(cur_hash: I64, h: int) -> int:
    """Index of a currency in the rates table, -1 if there is no rate."""
    for m in range(cur_hash.shape[0]):
        if cur_hash[m] == h:
            return m
    return -1


@kernel
def deal_admits(deals: I64, d: int, pool: I64, seat: int, domains: I64, a: int) -> bool:
    """Whether a deal's wseat and wadomain lists admit this seat and advertiser (0-padded domain hashes)."""
    if deals[d, D_WSEATN] > 0:
        found = False
        for k in range(deals[d, D_WSEAT0], deals[d, D_WSEAT0] + deals[d, D_WSEATN]):
            found = found or pool[k] == seat
        if not found:
            return False
    if deals[d, D_WADOMAINN] > 0:
        for k in range(deals[d, D_WADOMAIN0], deals[d, D_WADOMAIN0] + deals[d, D_WADOMAINN]):
            for m in range(domains.shape[1]):
                if domains[a, m] != 0 and domains[a, m] == pool[k]:
                    return True
        return False
    return True


@kernel
def find_deal(
    imp: I64,
    i: int,
    deals: I64,
    pool: I64,
    li: int,
    seat: int,
    domains: I64,
    a: int,
    rows: U64,
    keys: U64,
    key_rows: I32,
) -> int:
    """The first deal of the imp that line item ``li`` may use: its row, -1 if none."""
    word, bit = li >> 6, np.uint64(1) << np.uint64(li & 63)
    for d in range(imp[i, I_DEAL0], imp[i, I_DEAL0] + imp[i, I_DEALN]):
        row = find_row(keys, key_rows, DIM_DEAL, deals[d, D_ID])
        if row >= 0 and (rows[row, word] & bit) != np.uint64(0) and deal_admits(deals, d, pool, seat, domains, a):
            return d
    return -1


@inlined
def pick_creative(imp: I64, i: int, pool: I64, ad: I64, cr_i: I64, first: int, count: int, state: U64) -> int:
    """One of the line item's creatives that fit, each equally likely; -1 if none fits."""
    seen = 0
    chosen = -1
    for c in range(first, first + count):
        if fits(imp, i, pool, ad, cr_i, c):
            seen += 1
            if seen == 1 or next_random(state) % np.uint64(seen) == np.uint64(0):
                chosen = c
    return chosen


@inlined
def collect_top(
    i: int,
    r: int,
    profiles: U8,
    q: I64,
    matched: U64,
    rows: U64,
    scratch_rows: I32,
    n_rows: int,
    item: I32,
    prior: F64,
    multiplier: F64,
    available: I64,
    seed: np.uint64,
    bound: float,
    top_li: I64,
    top_score: F64,
) -> int:
    """The line items of imp ``i`` with the highest cheap scores below ``bound``, unordered; returns how many (<= TOP).

    Scores are a pure function of (seed, line item, request), so a second call with the lowest score as ``bound`` goes
    on where the first one stopped.
    """
    zero, one = np.uint64(0), np.uint64(1)
    known = q[r, Q_FOUND] != 0
    n = 0
    lowest = 0
    progress = q[r, Q_REASON]
    for w in range(matched.shape[1]):
        word = matched[r, w]
        if word == zero:
            continue
        progress = max(progress, P_FORMAT)
        fit = zero
        for k in range(n_rows):
            fit |= rows[scratch_rows[k], w]
        word &= fit
        while word != zero:
            li = (w << 6) + lowest_bit(word)
            word &= word - one
            if available[li] <= 0:
                progress = max(progress, P_BUDGET)
                continue
            noise = np.float64(mix64(seed + np.uint64(li)) >> np.uint64(11)) * UNIT
            score = prior[li] * multiplier[li] * (0.5 + noise)
            if known:
                intent = profiles[r, P_INTENT + item[li, IT_PRODUCT]]
                if intent != 255:
                    score *= 0.25 + intent * (2.0 / 254.0)
            if score >= bound:
                continue
            if n < TOP:
                top_li[n], top_score[n] = li, score
                n += 1
                if n < TOP:
                    continue
            elif score <= top_score[lowest]:
                continue
            else:
                top_li[lowest], top_score[lowest] = li, score
            lowest = 0
            for k in range(1, TOP):
                if top_score[k] < top_score[lowest]:
                    lowest = k
    q[r, Q_REASON] = progress
    return n


@inlined
def try_line_item(
    i: int,
    r: int,
    li: int,
    imp: I64,
    deals: I64,
    pool: I64,
    q: I64,
    rows: U64,
    keys: U64,
    key_rows: I32,
    item: I32,
    ad: I64,
    cr_i: I64,
    adv_domains: I64,
    seat_hash: I64,
    cur_hash: I64,
    usd: int,
    state: U64,
    out: I64,
    n_out: int,
) -> int:
    """Write line item ``li`` as candidate row ``n_out`` if it may really bid on imp ``i``; P_VALUE or why not."""
    deal = -1
    if imp[i, I_DEALN] > 0:
        seat, advertiser = seat_hash[item[li, IT_SEAT]], item[li, IT_ADVERTISER]
        deal = find_deal(imp, i, deals, pool, li, seat, adv_domains, advertiser, rows, keys, key_rows)
    if deal < 0 and (imp[i, I_PRIVATE_AUCTION] == 1 or (item[li, IT_FLAGS] & LIF_DEAL_ONLY) != 0):
        return P_DEAL
    creative = pick_creative(imp, i, pool, ad, cr_i, item[li, IT_CREATIVE0], item[li, IT_CREATIVES], state)
    if creative < 0:
        return P_FORMAT
    at = q[r, Q_AT]
    if deal >= 0:
        floor, cur = deal_floor(deals, deal, imp, i, pool, cr_i, creative, usd)
        if deals[deal, D_AT] > 0:
            at = deals[deal, D_AT]
    else:
        floor = imp_floor(imp, i, pool, cr_i, creative)
        cur = imp[i, I_FLOORCUR] if imp[i, I_FLOORCUR] != 0 else usd
    floorcur = currency_index(cur_hash, cur)
    if floorcur < 0:
        return P_CURRENCY
    out[n_out, C_IMP] = i
    out[n_out, C_LI] = li
    out[n_out, C_CR] = creative
    out[n_out, C_DEAL] = deal
    out[n_out, C_FLOOR] = floor
    out[n_out, C_FLOORCUR] = floorcur
    out[n_out, C_AT] = at
    return P_VALUE


@kernel
def rank(
    n_imps: int,
    imp: I64,
    deals: I64,
    pool: I64,
    profiles: U8,
    q: I64,
    matched: U64,
    some: I64,
    rows: U64,
    keys: U64,
    key_rows: I32,
    any_row: I32,
    item: I32,
    ad: I64,
    cr_i: I64,
    adv_domains: I64,
    seat_hash: I64,
    cur_hash: I64,
    usd: int,
    prior: F64,
    multiplier: F64,
    available: I64,
    k_max: int,
    state: U64,
    scratch_rows: I32,
    top_li: I64,
    top_score: F64,
    out: I64,
    cand_imp: I32,
    cand_li: I32,
) -> int:
    """Candidates of every imp of the batch: rows of ``out`` int64[n, C_WIDTH], in imp order; returns their number.

    ``cand_imp`` and ``cand_li`` int32[n] repeat two of their columns for the feature kernel.
    """
    n = 0
    limit = out.shape[0] - k_max
    for i in range(n_imps):
        r = imp[i, I_REQ]
        if q[r, Q_NBR] != GO or some[r] == 0 or n > limit:
            continue
        n_rows = imp_rows(imp, i, pool, keys, key_rows, any_row, scratch_rows)
        seed = next_random(state)
        bound = np.inf
        kept = 0
        for _ in range(ROUNDS):
            collected = collect_top(
                i, r, profiles, q, matched, rows, scratch_rows, n_rows, item, prior, multiplier, available, seed,
                bound, top_li, top_score,
            )  # fmt: skip
            for left in range(collected, 0, -1):
                best = 0
                for k in range(1, left):
                    if top_score[k] > top_score[best]:
                        best = k
                li, bound = top_li[best], top_score[best]
                top_li[best], top_score[best] = top_li[left - 1], top_score[left - 1]
                came = try_line_item(
                    i, r, li, imp, deals, pool, q, rows, keys, key_rows, item, ad, cr_i, adv_domains, seat_hash,
                    cur_hash, usd, state, out, n,
                )  # fmt: skip
                if came == P_VALUE:
                    cand_imp[n] = i
                    cand_li[n] = li
                    n += 1
                    kept += 1
                    if kept == k_max:
                        break
                else:
                    q[r, Q_REASON] = max(q[r, Q_REASON], came)
            if kept == k_max or collected < TOP:
                break
    return n


def pack_items(li_i: I64) -> I32:
    """int32[L, IT_WIDTH]: what ranking reads of int64[L, LI_WIDTH] line items."""
    item = np.zeros((len(li_i), IT_WIDTH), np.int32)
    for to, column in (
        (IT_CREATIVE0, LI_CREATIVE0),
        (IT_CREATIVES, LI_CREATIVES),
        (IT_FLAGS, LI_FLAGS),
        (IT_SEAT, LI_SEAT),
        (IT_ADVERTISER, LI_ADVERTISER),
        (IT_PRODUCT, LI_PRODUCT),
    ):
        item[:, to] = li_i[:, column]
    return item
