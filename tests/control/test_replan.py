"""The multiplier spends what is left, evenly and on the best impressions, whatever it is told at the start."""

from __future__ import annotations

import numpy as np
import pytest

from dsp.control.replan import BINS, forget, observe, second_price_cost, solve, values_seen


def histogram_of(values: np.ndarray) -> np.ndarray:
    seen = values_seen()
    for value in values:
        observe(seen, value)
    return seen


def test_cost_of_an_offer_is_what_the_cheaper_prices_cost() -> None:
    cost = second_price_cost(np.array([1, 0, 2, 1]))
    np.testing.assert_allclose(cost, [0, 0, 2 * 2 / 4, (2 * 2 + 3) / 4])


@pytest.mark.parametrize("share", [0.02, 0.2, 0.6])
def test_the_solved_multiplier_spends_the_asked_share(share: float) -> None:
    rng = np.random.default_rng(5)
    values, prices = rng.lognormal(3, 1, 20_000), rng.integers(1, 300, 20_000)
    seen = histogram_of(values)
    multiplier = solve(seen, second_price_cost(np.bincount(prices, minlength=301)), share * prices.mean())
    bought = values * multiplier >= prices
    assert prices[bought].mean() * bought.mean() == pytest.approx(share * prices.mean(), rel=0.07)


def test_nothing_left_buys_nothing_and_plenty_buys_all() -> None:
    seen = histogram_of(np.array([1.0, 5.0]))
    cost = second_price_cost(np.ones(301))
    assert solve(seen, cost, 0.0) == 0.0
    assert solve(seen, cost, float("nan")) == 0.0
    assert solve(seen, cost, 1e9) * 1.0 > 300


def test_forgetting_follows_a_shift_in_values() -> None:
    cost = second_price_cost(np.ones(301))
    seen = histogram_of(np.full(10_000, 10.0))
    forget(seen, 0.0001)
    for value in np.full(1_000, 40.0):
        observe(seen, value)
    fresh = solve(histogram_of(np.full(1_000, 40.0)), cost, 20.0)
    assert solve(seen, cost, 20.0) == pytest.approx(fresh, rel=0.06)


def test_values_that_are_none_or_out_of_range_do_no_harm() -> None:
    seen = histogram_of(np.array([0.0, -1.0, float("nan"), 1e-30, 1e30]))
    assert seen[0].sum() == 5
    assert seen[0, 0] == 4
    assert seen[0, BINS - 1] == 1
    assert np.isfinite(seen).all()


def test_worthless_impressions_are_auctions_that_cost_nothing() -> None:
    rng = np.random.default_rng(6)
    values = rng.lognormal(3, 1, 4_000)
    cost = second_price_cost(np.ones(301))
    half = np.where(rng.random(4_000) < 0.5, values, 0.0)
    assert solve(histogram_of(half), cost, 10.0) == pytest.approx(
        solve(histogram_of(values[half > 0]), cost, 10.0 / (half > 0).mean()), rel=1e-6
    )
