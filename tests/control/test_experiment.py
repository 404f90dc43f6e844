"""A difference that is there is found, one that is not is found one time in twenty, and nothing divides by nothing."""

from __future__ import annotations

import numpy as np
import pytest

from dsp.control.experiment import compare


def arm(rng: np.random.Generator, n: int, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Value and cost per bid: both heavy-tailed, and they go together."""
    cost = rng.gamma(0.5, 2.0, n)
    return cost * rng.exponential(rate, n), cost


def test_a_real_difference_is_found_with_its_size() -> None:
    rng = np.random.default_rng(2)
    found = compare(arm(rng, 20_000, 1.0), arm(rng, 20_000, 1.2))
    assert found.significant
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0.2 < found.high
    assert found.difference == pytest.approx(0.2, abs=0.08)


def test_equal_arms_seldom_look_different() -> None:
    rng = np.random.default_rng(3)
    wrong = sum(compare(arm(rng, 400, 1.0), arm(rng, 400, 1.0), seed).significant for seed in range(60))
    assert wrong <= 8  # five in a hundred, by chance up to eight in sixty


def test_arms_without_anything_to_divide_by_are_told_apart_from_zero() -> None:
    ones, none = np.ones(5), np.zeros(5)
    assert compare((ones, none), (ones, ones)).a is None
    assert not compare((ones, none), (ones, ones)).significant
    assert compare((none, ones), (ones, ones)).a == 0.0
