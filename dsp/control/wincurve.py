"""The win curve F(b) of an auction and the first-price bid that follows from it.

F is log-logistic in the bid: ``F(b) = b^k / (b^k + c^k) = 1 / (1 + exp(-k (ln b - ln c)))``: c is the price at which
half the auctions are won, k how sharply they tip. Two parameters, increasing whatever the data, F(0) = 0, and fitted as
a logistic regression of win on ln b, so a handful of auctions is enough and no auction at all leaves the prior.

The bid maximises the expected surplus ``S(b) = F(b) (v - b)`` over floor <= b <= v. With S' = 0, x = b / c and
w = v / c,

    x (k + 1) + x^(k + 1) = k w

whose left side is increasing and convex: one root, so S has one peak. Each term alone bounds the root from above; from
the lower of these bounds two Halley steps come within 2e-4 of the best bid and 2e-6 of the best surplus for every k in
[0.2, 20] and w in e^±7 (worst of 200,000 random cases; Newton needs four steps for that, golden section some twenty).
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]

K_MIN, K_MAX = 0.2, 20.0  # beyond these a curve is flat or a step: an artefact of few auctions
_HALLEY_STEPS = 2
_FIT_STEPS = 25
_REACH = math.log(4.0)
_PRIOR_SPREAD = 0.5  # standard deviation of ln b that the prior's pseudo-auctions are thought to have


@nb.njit(cache=True, inline="always")
def win_probability(bid: float, k: float, c: float) -> float:
    """F(bid), ``bid`` and ``c`` in the same unit; 0 for a bid of nothing."""
    if bid <= 0.0:
        return 0.0
    return 1.0 / (1.0 + math.exp(-k * math.log(bid / c)))


@nb.njit(cache=True, nogil=True)
def shade_cpm(value_cpm_micros: float, floor_cpm_micros: float, k: float, c: float) -> float:
    """The bid b in [floor, value] that maximises F(b)(value - b), all in CPM micros of one currency.

    0.0 where the value is not a positive number or does not reach the floor: do not bid. Parameters that make no sense
    (not positive and finite) give the floor, or half the value without one: careful, never more than a curve would say.
    """
    v = value_cpm_micros
    if not 0.0 < v < math.inf or not v >= floor_cpm_micros:
        return 0.0
    b = 0.5 * v
    if 0.0 < k < math.inf and 0.0 < c < math.inf:
        kw = k * (v / c)
        x = min(kw / (k + 1.0), math.exp(math.log(kw) / (k + 1.0)))
        for _ in range(_HALLEY_STEPS):
            y = math.exp(k * math.log(x))
            h = x * (k + 1.0 + y) - kw
            slope = (k + 1.0) * (1.0 + y)
            x -= 2.0 * h * slope / (2.0 * slope * slope - h * (k + 1.0) * k * y / x)
        b = x * c
    return min(max(b, floor_cpm_micros), v)


def fit_win_curve(
    bid_cpm_micros: F64,
    won: npt.NDArray[np.bool_],
    key: npt.NDArray[np.int64],
    n_keys: int,
    prior: tuple[float, float],
    strength: float = 20.0,
) -> F64:
    """Fit (k, c) for every key in [0, n_keys): float64[n_keys, 2], c in the unit of the bids.

    ``bid_cpm_micros``, ``won`` and ``key`` are one row per settled auction we bid in. Two levels: all rows together are
    fitted against ``prior`` (k, c), then each key against that pooled curve, both as a maximum a posteriori logistic
    regression whose prior weighs ``strength`` auctions. A key without auctions gets the pooled curve; no auctions at
    all, the prior. Bids that are not positive are ignored.
    """
    usable = np.isfinite(bid_cpm_micros) & (bid_cpm_micros > 0) & (key >= 0) & (key < n_keys)
    bid, hit, group = bid_cpm_micros[usable], won[usable].astype(np.float64), key[usable]
    if not len(bid):
        return np.tile(np.array(prior, np.float64), (n_keys, 1))
    pooled = _fit_one(np.log(bid), hit, prior, strength)
    out = np.tile(np.array(pooled, np.float64), (n_keys, 1))
    order = np.argsort(group, kind="stable")
    bounds = np.searchsorted(group[order], np.arange(n_keys + 1))
    for j in range(n_keys):
        rows = order[bounds[j] : bounds[j + 1]]
        if len(rows):
            out[j] = _fit_one(np.log(bid[rows]), hit[rows], pooled, strength)
    return out


def _fit_one(log_bid: F64, hit: F64, prior: tuple[float, float], strength: float) -> tuple[float, float]:
    """MAP of logit F = k z + d with z = ln(b / c0), by damped Newton; k is held in [K_MIN, K_MAX]."""
    k0, c0 = prior
    z = log_bid - math.log(c0)
    weight_k = strength * 0.25 * _PRIOR_SPREAD**2  # the information of `strength` auctions at even odds
    weight_d = strength * 0.25
    k, d = k0, 0.0
    for _ in range(_FIT_STEPS):
        p = 0.5 * (1.0 + np.tanh(0.5 * (k * z + d)))
        r, s = hit - p, p * (1.0 - p)
        gk, gd = float(r @ z) - weight_k * (k - k0), float(r.sum()) - weight_d * d
        hkk, hkd, hdd = float(s @ (z * z)) + weight_k, float(s @ z), float(s.sum()) + weight_d
        free = not ((k <= K_MIN and gk < 0) or (k >= K_MAX and gk > 0))  # at its bound, only d moves
        det = hkk * hdd - hkd * hkd
        dk = (hdd * gk - hkd * gd) / det if free else 0.0
        dd = (hkk * gd - hkd * gk) / det if free else gd / hdd
        damp = min(1.0, 2.0 / max(abs(dk), abs(dd), 1e-12))
        k, d = min(max(k + damp * dk, K_MIN), K_MAX), d + damp * dd
        if max(abs(dk), abs(dd)) < 1e-9:
            break
    # Where everything was won or lost the half-way price lies outside the bids: do not extrapolate far past them.
    low, high = float(log_bid.min()) - _REACH, float(log_bid.max()) + _REACH
    return k, math.exp(min(max(math.log(c0) - d / k, low), high))
