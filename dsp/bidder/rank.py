"""Stages 5 and 6, eligibility and pre-rank: the best K line items of each imp that may really bid.

Per imp: which of the request's matched line items have an ad for it, through the open auction or one of its deals;
of these the K with the best cheap score, each with a creative that fits, its deal and its floor. All are scored first,
in loops the compiler makes vector code of; creatives, deals and floors are looked up best first until K line items
fit, as most never get that far.

The cheap score is the line item's prior value per impression in USD, its pacing multiplier and the person's intent for
its product, times a random factor in [0.5, 1.5): what is never scored can never be learned.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dsp.audience.profile import P_INTENT
from dsp.base.kernel import inlined, kernel
from dsp.base.memory import count_bits, lowest_bit, prefetch_row
from dsp.bidder.deal import currency_index, deal_floor, find_deal, imp_floor, known_deals
from dsp.bidder.fit import AD_REFUSED, fits, medium_of
from dsp.bidder.gate import GO, Q_AT, Q_FOUND, Q_NBR, Q_REASON, Q_REFUSES
from dsp.bidder.reason import P_BUDGET, P_CURRENCY, P_DEAL, P_FORMAT, P_VALUE
from dsp.catalog.index import find_row
from dsp.catalog.layout import (
    DIM_MEDIA,
    DIM_SIZE,
    LI_ADVERTISER,
    LI_CREATIVE0,
    LI_CREATIVES,
    LI_FLAGS,
    LI_SEAT,
    LIF_DEAL_ONLY,
)
from dsp.openrtb.columns import (
    BANNER,
    D_AT,
    I_B_FLEX,
    I_B_SIZES0,
    I_B_SIZESN,
    I_DEALN,
    I_FLOORCUR,
    I_MEDIA,
    I_PRIVATE_AUCTION,
    I_REQ,
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
    C_MEDIA,  # BANNER, VIDEO or NATIVE
    C_CHANCE,  # of this creative among those that fit, millionths
    C_EXPERIMENT,  # id of the experiment that its person is in, 0 none (`dsp.bidder.arms`)
    C_ARM,  # number of the arm, from 1
    C_UNIT,  # hash of person and experiment, 32 bits
    C_ARM_FLAGS,
    C_BOOST,  # what the arm adds to the multiplier, millionths
) = range(14)
C_WIDTH = 14

# --- packed line items: int32[L, IT_WIDTH], what ranking reads of li_i ---------------------------------------------
(
    IT_CREATIVE0,
    IT_CREATIVES,  # their number, with DEAL_ONLY above it
    IT_SEAT,
    IT_ADVERTISER,
) = range(4)
IT_WIDTH = 4
DEAL_ONLY = 1 << 30

MAX_K = 32
MAX_TRIES = 256  # line items tried per imp, best cheap score first; then it makes do with what it has
N_PRODUCTS = 5
UNIT = np.float32(1.0 / 16777216.0)  # 2^-24
LOW32 = 0xFFFFFFFF

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
U64 = npt.NDArray[np.uint64]
U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]


@inlined
def next_random(state: U64) -> np.uint64:
    """The next word of a splitmix64 sequence; good enough to vary a ranking."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    return mix64(state[0])


@inlined
def noise_factor(seed: np.uint32, li: np.uint32) -> np.float32:
    """A number in [0.5, 1.5) by a hash of both; 32-bit steps, eight of which fit a vector register."""
    x = np.uint32((li ^ seed) * np.uint32(0x9E3779B1))
    x = np.uint32((x ^ (x >> np.uint32(15))) * np.uint32(0x85EBCA6B))
    x = np.uint32((x ^ (x >> np.uint32(13))) * np.uint32(0xC2B2AE35))
    return np.float32(0.5) + np.float32(np.int32(x >> np.uint32(8))) * UNIT


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


@inlined
def list_bits(
    matched: U64, rows: U64, of_imp: I32, n_rows: int, open_auction: U64, private: bool, known: I32, n_known: int,
    fit: U64, out: I32,
) -> tuple[int, bool]:  # fmt: skip
    """List the line items of bitmap ``matched`` uint64[W] that are in any of the imp's rows and may bid openly or
    through one of its ``known`` deals; returns how many, and whether some only lacked the deal.
    """
    zero, one = np.uint64(0), np.uint64(1)
    words = matched.shape[0]
    if n_rows == 1:
        row = rows[of_imp[0]]
        for w in range(words):
            fit[w] = row[w] & matched[w]
    else:
        for w in range(words):
            fit[w] = zero
        for k in range(n_rows):
            row = rows[of_imp[k]]
            for w in range(words):
                fit[w] |= row[w]
        for w in range(words):
            fit[w] &= matched[w]
    dropped = zero
    if n_known == 0 and not private:
        for w in range(words):
            dropped |= fit[w] & ~open_auction[w]
            fit[w] &= open_auction[w]
    else:
        for w in range(words):
            may = zero if private else open_auction[w]
            for k in range(n_known):
                may |= rows[known[k, 1], w]
            dropped |= fit[w] & ~may
            fit[w] &= may
    n = 0
    for w in range(words):
        word = fit[w]
        if word == zero:
            continue
        left = count_bits(word)
        # Two at once whether or not there is a second, as most words have one or two: fewer branches to mispredict.
        out[n] = (w << 6) + lowest_bit(word)
        word &= word - one
        out[n + 1] = (w << 6) + lowest_bit(word)
        word &= word - one
        for k in range(2, left):
            out[n + k] = (w << 6) + lowest_bit(word)
            word &= word - one
        n += left
    return n, dropped != zero


@inlined
def score_all(n: int, li: I32, weight: F32, product: I32, intent: F32, seed: np.uint32, score: F32) -> None:
    """The cheap scores of line items ``li[:n]``: weight, intent for the product, and noise."""
    for k in range(n):
        at = li[k]
        score[k] = weight[at] * intent[product[at]] * noise_factor(seed, np.uint32(at))


@inlined
def best_below(n: int, key: I64, bound: int) -> int:
    """The largest of ``key[:n]`` below ``bound``, -1 if there is none."""
    best = -1
    for k in range(n):
        value = key[k]
        best = max(best, value if value < bound else -1)
    return best


@inlined
def pick_creative(
    imp: I64,
    i: int,
    pool: I64,
    shape: I64,
    ad: I64,
    cr_i: I64,
    share: F32,
    first: int,
    count: int,
    state: U64,
    exchange: int,
) -> tuple[int, int]:
    """One of the line item's creatives that fit, by their shares, and with what probability in millionths; -1: none."""
    total = np.float32(0.0)
    chosen = -1
    for c in range(first, first + count):
        if fits(imp, i, pool, shape[c], ad, cr_i, c) and ad[c, AD_REFUSED] & exchange == 0:
            total += share[c]
            if chosen < 0 or np.float32(next_random(state) >> np.uint64(40)) * UNIT * total < share[c]:
                chosen = c
    if chosen < 0:
        return -1, 0
    return chosen, int(share[chosen] / total * 1e6 + 0.5)


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
    known: I32,
    n_known: int,
    item: I32,
    shapes: I64,
    ad: I64,
    cr_i: I64,
    share: F32,
    adv_domains: I64,
    seat_hash: I64,
    cur_hash: I64,
    usd: int,
    available: I64,
    state: U64,
    out: I64,
    n_out: int,
) -> int:
    """Write line item ``li`` as candidate row ``n_out`` if it may really bid on imp ``i``; P_VALUE or why not."""
    if available[li] <= 0:
        return P_BUDGET
    deal = -1
    if n_known > 0:
        seat, advertiser = seat_hash[item[li, IT_SEAT]], item[li, IT_ADVERTISER]
        deal = find_deal(known, n_known, deals, pool, li, seat, adv_domains, advertiser, rows)
    if deal < 0 and (imp[i, I_PRIVATE_AUCTION] == 1 or (item[li, IT_CREATIVES] & DEAL_ONLY) != 0):
        return P_DEAL
    first, count = item[li, IT_CREATIVE0], item[li, IT_CREATIVES] & ~DEAL_ONLY
    creative, chance = pick_creative(imp, i, pool, shapes, ad, cr_i, share, first, count, state, q[r, Q_REFUSES])
    if creative < 0:
        return P_FORMAT
    at = q[r, Q_AT]
    shape = shapes[creative]
    if deal >= 0:
        floor, cur = deal_floor(deals, deal, imp, i, pool, shape, usd)
        if deals[deal, D_AT] > 0:
            at = deals[deal, D_AT]
    else:
        floor = imp_floor(imp, i, pool, shape)
        cur = imp[i, I_FLOORCUR] if imp[i, I_FLOORCUR] != 0 else usd
    floorcur = currency_index(cur_hash, cur)
    if floorcur < 0:
        return P_CURRENCY
    row = out[n_out]
    row[C_IMP] = i
    row[C_LI] = li
    row[C_CR] = creative
    row[C_DEAL] = deal
    row[C_FLOOR] = floor
    row[C_FLOORCUR] = floorcur
    row[C_AT] = at
    row[C_MEDIA] = medium_of(shape)
    row[C_CHANCE] = chance
    for k in range(C_EXPERIMENT, C_WIDTH):
        row[k] = 0
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
    open_auction: U64,
    item: I32,
    product: I32,
    shapes: I64,
    ad: I64,
    cr_i: I64,
    share: F32,
    adv_domains: I64,
    seat_hash: I64,
    cur_hash: I64,
    usd: int,
    weight: F32,
    available: I64,
    k_max: int,
    state: U64,
    scratch_rows: I32,
    known: I32,
    fit: U64,
    top_li: I32,
    score: F32,
    score_bits: I32,
    key: I64,
    intent: F32,
    out: I64,
    cand_imp: I32,
    cand_li: I32,
) -> int:
    """Candidates of every imp of the batch: rows of ``out`` int64[n, C_WIDTH], in imp order; returns their number.

    ``open_auction`` uint64[W] has the line items that need no deal; ``weight`` float32[L] is a line item's prior value
    times its multiplier, ``share`` float32[C] how creatives share a line item's impressions (`dsp.control.bandit`);
    ``cand_imp`` and ``cand_li`` int32[n] repeat two columns of ``out`` for the feature kernel.
    Scratch: ``scratch_rows``, ``known`` int32[m, 2], ``fit`` uint64[W], ``top_li``, ``score`` and ``key`` [L],
    ``score_bits`` (``score`` seen as int32: positive floats order as their bits do), ``intent`` float32[N_PRODUCTS].
    """
    n = 0
    limit = out.shape[0] - k_max
    for i in range(n_imps):
        r = imp[i, I_REQ]
        if q[r, Q_NBR] != GO or some[r] == 0 or n > limit:
            continue
        reason = max(q[r, Q_REASON], P_FORMAT)
        n_rows = imp_rows(imp, i, pool, keys, key_rows, any_row, scratch_rows)
        n_known = known_deals(imp, i, deals, keys, key_rows, known) if imp[i, I_DEALN] > 0 else 0
        private = imp[i, I_PRIVATE_AUCTION] == 1
        listed, lacked_deal = list_bits(
            matched[r], rows, scratch_rows, n_rows, open_auction, private, known, n_known, fit, top_li
        )
        if lacked_deal:
            reason = max(reason, P_DEAL)
        for p in range(N_PRODUCTS):
            level = profiles[r, P_INTENT + p] if q[r, Q_FOUND] != 0 else np.uint8(255)
            intent[p] = np.float32(1.0) if level == 255 else np.float32(0.25 + level * (2.0 / 254.0))
        seed = np.uint32(next_random(state) & np.uint64(LOW32))
        score_all(listed, top_li, weight, product, intent, seed, score)
        for k in range(listed):  # unique keys that order as the scores do
            key[k] = (np.int64(score_bits[k]) << 32) | np.int64(top_li[k])
        following = best_below(listed, key, 0x7FFFFFFFFFFFFFFF)
        kept = 0
        for _ in range(min(listed, MAX_TRIES)):
            bound = following
            li = bound & LOW32
            following = best_below(listed, key, bound)
            if following >= 0:  # tried after this one, which hides that its rows are far
                creative = item[following & LOW32, IT_CREATIVE0]
                prefetch_row(available, following & LOW32)
                prefetch_row(shapes, creative)
                prefetch_row(share, creative)
                prefetch_row(ad, creative)
            came = try_line_item(
                i, r, li, imp, deals, pool, q, rows, known, n_known, item, shapes, ad, cr_i, share, adv_domains,
                seat_hash, cur_hash, usd, available, state, out, n,
            )  # fmt: skip
            if came == P_VALUE:
                cand_imp[n] = i
                cand_li[n] = li
                n += 1
                kept += 1
                if kept == k_max:
                    break
            else:
                reason = max(reason, came)
        q[r, Q_REASON] = reason
    return n


def pack_items(li_i: I64) -> I32:
    """int32[L, IT_WIDTH]: what ranking reads of int64[L, LI_WIDTH] line items."""
    item = np.zeros((len(li_i), IT_WIDTH), np.int32)
    item[:, IT_CREATIVE0] = li_i[:, LI_CREATIVE0]
    item[:, IT_CREATIVES] = li_i[:, LI_CREATIVES] | np.where(li_i[:, LI_FLAGS] & LIF_DEAL_ONLY, DEAL_ONLY, 0)
    item[:, IT_SEAT] = li_i[:, LI_SEAT]
    item[:, IT_ADVERTISER] = li_i[:, LI_ADVERTISER]
    return item
