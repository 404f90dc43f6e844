"""Stage 5, eligibility: which deal of an imp a line item may use, and the floor its bid then has.

Floors by OpenRTB 2.6: a deal's own, else the open auction's; for video by duration bands, then per second, then
imp.bidfloor. A deal's currency is USD unless it names one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dsp.base.kernel import inlined, kernel
from dsp.bidder.fit import duration_of, medium_of
from dsp.catalog.index import find_row
from dsp.catalog.layout import DIM_DEAL
from dsp.openrtb.columns import (
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
    I_DEAL0,
    I_DEALN,
    I_FLOOR,
    I_FLOORCUR,
    I_V_DURFLOORS0,
    I_V_DURFLOORSN,
    I_V_MINCPMPERSEC,
    VIDEO,
)

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
U64 = npt.NDArray[np.uint64]


@kernel
def duration_floor(pool: I64, start: int, count: int, duration_s: int) -> int:
    """The floor of the duration band that holds ``duration_s`` (OpenRTB 2.6 durfloors), -1 if none does."""
    for k in range(count):
        at = start + k * DURFLOOR_WIDTH
        if (pool[at] < 0 or duration_s >= pool[at]) and (pool[at + 1] < 0 or duration_s <= pool[at + 1]):
            return pool[at + 2]
    return -1


@inlined
def imp_floor(imp: I64, i: int, pool: I64, shape: int) -> int:
    """The open auction's floor for an ad of this shape: durations, then mincpmpersec, then imp.bidfloor."""
    if medium_of(shape) == VIDEO:
        floor = duration_floor(pool, imp[i, I_V_DURFLOORS0], imp[i, I_V_DURFLOORSN], duration_of(shape))
        if floor >= 0:
            return floor
        if imp[i, I_V_MINCPMPERSEC] > 0:
            return imp[i, I_V_MINCPMPERSEC] * duration_of(shape)
    return imp[i, I_FLOOR]


@kernel
def deal_floor(deals: I64, d: int, imp: I64, i: int, pool: I64, shape: int, usd: int) -> tuple[int, int]:
    """(floor in CPM micros, hash of its currency) of a bid through a deal with an ad of this shape."""
    if medium_of(shape) == VIDEO:
        floor = duration_floor(pool, deals[d, D_DURFLOORS0], deals[d, D_DURFLOORSN], duration_of(shape))
        if floor >= 0:
            return floor, (deals[d, D_FLOORCUR] if deals[d, D_FLOORCUR] != 0 else usd)
    if deals[d, D_FLOOR] > 0:
        return deals[d, D_FLOOR], (deals[d, D_FLOORCUR] if deals[d, D_FLOORCUR] != 0 else usd)
    return imp_floor(imp, i, pool, shape), (imp[i, I_FLOORCUR] if imp[i, I_FLOORCUR] != 0 else usd)


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


@inlined
def known_deals(imp: I64, i: int, deals: I64, keys: U64, key_rows: I32, out: I32) -> int:
    """The imp's deals that some line item names, as (row of ``deals``, bitmap row) in ``out`` int32[n, 2]; how many."""
    n = 0
    for d in range(imp[i, I_DEAL0], imp[i, I_DEAL0] + imp[i, I_DEALN]):
        row = find_row(keys, key_rows, DIM_DEAL, deals[d, D_ID])
        if row >= 0 and n < out.shape[0]:
            out[n, 0], out[n, 1] = d, row
            n += 1
    return n


@inlined
def find_deal(known: I32, n: int, deals: I64, pool: I64, li: int, seat: int, domains: I64, a: int, rows: U64) -> int:
    """The first of the imp's `known_deals` that line item ``li`` may use: its row of ``deals``, -1 if none."""
    word, bit = li >> 6, np.uint64(1) << np.uint64(li & 63)
    for k in range(n):
        if (rows[known[k, 1], word] & bit) != np.uint64(0) and deal_admits(deals, known[k, 0], pool, seat, domains, a):
            return known[k, 0]
    return -1
