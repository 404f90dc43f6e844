"""The offset follows a change of level, stays put when the model is right, and never uses what has not happened yet."""

from __future__ import annotations

import numpy as np
import pytest

from dsp.model.drift import MEMORY, Drift
from dsp.model.network import sigmoid


def stream(n: int, rate: float, shift: np.ndarray | float, seed: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(predictions, outcomes whose log odds are ``shift`` above them, keys)."""
    rng = np.random.default_rng(seed)
    logit = np.log(rate / (1 - rate)) + rng.normal(0, 0.7, n)
    y = (rng.random(n) < sigmoid(logit + shift)).astype(np.float64)
    return sigmoid(logit), y, rng.integers(0, 8, n)


@pytest.mark.parametrize("rate", [0.3, 0.02, 0.002])
def test_a_changed_level_is_followed_whatever_the_rate(rate: float) -> None:
    n = int(3_000 / rate)
    p, y, key = stream(n, rate, 1.2)
    out = Drift(8).follow(p, y, key)
    late = slice(n // 2, None)
    assert p[late].sum() / y[late].sum() < 0.6
    assert out[late].sum() / y[late].sum() == pytest.approx(1.0, abs=0.07)


def test_a_model_that_is_right_is_left_alone() -> None:
    p, y, key = stream(200_000, 0.02, 0.0)
    drift = Drift(8)
    drift.follow(p, y, key)
    assert np.abs(drift.offsets()).max() < 4 / np.sqrt(MEMORY)
    assert abs(drift.whole[0]) < 3 / np.sqrt(MEMORY)


def test_one_line_items_own_change_stays_mostly_its_own() -> None:
    p, _, key = stream(400_000, 0.05, 0.0)
    rng = np.random.default_rng(9)
    truth = sigmoid(np.log(p / (1 - p)) + np.where(key == 3, -1.0, 0.0))
    drift = Drift(8)
    drift.follow(p, (rng.random(len(p)) < truth).astype(np.float64), key)
    offsets = drift.offsets()
    assert offsets[3] < -0.6
    assert np.abs(np.delete(offsets, 3)).max() < 0.3


def test_a_prediction_does_not_know_its_own_or_a_later_outcome() -> None:
    p, y, key = stream(5_000, 0.2, 0.8)
    before = Drift(8).follow(p, y, key)
    y[3_000:] = 1 - y[3_000:]
    after = Drift(8).follow(p, y, key)
    np.testing.assert_array_equal(before[:3_001], after[:3_001])
    assert (before[3_001:] != after[3_001:]).all()


def test_certainties_and_runs_of_one_outcome_stay_finite() -> None:
    drift = Drift(1)
    out = drift.follow(np.array([0.0, 1.0]), np.array([1.0, 0.0]), np.zeros(2, np.int64))
    np.testing.assert_array_equal(out, [0.0, 1.0])
    out = drift.follow(np.full(50_000, 0.01), np.ones(50_000), np.zeros(50_000, np.int64))
    assert np.isfinite(out).all()
    assert (out < 1).all()
    assert np.abs(drift.whole[0]) <= 3.0
