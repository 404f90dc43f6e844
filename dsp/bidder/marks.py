"""Where the slots of the pre-rendered bid templates are, found once per snapshot so that encoding only copies."""

from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np
import numpy.typing as npt

from dsp.base.token import TOKEN_TEXT_BYTES

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

PERCENT = 37
HEAD_SLOTS = 4  # of a JSON template: bid id, imp id, price, extra members; the rest are tokens


class Marks(NamedTuple):
    """Of the templates ``text[offset[c]:offset[c+1]]``: slots ``at[first[c]:first[c+1]]``, expanded ``length[c]``.

    A slot is the position of a ``%b``, or the complement of the position of a ``%%``. ``length`` int64[C] is that of a
    template whose slots are all tokens.
    """

    text: U8
    offset: I64
    at: I64
    first: I64
    length: I64


@nb.njit(cache=True)
def _find(text: U8, offset: I64, at: I64, first: I64, length: I64) -> int:
    """Fill the tables; with an empty ``at`` only count. Returns the number of slots."""
    n = 0
    for c in range(offset.shape[0] - 1):
        if at.shape[0]:
            first[c] = n
        size = offset[c + 1] - offset[c]
        p = offset[c]
        while p < offset[c + 1]:
            if text[p] != PERCENT:
                p += 1
                continue
            token = text[p + 1] != PERCENT
            if at.shape[0]:
                at[n] = p if token else ~p
            size += TOKEN_TEXT_BYTES - 2 if token else -1
            n += 1
            p += 2
        length[c] = size
    first[offset.shape[0] - 1] = n
    return n


def find_marks(text: U8, offset: I64) -> Marks:
    """The marks of a snapshot's templates."""
    creatives = len(offset) - 1
    first, length = np.zeros(creatives + 1, np.int64), np.zeros(creatives, np.int64)
    at = np.zeros(_find(text, offset, np.zeros(0, np.int64), first, length), np.int64)
    if len(at):
        _find(text, offset, at, first, length)
    return Marks(text, offset, at, first, length)
