"""Stage 5, frequency and suppression: who has seen enough, or is past it. Two kernels per batch.

`drop_capped` takes candidates out before they are scored: the person is on a suppression list, or at a life-cycle stage
(by the profile, or by a conversion since) that the line item doesn't advertise to; a cap is reached; or the person's
state isn't known (no consent to count, no identifier, a store without an answer) and the line item has caps and doesn't
say ``allow_uncapped``.
`reserve_caps` books what was selected as bids in flight (`dsp.audience.inflight`); of two bids that together would
exceed a cap, in one response, in two workers, only one goes out. Both are exact on one host.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dsp.audience.frequency import S_LIFECYCLE, room
from dsp.audience.inflight import FULL, RESERVED, reserve
from dsp.audience.profile import P_LIFECYCLE, P_SUPPRESS
from dsp.base.kernel import kernel
from dsp.base.memory import AHEAD, prefetch_cell, prefetch_row
from dsp.base.metrics import FREQUENCY_DROPS
from dsp.bidder.gate import Q_FOUND
from dsp.bidder.price import B_CAND, B_PRICE, B_RESERVE
from dsp.bidder.rank import C_CR, C_IMP, C_LI, C_WIDTH
from dsp.catalog.layout import EX_EXP_S, LI_FLAGS, LI_PRODUCT, LI_SUPPRESS, LIF_ALLOW_UNCAPPED
from dsp.openrtb.columns import I_REQ, R_EXCHANGE, R_TEST

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]

# Counters of `out` int64[COUNTERS]: candidates dropped because a cap is reached, because nobody knows, because the
# person is suppressed; bids withdrawn because another is in flight, because the table was full there.
# Their names are `FREQUENCY_DROPS`.
(DROPPED_CAPPED, DROPPED_UNKNOWN, SUPPRESSED, WITHDRAWN, TABLE_FULL) = range(5)
COUNTERS = len(FREQUENCY_DROPS)


@kernel
def drop_capped(
    n: int,
    cand: I64,
    cand_imp: I32,
    cand_li: I32,
    imp: I64,
    q: I64,
    li_i: I64,
    profiles: U8,
    caps: I64,
    cr_caps: I32,
    states: U8,
    known: I64,
    now_s: int,
    out: I64,
) -> int:
    """Keep the candidates that may be shown, in order; how many. ``cand_imp`` and ``cand_li`` follow ``cand``.

    ``states`` uint8[requests, STATE_BYTES], ``known`` int64[requests]; ``caps``, ``cr_caps``: of the snapshot.
    """
    kept = 0
    for c in range(n):
        ahead = min(c + AHEAD, n - 1)
        prefetch_cell(li_i, cand[ahead, C_LI], LI_PRODUCT)
        prefetch_cell(li_i, cand[ahead, C_LI], LI_SUPPRESS)
        prefetch_row(cr_caps, cand[ahead, C_CR])
        r = imp[cand[c, C_IMP], I_REQ]
        li = cand[c, C_LI]
        product = li_i[li, LI_PRODUCT]
        stage = 0
        if q[r, Q_FOUND] != 0:
            if profiles[r, P_SUPPRESS] != 0:
                out[SUPPRESSED] += 1
                continue
            stage = int(profiles[r, P_LIFECYCLE + product])
        if known[r] != 0:
            stage = max(stage, int(states[r, S_LIFECYCLE + product]))
        if (li_i[li, LI_SUPPRESS] >> stage) & 1:
            out[SUPPRESSED] += 1
            continue
        creative = cand[c, C_CR]
        first, last = cr_caps[creative, 0], cr_caps[creative, 1]
        if last > first:
            if known[r] == 0:
                if li_i[li, LI_FLAGS] & LIF_ALLOW_UNCAPPED == 0:
                    out[DROPPED_UNKNOWN] += 1
                    continue
            elif room(states[r], 1, caps, first, last, now_s) == 0:
                out[DROPPED_CAPPED] += 1
                continue
        if kept != c:
            for k in range(C_WIDTH):
                cand[kept, k] = cand[c, k]
            cand_imp[kept], cand_li[kept] = cand_imp[c], cand_li[c]
        kept += 1
    return kept


@kernel
def reserve_caps(
    n_bids: int,
    n_requests: int,
    bids: I64,
    first_bid: I64,
    cand: I64,
    imp: I64,
    req: I64,
    ex_i: I64,
    caps: I64,
    cr_caps: I32,
    states: U8,
    known: I64,
    subjects: U8,
    table: U64,
    hosts: int,
    now_s: int,
    available: I64,
    reserved: I64,
    out: I64,
) -> int:
    """Book the bids of a batch as in flight; those that can't be are taken out, their budget given back.

    Returns the bids left. Test requests book nothing. ``table``: of `InFlight`; a booking ends at ``now_s`` + the
    exchange's exp, which is what the token says, too.
    """
    kept = 0
    b = 0
    for r in range(n_requests):
        end = first_bid[r + 1]
        first_bid[r] = kept
        while b < end:
            c = bids[b, B_CAND]
            first, last = cr_caps[cand[c, C_CR], 0], cr_caps[cand[c, C_CR], 1]
            came = RESERVED
            if last > first and known[r] != 0 and req[r, R_TEST] != 1:
                until_s = now_s + ex_i[req[r, R_EXCHANGE], EX_EXP_S]
                came = reserve(table, subjects[r], states[r], 1, caps, first, last, now_s, until_s, hosts)
            if came == RESERVED:
                bids[kept, B_CAND], bids[kept, B_PRICE] = bids[b, B_CAND], bids[b, B_PRICE]
                bids[kept, B_RESERVE] = bids[b, B_RESERVE]
                kept += 1
            else:
                out[TABLE_FULL if came == FULL else WITHDRAWN] += 1
                if req[r, R_TEST] != 1:
                    li = cand[c, C_LI]
                    available[li] += bids[b, B_RESERVE]
                    reserved[li] -= bids[b, B_RESERVE]
            b += 1
    first_bid[n_requests] = kept
    return kept
