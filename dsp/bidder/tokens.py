"""The token records of a batch's bids, packed by one kernel into uint8[n, TOKEN_BYTES] (`dsp.base.token`)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dsp.audience.consent import FREQUENCY, JOIN
from dsp.base.kernel import inlined, kernel
from dsp.base.token import TOKEN, TOKEN_BYTES, TOKEN_CONSENT, TOKEN_PERSONALISED, TOKEN_TEST
from dsp.bidder.gate import Q_BITS, Q_CURRENCY, Q_FOUND
from dsp.bidder.price import B_CAND, B_PRICE, B_RESERVE
from dsp.bidder.rank import C_ARM, C_AT, C_CR, C_IMP, C_LI
from dsp.catalog.layout import CR_ID, CR_MEDIA, EX_ID, LI_CURRENCY, LI_ID
from dsp.openrtb.columns import I_REQ, R_EXCHANGE, R_TEST

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]


def _at(name: str) -> int:
    fields = TOKEN.fields
    assert fields is not None
    return int(fields[name][1])


T_FLAGS, T_EXCHANGE, T_LINE_ITEM, T_CREATIVE = _at("flags"), _at("exchange"), _at("line_item"), _at("creative")
T_RESERVE, T_BID, T_CURRENCY, T_FX = _at("reserve_micros"), _at("bid_cpm_micros"), _at("currency"), _at("fx")
T_PERIOD, T_BUCKET, T_LEASE, T_EPOCH = _at("period"), _at("bucket"), _at("lease"), _at("epoch")
T_BID_ID, T_TIME, T_MEDIA, T_AT, T_PERSON = _at("bid_id"), _at("time_s"), _at("media"), _at("at"), _at("person")
T_ARM = _at("arm")


@inlined
def _put(row: U8, at: int, value: int, size: int) -> None:
    """``value`` as little-endian ``size`` bytes at ``row[at]``."""
    v = np.uint64(value)
    for k in range(size):
        row[at + k] = np.uint8(v & np.uint64(0xFF))
        v >>= np.uint64(8)


@kernel
def write_tokens(
    n: int,
    bids: I64,
    cand: I64,
    imp: I64,
    req: I64,
    q: I64,
    subjects: U8,
    known: I64,
    li_i: I64,
    cr_i: I64,
    ex_i: I64,
    cur_code: U8,
    cur_usd: F64,
    fx_bits: I64,
    period: I64,
    kid: int,
    bucket: int,
    lease: int,
    epoch: int,
    first_bid_id: int,
    now_s: int,
    out: U8,
) -> None:
    """Pack the records of ``n`` bids; bid b gets id ``first_bid_id + b``; the person field holds the subject
    of frequency in the clear, for the encoder to encrypt, where it may be counted, and zeros elsewhere.

    ``cur_code`` uint8[M, 3]; ``fx_bits`` int64[X, M, M]: bits of the float64 rate account currency per bid currency,
    the exchange's fee included, so that what is charged is what it costs.
    """
    for b in range(n):
        row = out[b]
        for k in range(TOKEN_BYTES):
            row[k] = 0
        c = cand[bids[b, B_CAND]]
        r = imp[c[C_IMP], I_REQ]
        li = c[C_LI]
        row[0] = np.uint8(kid)
        flags = 0
        if req[r, R_TEST] == 1:
            flags |= TOKEN_TEST
        if (q[r, Q_BITS] & FREQUENCY) != 0 and known[r] != 0:
            flags |= TOKEN_CONSENT
            for k in range(16):
                row[T_PERSON + k] = subjects[r, k]
        if (q[r, Q_BITS] & JOIN) != 0 and q[r, Q_FOUND] != 0:
            flags |= TOKEN_PERSONALISED
        row[T_FLAGS] = np.uint8(flags)
        _put(row, T_EXCHANGE, ex_i[req[r, R_EXCHANGE], EX_ID], 2)
        _put(row, T_LINE_ITEM, li_i[li, LI_ID], 4)
        _put(row, T_CREATIVE, cr_i[c[C_CR], CR_ID], 4)
        _put(row, T_RESERVE, bids[b, B_RESERVE], 8)
        _put(row, T_BID, bids[b, B_PRICE], 8)
        currency = q[r, Q_CURRENCY]
        for k in range(3):
            row[T_CURRENCY + k] = cur_code[currency, k]
        _put(row, T_FX, fx_bits[req[r, R_EXCHANGE], currency, li_i[li, LI_CURRENCY]], 8)
        _put(row, T_PERIOD, period[li], 4)
        _put(row, T_BUCKET, bucket, 4)
        _put(row, T_LEASE, lease, 4)
        _put(row, T_EPOCH, epoch, 4)
        _put(row, T_BID_ID, first_bid_id + b, 8)
        _put(row, T_TIME, now_s, 4)
        row[T_MEDIA] = np.uint8(cr_i[c[C_CR], CR_MEDIA])
        row[T_AT] = np.uint8(c[C_AT])
        row[T_ARM] = np.uint8(c[C_ARM])
