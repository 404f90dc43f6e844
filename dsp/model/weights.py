"""What each shown impression stands for: the bids that were as likely to be shown as it, shown or not.

Only what is won is ever labelled, and what is won is no fair sample of what is bid on: more of the slots nobody wanted,
more of what was bid high, more of the creatives that were shown often. A model fitted to it alone is right where it
already buys and wrong where it would like to (the winner's bias). So a row counts 1 / q, q the chance that it came to
be labelled: its win chance at the logged bid, by the win curves learned in the same run, times the logged propensity of
the creative among those that fitted, relative to that creative's share now (W. Zhang, T. Zhou, J. Wang, J. Xu,
*Bid-aware gradient descent for unbiased learning with censored data in display advertising*, KDD 2016).

Weights are normalised to a mean of 1 over a head's rows (the self-normalised estimator; A. Swaminathan, T. Joachims,
NeurIPS 2015) and clipped (E. Ionides, *Truncated importance sampling*, 2008) at the highest level at which the
effective sample (sum w)^2 / sum w^2 stays at LEAST_EFFECTIVE of the rows: less bias never for more noise than that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dsp.model.curves import Curves
from dsp.model.winscale import KEYS, WinScale, curve_chance

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

LEAST_EFFECTIVE = 0.5
MOST = 50.0  # no row ever counts for more than so many average ones
_LATEST = 200  # decisions of a creative that say what its share is now
_NEVER = 1e-3  # a chance below this is no better known than this


class Weighted(NamedTuple):
    """What the weights of one head's rows came to."""

    rows: int
    effective: float  # rows that say as much, equally weighted
    clip: float  # times the average
    clipped: float  # share of the rows


def inverse_chance(
    decisions: Mapping[str, Any], bid_usd_cpm: F64, key: I64, curves: Curves, scale: WinScale | None
) -> F64:
    """1 / q float64[n] of all decisions, by no common measure. ``bid_usd_cpm`` float64[n] CPM micros of USD, ``key``
    int64[n] exchange * MEDIA_SLOTS + medium.
    """
    chance = curve_chance(curves.reshape(KEYS, 2)[key], bid_usd_cpm)
    if scale is not None:
        table = scale.chance(decisions["features"], bid_usd_cpm, key)
        chance = np.where(np.isfinite(table), table, chance)
    return shares_now(decisions["creative"], decisions["propensity"]) / np.maximum(chance, _NEVER)


def shares_now(creative: npt.NDArray[np.integer[Any]], propensity: npt.NDArray[np.floating[Any]]) -> F64:
    """How much likelier each decision's creative is to be chosen now than it was then, float64[n], oldest first.

    Now is the mean of its last `_LATEST` propensities; a decision that logged none (0) is as likely as ever.
    """
    logged = np.asarray(propensity, np.float64)
    out = np.ones(len(logged))
    for at in np.unique(creative):
        rows = np.flatnonzero((creative == at) & (logged > 0))
        if len(rows):
            out[rows] = logged[rows[-_LATEST:]].mean() / np.maximum(logged[rows], _NEVER)
    return out


def clipped(weight: F64) -> tuple[F64, Weighted]:
    """Weights float64[n] of one head's rows with mean 1, and what they came to."""
    n = len(weight)
    if not n:
        return weight, Weighted(0, 0.0, MOST, 0.0)
    mean = weight / weight.mean()
    clip = MOST
    while True:
        out = np.minimum(mean, clip)
        effective = float(out.sum() ** 2 / (out @ out))
        if effective >= LEAST_EFFECTIVE * n or clip < 1.0:
            return out / out.mean(), Weighted(n, effective, clip, float((mean > clip).mean()))
        clip *= 0.9
