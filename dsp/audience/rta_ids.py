"""Whom an RTA request asks about: its hashed device ids to peppered identity keys, in the platform's order of trust.

An id counts only if it is what it claims to be: an MD5 of 32 hexadecimal digits (either case), not the MD5 of nobody,
and not on the platform's list of doubtful ones. CAIDs are taken as they are. The keys are those that
`dsp.audience.identity` makes of the same ids in bid requests and files, so one profile answers both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numba as nb
import numpy as np
import numpy.typing as npt

from dsp.audience.identity import (
    HEADER_BYTES,
    KIND_DIDMD5,
    KIND_DPIDMD5,
    KIND_EID,
    KIND_MACMD5,
    MAX_ID_BYTES,
    put_key,
    refused,
)
from dsp.audience.store import MAX_KEYS

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]

MD5_DIGITS = 32
# Id: name of its (offset, length) columns in the decoded request, kind, scope's source, doubtful tags as bits.
RTA_IDS: dict[str, tuple[str, int, str, int]] = {
    "idfa_md5": ("IDFA", KIND_DPIDMD5, "", 1 << 0),
    "imei_md5": ("IMEI", KIND_DIDMD5, "", 1 << 1),
    "android_id_md5": ("ANDROID", KIND_DPIDMD5, "", 1 << 2),
    "mac_md5": ("MAC", KIND_MACMD5, "", 1 << 3),
    "oaid_md5": ("OAID", KIND_DPIDMD5, "", 1 << 4 | 1 << 5),
    "caid": ("QAID", KIND_EID, "caid", 1 << 6),
    "caid_md5": ("QAIDMD5", KIND_EID, "caid_md5", 1 << 6),
}
DEFAULT_PRIORITY = ("caid", "idfa_md5", "oaid_md5", "imei_md5", "android_id_md5", "caid_md5", "mac_md5")


def id_table(priority: Sequence[str], columns: Callable[[str], int], hash_text: Callable[[str], int]) -> I64:
    """int64[len(priority), 5]: offset column, kind, scope, doubtful mask, 1 for an MD5. Raises KeyError.

    ``columns`` gives the number of a column by its name in RTA_IDS, ``hash_text`` the hash of a source of EIDs.
    """
    rows = []
    for name in priority:
        column, kind, source, doubtful = RTA_IDS[name]
        rows.append((columns(column), kind, hash_text(source) if source else 0, doubtful, int(name.endswith("md5"))))
    return np.array(rows, np.int64)


@nb.njit(cache=True, nogil=True)
def _hexadecimal(text: U8, off: int, length: int) -> bool:
    if length != MD5_DIGITS:
        return False
    for i in range(off, off + length):
        c = text[i]
        digit = np.uint8(48) <= c <= np.uint8(57)
        if not digit and not np.uint8(97) <= c <= np.uint8(102) and not np.uint8(65) <= c <= np.uint8(70):
            return False
    return True


@nb.njit(cache=True, nogil=True)
def rta_keys(
    rows: I64, doubtful_column: int, text: U8, n: int, table: I64, pepper: U64, out_keys: U8, wanted: I64
) -> None:
    """Fill the first up to K keys of each of ``n`` requests, by ``table`` (`id_table`); see `identity_keys`.

    ``rows``: the decoded requests. ``out_keys`` uint8[n*K, 16] and ``wanted`` int64[n*K] are overwritten.
    """
    scratch = np.empty(HEADER_BYTES + MAX_ID_BYTES, np.uint8)
    for i in range(n):
        first = i * MAX_KEYS
        count = 0
        for t in range(table.shape[0]):
            if count == MAX_KEYS:
                break
            if rows[i, doubtful_column] & table[t, 3]:
                continue
            off, length = rows[i, table[t, 0]], rows[i, table[t, 0] + 1]
            if length == 0 or refused(text, off, length):
                continue
            if table[t, 4] and not _hexadecimal(text, off, length):
                continue
            put_key(table[t, 1], table[t, 2], text, off, length, pepper, scratch, out_keys[first + count])
            wanted[first + count] = 1
            count += 1
        for k in range(count, MAX_KEYS):
            wanted[first + k] = 0
            out_keys[first + k] = np.uint8(0)
