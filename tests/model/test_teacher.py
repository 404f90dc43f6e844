"""Trees teach what they are better at, never see the rows that judge, and keep quiet with little to learn from."""

from __future__ import annotations

import numpy as np

from dsp.model.logistic import Sample
from dsp.model.network import sigmoid
from dsp.model.teacher import soft_labels

N = 12_000


def world(interaction: float) -> tuple[Sample, np.ndarray, np.ndarray, np.ndarray]:
    """(rows, folds, the true logits, those of a model that misses the interaction of two features)."""
    rng = np.random.default_rng(7)
    x = rng.normal(size=(N, 5)).astype(np.float32)
    logit = x[:, 0] - 1.0 + interaction * np.sign(x[:, 1] * x[:, 2])
    y = (rng.random(N) < sigmoid(logit)).astype(np.float64)
    return Sample(x, y, np.ones(N)), rng.integers(0, 5, N), logit, x[:, 0].astype(np.float64) - 1.0


def test_targets_come_closer_to_the_truth_than_the_labels() -> None:
    sample, fold, logit, linear = world(1.2)
    target = soft_labels(sample, fold, linear, seed=1)
    taught = fold != 0
    assert np.abs(target - sigmoid(logit))[taught].mean() < 0.5 * np.abs(sample.y - sigmoid(logit))[taught].mean()
    np.testing.assert_array_equal(target[~taught], sample.y[~taught])


def test_labels_of_the_judging_fold_teach_nobody() -> None:
    sample, fold, _, linear = world(1.2)
    other = np.where(fold == 0, 1.0 - sample.y, sample.y)
    changed = soft_labels(Sample(sample.x, other, sample.weight), fold, linear, seed=1)
    np.testing.assert_array_equal(changed[fold != 0], soft_labels(sample, fold, linear, seed=1)[fold != 0])


def test_where_the_linear_model_is_right_the_labels_stay() -> None:
    sample, fold, logit, _ = world(0.0)
    np.testing.assert_array_equal(soft_labels(sample, fold, logit, seed=1), sample.y)


def test_few_positives_stay_labels() -> None:
    sample, fold, _, linear = world(1.2)
    few = sample.y * (np.cumsum(sample.y) < 300)
    np.testing.assert_array_equal(soft_labels(Sample(sample.x, few, sample.weight), fold, linear, seed=1), few)
