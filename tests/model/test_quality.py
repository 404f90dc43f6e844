"""The metrics agree with scikit-learn's and with arithmetic by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import log_loss as reference_log_loss
from sklearn.metrics import roc_auc_score

from dsp.model.quality import auc, calibration_bins, calibration_ratio, expected_calibration_error, log_loss


def sample(n: int = 2_000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    p = np.round(rng.beta(1, 5, n), 2)  # rounded: ties
    return p, (rng.random(n) < p).astype(np.float64)


def test_auc_and_log_loss_match_scikit_learn() -> None:
    p, y = sample()
    assert auc(p, y) == pytest.approx(roc_auc_score(y, p), abs=1e-12)
    safe = np.clip(p, 0.01, 0.99)
    assert log_loss(safe, y) == pytest.approx(reference_log_loss(y, safe), abs=1e-12)


def test_what_cannot_be_told_is_none() -> None:
    none = np.zeros(0)
    assert auc(np.array([0.5, 0.6]), np.ones(2)) is None
    assert auc(none, none) is log_loss(none, none) is expected_calibration_error(none, none) is None
    assert calibration_ratio(np.array([0.5]), np.zeros(1)) is None


def test_calibration_error_by_hand() -> None:
    p, y = np.array([0.1, 0.1, 0.9, 0.9]), np.array([0.0, 1.0, 1.0, 1.0])
    assert expected_calibration_error(p, y, bins=2) == pytest.approx((0.4 + 0.1) / 2)
    np.testing.assert_allclose(calibration_bins(p, y, 2), [[2, 0.1, 0.5], [2, 0.9, 1.0]])
    assert calibration_ratio(p, y) == pytest.approx(2.0 / 3.0)


def test_a_true_probability_is_calibrated() -> None:
    p, y = sample(50_000)
    error = expected_calibration_error(p, y)
    assert error is not None
    assert error < 0.01
