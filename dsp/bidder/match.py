"""The bitmap arithmetic of stage 4: which line items are in the rows of what a request says.

Rows within an inclusive dimension are ORed, dimensions ANDed, and what an exclusive row names is cleared. Row by row,
not word by word: each inner loop is a run over contiguous words that the compiler makes vector code of.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dsp.base.kernel import inlined
from dsp.bidder.reason import P_BLOCKED, P_CONSENT, P_NONE
from dsp.catalog.layout import DIM_AGE, DIM_INCOME, DIM_KEY_MULTIPLIER, DIM_SEGMENT
from dsp.openrtb.hashing import mix64

NOBODY = -1

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
U64 = npt.NDArray[np.uint64]


@inlined
def find_rows(
    groups: int,
    own_end: int,
    end: int,
    dims: I64,
    values: I64,
    ends: I64,
    absent: I64,
    keys: U64,
    key_rows: I32,
    any_row: I32,
    out: I32,
) -> tuple[int, int]:
    """Look up the bitmap rows of the listed values, dropping values without one; ``ends`` then bounds rows in ``out``.

    Returns the ends of the exclusive rows, of our own rules and of all; they follow those of the last group. The probe
    is that of `dsp.catalog.index.find_row`, in line: a call would cost more than the look-up.
    """
    mask = np.uint64(keys.shape[0] - 1)
    multiplier = np.uint64(DIM_KEY_MULTIPLIER)
    zero, one = np.uint64(0), np.uint64(1)
    n = m = own = 0
    for g in range(groups + 2):
        stop = ends[g] if g < groups else own_end if g == groups else end
        begin = n
        while m < stop:
            if values[m] != 0:
                key = np.uint64(values[m]) ^ (np.uint64(dims[m] + 1) * multiplier)
                if key == zero:
                    key = one
                slot = mix64(key) & mask
                while keys[slot] != zero:
                    if keys[slot] == key:
                        out[n] = key_rows[slot]
                        n += 1
                        break
                    slot = (slot + one) & mask
            m += 1
        if g < groups:
            if n == begin and absent[g] != NOBODY and any_row[absent[g]] >= 0:
                out[n] = any_row[absent[g]]
                n += 1
            ends[g] = n
        elif g == groups:
            own = n
    return own, n


@inlined
def and_group(rows: U64, found: I32, begin: int, stop: int, either: U64, out: U64) -> None:
    """Keep in ``out`` uint64[W] what is in any of the rows ``found[begin:stop]``; ``either`` uint64[W] is scratch."""
    words = out.shape[0]
    if stop - begin == 1:
        row = rows[found[begin]]
        for w in range(words):
            out[w] &= row[w]
        return
    for w in range(words):
        either[w] = np.uint64(0)
    for k in range(begin, stop):
        row = rows[found[k]]
        for w in range(words):
            either[w] |= row[w]
    for w in range(words):
        out[w] &= either[w]


@inlined
def clear_rows(rows: U64, found: I32, begin: int, stop: int, out: U64) -> int:
    """Clear in ``out`` uint64[W] what is in any of the rows ``found[begin:stop]``; 1 if anything is left, else 0."""
    words = out.shape[0]
    for k in range(begin, stop):
        row = rows[found[k]]
        for w in range(words):
            out[w] &= ~row[w]
    some = np.uint64(0)
    for w in range(words):
        some |= out[w]
    return 1 if some != np.uint64(0) else 0


@inlined
def match_words(rows: U64, live: U64, found: I32, ends: I64, groups: int, end: int, either: U64, out: U64) -> int:
    """AND the groups over the live line items into ``out`` uint64[W]; 1 if any line item is left, else 0."""
    for w in range(live.shape[0]):
        out[w] = live[w]
    begin = 0
    for g in range(groups):
        and_group(rows, found, begin, ends[g], either, out)
        begin = ends[g]
    return clear_rows(rows, found, begin, end, out)


@inlined
def why_nobody(
    rows: U64, live: U64, found: I32, ends: I64, absent: I64, groups: int, own_end: int, all_groups: int, known: bool,
    either: U64, out: U64,
) -> int:  # fmt: skip
    """Why no line item was left: P_BLOCKED where only the exchange's lists stood in the way, P_CONSENT where some
    wanted the request but for what may not be known of the person, else P_NONE. ``out`` and ``either`` are scratch.
    """
    first = ends[all_groups - 1] if all_groups > 0 else 0  # exclusive rows follow those of the last group
    for skip_person in range(1 if known else 2):
        for w in range(live.shape[0]):
            out[w] = live[w]
        begin = 0
        for g in range(groups):
            personal = absent[g] == DIM_SEGMENT or absent[g] == DIM_AGE or absent[g] == DIM_INCOME
            if skip_person == 0 or not personal:
                and_group(rows, found, begin, ends[g], either, out)
            begin = ends[g]
        if clear_rows(rows, found, first, own_end, out) == 1:
            return P_BLOCKED if skip_person == 0 else P_CONSENT
    return P_NONE
