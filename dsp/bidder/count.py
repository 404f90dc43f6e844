"""Metrics of a batch in one kernel: which request got what, and why not."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dsp.audience.consent import JOIN
from dsp.base.kernel import kernel
from dsp.base.metrics import NBR_CODES, nbr_slot
from dsp.bidder.answer import BAD, BID, NO_BID, SHED
from dsp.bidder.gate import BAD_REQUEST, GO, OVER_QPS, Q_BITS, Q_FOUND, Q_NBR, Q_REASON
from dsp.bidder.price import B_CAND
from dsp.bidder.rank import C_CR
from dsp.bidder.reason import REASONS
from dsp.catalog.layout import CR_MEDIA
from dsp.model.curves import media_slot
from dsp.openrtb.columns import R_EXCHANGE, R_IMPS_DROPPED, R_STATUS

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

FOUND, MISSING, DENIED = 0, 1, 2  # dsp_profiles_total
SHED_QPS = 1  # dsp_shed_total
CONSENT_BITS = 7

NBR_SLOTS = np.array([nbr_slot(code) for code in range(max(NBR_CODES) + 1)], np.int64)


@kernel
def count_batch(
    n: int,
    req: I64,
    q: I64,
    first_bid: I64,
    bids: I64,
    cand: I64,
    cr_i: I64,
    surplus: F64,
    requests: I64,
    no_bids: I64,
    bid_counts: I64,
    bad: I64,
    shed: I64,
    consent: I64,
    profiles: I64,
    imps_dropped: I64,
    worth: I64,
    nbr_slots: I64,
) -> None:
    """Add one batch to the counters of `dsp.base.metrics` (arrays by their definitions' label order)."""
    for r in range(n):
        x = min(req[r, R_EXCHANGE], requests.shape[0] - 1)
        code = q[r, Q_NBR]
        if code == BAD_REQUEST:
            requests[x, BAD] += 1
            bad[min(req[r, R_STATUS], bad.shape[0] - 1)] += 1
            continue
        if code == OVER_QPS:
            requests[x, SHED] += 1
            shed[SHED_QPS] += 1
            continue
        imps_dropped[0] += req[r, R_IMPS_DROPPED]
        if code == GO:
            consent[q[r, Q_BITS] & CONSENT_BITS] += 1
            if q[r, Q_FOUND] != 0:
                profiles[FOUND] += 1
            elif (q[r, Q_BITS] & JOIN) != 0:
                profiles[MISSING] += 1
            else:
                profiles[DENIED] += 1
        if first_bid[r + 1] > first_bid[r]:
            requests[x, BID] += 1
            for b in range(first_bid[r], first_bid[r + 1]):
                c = bids[b, B_CAND]
                bid_counts[x, media_slot(cr_i[cand[c, C_CR], CR_MEDIA])] += 1
                worth[x] += np.int64(max(0.0, surplus[c]))
        else:
            requests[x, NO_BID] += 1
            no_bids[nbr_slots[REASONS[q[r, Q_REASON]] if code == GO else code]] += 1
