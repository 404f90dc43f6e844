"""Stages 8 and 9, price and select: what each candidate is worth, what to bid for it, and which one bids.

Value per impression (design 4), in the line item's account currency:

    value = p_click * p_apply * p_approve * p_fund * (margin - p_default * LGD * EAD) + sum of p(stage) * payout(stage)

times the pacing multiplier. First price: the b that maximises F(b) * (value - b), F the exchange's learned win curve;
second price: the value itself; a fixed-price deal: its floor. Then the floor, the line item's maximum bid, and rounding
to a price at which one impression costs whole micros. Floats end here: what is reserved and sent is integer micros.

The expected surplus is (value - b) * F(b) and, at second price, the integral of F from the floor to b besides, which is
what the second price is expected to be below the bid.

Selection: per imp the candidate with the best expected surplus whose line item has the money and has not bid in this
response yet. Its reservation is taken from the slice before anything is encoded (design 5, rule 2).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dsp.base.kernel import inlined, kernel
from dsp.base.memory import AHEAD, prefetch_row
from dsp.base.money import convert_up, impression_micros, quantize_cpm
from dsp.bidder.gate import Q_CURRENCY, Q_FEE_PPM, Q_REASON
from dsp.bidder.rank import (
    C_ARM_FLAGS,
    C_AT,
    C_BOOST,
    C_FLOOR,
    C_FLOORCUR,
    C_IMP,
    C_LI,
    C_MEDIA,
)
from dsp.bidder.reason import P_BUDGET, P_FLOOR, P_HELD_OUT, P_VALUE
from dsp.bidder.wintable import below_of, best_bid, chance_of, scale_of
from dsp.catalog.layout import (
    LI_CURRENCY,
    LIV_EAD,
    LIV_LGD,
    LIV_MARGIN,
    LIV_PAYOUT_APPLY,
    LIV_PAYOUT_APPROVE,
    LIV_PAYOUT_CLICK,
    LIV_PAYOUT_FUND,
)
from dsp.model.curves import media_slot
from dsp.openrtb.columns import I_REQ, R_EXCHANGE, R_TEST

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]

FIXED_PRICE_DEAL = 3
ARM_GHOST, ARM_CHALLENGER, ARM_CREATIVES = 1, 2, 4  # C_ARM_FLAGS: is not bid, scored by the challenger, own ads only
_UNCORRECTED = np.ones(5, np.float32)

# --- bid columns: int64[n, B_WIDTH] -----------------------------------------------------------------------------------
(
    B_CAND,  # row of the candidate table
    B_PRICE,  # CPM micros, bid currency
    B_RESERVE,  # micros, account currency: r, the most this impression can be charged
) = range(3)
B_WIDTH = 3


@inlined
def value_of(p: F32, factor: F32, v: F64) -> float:
    """The design's value formula, account currency per impression.

    ``p`` float32[5] heads, their odds multiplied by ``factor`` float32[5]; ``v`` float64[LIV_WIDTH].
    """
    click = moved(p[0], factor[0])
    apply = click * moved(p[1], factor[1])
    approve = apply * moved(p[2], factor[2])
    fund = approve * moved(p[3], factor[3])
    return (
        fund * (v[LIV_MARGIN] - moved(p[4], factor[4]) * v[LIV_LGD] * v[LIV_EAD] + v[LIV_PAYOUT_FUND])
        + click * v[LIV_PAYOUT_CLICK]
        + apply * v[LIV_PAYOUT_APPLY]
        + approve * v[LIV_PAYOUT_APPROVE]
    )


@inlined
def moved(p: np.float32, factor: np.float32) -> np.float64:
    """The probability whose odds are ``factor`` times those of ``p``."""
    odds = np.float64(p) * np.float64(factor)
    return odds / (1.0 - np.float64(p) + odds)


@kernel
def price(
    n: int,
    cand: I64,
    p: F32,
    imp: I64,
    req: I64,
    q: I64,
    li_v: F64,
    cap: F64,
    account_usd: F64,
    fixed_bid: U8,
    cur_usd: F64,
    multiplier: F64,
    exchange_ids: I64,
    curve: I64,
    table_value: F64,
    table_bid: F64,
    table_chance: F64,
    table_below: F64,
    scaled: int,
    scale_weights: F32,
    scale_low: float,
    scale_high: float,
    features: F32,
    min_bid_cpm: int,
    factor: F32,
    value: F64,
    bid_cpm: I64,
    surplus: F64,
) -> None:
    """Fill per candidate: ``value`` (account currency), ``bid_cpm`` (CPM micros, bid currency), ``surplus`` (USD).

    ``p`` float32[n, 5] head probabilities. Of line items: ``li_v`` float64[L, LIV_WIDTH], ``cap`` float64[L] the most
    to bid in CPM micros of USD, ``account_usd`` float64[L], ``fixed_bid`` uint8[L]. ``exchange_ids`` are
    the exchanges' public ids, ``curve`` to ``scale_high`` a `dsp.bidder.wintable.WinTable`, ``features`` float32[n, F]
    say an auction's scale. ``factor`` float32[L, 5] multiplies the heads' odds (`dsp.model.correction`).
    """
    scale_imp, imp_scale = np.int64(-1), 1.0  # the imp whose scale is known
    for a in range(n):
        ahead = cand[min(a + AHEAD, n - 1), C_LI]
        prefetch_row(li_v, ahead)
        prefetch_row(cap, ahead)
        prefetch_row(account_usd, ahead)
        prefetch_row(fixed_bid, ahead)
        prefetch_row(multiplier, ahead)
        prefetch_row(factor, ahead)
        row = cand[a]
        li = row[C_LI]
        r = imp[row[C_IMP], I_REQ]
        bid_cpm[a] = 0
        surplus[a] = -1.0
        usd_account = account_usd[li]
        boost = 1.0 + row[C_BOOST] * 1e-6
        usd_bid = cur_usd[q[r, Q_CURRENCY]]
        floor_usd = row[C_FLOOR] * cur_usd[row[C_FLOORCUR]]  # CPM micros of USD
        fee = 1.0 + q[r, Q_FEE_PPM] * 1e-6  # what it is worth and may cost at most includes it
        cap_usd = cap[li] / fee
        fixed = fixed_bid[li] != 0
        if fixed:
            value[a] = cap[li] / usd_account * 1e-9
            worth_usd = cap_usd * boost
        else:
            if row[C_ARM_FLAGS] & ARM_CHALLENGER:
                value[a] = value_of(p[a], _UNCORRECTED, li_v[li])
            else:
                value[a] = value_of(p[a], factor[li], li_v[li])
            worth_usd = value[a] * multiplier[li] * boost * usd_account * 1e9 / fee  # CPM micros of USD
        if worth_usd < min_bid_cpm:
            q[r, Q_REASON] = max(q[r, Q_REASON], P_VALUE)
            continue
        if floor_usd > worth_usd or floor_usd > cap_usd:
            q[r, Q_REASON] = max(q[r, Q_REASON], P_FLOOR)
            continue
        t = curve[min(exchange_ids[req[r, R_EXCHANGE]], curve.shape[0] - 1), media_slot(row[C_MEDIA])]
        scale = 1.0
        if t >= scaled:
            if row[C_IMP] != scale_imp:
                scale_imp = row[C_IMP]
                imp_scale = scale_of(features[a], scale_weights, scale_low, scale_high)
            scale = imp_scale
        chance = -1.0  # still to be looked up
        if row[C_AT] == FIXED_PRICE_DEAL:
            bid_usd = floor_usd if floor_usd > 0 else worth_usd
        elif fixed or row[C_AT] == 2:
            bid_usd = worth_usd
        else:
            bid_usd, chance = best_bid(table_value[t], table_bid[t], table_chance[t], worth_usd / scale)
            bid_usd *= scale
        limited = min(max(bid_usd, floor_usd), cap_usd)
        cpm = quantize_cpm(np.int64(limited / usd_bid))
        floor_bid = np.int64(np.ceil(floor_usd / usd_bid - 1e-6))
        if cpm < floor_bid:  # rounding down fell below the floor: the next whole price above it
            cpm = quantize_cpm(floor_bid + 999)
        if cpm < 1000:
            q[r, Q_REASON] = max(q[r, Q_REASON], P_VALUE)
            continue
        bid_cpm[a] = cpm
        if chance < 0.0 or limited != bid_usd:
            chance = chance_of(table_bid[t], table_chance[t], cpm * usd_bid / scale)
        surplus[a] = (worth_usd - cpm * usd_bid) * chance + 1e-9 * worth_usd
        if row[C_AT] == 2:  # what is paid is the second price, or the floor
            table, reached, least = table_bid[t], cpm * usd_bid / scale, floor_usd / scale
            under = below_of(table, table_chance[t], table_below[t], reached)
            surplus[a] += (under - below_of(table, table_chance[t], table_below[t], least)) * scale


@inlined
def _used(bids: I64, begin: int, end: int, cand: I64, li: int) -> bool:
    for b in range(begin, end):
        if cand[bids[b, B_CAND], C_LI] == li:
            return True
    return False


@inlined
def _haunted(best: int, cand: I64, imp: I64, bid_cpm: I64) -> bool:
    """Whether the line item of candidate ``best`` has left a ghost in this response already."""
    r, li = imp[cand[best, C_IMP], I_REQ], cand[best, C_LI]
    c = best - 1
    while c >= 0 and imp[cand[c, C_IMP], I_REQ] == r:
        if cand[c, C_LI] == li and bid_cpm[c] < 0:
            return True
        c -= 1
    return False


@kernel
def select(
    n: int,
    n_requests: int,
    cand: I64,
    imp: I64,
    req: I64,
    q: I64,
    li_i: I64,
    cur_usd: F64,
    bid_cpm: I64,
    surplus: F64,
    available: I64,
    reserved: I64,
    bids: I64,
    first_bid: I64,
) -> int:
    """At most one bid per imp, no line item twice in a response; reserve what it can cost.

    ``bids`` int64[n_imps, B_WIDTH] in request order, ``first_bid`` int64[n_requests + 1] where each request's begin.
    ``available`` and ``reserved`` are updated, except for test requests. A chosen candidate of a control arm is not
    bid: its ``bid_cpm`` turns negative, the price of a ghost. Returns the number of bids.
    """
    count = 0
    a = 0
    request = 0
    first_bid[0] = 0
    while a < n:
        i = cand[a, C_IMP]
        r = imp[i, I_REQ]
        while request < r:
            request += 1
            first_bid[request] = count
        end = a
        while end < n and cand[end, C_IMP] == i:
            end += 1
        while True:
            best = -1
            for c in range(a, end):
                if bid_cpm[c] > 0 and (best < 0 or surplus[c] > surplus[best]):
                    best = c
            if best < 0:
                break
            li = cand[best, C_LI]
            fx = cur_usd[q[r, Q_CURRENCY]] / cur_usd[li_i[li, LI_CURRENCY]] * (1.0 + q[r, Q_FEE_PPM] * 1e-6)
            reserve = convert_up(impression_micros(bid_cpm[best]), fx)
            affordable = available[li] >= reserve
            if affordable and not _used(bids, first_bid[r], count, cand, li):
                if cand[best, C_ARM_FLAGS] & ARM_GHOST:  # would have been bid: the next best one is instead
                    q[r, Q_REASON] = max(q[r, Q_REASON], P_HELD_OUT)
                    bid_cpm[best] = 0 if _haunted(best, cand, imp, bid_cpm) else -bid_cpm[best]
                    continue
                if req[r, R_TEST] != 1:
                    available[li] -= reserve
                    reserved[li] += reserve
                bids[count, B_CAND] = best
                bids[count, B_PRICE] = bid_cpm[best]
                bids[count, B_RESERVE] = reserve
                count += 1
                break
            if not affordable:
                q[r, Q_REASON] = max(q[r, Q_REASON], P_BUDGET)
            bid_cpm[best] = 0
        a = end
    while request < n_requests:
        request += 1
        first_bid[request] = count
    return count
