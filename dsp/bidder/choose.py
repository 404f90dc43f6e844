"""Which ad a candidate shows, where not every ad of its line item may be shown to everybody.

`dsp.bidder.rank` takes any of a line item's ads that fit the slot. Where ads have conditions (parts of dynamic
creatives that fit a time of day, a place, a segment) or the person is in an arm with ads of its own, one is chosen
again from those that remain, by the same shares, so that the bandit's floor holds among them too; without any the
candidate goes. Conditions are matched as targeting is, over a bitmap index of their own.

Nothing of this runs while no ad has a condition and no experiment has ads of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dsp.base.kernel import kernel
from dsp.bidder.deal import currency_index, deal_floor, imp_floor
from dsp.bidder.fit import fits, medium_of
from dsp.bidder.gate import GO, Q_NBR
from dsp.bidder.match import find_rows, match_words
from dsp.bidder.price import ARM_CREATIVES
from dsp.bidder.rank import (
    C_ARM,
    C_ARM_FLAGS,
    C_CHANCE,
    C_CR,
    C_DEAL,
    C_FLOOR,
    C_FLOORCUR,
    C_IMP,
    C_LI,
    C_MEDIA,
    C_WIDTH,
    DEAL_ONLY,
    IT_CREATIVE0,
    IT_CREATIVES,
    UNIT,
    next_random,
)
from dsp.bidder.target import request_values
from dsp.catalog.layout import CR_LINE_ITEM
from dsp.catalog.snapshot import Snapshot
from dsp.openrtb.columns import I_FLOORCUR, I_REQ
from dsp.openrtb.limits import MAX_BATCH

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
F32 = npt.NDArray[np.float32]


class Conditions:
    """A snapshot's conditions of creatives, as `match_conditions` reads them, and where it writes which hold."""

    def __init__(self, snapshot: Snapshot, read_only: bool = True) -> None:
        """``read_only``: views that cannot be written to, as the line items' index has them."""

        def view(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
            out = np.ascontiguousarray(array).view()
            out.flags.writeable = not read_only
            return out

        self.of_creative: I32 = np.ascontiguousarray(snapshot.cr_when)
        self.rows, self.keys = view(snapshot.when_rows), view(snapshot.when_keys)
        self.key_rows, self.any = view(snapshot.when_key_rows), view(snapshot.when_any)
        self.used = view(snapshot.when_used)
        words = snapshot.when_rows.shape[1]
        self.everything: U64 = np.full(words, np.uint64(0xFFFFFFFFFFFFFFFF), np.uint64)
        self.hold: U64 = np.zeros((MAX_BATCH, words), np.uint64)
        self.either: U64 = np.zeros(words, np.uint64)
        self.line_item: U8 = np.zeros(len(snapshot.li_i), np.uint8)  # 1: some of its ads have conditions
        conditional = (self.of_creative != 0).any(axis=1)
        self.line_item[snapshot.cr_i[conditional, CR_LINE_ITEM]] = 1
        self.there = bool(conditional.any())


@kernel
def match_conditions(
    n: int, req: I64, pool: I64, text: U8, profiles: U8, q: I64, half_hour: int, today_d: int, rows: U64, keys: U64,
    key_rows: I32, any_row: I32, used: U8, tier1_keys: I64, tier1_values: I64, everything: U64, dims: I64, values: I64,
    ends: I64, absent: I64, found: I32, either: U64, hold: U64,
) -> None:  # fmt: skip
    """Fill ``hold`` uint64[n, words] with the conditions that hold for each request that may be bid on.

    As `dsp.bidder.target.target` over an index of conditions, but that the exchange's lists of who may bid are no
    concern of theirs.
    """
    for r in range(n):
        if q[r, Q_NBR] != GO:
            continue
        own_groups, groups, own_end, _ = request_values(
            r, req, q, pool, text, profiles, half_hour, today_d, used, tier1_keys, tier1_values, dims, values, ends,
            absent,
        )  # fmt: skip
        if groups < 0:
            continue
        _, end = find_rows(own_groups, own_end, own_end, dims, values, ends, absent, keys, key_rows, any_row, found)
        match_words(rows, everything, found, ends, own_groups, end, either, hold[r])


@kernel
def choose_again(
    n: int, cand: I64, cand_imp: I32, cand_li: I32, imp: I64, deals: I64, pool: I64, own_ads: U8, conditional: U8,
    whens: I32, hold: U64, item: I32, shapes: I64, ad: I64, cr_i: I64, share: F32, cur_hash: I64, usd: int, state: U64,
) -> int:  # fmt: skip
    """Choose anew where it matters, drop what has no ad left; how many remain. ``cand_imp``, ``cand_li`` follow.

    ``own_ads`` uint8[C] is a bit per number of the arms that may show a creative, ``conditional`` uint8[L] and
    ``whens`` int32[C, WHENS] are of `Conditions`, ``hold`` uint64[requests, words] which of them do; the rest as
    `dsp.bidder.rank.rank` takes it. The chance of the choice is noted.
    """
    kept = 0
    for c in range(n):
        own = cand[c, C_ARM_FLAGS] & ARM_CREATIVES != 0
        if own or conditional[cand[c, C_LI]] != 0:
            bit = np.uint8(1) << np.uint8(cand[c, C_ARM] - 1) if own else np.uint8(0)
            chosen = _choose(
                c, cand, imp, pool, own_ads, bit, whens, hold[imp[cand[c, C_IMP], I_REQ]], item, shapes, ad, cr_i,
                share, state,
            )  # fmt: skip
            if chosen < 0:
                continue
            _place(c, chosen, cand, imp, deals, pool, shapes, cur_hash, usd)
            if cand[c, C_FLOORCUR] < 0:
                continue
        if kept != c:
            for k in range(C_WIDTH):
                cand[kept, k] = cand[c, k]
            cand_imp[kept], cand_li[kept] = cand_imp[c], cand_li[c]
        kept += 1
    return kept


@kernel
def _choose(
    c: int, cand: I64, imp: I64, pool: I64, own_ads: U8, bit: np.uint8, whens: I32, hold: U64, item: I32, shapes: I64,
    ad: I64, cr_i: I64, share: F32, state: U64,
) -> int:  # fmt: skip
    """One of the creatives of candidate ``c`` that may be shown and fit, by their shares; -1: none."""
    li, i = cand[c, C_LI], cand[c, C_IMP]
    first = item[li, IT_CREATIVE0]
    total = np.float32(0.0)
    chosen = -1
    for at in range(first, first + (item[li, IT_CREATIVES] & ~DEAL_ONLY)):
        if bit != 0 and own_ads[at] & bit == 0:
            continue
        if not _holds(whens[at], hold) or not fits(imp, i, pool, shapes[at], ad, cr_i, at):
            continue
        total += share[at]
        if chosen < 0 or np.float32(next_random(state) >> np.uint64(40)) * UNIT * total < share[at]:
            chosen = at
    if chosen >= 0:
        cand[c, C_CHANCE] = int(share[chosen] / total * 1e6 + 0.5)
    return chosen


@kernel
def _holds(whens: I32, hold: U64) -> bool:
    """Whether all conditions of a creative (numbers + 1, 0 none) are among those that hold for a request."""
    for k in range(whens.shape[0]):
        when = whens[k] - 1
        if when >= 0 and (hold[when >> 6] >> np.uint64(when & 63)) & np.uint64(1) == 0:
            return False
    return True


@kernel
def _place(
    c: int, creative: int, cand: I64, imp: I64, deals: I64, pool: I64, shapes: I64, cur_hash: I64, usd: int
) -> None:
    """Let candidate ``c`` show ``creative``: medium and floor are that ad's."""
    i, deal, shape = cand[c, C_IMP], cand[c, C_DEAL], shapes[creative]
    if deal >= 0:
        floor, cur = deal_floor(deals, deal, imp, i, pool, shape, usd)
    else:
        floor = imp_floor(imp, i, pool, shape)
        cur = imp[i, I_FLOORCUR] if imp[i, I_FLOORCUR] != 0 else usd
    cand[c, C_CR], cand[c, C_MEDIA] = creative, medium_of(shape)
    cand[c, C_FLOOR], cand[c, C_FLOORCUR] = floor, currency_index(cur_hash, cur)
