"""Is B better than A, and how sure is that: ratios of sums with confidence intervals by the bootstrap over units.

What a bidder is judged by are ratios (value per bid, cost per funded loan) whose numerator and denominator both vary.
So whole units (bids, persons) are drawn again, each with a Poisson(1) weight, which is the bootstrap for many units at
the price of one pass (N. Chamandy et al., *Estimating uncertainty for massive data streams*, 2012).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]

DRAWS = 1_000
LEVEL = 0.95
_CHUNK = 20_000


@dataclass(frozen=True)
class Compared:
    """A ratio in both arms, the difference B - A, the lift B / A - 1, and their intervals; None where a denominator is
    nothing.
    """

    a: float | None
    b: float | None
    difference: float | None
    low: float | None
    high: float | None
    lift: float | None = None
    lift_low: float | None = None
    lift_high: float | None = None

    @property
    def significant(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low is not None and self.high is not None and not self.low <= 0.0 <= self.high


def compare(a: tuple[F64, F64], b: tuple[F64, F64], seed: int = 1) -> Compared:
    """Compare sum(numerator) / sum(denominator) of two arms, each (numerator, denominator) float64[units]."""
    one, other = _ratio(a[0].sum(), a[1].sum()), _ratio(b[0].sum(), b[1].sum())
    if one is None or other is None:
        return Compared(one, other, None, None, None)
    rng = np.random.default_rng(seed)
    drawn_b, drawn_a = _drawn(*b, rng), _drawn(*a, rng)
    with np.errstate(divide="ignore", invalid="ignore"):
        of_lift = _interval(drawn_b / drawn_a - 1.0) if one > 0 else (None, None)
        return Compared(
            one, other, other - one, *_interval(drawn_b - drawn_a), other / one - 1.0 if one > 0 else None, *of_lift
        )


def _interval(drawn: F64) -> tuple[float | None, float | None]:
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return None, None
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _ratio(numerator: float, denominator: float) -> float | None:
    return float(numerator / denominator) if denominator > 0 else None


def _drawn(numerator: F64, denominator: F64, rng: np.random.Generator) -> F64:
    """float64[DRAWS] ratios of resampled sums. Units that are alike are drawn together: sums of Poisson are Poisson."""
    sums = np.zeros((DRAWS, 2))
    both = np.stack([numerator, denominator], axis=1)
    both = both[(both != 0.0).any(axis=1)]  # others change no sum, whatever their weight
    rows, counts = np.unique(both, axis=0, return_counts=True)
    for at in range(0, len(rows), _CHUNK):
        part, many = rows[at : at + _CHUNK], counts[at : at + _CHUNK]
        for d in range(DRAWS):
            sums[d] += rng.poisson(many) @ part
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(sums[:, 0] / sums[:, 1])
