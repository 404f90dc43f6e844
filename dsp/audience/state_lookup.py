"""The frequency states of a batch, copied out of LMDB's pages by one kernel; see `dsp.audience.lmdb_lookup`.

States lie in the main table of their file, under 16-byte subjects; one that is longer than half a page lies on pages
of its own, one after another.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dsp.audience.frequency import (
    EVENT_BYTES,
    HEADER_BYTES,
    MAX_EVENTS,
    MAX_TOTALS,
    S_EVENTS,
    S_TOTALS,
    STATE_VERSION,
    TOTAL_BYTES,
)
from dsp.audience.lmdb_lookup import (
    BIG_VALUE,
    DB_ROOT,
    HEADER,
    META_DB,
    find_node,
    meta_of,
    pages_of,
)
from dsp.audience.profile import P_PERSON
from dsp.audience.store import KEY_BYTES
from dsp.base.kernel import kernel
from dsp.base.memory import peek, peek16, peek64, peek64_big, signed

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]


@kernel
def read_states(
    base: int,
    page_bytes: int,
    mapped_bytes: int,
    txn: int,
    n: int,
    bits: I64,
    mask: int,
    keys: U8,
    wanted: I64,
    per_person: int,
    profiles: U8,
    found: I64,
    rows: U8,
    known: I64,
    subjects: U8,
) -> int:
    """Fill ``rows`` uint8[n, STATE_BYTES], ``known`` int64[n] and ``subjects`` uint8[n, 16] as `States` says.

    Only for people with ``bits[i] & mask``. The subject is the person number where a profile was found, else the first
    wanted key. ``base`` 0: there is no file yet, everybody is new. Returns 0, STALE (begin again) or SMALL (map again).
    """
    pages, root = 0, -1
    if base != 0:
        meta = meta_of(base, page_bytes, mapped_bytes, txn)
        if meta < 0:
            return meta
        pages = pages_of(base, meta)
        root = signed(peek64(base, meta + META_DB + DB_ROOT))
    for i in range(n):
        known[i] = 0
        if bits[i] & mask == 0:
            continue
        subject = subjects[i]
        if found[i] != 0:
            for k in range(8):
                subject[k], subject[8 + k] = profiles[i, P_PERSON + k], np.uint8(0)
        else:
            first = -1
            for k in range((i + 1) * per_person - 1, i * per_person - 1, -1):
                if wanted[k] != 0:
                    first = k
            if first < 0:
                continue
            for k in range(KEY_BYTES):
                subject[k] = keys[first, k]
        known[i] = 1
        row = rows[i]
        for k in range(HEADER_BYTES):
            row[k] = np.uint8(0)
        if root < 0:
            continue
        at = np.int64(subjects.ctypes.data) + i * KEY_BYTES
        node = find_node(base, page_bytes, pages, root, True, peek64_big(at, 0), peek64_big(at, 8))
        if node <= 0:
            continue
        length = peek16(base, node) | (peek16(base, node + 2) << 16)
        value = node + 8 + KEY_BYTES
        if peek16(base, node + 4) & BIG_VALUE:
            value = signed(peek64(base, value)) * page_bytes + HEADER
        if length < HEADER_BYTES or length > row.shape[0] or value < 0 or value + length > pages * page_bytes:
            continue
        events, totals = peek(base, value + S_EVENTS), peek(base, value + S_TOTALS)
        good = peek(base, value) == STATE_VERSION and events <= MAX_EVENTS and totals <= MAX_TOTALS
        if good and length == HEADER_BYTES + events * EVENT_BYTES + totals * TOTAL_BYTES:
            for k in range(length):
                row[k] = np.uint8(peek(base, value + k))
    return 0
