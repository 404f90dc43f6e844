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

The functions take what is known as arrays over line items; `dsp.control.response` supplies the spend curve as a power
law. A bidder that knows its auctions better passes curves of its own to `solve_curves`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int8]

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


def solve_curves(m: F64, spend: F64, actions: F64, budget: float, spent: float, acted: float, target: float) -> float:
    """The multiplier for one line item whose curves are known: the largest of ``m`` that keeps budget and target.

    ``m`` [G] ascending; ``spend`` [G] what will be spent in the time that is left at each, ``actions`` [G] what that
    will bring; ``budget`` is what is left, ``spent`` and ``acted`` are the past; ``target`` cost per action or inf.
    Linear between the points. Nothing feasible gives ``m[0]``.
    """
    limit = np.interp(budget, spend, m) if spend[-1] > budget else float(m[-1])
    if not np.isfinite(target):
        return float(max(limit, m[0]))
    over = spent + spend - target * (acted + actions)  # past and future together may cost the target on average
    bad = np.flatnonzero(over > 0)
    if not len(bad):
        return float(limit)
    k = int(bad[0])
    if k == 0:
        return float(m[0])
    part = -over[k - 1] / (over[k] - over[k - 1])
    return float(max(m[0], min(limit, m[k - 1] + part * (m[k] - m[k - 1]))))


def _least(by_budget: F64, by_target: F64, floor: F64, ceiling: F64) -> Solution:
    log_m = np.minimum(np.minimum(by_budget, by_target), ceiling)
    binds = np.where(log_m == ceiling, BINDS_CEILING, np.where(by_target < by_budget, BINDS_TARGET, BINDS_BUDGET))
    low = log_m < floor
    log_m = np.maximum(log_m, floor)
    binds = np.where(low, BINDS_FLOOR, binds).astype(np.int8)
    price = np.where(log_m < ceiling, np.exp(np.minimum(-log_m, 50.0)) - 1.0, 0.0)  # 1 / m - 1
    return Solution(log_m, binds, np.maximum(price, 0.0))
