"""Why a request is answered as it is: every candidate with its scores, value, multiplier, bid, and why it lost.

Nothing is recomputed beside the engine: one request is decided by it, and what its kernels left in the workspace is put
into words. Meant for a person or a test, never for traffic.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dsp.bidder.answer import BAD, BID, TOO_LARGE
from dsp.bidder.engine import Engine
from dsp.bidder.gate import GO, Q_CURRENCY, Q_FOUND, Q_NBR, Q_REASON
from dsp.bidder.price import B_CAND, B_PRICE, B_RESERVE, FIXED_PRICE_DEAL
from dsp.bidder.rank import C_ARM, C_AT, C_BOOST, C_CR, C_DEAL, C_EXPERIMENT, C_FLOOR, C_FLOORCUR, C_IMP, C_LI, C_MEDIA
from dsp.bidder.reason import REASONS
from dsp.catalog.layout import (
    CR_ID,
    LI_CURRENCY,
    LI_MAX_BID,
    LI_OFFER,
    LIV_EAD,
    LIV_LGD,
    LIV_MARGIN,
    LIV_PAYOUT_APPLY,
    LIV_PAYOUT_APPROVE,
    LIV_PAYOUT_CLICK,
    LIV_PAYOUT_FUND,
)
from dsp.model.context import HEADS
from dsp.openrtb.codes import nbr_text

F64 = npt.NDArray[np.float64]

AUCTIONS = {1: "first price", 2: "second price", FIXED_PRICE_DEAL: "the deal's price"}
MEDIA = {1: "banner", 2: "video", 4: "audio", 8: "native"}
_KINDS = {BID: "bid", BAD: "bad request", TOO_LARGE: "too large"}
_LISTED = 50  # line items that did not become candidates


def explain(engine: Engine, body: bytes, fmt: int, exchange: int) -> dict[str, Any]:
    """Decide ``body`` (FMT_*) of the exchange with that index, and tell how. JSON-able.

    "candidates" by imp, best first; "others": line items that were matched but did not become candidates. Amounts are
    in units of the currency named; bids, floors and ``worth`` per thousand impressions.
    "price_to_win_usd" wins every other auction like this (None: dearer than any seen); "win_chance" is the bid's.
    """
    kind, payload = engine.decide([body], [fmt], [exchange])[0]
    out: dict[str, Any] = {"answer": _KINDS.get(kind, "no bid")}
    work = engine.work
    code = int(work.q[0, Q_NBR])
    if kind != BID:
        nbr = int(REASONS[work.q[0, Q_REASON]]) if code == GO else code
        out["nbr"] = nbr
        out["why"] = nbr_text(nbr)
        if kind == BAD:
            out["why"] = payload.decode("utf-8", "replace")
    if code != GO or kind in (BAD, TOO_LARGE):
        return out
    out["profile_found"] = bool(work.q[0, Q_FOUND])
    n, p = engine.scored
    bids = {int(row[B_CAND]): row for row in work.bids[: int(work.first_bid[1])]}
    rows = [_candidate(engine, a, p[a]) for a in range(n)]
    won = {int(work.cand[a, C_IMP]): rows[a] for a in bids}
    for a, row in enumerate(rows):
        best = won.get(int(work.cand[a, C_IMP]))
        if a in bids:
            row["bid"] = float(bids[a][B_PRICE] / 1e6)
            row["reserved_micros"] = int(bids[a][B_RESERVE])
        row["result"] = _result(row, a in bids, best)
    out["candidates"] = sorted(rows, key=lambda row: (row["imp"], row["result"] != "bids", -row["surplus_usd"]))
    names = {int(item["id"]): str(item["name"]) for item in engine.plan.snapshot.meta["line_items"]}
    for row in rows:
        row["name"] = names.get(row["line_item"], "")
    out["others"] = _others(engine, {row["line_item"] for row in rows}, names)
    return out


def _candidate(engine: Engine, a: int, p: Any) -> dict[str, Any]:
    """What the engine knows of candidate ``a``."""
    work, plan = engine.work, engine.plan
    c = work.cand[a]
    li = int(c[C_LI])
    offer = plan.li_v[li]
    usd = float(plan.account_usd[li])
    multiplier = float(engine.slices.multiplier[li])
    odds = p.astype(np.float64) * engine.factor[li]
    q = odds / (1.0 - p + odds)
    value = float(work.value[a])
    fixed = bool(plan.fixed_bid[li])
    meta = plan.snapshot.meta
    code = meta["currencies"]
    of = next(row for row in meta["offers"] if row["id"] == plan.li_i[li, LI_OFFER])
    boost = 1.0 + float(c[C_BOOST]) * 1e-6
    odds = engine.odds(a)
    to_win = odds.price_to_win()
    bid_usd = abs(float(work.bid_cpm[a])) * float(plan.cur_usd[work.q[0, Q_CURRENCY]])
    return {
        "imp": int(c[C_IMP]),
        "line_item": int(plan.ids[li]),
        "offer": of["name"],
        "lender": of["lender"],
        "creative": int(plan.cr_i[c[C_CR], CR_ID]),
        "media": MEDIA.get(int(c[C_MEDIA]), "?"),
        "auction": AUCTIONS.get(int(c[C_AT]), "?"),
        "deal": bool(c[C_DEAL] >= 0),
        "model": engine.scored_by,
        "scores": {head: float(f"{score:.4g}") for head, score in zip(HEADS, p.tolist(), strict=True)},
        "corrected": {head: float(f"{score:.4g}") for head, score in zip(HEADS, q.tolist(), strict=True)},
        "strategy": "fixed bid" if fixed else "value",
        "currency": code[int(plan.li_i[li, LI_CURRENCY])],
        "value": value,
        "expected": {} if fixed else _expected(q, offer),
        "multiplier": multiplier,
        "experiment": int(c[C_EXPERIMENT]),
        "arm": int(c[C_ARM]),
        "worth_usd": value * (1.0 if fixed else multiplier) * boost * usd * 1e3,
        "floor_usd": float(c[C_FLOOR] * plan.cur_usd[c[C_FLOORCUR]] / 1e6),
        "cap_usd": float(plan.li_i[li, LI_MAX_BID] * usd / 1e6),
        "price_to_win_usd": to_win / 1e6 if to_win < float("inf") else None,
        "win_chance": odds.wins(bid_usd) if bid_usd > 0 else 0.0,
        "bid_currency": code[int(work.q[0, Q_CURRENCY])],
        "bid": float(work.bid_cpm[a] / 1e6),
        "surplus_usd": float(work.surplus[a] / 1e6),
    }


def _expected(q: F64, offer: F64) -> dict[str, float]:
    """What the value adds up from: ``margin``, ``payouts`` and ``default`` (what the chance of it takes off)."""
    reached = np.cumprod(q[:4])
    payouts = offer[[LIV_PAYOUT_CLICK, LIV_PAYOUT_APPLY, LIV_PAYOUT_APPROVE, LIV_PAYOUT_FUND]]
    return {
        "margin": float(reached[3] * offer[LIV_MARGIN]),
        "payouts": float(reached @ payouts),
        "default": float(-reached[3] * q[4] * offer[LIV_LGD] * offer[LIV_EAD]),
    }


def _result(row: dict[str, Any], bids: bool, best: dict[str, Any] | None) -> str:
    if bids:
        return "bids"
    if row["surplus_usd"] <= -1e-6:  # never priced
        if row["floor_usd"] > row["worth_usd"]:
            return f"worth {row['worth_usd']:.4g} USD, less than the floor of {row['floor_usd']:.4g}"
        if row["floor_usd"] > row["cap_usd"]:
            return f"may bid at most {row['cap_usd']:.4g} USD, less than the floor of {row['floor_usd']:.4g}"
        return f"worth {row['worth_usd']:.4g} USD, too little to bid"
    if row["bid"] < 0:
        return f"would have bid {-row['bid']:.4g}, but its person is held out by arm {row['arm']} of an experiment"
    if row["bid"] == 0:
        return "its slice of the budget does not hold one bid, or it bids on another imp already"
    if best is None:
        return "nothing of this imp could bid"
    return (
        f"expected surplus {row['surplus_usd']:.4g} USD, less than the {best['surplus_usd']:.4g} of line item "
        f"{best['line_item']} ({best['lender']}, {best['offer']})"
    )


def _others(engine: Engine, shown: set[int], names: dict[int, str]) -> list[dict[str, Any]]:
    """Line items whose targeting matched and that still are no candidates."""
    words = engine.work.matched[0]
    out = []
    for li in range(engine.plan.n):
        number = int(engine.plan.ids[li])
        if number in shown or not int(words[li >> 6]) >> (li & 63) & 1:
            continue
        why = "no ad fits, its deal is not offered, or other line items rank before it"
        if engine.slices.available[li] <= 0:
            why = "no budget is left"
        out.append({"line_item": number, "name": names.get(number, ""), "result": why})
        if len(out) == _LISTED:
            break
    return out
