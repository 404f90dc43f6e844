"""Confidence intervals by the paired bootstrap: whole episodes (or seeds) are drawn, both sides alike."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]

DRAWS = 4_000
LEVEL = 0.95


def _interval(values: F64) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def drawn_sums(rows: F64, seed: int = 1, draws: int = DRAWS) -> F64:
    """float64[draws, ...]: the sums of ``rows`` ([n, ...]) over n episodes drawn with replacement."""
    n = len(rows)
    count = np.random.default_rng(seed).multinomial(n, np.full(n, 1.0 / n), size=draws)
    flat = count.astype(np.float64) @ rows.reshape(n, -1)
    return np.asarray(flat.reshape(draws, *rows.shape[1:]), np.float64)


def sum_interval(a: F64, seed: int = 1) -> tuple[float, float]:
    """95 % interval of sum(a), float64[n]."""
    return _interval(drawn_sums(a, seed))


def sum_difference(a: F64, b: F64, seed: int = 1) -> tuple[float, float]:
    """95 % interval of sum(a) - sum(b), ``a`` and ``b`` float64[n] of the same episodes."""
    return _interval(drawn_sums(a - b, seed))


def sum_ratio(a: F64, b: F64, seed: int = 1) -> tuple[float, float]:
    """95 % interval of sum(a) / sum(b), ``a`` and ``b`` float64[n] of the same episodes."""
    sums = drawn_sums(np.stack([a, b], axis=1), seed)
    return _interval(sums[:, 0] / sums[:, 1])
