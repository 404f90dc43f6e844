"""Spending a budget over a stretch of traffic: the multiplier that is expected to use it up, solved again and again.

With a budget B for the T auctions that are left, the most value is bought by paying for every impression up to
m times its value, with one m for all of them (the dual variable of the budget; C. Perlich et al. 2012, W. Zhang et
al. 2014). m is where the expected spend of an auction equals B / T. Both sides are estimated from what has been seen:
values by a histogram of their logarithm that forgets, prices by a table of what an auction costs at each offer. Solving
again every few auctions corrects whatever was estimated wrongly, so nothing needs tuning (model-predictive control).

Only the past enters: `observe` what has arrived, then `solve`.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from dsp.base.kernel import inlined, kernel

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

BINS = 512
_STEP = 0.05  # ln of the ratio between two bins: values within 5 % are one
_LOWEST = -13.0  # ln of the smallest value told apart; the largest is e^12.6
_BISECTIONS = 34
_WIDEST = 23.0  # |ln m| at most


def values_seen() -> F64:
    """An empty histogram, float64[2, BINS]: how many values fell into each bin, and their sum."""
    return np.zeros((2, BINS), np.float64)


def second_price_cost(price_histogram: npt.NDArray[np.floating] | I64) -> F64:
    """What an auction costs on average at an offer of i units, float64[n], from how often each price came, [n].

    Second price: the winner pays the price to win, E[P; P <= i].
    """
    share = np.asarray(price_histogram, np.float64)
    return np.asarray(np.cumsum(share * np.arange(len(share))) / max(share.sum(), 1.0), np.float64)


@inlined
def observe(seen: F64, value: float) -> None:
    """Count the value of an impression that could be bought (any unit, the same for all; not positive: worthless)."""
    j = 0
    if value > 0.0:
        j = min(max(int((math.log(value) - _LOWEST) / _STEP), 0), BINS - 1)
        seen[1, j] += value
    seen[0, j] += 1.0


@kernel
def forget(seen: F64, keep: float) -> None:
    """Let everything seen so far weigh ``keep`` in (0, 1] of what it did: traffic drifts over the day."""
    for j in range(BINS):
        seen[0, j] *= keep
        seen[1, j] *= keep


@inlined
def _spend(seen: F64, cost: F64, multiplier: float) -> float:
    """Expected cost of one auction when offers are ``multiplier`` times the value."""
    total, spend, top = 0.0, 0.0, len(cost) - 1
    for j in range(BINS):
        n = seen[0, j]
        if n > 0.0:
            total += n
            spend += n * cost[int(min(multiplier * seen[1, j] / n, top))]
    return spend / total if total > 0.0 else 0.0


@kernel
def solve(seen: F64, cost: F64, per_auction: float) -> float:
    """The multiplier at which an auction is expected to cost ``per_auction`` (units of ``cost``: one per index).

    ``cost`` float64[n] never falls: what an auction costs at an offer of i units; offers beyond cost like the last.
    Between e^-23 and e^23, the ends where even those spend too much or too little; 0 where there is nothing to spend.
    """
    if not per_auction > 0.0:
        return 0.0
    low, high = -_WIDEST, _WIDEST
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        if _spend(seen, cost, math.exp(middle)) > per_auction:
            high = middle
        else:
            low = middle
    return math.exp(0.5 * (low + high))
