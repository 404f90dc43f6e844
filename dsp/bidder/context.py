"""The context columns of every imp (`dsp.model.context`): what the feature function sees of a request."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dsp.audience.consent import SPECIAL
from dsp.base.kernel import kernel
from dsp.bidder.deal import currency_index
from dsp.bidder.gate import GO, Q_AT, Q_BITS, Q_BROWSER, Q_FOUND, Q_NBR, Q_OS, Q_TIER1
from dsp.model.context import (
    CTX_AT,
    CTX_BROWSER,
    CTX_CATEGORY,
    CTX_CHANNEL,
    CTX_CONNECTION,
    CTX_COUNTRY,
    CTX_DAY,
    CTX_DEVICETYPE,
    CTX_EXCHANGE,
    CTX_FLOOR,
    CTX_H,
    CTX_HAS_DEAL,
    CTX_HOUR,
    CTX_INSTL,
    CTX_MEDIA,
    CTX_OS,
    CTX_POS,
    CTX_PROFILE,
    CTX_SITE,
    CTX_SPECIAL,
    CTX_W,
    CTX_WEEKDAY,
)
from dsp.openrtb.columns import (
    CHANNEL_APP,
    I_B_POS,
    I_B_SIZES0,
    I_B_SIZESN,
    I_DEALN,
    I_FLOOR,
    I_FLOORCUR,
    I_INSTL,
    I_MEDIA,
    I_REQ,
    I_V_H,
    I_V_W,
    R_BUNDLE,
    R_CHANNEL,
    R_CONNECTIONTYPE,
    R_COUNTRY,
    R_DEVICETYPE,
    R_DOMAIN,
    R_EXCHANGE,
    R_UTCOFFSET,
)

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

DAY_S = 86_400


@kernel
def fill_context(
    n_imps: int, imp: I64, req: I64, pool: I64, q: I64, now_s: int, cur_hash: I64, cur_usd: F64, usd: int, ctx: I64
) -> None:
    """Fill ``ctx`` int64[n_imps, CTX_WIDTH] for the imps of requests that are still in the running."""
    for i in range(n_imps):
        r = imp[i, I_REQ]
        if q[r, Q_NBR] != GO:
            continue
        row = ctx[i]
        local_s = now_s + min(max(req[r, R_UTCOFFSET], -840), 840) * 60
        day = local_s // DAY_S
        row[CTX_PROFILE] = r if q[r, Q_FOUND] != 0 else -1
        row[CTX_HOUR] = (local_s - day * DAY_S) // 3600
        row[CTX_WEEKDAY] = (day + 3) % 7  # 1970-01-01 was a Thursday
        row[CTX_DAY] = day
        row[CTX_DEVICETYPE] = req[r, R_DEVICETYPE]
        row[CTX_OS] = q[r, Q_OS]
        row[CTX_BROWSER] = q[r, Q_BROWSER]
        row[CTX_CONNECTION] = req[r, R_CONNECTIONTYPE]
        row[CTX_CHANNEL] = req[r, R_CHANNEL]
        row[CTX_CATEGORY] = q[r, Q_TIER1]
        row[CTX_MEDIA] = imp[i, I_MEDIA]
        if imp[i, I_B_SIZESN] > 0:
            size = pool[imp[i, I_B_SIZES0]]
            row[CTX_W] = size >> 16
            row[CTX_H] = size & 0xFFFF
        else:
            row[CTX_W] = imp[i, I_V_W]
            row[CTX_H] = imp[i, I_V_H]
        row[CTX_POS] = imp[i, I_B_POS]
        row[CTX_INSTL] = imp[i, I_INSTL]
        currency = currency_index(cur_hash, imp[i, I_FLOORCUR] if imp[i, I_FLOORCUR] != 0 else usd)
        row[CTX_FLOOR] = np.int64(imp[i, I_FLOOR] * cur_usd[currency]) if currency >= 0 else imp[i, I_FLOOR]
        row[CTX_AT] = q[r, Q_AT]
        row[CTX_EXCHANGE] = req[r, R_EXCHANGE]
        row[CTX_HAS_DEAL] = 1 if imp[i, I_DEALN] > 0 else 0
        row[CTX_SITE] = req[r, R_BUNDLE] if req[r, R_CHANNEL] == CHANNEL_APP else req[r, R_DOMAIN]
        row[CTX_COUNTRY] = req[r, R_COUNTRY]
        row[CTX_SPECIAL] = 1 if (q[r, Q_BITS] & SPECIAL) != 0 else 0
