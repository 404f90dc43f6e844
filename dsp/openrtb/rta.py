"""RTA on the wire: a batch of `RtaRequest` messages (``proto/tencent/ad/rta``) to columns, by one kernel.

One pass over the wire format, no message objects. As the official library does it, the last value of a scalar counts
and what isn't known is stepped over; what is broken marks its own row and nothing else. Spans are (offset, length) in
the joined text. A request is some 95 bytes, so unlike `dsp.openrtb.decode` this needs no table: the field numbers are
in the code.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dsp.base.kernel import kernel
from dsp.openrtb.fields import field, varint

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

MAX_EXPS = 16  # experiments of one request; further ones are ignored
MAX_ADS = 64  # ads of a second-stage request; further ones get no result, which means unchanged
MAX_ID_BYTES = 256  # of a request's id, which is echoed

# --- columns of a request: int64[n, A_WIDTH] ------------------------------------------------------------------------
(
    A_STATUS,  # 0, or 1 where the bytes are not an RtaRequest
    A_ID_OFF, A_ID_LEN,
    A_PING, A_TEST, A_OS,
    A_DOUBTFUL,  # bit per DeviceIdTag
    A_ADLIST,  # 1 for a second-stage request
    A_EXPS, A_ADS,  # how many there are
    A_IDFA_OFF, A_IDFA_LEN, A_IMEI_OFF, A_IMEI_LEN, A_ANDROID_OFF, A_ANDROID_LEN, A_MAC_OFF, A_MAC_LEN,
    A_OAID_OFF, A_OAID_LEN, A_QAID_OFF, A_QAID_LEN, A_QAIDMD5_OFF, A_QAIDMD5_LEN,
    A_QAID_VERSION,  # of the CAID kept: the highest
) = range(25)  # fmt: skip
A_WIDTH = 25

# --- ads of a second-stage request: int64[n, MAX_ADS, AD_WIDTH] ------------------------------------------------------
AD_GROUP, AD_TARGET_OFF, AD_TARGET_LEN = range(3)
AD_WIDTH = 3


@kernel
def _qaid(text: U8, at: int, end: int, row: I64) -> bool:
    """A CAID; of several versions the newest is kept."""
    version = id_off = id_len = md5_off = md5_len = 0
    while at < end:
        number, value, start, at = field(text, at, end)
        if at < 0:
            return False
        if number == 1:
            version = value
        elif number == -2:
            id_off, id_len = start, value
        elif number == -4:
            md5_off, md5_len = start, value
    if version >= row[A_QAID_VERSION]:
        row[A_QAID_VERSION] = version
        row[A_QAID_OFF], row[A_QAID_LEN] = id_off, id_len
        row[A_QAIDMD5_OFF], row[A_QAIDMD5_LEN] = md5_off, md5_len
    return True


@kernel
def _device(text: U8, at: int, end: int, row: I64) -> bool:
    while at < end:
        number, value, start, at = field(text, at, end)
        if at < 0:
            return False
        if number == 1:
            row[A_OS] = value
        elif -6 <= number <= -2:
            column = A_IDFA_OFF + 2 * (-number - 2)
            row[column], row[column + 1] = start, value
        elif number == 9:
            if 0 <= value < 63:
                row[A_DOUBTFUL] |= np.int64(1) << value
        elif number == -9:  # packed
            inner = start
            while inner < at:
                tag, inner = varint(text, inner, at)
                if inner < 0:
                    return False
                if 0 <= tag < 63:
                    row[A_DOUBTFUL] |= np.int64(1) << tag
        elif number == -13:
            if not _qaid(text, start, at, row):
                return False
    return True


@kernel
def _number_in(text: U8, at: int, end: int, wanted: int) -> tuple[int, bool]:
    """The last value of the integer field ``wanted`` of a message, and whether the message is sound."""
    found = 0
    while at < end:
        number, value, _, at = field(text, at, end)
        if at < 0:
            return 0, False
        if number == wanted:
            found = value
    return found, True


@kernel
def _ad(text: U8, at: int, end: int, ad: I64) -> bool:
    ad[AD_GROUP] = ad[AD_TARGET_OFF] = ad[AD_TARGET_LEN] = 0
    while at < end:
        number, value, start, at = field(text, at, end)
        if at < 0:
            return False
        if number == 1:
            ad[AD_GROUP] = value
        elif number == -5:
            ad[AD_TARGET_OFF], ad[AD_TARGET_LEN] = start, value
    return True


@kernel
def _request(text: U8, at: int, end: int, row: I64, exps: I64, ads: I64) -> bool:
    while at < end:
        number, value, start, at = field(text, at, end)
        if at < 0:
            return False
        good = True
        if number == -1:
            row[A_ID_OFF], row[A_ID_LEN] = start, value
        elif number == 2:
            row[A_PING] = 1 if value != 0 else 0
        elif number == 3:
            row[A_TEST] = 1 if value != 0 else 0
        elif number == -5:
            good = _device(text, start, at, row)
        elif number == -8:
            kind, good = _number_in(text, start, at, 1)
            row[A_ADLIST] = 1 if kind == 2 else 0
        elif number == -9:
            exp, good = _number_in(text, start, at, 1)
            if row[A_EXPS] < MAX_EXPS:
                exps[row[A_EXPS]] = exp
                row[A_EXPS] += 1
        elif number == -11:
            if row[A_ADS] < MAX_ADS:
                good = _ad(text, start, at, ads[row[A_ADS]])
                row[A_ADS] += 1
        if not good:
            return False
    return row[A_ID_LEN] <= MAX_ID_BYTES


@kernel
def decode_rta(text: U8, ends: I64, n: int, rows: I64, exps: I64, ads: I64) -> None:
    """Fill ``rows`` int64[n, A_WIDTH], ``exps`` int64[n, MAX_EXPS], ``ads`` int64[n, MAX_ADS, AD_WIDTH].

    Body i is ``text[ends[i-1]:ends[i]]``. A broken body's row is zeros but for A_STATUS.
    """
    start = 0
    for i in range(n):
        row = rows[i]
        row[:] = 0
        if not _request(text, start, ends[i], row, exps[i], ads[i]):
            row[:] = 0
            row[A_STATUS] = 1
        start = ends[i]
