"""What an auction will go for, from what is known of it: the price to win as a scale times a spread learned as a table.

One curve per exchange averages over slots that go for 1 USD and for 10, so it is flat where each of them is steep. Here

    ln P = w . x + e

with x the context's features: exp(w . x) is the scale of this very auction, and e is spread as the table of its
exchange and medium says. The best bid for a value scales along, b(v) = scale * b0(v / scale), so one envelope per table
serves every context. w is the maximum a posteriori of a log-logistic survival regression (an exact price; won: P <= b;
lost: P > b; W. Wu, M. Yeh, M. Chen, *Predicting winning price in real time bidding with censored data*, KDD 2015). The
spread is the self-consistent estimate of `dsp.control.landscape`, begun at that logistic curve, so that lumps at floors
and whatever else is not logistic are kept.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dsp.control.landscape import LOST, PRICE, WON, learn, told
from dsp.control.wincurve import K_MAX, K_MIN

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

CELLS = 320
ENOUGH = 500  # auctions of a key from which its own table is worth more than a fitted curve
STRENGTH = 300.0  # auctions that the table of all keys weighs against one key's own
_LEAST = 2_000  # auctions in all: fewer do not say what a context goes for
_MOST = 200_000  # and the newest so many are looked at
_ROUNDS = 60  # of expectation and maximisation
_PENALTY = 20.0  # on a weight, in auctions at even odds and unit feature
_STEPS = 40
_BEYOND = 0.1  # of ln P: how far outside what was seen a scale or a cell may lie


Learned = tuple[F64, tuple[float, float], F64, F64, I64]
"""``weights`` float64[f + 1] of ln scale (the last one is the constant; CPM micros); ``reach`` (low, high) it is held
in; ``ratio`` float64[CELLS], the rising grid of bid over scale; ``mass`` float64[rows, CELLS + 1]: chance that
a grid point is the lowest that wins, the last that none does; ``row`` int64[keys]: each key's table, -1: too few
auctions. What `dsp.model.winscale.WinScale` is made of."""


def fit_win_scale(
    x: F32, bid_cpm_micros: F64, won: Bool, price_cpm_micros: F64, key: I64, n_keys: int
) -> Learned | None:
    """Learn from settled auctions, oldest first: rows as of `dsp.control.wincurve.fit_win_curve`, and their contexts
    ``x`` float32[n, f]. None where there are too few, or no key has enough of its own.
    """
    usable = np.isfinite(bid_cpm_micros) & (bid_cpm_micros > 0) & (key >= 0) & (key < n_keys)
    rows = np.flatnonzero(usable)[-_MOST:]
    if len(rows) < _LEAST or np.bincount(key[rows], minlength=n_keys).max() < ENOUGH:
        return None
    x, bid, won, price, key = x[rows], bid_cpm_micros[rows], won[rows], price_cpm_micros[rows], key[rows]
    exact = np.isfinite(price) & (price > 0)
    log_price = np.log(np.where(exact, price, bid))
    weights, k = _fit(x, log_price, won, exact)
    location = x @ weights[:-1] + weights[-1]
    reach = float(location.min()) - _BEYOND, float(location.max()) + _BEYOND
    left = log_price - location
    span = max(6.0 / k, 0.5)
    log_ratio = np.linspace(max(left.min(), -2 * span) - _BEYOND, min(left.max(), span) + _BEYOND, CELLS)
    mass, row = _tables(log_ratio, left, won, exact, key, n_keys, k)
    return weights, reach, np.exp(log_ratio), mass, row


def _fit(x: F32, log_price: F64, won: Bool, exact: Bool) -> tuple[F64, float]:
    """(weights of ln scale, k) by damped Newton in theta = k * weights and k: u = k ln t - theta . (x, 1).

    Log likelihood per row, s the logistic function: won ln s(u), lost ln s(-u), exact ln k + ln s(u) + ln s(-u); all
    concave in (theta, k).
    """
    centre = float(np.mean(log_price))
    z = log_price - centre
    design = np.concatenate([-x.astype(np.float64), -np.ones((len(x), 1)), z[:, None]], axis=1)
    target, twice = np.where(exact, 1.0, won), np.where(exact, 2.0, 1.0)
    known = float(exact.sum())
    penalty = np.full(design.shape[1], 0.25 * _PENALTY)
    penalty[-2:] = 1e-3
    theta = np.zeros(design.shape[1])
    theta[-1] = k0 = 2.0
    for _ in range(_STEPS):
        p = 0.5 * (1.0 + np.tanh(0.5 * (design @ theta)))
        s = twice * p * (1.0 - p)
        gradient = design.T @ (target - twice * p) - penalty * (theta - np.append(np.zeros(len(theta) - 1), k0))
        gradient[-1] += known / theta[-1]
        hessian = (design * s[:, None]).T @ design + np.diag(penalty)
        hessian[-1, -1] += known / theta[-1] ** 2
        step = np.linalg.solve(hessian, gradient)
        damp = min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12), 0.5 * theta[-1] / max(abs(step[-1]), 1e-12))
        theta += damp * step
        theta[-1] = min(max(theta[-1], K_MIN), K_MAX)
        if float(np.abs(step).max()) < 1e-7:
            break
    k = float(theta[-1])
    weights = theta[:-1] / k
    weights[-1] += centre
    return weights, k


def _tables(log_ratio: F64, left: F64, won: Bool, exact: Bool, key: I64, n_keys: int, k: float) -> tuple[F64, I64]:
    """(mass, row): the spread of all auctions around the logistic curve, then each large key's around that."""
    # Statements are rounded to the grid so that they stay true: a price or a win to the point above, a loss to the one
    # below.
    above = np.searchsorted(log_ratio, left, "left")
    below = np.searchsorted(log_ratio, left, "right") - 1
    heard = told(n_keys + 1, CELLS + 1)
    for kind, rows, cell in ((PRICE, exact, above), (WON, won & ~exact, above), (LOST, ~won & ~exact, below)):
        for to in (key[rows], np.full(int(rows.sum()), n_keys)):
            keep = (cell[rows] >= 0) & (cell[rows] <= CELLS)
            heard[:, kind] += np.bincount(
                to[keep] * (CELLS + 1) + cell[rows][keep], minlength=(n_keys + 1) * (CELLS + 1)
            ).reshape(n_keys + 1, CELLS + 1)
    prior = np.diff(1.0 / (1.0 + np.exp(-k * log_ratio)), prepend=0.0, append=1.0)
    beyond = heard[:, PRICE, CELLS].copy()  # prices above the grid: lost at its last point
    heard = np.ascontiguousarray(heard[:, :, :CELLS])
    heard[:, LOST, CELLS - 1] += beyond
    pooled = prior.copy()
    learn(heard[n_keys], prior, STRENGTH, _ROUNDS, pooled)
    large = np.flatnonzero(np.bincount(key, minlength=n_keys) >= ENOUGH)
    mass = np.tile(pooled, (len(large), 1))
    for r, at in enumerate(large):
        learn(heard[at], pooled, STRENGTH, _ROUNDS, mass[r])
    row = np.full(n_keys, -1, np.int64)
    row[large] = np.arange(len(large))
    return mass, row
