"""The regression leaves its prior as far as the labels carry, and no further."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from dsp.model.logistic import PENALTIES, Fit, Sample, cross_validate, fit_map, platt
from dsp.model.network import sigmoid


def make(n: int, seed: int = 0, f: int = 6) -> tuple[Sample, np.ndarray]:
    rng = np.random.default_rng(seed)
    weights = np.array([1.0, -1.0, 0.5, 0.0, 0.0, 2.0])[:f]
    x = rng.normal(size=(n, f)).astype(np.float32)
    y = (rng.random(n) < sigmoid(x @ weights - 1.5)).astype(np.float64)
    return Sample(x, y, np.ones(n)), weights


ZERO = Fit(np.zeros(6), 0.0, 0.0)


def test_agrees_with_scikit_learn_around_a_zero_prior() -> None:
    sample, _ = make(3_000)
    reference = LogisticRegression(C=0.1, tol=1e-8, max_iter=1_000).fit(sample.x, sample.y)
    fit = fit_map(sample, ZERO, 10.0, bias_penalty=1e-6)  # the reference's intercept carries none
    np.testing.assert_allclose(fit.weights, reference.coef_[0], atol=1e-3)
    assert fit.bias == pytest.approx(reference.intercept_[0], abs=1e-3)


def test_many_labels_overrule_a_wrong_prior() -> None:
    sample, weights = make(50_000)
    fit = fit_map(sample, Fit(-weights, 3.0, 0.0), PENALTIES[-1])
    np.testing.assert_allclose(fit.weights, weights, atol=0.1)
    assert fit.bias == pytest.approx(-1.5, abs=0.1)


def test_no_labels_leave_the_prior_and_few_move_it_a_little() -> None:
    prior = Fit(np.full(6, 0.7), -2.0, 0.0)
    nothing = Sample(np.zeros((0, 6), np.float32), np.zeros(0), np.zeros(0))
    np.testing.assert_allclose(fit_map(nothing, prior, 10.0).weights, prior.weights)
    few, _ = make(12)
    penalty, _ = cross_validate(few, np.arange(12) % 3, prior)
    assert penalty == PENALTIES[0]
    assert np.abs(fit_map(few, prior, penalty).weights - prior.weights).max() < 0.1


def test_separable_labels_stay_finite() -> None:
    x = np.linspace(-1, 1, 40, dtype=np.float32)[:, None]
    fit = fit_map(Sample(x, (x[:, 0] > 0).astype(float), np.ones(40)), Fit(np.zeros(1), 0.0, 0.0), 3.0)
    assert 0 < fit.weights[0] < 10


def test_weighted_rows_count_as_repeated_rows() -> None:
    sample, _ = make(500)
    weight = np.where(sample.y > 0, 1.0, 3.0)
    repeat = np.repeat(np.arange(500), weight.astype(int))
    weighted = fit_map(Sample(sample.x, sample.y, weight), ZERO, 5.0)
    repeated = fit_map(Sample(sample.x[repeat], sample.y[repeat], np.ones(len(repeat))), ZERO, 5.0)
    np.testing.assert_allclose(weighted.weights, repeated.weights, atol=1e-4)


def test_more_labels_ask_for_less_restraint() -> None:
    small, _ = make(60, seed=3)
    large, _ = make(20_000, seed=3)
    strong, _ = cross_validate(small, np.arange(60) % 3, ZERO)
    weak, logits = cross_validate(large, np.arange(20_000) % 3, ZERO)
    assert weak <= strong
    assert logits.shape == (20_000,)


def test_platt_undoes_a_distorted_logit_and_leaves_a_few_labels_alone() -> None:
    rng = np.random.default_rng(4)
    logit = rng.normal(-1.0, 1.5, 40_000)
    y = (rng.random(40_000) < sigmoid(logit)).astype(np.float64)
    slope, offset = platt(2.0 * logit + 1.0, y, np.ones(40_000))
    assert slope == pytest.approx(0.5, abs=0.03)
    assert offset == pytest.approx(-0.5, abs=0.05)
    slope, offset = platt(logit[:4], y[:4], np.ones(4))
    assert slope == pytest.approx(1.0, abs=0.2)
