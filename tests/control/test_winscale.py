"""Prices by context: learned from wins, losses and minimums to win, as sharp as the context allows."""

from __future__ import annotations

import numpy as np
import pytest

from dsp.control.winscale import ENOUGH, fit_win_scale

SEED = 5
WEIGHTS = np.array([0.8, -0.5, 0.0])
TYPICAL = 2e6


def auctions(n: int, reported: float) -> tuple[np.ndarray, ...]:
    """(x, bid, won, price, key): ``reported`` of the losses tell the minimum to win; key 1 has floors at half."""
    print(f"seed {SEED}")
    rng = np.random.default_rng(SEED)
    x = rng.normal(0, 1, (n, 3)).astype(np.float32)
    key = (rng.random(n) < 0.3).astype(np.int64)
    scale = TYPICAL * np.exp(x @ WEIGHTS)
    ratio = np.exp(rng.logistic(0, 1 / 4.0, n))
    price = scale * np.where(key == 1, np.maximum(ratio, 0.9), ratio)
    bid = TYPICAL * np.exp(rng.normal(0.2, 0.8, n))
    won = bid >= price
    told = np.where(~won & (rng.random(n) < reported), price, np.nan)
    return x, bid, won, told, key


@pytest.mark.parametrize("reported", [0.0, 0.7])
def test_the_context_s_scale_and_the_spread_around_it_are_found(reported: float) -> None:
    learned = fit_win_scale(*auctions(20_000, reported), 3)
    assert learned is not None
    weights, (low, high), ratio, mass, row = learned
    np.testing.assert_allclose(weights[:-1], WEIGHTS, atol=0.04)
    assert low < np.log(TYPICAL) < high
    assert row.tolist() == [0, 1, -1]  # nothing is known of the third
    np.testing.assert_allclose(mass.sum(axis=1), 1.0)
    reached = np.cumsum(mass[:, :-1], axis=1)
    centre = np.exp(weights[-1]) / TYPICAL
    for at, chance in ((0.6, 0.115), (1.0, 0.5), (1.5, 0.835)):
        assert np.interp(at / centre, ratio, reached[0]) == pytest.approx(chance, abs=0.04)
    assert np.interp(0.8 / centre, ratio, reached[1]) < 0.1  # below the floor; 0.29 without one
    assert np.interp(0.8 / centre, ratio, reached[0]) > 0.2


def test_too_few_auctions_teach_nothing() -> None:
    assert fit_win_scale(*auctions(1_000, 0.5), 3) is None


def test_a_key_with_few_auctions_keeps_its_curve() -> None:
    x, bid, won, price, key = auctions(5_000, 0.5)
    key = np.where(np.arange(len(key)) < ENOUGH - 1, 2, 0)
    learned = fit_win_scale(x, bid, won, price, key, 3)
    assert learned is not None
    assert learned[-1].tolist() == [0, -1, -1]
