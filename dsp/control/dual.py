"""Pacing and target cost per action as one problem: the multiplier that spends a budget well, and the prices behind it.

A line item buys the impressions worth most to it, subject to a budget B and, where asked for, a cost per action of at
most T:

    maximise  Σ (value_i - cost_i) x_i      subject to   Σ cost_i x_i <= B,    Σ cost_i x_i <= T · Σ actions_i x_i

With duals λ (a micro of budget) and μ (a micro of cost above the target), an impression is bought when
``value + μ T actions >= (1 + λ + μ) cost``; with value = V · actions that is a bid of ``m · value`` with

    m = (1 + μ T / V) / (1 + λ + μ).

Spend and cost per action both rise with m, so the best feasible m is the least of three: the m that spends at the rate
that is due, the m whose cost per action is what the target leaves, and a ceiling. One solve, one binding constraint, no
controller that undoes another's work. Source of the dual view: Balseiro, Besbes, Weintraub 2015 (budget); Yang et al.,
KDD 2019, "Bid optimization by multivariable control" (budget with cost per click); that the multiplier adds only one
degree of freedom is why the two need not be regulated separately.

The same problem is solved by two descriptions of the market. The ledger, which sees spend and wins, takes power laws,
arrays over line items (`solve`; `dsp.control.response` learns them and keeps what it learned over a restart). Who sees
every auction and has a budget only takes what was seen: values by a histogram of their logarithm that forgets, and what
an auction costs at each offer, from any history of prices (`solve_seen`). Both are solved again and again
(model-predictive control; C. Perlich et al. 2012, W. Zhang et al. 2014 for the linear bid), so whatever was estimated
wrongly is corrected, and only the past enters. On public streams the two buy the same within a few percent
(`bench quality ipinyou`); the second starts knowing prices.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dsp.base.kernel import inlined, kernel

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
I8 = npt.NDArray[np.int8]

BINS = 512
_STEP = 0.05  # ln of the ratio between two bins: values within 5 % are one
_LOWEST = -13.0  # ln of the smallest value told apart; the largest is e^12.6
_BISECTIONS = 34
_WIDEST = 23.0  # |ln m| at most

BINDS_CEILING, BINDS_BUDGET, BINDS_TARGET, BINDS_FLOOR = range(4)


class Solution(NamedTuple):
    """Per line item: log multiplier, which constraint binds, and its dual (λ or μ; 0 where none does)."""

    log_m: F64
    binds: I8
    price: F64


def solve(rate: F64, reach: F64, elasticity: F64, allowed: F64, kappa: F64, floor: F64, ceiling: F64) -> Solution:
    """Solve with power laws, all [L].

    ``rate`` micros per second that are due; ``reach`` expected micros per second at m = 1 (``rate`` = ``reach`` ·
    m^elasticity); ``allowed`` cost per action that the target leaves (inf: no target), ``kappa`` cost per action at
    m = 1 (cost per action = kappa · m: bids are a multiple of the value, and prices of the bid); ``floor``, ``ceiling``
    log multipliers.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        by_budget = np.where(reach > 0, (np.log(np.maximum(rate, 1e-9)) - np.log(reach)) / elasticity, ceiling)
        by_target = np.where(np.isfinite(allowed), np.log(np.maximum(allowed, 1e-9)) - np.log(kappa), np.inf)
    return _least(by_budget, by_target, floor, ceiling)


def _least(by_budget: F64, by_target: F64, floor: F64, ceiling: F64) -> Solution:
    log_m = np.minimum(np.minimum(by_budget, by_target), ceiling)
    binds = np.where(log_m == ceiling, BINDS_CEILING, np.where(by_target < by_budget, BINDS_TARGET, BINDS_BUDGET))
    low = log_m < floor
    log_m = np.maximum(log_m, floor)
    binds = np.where(low, BINDS_FLOOR, binds).astype(np.int8)
    price = np.where(log_m < ceiling, np.exp(np.minimum(-log_m, 50.0)) - 1.0, 0.0)  # 1 / m - 1
    return Solution(log_m, binds, np.maximum(price, 0.0))


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
def solve_seen(seen: F64, cost: F64, per_auction: float) -> float:
    """The largest multiplier at which an auction is expected to cost no more than ``per_auction`` (units of ``cost``:
    one per index).

    ``cost`` float64[n] never falls: what an auction costs at an offer of i units; offers beyond are like the last.
    Between e^-23 and e^23; 0 where there is nothing to spend.
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
