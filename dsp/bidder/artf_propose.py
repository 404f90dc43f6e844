"""ARTF's kernels between the engine's: which deals are worth asking about for whom, and what a bid could be lowered to.

A deal is *wanted* for an imp where a line item that names it, targets the request and has an ad for the imp is worth
the deal's floor: of the line items that want it the BEST by prior value are scored, one is enough. Wanted and not in
the imp: to activate. In the imp, named by some line item of ours and not wanted: to suppress.

A bid is shaded as the bidder shades its own: the b that maximises F(b) * (price - b), F the learned win curve of the
exchange and medium at this auction's scale, never below the floor. A bid whose floor or auction type isn't known for
certain is left as it is.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from dsp.audience.frequency import S_LIFECYCLE
from dsp.audience.profile import P_LIFECYCLE, P_SUPPRESS
from dsp.base.kernel import inlined, kernel
from dsp.base.memory import lowest_bit
from dsp.base.money import quantize_cpm
from dsp.bidder.deal import currency_index
from dsp.bidder.gate import GO, Q_AT, Q_FEE_PPM, Q_FOUND, Q_NBR
from dsp.bidder.price import FIXED_PRICE_DEAL, value_of
from dsp.bidder.rank import imp_rows
from dsp.bidder.wintable import best_bid, scale_of
from dsp.catalog.index import find_row
from dsp.catalog.layout import DIM_DEAL, LI_PRODUCT, LI_SUPPRESS
from dsp.model.curves import media_slot
from dsp.openrtb.artf import (
    M_BID0,
    M_BIDN,
    M_CURRENCY,
    MB_DEAL_LEN,
    MB_DEAL_OFF,
    MB_ID_LEN,
    MB_IMP_LEN,
    MB_IMP_OFF,
    MB_MTYPE,
    MB_SEAT_LEN,
    MB_SEAT_OFF,
)
from dsp.openrtb.columns import (
    D_AT,
    D_FLOOR,
    D_FLOORCUR,
    D_ID,
    I_DEAL0,
    I_DEALN,
    I_FLOOR,
    I_FLOORCUR,
    I_ID_LEN,
    I_ID_OFF,
    I_MEDIA,
    I_REQ,
    I_V_DURFLOORSN,
    I_V_MINCPMPERSEC,
    R_IMP0,
    R_IMPN,
    VIDEO,
)
from dsp.openrtb.hashing import hash_bytes

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
F64 = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]
U64 = npt.NDArray[np.uint64]
U8 = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]

BEST = 4
MAX_QUESTIONS = 1024  # (imp, deal) pairs of a batch; for further ones nothing is proposed

# --- questions: int64[n, QU_WIDTH] ------------------------------------------------------------------------------------
(
    QU_IMP,
    QU_DEAL,  # row of the agent's deals to activate, or -1 - row of the batch's deals to suppress
    QU_FLOOR,  # CPM micros of USD
    QU_CAND0,
    QU_CANDN,
) = range(5)
QU_WIDTH = 5

# --- the exchange's deals in the catalog: int64[D, AD_WIDTH] ----------------------------------------------------------
AD_ID, AD_ROW, AD_FLOOR = range(3)  # hash, row of the index (-1: no line item names it), CPM micros of USD
AD_WIDTH = 3


@inlined
def _barred(r: int, line: I64, q: I64, profiles: U8, states: U8, known: I64) -> bool:
    """Whether the person of request ``r`` is past what the line item advertises."""
    stage = 0
    product = line[LI_PRODUCT]
    if q[r, Q_FOUND] != 0:
        if profiles[r, P_SUPPRESS] != 0:
            return True
        stage = int(profiles[r, P_LIFECYCLE + product])
    if known[r] != 0:
        stage = max(stage, int(states[r, S_LIFECYCLE + product]))
    return (line[LI_SUPPRESS] >> stage) & 1 != 0


@inlined
def _best(
    i: int, r: int, row: U64, fit: U64, weight: F32, li_i: I64, q: I64, profiles: U8, states: U8, known: I64,
    cand_imp: I32, cand_li: I32, first: int,
) -> int:  # fmt: skip
    """Write up to BEST line items of ``row & fit`` by weight as candidates from ``first``; how many."""
    zero, one = np.uint64(0), np.uint64(1)
    n = 0
    for w in range(fit.shape[0]):
        word = fit[w] & row[w]
        while word != zero:
            li = (w << 6) + lowest_bit(word)
            word &= word - one
            if _barred(r, li_i[li], q, profiles, states, known):
                continue
            at = n if n < BEST else BEST - 1
            if n == BEST and weight[li] <= weight[cand_li[first + at]]:
                continue
            while at > 0 and weight[cand_li[first + at - 1]] < weight[li]:
                cand_li[first + at] = cand_li[first + at - 1]
                at -= 1
            cand_li[first + at] = li
            n = min(n + 1, BEST)
    for k in range(n):
        cand_imp[first + k] = i
    return n


@kernel
def deal_questions(
    n_imps: int, imp: I64, deals: I64, pool: I64, q: I64, activate: I64, suppress: I64, profiles: U8, states: U8,
    known: I64, matched: U64, some: I64, rows: U64, keys: U64, key_rows: I32, any_row: I32, weight: F32, li_i: I64,
    cur_hash: I64, cur_usd: F64, usd: int, ours: I64, of_imp: I32, fit: U64, questions: I64, cand_imp: I32,
    cand_li: I32,
) -> tuple[int, int]:  # fmt: skip
    """(questions, candidates): every deal of ``ours`` int64[D, AD_WIDTH] that some line item wants for an imp where
    ``activate`` int64[n] allows it, every deal of the imp that our line items name where ``suppress`` does.
    """
    n = count = 0
    for i in range(n_imps):
        r = imp[i, I_REQ]
        if q[r, Q_NBR] != GO or (activate[r] == 0 and suppress[r] == 0):
            continue
        for w in range(fit.shape[0]):
            fit[w] = np.uint64(0)
        if some[r] != 0:
            for k in range(imp_rows(imp, i, pool, keys, key_rows, any_row, of_imp)):
                row = rows[of_imp[k]]
                for w in range(fit.shape[0]):
                    fit[w] |= row[w]
            for w in range(fit.shape[0]):
                fit[w] &= matched[r, w]
        first, last = imp[i, I_DEAL0], imp[i, I_DEAL0] + imp[i, I_DEALN]
        for d in range(ours.shape[0] if activate[r] != 0 and some[r] != 0 else 0):
            if ours[d, AD_ROW] < 0 or n == questions.shape[0] or count + BEST > cand_li.shape[0]:
                continue
            there = False
            for e in range(first, last):
                there = there or deals[e, D_ID] == ours[d, AD_ID]
            if there:
                continue
            found = _best(
                i, r, rows[ours[d, AD_ROW]], fit, weight, li_i, q, profiles, states, known, cand_imp, cand_li, count
            )
            if found > 0:
                questions[n, QU_IMP], questions[n, QU_DEAL], questions[n, QU_FLOOR] = i, d, ours[d, AD_FLOOR]
                questions[n, QU_CAND0], questions[n, QU_CANDN] = count, found
                n += 1
                count += found
        for e in range(first, last if suppress[r] != 0 else first):
            at = find_row(keys, key_rows, DIM_DEAL, deals[e, D_ID])
            if at < 0 or n == questions.shape[0] or count + BEST > cand_li.shape[0]:
                continue
            floor, cur = deals[e, D_FLOOR], deals[e, D_FLOORCUR]
            if floor <= 0:
                floor, cur = imp[i, I_FLOOR], imp[i, I_FLOORCUR]
            currency = currency_index(cur_hash, cur if cur != 0 else usd)
            if currency < 0:
                continue
            found = _best(i, r, rows[at], fit, weight, li_i, q, profiles, states, known, cand_imp, cand_li, count)
            questions[n, QU_IMP], questions[n, QU_DEAL] = i, -1 - e
            questions[n, QU_FLOOR] = np.int64(max(floor, 0) * cur_usd[currency])
            questions[n, QU_CAND0], questions[n, QU_CANDN] = count, found
            n += 1
            count += found
    return n, count


@kernel
def judge_deals(
    n: int, questions: I64, cand_li: I32, p: F32, factor: F32, li_v: F64, cap: F64, account_usd: F64, fixed_bid: U8,
    imp: I64, q: I64, min_bid_cpm: int, wanted: Bool,
) -> None:  # fmt: skip
    """Fill ``wanted`` bool[n]: whether some candidate is worth the deal's floor, by the value that prices bids."""
    for k in range(n):
        wanted[k] = False
        floor = max(questions[k, QU_FLOOR], min_bid_cpm)
        fee = 1.0 + q[imp[questions[k, QU_IMP], I_REQ], Q_FEE_PPM] * 1e-6
        for c in range(questions[k, QU_CAND0], questions[k, QU_CAND0] + questions[k, QU_CANDN]):
            li = cand_li[c]
            worth = cap[li]
            if fixed_bid[li] == 0:
                worth = min(worth, value_of(p[c], factor[li], li_v[li]) * account_usd[li] * 1e9)
            wanted[k] = wanted[k] or worth / fee >= floor


@inlined
def _imp_of(r: int, req: I64, imp: I64, text: U8, asked: U8, off: int, length: int) -> int:
    """The imp of request ``r`` whose id is ``asked[off:off + length]``, -1 if there is none."""
    for i in range(req[r, R_IMP0], req[r, R_IMP0] + req[r, R_IMPN]):
        same = imp[i, I_ID_LEN] == length
        k = 0
        while same and k < length:
            same = text[imp[i, I_ID_OFF] + k] == asked[off + k]
            k += 1
        if same:
            return i
    return -1


@kernel
def shadable(
    n: int, shade: I64, rows: I64, bids: I64, prices: F64, asked: U8, seats: I64, req: I64, q: I64, imp: I64,
    deals: I64, text: U8, cur_hash: I64, usd: int, bid_imp: I32, floor: F64, currency: I64,
) -> None:  # fmt: skip
    """Fill ``bid_imp`` int32 (row of ``imp``, -1: leave the bid as it is), ``floor`` float64 (in the currency of
    index ``currency`` int64) per bid of requests where ``shade`` int64[n] is set.

    ``prices`` float64 are the bids' MB_PRICE as doubles. Seats of ours ``seats`` int64[S] have shaded already.
    """
    for r in range(n):
        for b in range(rows[r, M_BID0], rows[r, M_BID0] + rows[r, M_BIDN]):
            bid_imp[b] = -1
            if shade[r] == 0 or q[r, Q_NBR] != GO or q[r, Q_AT] != 1:
                continue
            price = prices[b]
            if not (price > 0.0 and price < 1e6) or bids[b, MB_SEAT_LEN] == 0 or bids[b, MB_ID_LEN] == 0:
                continue
            seat = hash_bytes(asked, bids[b, MB_SEAT_OFF], bids[b, MB_SEAT_LEN])
            own = False
            for s in range(seats.shape[0]):
                own = own or seats[s] == seat
            i = _imp_of(r, req, imp, text, asked, bids[b, MB_IMP_OFF], bids[b, MB_IMP_LEN])
            if own or i < 0:
                continue
            if imp[i, I_MEDIA] & VIDEO and (imp[i, I_V_DURFLOORSN] > 0 or imp[i, I_V_MINCPMPERSEC] > 0):
                continue
            least, cur = imp[i, I_FLOOR], imp[i, I_FLOORCUR]
            if bids[b, MB_DEAL_LEN] > 0:
                h = hash_bytes(asked, bids[b, MB_DEAL_OFF], bids[b, MB_DEAL_LEN])
                at = -1
                for e in range(imp[i, I_DEAL0], imp[i, I_DEAL0] + imp[i, I_DEALN]):
                    if deals[e, D_ID] == h:
                        at = e
                if at < 0 or deals[at, D_AT] == 2 or deals[at, D_AT] == FIXED_PRICE_DEAL:
                    continue
                if deals[at, D_FLOOR] > 0:
                    least, cur = deals[at, D_FLOOR], deals[at, D_FLOORCUR]
            of_floor = currency_index(cur_hash, cur if cur != 0 else usd)
            of_bid = currency_index(cur_hash, rows[r, M_CURRENCY] if rows[r, M_CURRENCY] != 0 else usd)
            if of_floor < 0 or of_bid < 0:
                continue
            bid_imp[b] = i
            floor[b] = max(least, 0)
            currency[b] = of_floor << 32 | of_bid


@kernel
def shade_bids(
    n: int, bids: I64, prices: F64, bid_imp: I32, floor: F64, currency: I64, features: F32, exchange_id: int,
    imp: I64, cur_usd: F64, curve: I64, table_value: F64, table_bid: F64, table_chance: F64, scaled: int,
    scale_weights: F32, scale_low: float, scale_high: float, shaded: I64,
) -> None:  # fmt: skip
    """Fill ``shaded`` int64[n]: the price to propose, CPM micros of the bid's currency; 0 to leave it as it is.

    ``features`` float32[n, F] of each bid's imp; the rest is a `dsp.bidder.wintable.WinTable`.
    """
    for b in range(n):
        shaded[b] = 0
        i = bid_imp[b]
        if i < 0:
            continue
        usd_bid, usd_floor = cur_usd[currency[b] & 0xFFFFFFFF], cur_usd[currency[b] >> 32]
        price = prices[b] * 1e6
        mtype = bids[b, MB_MTYPE]
        slot = mtype - 1 if 1 <= mtype <= 4 else media_slot(imp[i, I_MEDIA])
        t = curve[min(exchange_id, curve.shape[0] - 1), slot]
        scale = scale_of(features[b], scale_weights, scale_low, scale_high) if t >= scaled else 1.0
        worth = price * usd_bid
        best, _ = best_bid(table_value[t], table_bid[t], table_chance[t], worth / scale)
        least = np.int64(math.ceil(floor[b] * usd_floor / usd_bid - 1e-6))
        cpm = quantize_cpm(np.int64(best * scale / usd_bid))
        if cpm < least:
            cpm = quantize_cpm(least + 999)
        if 1000 <= cpm < price:
            shaded[b] = cpm
