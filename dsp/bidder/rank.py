"""Stages 5 and 6, eligibility and pre-rank: the best K line items of each imp that may really bid.

Per imp: which of the request's matched line items have an ad for it, through the open auction or one of its deals;
of these the K with the best cheap score, each with a creative that fits, its deal and its floor. The creative and the
floor are looked up only for a line item whose score would enter the top K, as most never get there.

The cheap score is the line item's prior value per impression in USD, its pacing multiplier and the person's intent for
its product, times a random factor in [0.5, 1.5): what is never scored can never be learned.
"""

from __future__ import annotations

import numba as nb
import numpy as np
import numpy.typing as npt

from dsp.audience.profile import P_INTENT
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

MAX_K = 32

# How far the best line item came: the index of the check that stopped it, and the no-bid reason that says so.
REASONS = np.array([500, 506, 501, 509, 503, 502, 507], np.int64)
(P_NONE, P_FORMAT, P_BUDGET, P_DEAL, P_CURRENCY, P_FLOOR, P_VALUE) = range(7)

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
U64 = npt.NDArray[np.uint64]
U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]


@nb.njit(cache=True, inline="always")
def _random(state: U64) -> float:
    """xorshift64*: a float in [0, 1); good enough to vary a ranking."""
    x = state[0]
    x ^= x >> np.uint64(12)
    x ^= x << np.uint64(25)
    x ^= x >> np.uint64(27)
    state[0] = x
    return np.float64((x * np.uint64(0x2545F4914F6CDD1D)) >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@nb.njit(cache=True)
def lowest_bit(word: np.uint64) -> int:
    """Index of the lowest set bit of a non-zero word."""
    low = word & (~word + np.uint64(1))
    at = 0
    if (low & np.uint64(0xFFFFFFFF)) == np.uint64(0):
        at += 32
        low >>= np.uint64(32)
    if (low & np.uint64(0xFFFF)) == np.uint64(0):
        at += 16
        low >>= np.uint64(16)
    if (low & np.uint64(0xFF)) == np.uint64(0):
        at += 8
        low >>= np.uint64(8)
    if (low & np.uint64(0xF)) == np.uint64(0):
        at += 4
        low >>= np.uint64(4)
    if (low & np.uint64(0x3)) == np.uint64(0):
        at += 2
        low >>= np.uint64(2)
    if (low & np.uint64(0x1)) == np.uint64(0):
        at += 1
    return at


@nb.njit(cache=True)
def imp_rows(imp: I64, pool: I64, keys: U64, key_rows: I32, any_row: I32, out: I32) -> int:
    """Rows of the line items with an ad of an offered medium and, for banners, size; returns how many."""
    count = 0
    media = imp[I_MEDIA]
    if media & BANNER:
        if imp[I_B_SIZESN] == 0 or imp[I_B_FLEX] != 0:
            row = find_row(keys, key_rows, DIM_MEDIA, BANNER + 1)
            if row >= 0:
                out[count] = row
                count += 1
        else:
            for k in range(imp[I_B_SIZES0], imp[I_B_SIZES0] + imp[I_B_SIZESN]):
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


@nb.njit(cache=True)
def duration_floor(pool: I64, start: int, count: int, duration_s: int) -> int:
    """The floor of the duration band that holds ``duration_s`` (OpenRTB 2.6 durfloors), -1 if none does."""
    for k in range(count):
        at = start + k * DURFLOOR_WIDTH
        if (pool[at] < 0 or duration_s >= pool[at]) and (pool[at + 1] < 0 or duration_s <= pool[at + 1]):
            return pool[at + 2]
    return -1


@nb.njit(cache=True)
def imp_floor(imp: I64, pool: I64, creative: I64) -> int:
    """The open auction's floor for this creative: durations, then mincpmpersec, then imp.bidfloor (CPM micros)."""
    if creative[CR_MEDIA] == VIDEO:
        floor = duration_floor(pool, imp[I_V_DURFLOORS0], imp[I_V_DURFLOORSN], creative[CR_DURATION_S])
        if floor >= 0:
            return floor
        if imp[I_V_MINCPMPERSEC] > 0:
            return imp[I_V_MINCPMPERSEC] * creative[CR_DURATION_S]
    return imp[I_FLOOR]


@nb.njit(cache=True)
def deal_floor(deal: I64, imp: I64, pool: I64, creative: I64, usd: int) -> tuple[int, int]:
    """(floor, hash of its currency) of a bid through a deal; the deal's own currency is USD unless named."""
    if creative[CR_MEDIA] == VIDEO:
        floor = duration_floor(pool, deal[D_DURFLOORS0], deal[D_DURFLOORSN], creative[CR_DURATION_S])
        if floor >= 0:
            return floor, (deal[D_FLOORCUR] if deal[D_FLOORCUR] != 0 else usd)
    if deal[D_FLOOR] > 0:
        return deal[D_FLOOR], (deal[D_FLOORCUR] if deal[D_FLOORCUR] != 0 else usd)
    return imp_floor(imp, pool, creative), (imp[I_FLOORCUR] if imp[I_FLOORCUR] != 0 else usd)


@nb.njit(cache=True)
def currency_index(cur_hash: I64, h: int) -> int:
    """Index of a currency in the rates table, -1 if there is no rate."""
    for m in range(cur_hash.shape[0]):
        if cur_hash[m] == h:
            return m
    return -1


@nb.njit(cache=True)
def deal_admits(deal: I64, pool: I64, seat: int, domains: I64) -> bool:
    """Whether a deal's wseat and wadomain lists admit this seat and advertiser (0-padded domain hashes)."""
    if deal[D_WSEATN] > 0:
        found = False
        for k in range(deal[D_WSEAT0], deal[D_WSEAT0] + deal[D_WSEATN]):
            found = found or pool[k] == seat
        if not found:
            return False
    if deal[D_WADOMAINN] > 0:
        for k in range(deal[D_WADOMAIN0], deal[D_WADOMAIN0] + deal[D_WADOMAINN]):
            for d in range(domains.shape[0]):
                if domains[d] != 0 and domains[d] == pool[k]:
                    return True
        return False
    return True


@nb.njit(cache=True)
def find_deal(
    imp: I64, deals: I64, pool: I64, li: int, seat: int, domains: I64, rows: U64, keys: U64, key_rows: I32
) -> int:
    """The first deal of the imp that line item ``li`` may use: its row, -1 if none."""
    word, bit = li >> 6, np.uint64(1) << np.uint64(li & 63)
    for d in range(imp[I_DEAL0], imp[I_DEAL0] + imp[I_DEALN]):
        row = find_row(keys, key_rows, DIM_DEAL, deals[d, D_ID])
        if row >= 0 and (rows[row, word] & bit) != np.uint64(0) and deal_admits(deals[d], pool, seat, domains):
            return d
    return -1


@nb.njit(cache=True)
def pick_creative(imp: I64, pool: I64, cr_i: I64, first: int, count: int, state: U64) -> int:
    """One of the line item's creatives that fit, each equally likely; -1 if none fits."""
    seen = 0
    chosen = -1
    for c in range(first, first + count):
        if fits(imp, pool, cr_i[c]):
            seen += 1
            if seen == 1 or _random(state) * seen < 1.0:
                chosen = c
    return chosen


@nb.njit(cache=True)
def rank_imp(
    i: int,
    imp: I64,
    deals: I64,
    pool: I64,
    profile: U8,
    q: I64,
    words: U64,
    rows: U64,
    keys: U64,
    key_rows: I32,
    any_row: I32,
    li_i: I64,
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
    scores: F64,
    out: I64,
    n_out: int,
) -> int:
    """Append the top candidates of imp row ``i`` to ``out``; the new count."""
    count_rows = imp_rows(imp, pool, keys, key_rows, any_row, scratch_rows)
    private = imp[I_PRIVATE_AUCTION] == 1
    has_deals = imp[I_DEALN] > 0
    begin = n_out
    kept = 0
    worst = 0.0
    found_profile = q[Q_FOUND] != 0
    zero = np.uint64(0)
    progress = q[Q_REASON]
    for w in range(words.shape[0]):
        word = words[w]
        if word == zero:
            continue
        progress = max(progress, P_FORMAT)
        fit = zero
        for k in range(count_rows):
            fit |= rows[scratch_rows[k], w]
        word &= fit
        while word != zero:
            li = (w << 6) + lowest_bit(word)
            word &= word - np.uint64(1)
            if available[li] <= 0:
                progress = max(progress, P_BUDGET)
                continue
            score = prior[li] * multiplier[li] * (0.5 + _random(state))
            if found_profile:
                intent = profile[P_INTENT + li_i[li, LI_PRODUCT]]
                if intent != 255:
                    score *= 0.25 + 2.0 * intent / 254.0
            if kept == k_max and score <= worst:
                continue
            deal = -1
            if has_deals:
                domains = adv_domains[li_i[li, LI_ADVERTISER]]
                deal = find_deal(imp, deals, pool, li, seat_hash[li_i[li, LI_SEAT]], domains, rows, keys, key_rows)
            if deal < 0 and (private or (li_i[li, LI_FLAGS] & LIF_DEAL_ONLY) != 0):
                progress = max(progress, P_DEAL)
                continue
            creative = pick_creative(imp, pool, cr_i, li_i[li, LI_CREATIVE0], li_i[li, LI_CREATIVES], state)
            if creative < 0:
                continue
            at = q[Q_AT]
            if deal >= 0:
                floor, cur = deal_floor(deals[deal], imp, pool, cr_i[creative], usd)
                if deals[deal, D_AT] > 0:
                    at = deals[deal, D_AT]
            else:
                floor = imp_floor(imp, pool, cr_i[creative])
                cur = imp[I_FLOORCUR] if imp[I_FLOORCUR] != 0 else usd
            floorcur = currency_index(cur_hash, cur)
            if floorcur < 0:
                progress = max(progress, P_CURRENCY)
                continue
            slot = kept
            if kept == k_max:
                slot = 0
                for k in range(1, k_max):
                    if scores[k] < scores[slot]:
                        slot = k
            else:
                kept += 1
            scores[slot] = score
            row = out[begin + slot]
            row[C_IMP] = i
            row[C_LI] = li
            row[C_CR] = creative
            row[C_DEAL] = deal
            row[C_FLOOR] = floor
            row[C_FLOORCUR] = floorcur
            row[C_AT] = at
            if kept == k_max:
                worst = scores[0]
                for k in range(1, k_max):
                    worst = min(worst, scores[k])
    q[Q_REASON] = progress
    return begin + kept


@nb.njit(cache=True)
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
    li_i: I64,
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
    scores: F64,
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
        n = rank_imp(
            i, imp[i], deals, pool, profiles[r], q[r], matched[r], rows, keys, key_rows, any_row, li_i, cr_i,
            adv_domains, seat_hash, cur_hash, usd, prior, multiplier, available, k_max, state, scratch_rows, scores, out, n,
        )  # fmt: skip
    for c in range(n):
        cand_imp[c] = out[c, C_IMP]
        cand_li[c] = out[c, C_LI]
    return n
