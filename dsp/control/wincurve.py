"""The win curve F(b) of an auction, fitted to what auctions tell.

F is log-logistic in the bid: ``F(b) = b^k / (b^k + c^k) = 1 / (1 + exp(-k (ln b - ln c)))``: c is the price at which
half the auctions are won, k how sharply they tip. Two parameters, increasing whatever the data, F(0) = 0; a handful of
auctions is enough to fit them and no auction at all leaves the prior.

What is fitted is the price to win, P, of which an auction tells one of three things: P itself (an exchange that reports
the minimum to win, a second price paid), P <= b (won), or P > b (lost). Exact prices matter: bids follow value, rivals
see the same value, so of wins and losses alone the curve may look flat or falling where it is steep.

The bid that follows from a curve is read off a table of it (`dsp.bidder.wintable`).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]

K_MIN, K_MAX = 0.5, 20.0  # beyond these a curve is flat or a step: an artefact of few auctions
_FIT_STEPS = 50
_REACH = math.log(4.0)
_PRIOR_SPREAD = 1.0  # standard deviation of ln b that the prior's pseudo-auctions are thought to have


def fit_win_curve(
    bid_cpm_micros: F64,
    won: npt.NDArray[np.bool_],
    price_cpm_micros: F64,
    key: npt.NDArray[np.int64],
    n_keys: int,
    prior: tuple[float, float],
    strength: float = 20.0,
) -> F64:
    """Fit (k, c) for every key in [0, n_keys): float64[n_keys, 2], c in the unit of the bids.

    One row per settled auction we bid in: our bid, whether it won, the price to win where it is known (NaN where not)
    and the key. Two levels: all rows together are fitted against ``prior`` (k, c), then each key against that pooled
    curve, both as the maximum a posteriori of the censored log-logistic likelihood with a prior that weighs
    ``strength`` auctions. A key without auctions gets the pooled curve; no auctions at all, the prior. Rows whose bid
    is not positive are ignored.
    """
    usable = np.isfinite(bid_cpm_micros) & (bid_cpm_micros > 0) & (key >= 0) & (key < n_keys)
    exact = np.isfinite(price_cpm_micros) & (price_cpm_micros > 0)
    log_price = np.log(np.where(exact, price_cpm_micros, np.where(usable, bid_cpm_micros, 1.0)))[usable]
    sample = _Sample(log_price, won[usable].astype(np.float64), exact[usable])
    group = key[usable]
    if not len(group):
        return np.tile(np.array(prior, np.float64), (n_keys, 1))
    pooled = _fit_one(sample, prior, strength)
    out = np.tile(np.array(pooled, np.float64), (n_keys, 1))
    order = np.argsort(group, kind="stable")
    bounds = np.searchsorted(group[order], np.arange(n_keys + 1))
    for j in range(n_keys):
        rows = order[bounds[j] : bounds[j + 1]]
        if len(rows):
            out[j] = _fit_one(sample.at(rows), pooled, strength)
    return out


class _Sample(NamedTuple):
    """``log_price``: ln P where ``exact``, else ln b; ``won``: 0/1, for the rows that are not exact."""

    log_price: F64
    won: F64
    exact: npt.NDArray[np.bool_]

    def at(self, rows: npt.NDArray[np.int64]) -> _Sample:
        """Some of the rows."""
        return _Sample(self.log_price[rows], self.won[rows], self.exact[rows])


def _fit_one(sample: _Sample, prior: tuple[float, float], strength: float) -> tuple[float, float]:
    """MAP of (k, d) by damped Newton, with u = k z + d and z = ln(t / c0); k is held in [K_MIN, K_MAX].

    Log likelihood per row, s the logistic function: won ln s(u), lost ln s(-u), exact ln k + ln s(u) + ln s(-u); all
    concave in (k, d).
    """
    k0, c0 = prior
    z = sample.log_price - math.log(c0)
    target = np.where(sample.exact, 1.0, sample.won)
    twice = np.where(sample.exact, 2.0, 1.0)
    known = float(sample.exact.sum())
    weight_k = strength * 0.25 * _PRIOR_SPREAD**2  # the information of `strength` auctions at even odds
    weight_d = strength * 0.25
    k, d = k0, 0.0
    for _ in range(_FIT_STEPS):
        p = 0.5 * (1.0 + np.tanh(0.5 * (k * z + d)))
        r, s = target - twice * p, twice * p * (1.0 - p)
        gk = float(r @ z) + known / k - weight_k * (k - k0)
        gd = float(r.sum()) - weight_d * d
        hkk, hkd, hdd = float(s @ (z * z)) + known / k**2 + weight_k, float(s @ z), float(s.sum()) + weight_d
        free = not ((k <= K_MIN and gk < 0) or (k >= K_MAX and gk > 0))  # at its bound, only d moves
        det = hkk * hdd - hkd * hkd
        dk = (hdd * gk - hkd * gd) / det if free else 0.0
        dd = (hkk * gd - hkd * gk) / det if free else gd / hdd
        damp = min(1.0, 2.0 / max(abs(dk), abs(dd), 1e-12), 0.5 * k / max(abs(dk), 1e-12))
        k, d = min(max(k + damp * dk, K_MIN), K_MAX), d + damp * dd
        if max(abs(dk), abs(dd)) < 1e-9:
            break
    # Where everything was won or lost the half-way price lies outside the bids: do not extrapolate far past them.
    low, high = float(sample.log_price.min()) - _REACH, float(sample.log_price.max()) + _REACH
    return k, math.exp(min(max(math.log(c0) - d / k, low), high))
