"""How good probabilities are: ranking (AUC), log loss, calibration. Plain NumPy, defined as the literature does."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]

BINS = 10


def auc(p: F64, y: F64) -> float | None:
    """Probability that a positive outranks a negative, ties half (Mann-Whitney); None without one of the classes."""
    positives = float(y.sum())
    negatives = len(y) - positives
    if positives == 0 or negatives == 0:
        return None
    _, inverse, counts = np.unique(p, return_inverse=True, return_counts=True)
    rank = np.cumsum(counts) - (counts - 1) / 2.0  # mean rank of each tie group, from 1
    return float((rank[inverse][y > 0].sum() - positives * (positives + 1) / 2.0) / (positives * negatives))


def log_loss(p: F64, y: F64) -> float | None:
    """Mean negative log-likelihood in nats; None without rows."""
    if not len(y):
        return None
    p = np.clip(p, 1e-12, 1.0 - 1e-12)
    return float(-np.mean(y * np.log(p) + (1.0 - y) * np.log1p(-p)))


def calibration_bins(p: F64, y: F64, bins: int = BINS) -> F64:
    """float64[k, 3] of (rows, mean prediction, observed rate) over equal-count bins of rising prediction, k <= bins."""
    order = np.argsort(p, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return np.array([(len(part), p[part].mean(), y[part].mean()) for part in parts]).reshape(-1, 3)


def expected_calibration_error(p: F64, y: F64, bins: int = BINS) -> float | None:
    """Mean |prediction - observed rate| over equal-count bins, weighted by rows; None without rows."""
    if not len(y):
        return None
    table = calibration_bins(p, y, bins)
    return float(table[:, 0] @ np.abs(table[:, 1] - table[:, 2]) / table[:, 0].sum())


def calibration_ratio(p: F64, y: F64) -> float | None:
    """Predicted over observed positives: 1 is right, 2 promises twice what comes; None without positives."""
    return float(p.sum() / y.sum()) if y.sum() else None
