"""Stage 11, log: the rows of a batch's bids, written by one kernel into the decision log's own columns."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dsp.base.kernel import kernel
from dsp.bidder.price import ARM_CHALLENGER, ARM_GHOST, B_CAND, B_PRICE, B_RESERVE
from dsp.bidder.rank import (
    C_ARM,
    C_ARM_FLAGS,
    C_AT,
    C_CHANCE,
    C_CR,
    C_EXPERIMENT,
    C_IMP,
    C_LI,
    C_MEDIA,
    C_UNIT,
)
from dsp.bidder.tokens import T_FLAGS
from dsp.catalog.layout import CR_ID, EX_ID, LI_ID
from dsp.openrtb.columns import I_REQ, R_EXCHANGE

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
U32 = npt.NDArray[np.uint32]
U16 = npt.NDArray[np.uint16]
U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]


@kernel
def log_bids(
    n: int,
    first_row: int,
    first_bid_id: int,
    now_s: int,
    bids: I64,
    cand: I64,
    imp: I64,
    req: I64,
    li_i: I64,
    cr_i: I64,
    ex_i: I64,
    records: U8,
    p: F32,
    values: F64,
    multipliers: F64,
    rows: F32,
    version: int,
    challenger: int,
    bid_id: U64,
    time_ms: I64,
    line_item: U32,
    creative: U32,
    exchange: U16,
    media: U8,
    flags: U8,
    at: U8,
    bid_cpm_micros: I64,
    reserve_micros: I64,
    value: F64,
    heads: F32,
    multiplier: F32,
    propensity: F32,
    model: U32,
    experiment: U32,
    arm: U8,
    unit: U32,
    ghost: U8,
    features: F32,
) -> None:
    """Write ``n`` bids to the columns of `dsp.log.decisions.DECISION_FIELDS` and features, from ``first_row`` on.

    ``records`` are the bids' token records, ``p`` float32[m, 5], ``values`` float64[m] and ``rows`` float32[m, F] those
    of the candidates, ``version`` that of the model that scored them, ``challenger`` that of
    the one that scored the candidates of an arm that asks for it.
    """
    for b in range(n):
        to = first_row + b
        a = bids[b, B_CAND]
        li = cand[a, C_LI]
        bid_id[to] = first_bid_id + b
        time_ms[to] = now_s * 1000
        line_item[to] = li_i[li, LI_ID]
        creative[to] = cr_i[cand[a, C_CR], CR_ID]
        exchange[to] = ex_i[req[imp[cand[a, C_IMP], I_REQ], R_EXCHANGE], EX_ID]
        media[to] = cand[a, C_MEDIA]
        flags[to] = records[b, T_FLAGS]
        at[to] = cand[a, C_AT]
        bid_cpm_micros[to] = bids[b, B_PRICE]
        reserve_micros[to] = bids[b, B_RESERVE]
        value[to] = values[a]
        multiplier[to] = multipliers[li]
        propensity[to] = cand[a, C_CHANCE] * 1e-6
        model[to] = challenger if cand[a, C_ARM_FLAGS] & ARM_CHALLENGER else version
        experiment[to] = cand[a, C_EXPERIMENT]
        arm[to] = cand[a, C_ARM]
        unit[to] = cand[a, C_UNIT]
        ghost[to] = cand[a, C_ARM_FLAGS] & ARM_GHOST
        for k in range(heads.shape[1]):
            heads[to, k] = p[a, k]
        for k in range(features.shape[1]):
            features[to, k] = rows[a, k]
