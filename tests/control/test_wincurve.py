"""The curve is found again from its own auctions."""

from __future__ import annotations

import numpy as np
import pytest

from dsp.control.wincurve import K_MAX, K_MIN, fit_win_curve

PRIOR = (2.0, 1_500_000.0)


def unknown(bid: np.ndarray) -> np.ndarray:
    """No exchange says the price to win."""
    return np.full(len(bid), np.nan)


def test_fit_finds_each_keys_curve_again() -> None:
    rng = np.random.default_rng(7)
    truth = np.array([[1.5, 8e5], [4.0, 3e6], [2.0, 1.2e7]])
    key = rng.integers(0, 3, 60_000)
    bid = truth[key, 1] * np.exp(rng.normal(0.0, 0.7, len(key)))
    won = rng.random(len(key)) < 1.0 / (1.0 + (bid / truth[key, 1]) ** -truth[key, 0])
    curves = fit_win_curve(bid, won, unknown(bid), key, 4, PRIOR)
    np.testing.assert_allclose(curves[:3], truth, rtol=0.06)
    assert curves[3, 1] == pytest.approx(np.exp(np.log(truth[:, 1]).mean()), rel=0.5)  # unseen: the pooled curve


def test_no_auctions_leave_the_prior() -> None:
    none = np.zeros(0)
    curves = fit_win_curve(none, none.astype(bool), none, none.astype(np.int64), 2, PRIOR)
    np.testing.assert_array_equal(curves, [PRIOR, PRIOR])


def test_a_few_auctions_move_the_prior_only_a_little() -> None:
    curves = fit_win_curve(
        np.full(3, 1.5e6), np.array([True, True, False]), np.full(3, np.nan), np.zeros(3, np.int64), 1, PRIOR
    )
    assert curves[0, 0] == pytest.approx(PRIOR[0], rel=0.1)
    assert curves[0, 1] == pytest.approx(PRIOR[1], rel=0.2)


@pytest.mark.parametrize("won", [True, False])
def test_winning_or_losing_everything_gives_a_usable_curve(won: bool) -> None:
    rng = np.random.default_rng(3)
    bid = np.exp(rng.normal(14.0, 0.3, 5_000))
    curves = fit_win_curve(bid, np.full(5_000, won), unknown(bid), np.zeros(5_000, np.int64), 1, PRIOR)
    assert np.isfinite(curves).all()
    assert (curves > 0).all()
    assert bool(curves[0, 1] < bid.mean()) is won
    assert bid.min() / 4.1 < curves[0, 1] < bid.max() * 4.1
    assert K_MIN <= curves[0, 0] <= K_MAX


def test_a_perverse_sample_where_higher_bids_lose_keeps_an_increasing_curve() -> None:
    rng = np.random.default_rng(5)
    bid = np.exp(rng.normal(14.0, 0.8, 4_000))
    won = bid < np.median(bid)
    curves = fit_win_curve(bid, won, unknown(bid), np.zeros(4_000, np.int64), 1, PRIOR)
    assert curves[0, 0] == pytest.approx(K_MIN)
    assert np.isfinite(curves).all()


def confounded(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bids that follow a value which rivals see too: (bids, prices to win, won)."""
    rng = np.random.default_rng(9)
    worth = rng.normal(0.0, 0.7, n)
    price = 1.2e6 * np.exp(worth + 0.5 * rng.logistic(0.0, 0.3, n))
    bid = 1.1e6 * np.exp(0.6 * worth + rng.normal(0.0, 0.05, n))
    return bid, price, price <= bid


def test_known_prices_to_win_tell_the_curve_where_wins_and_losses_mislead() -> None:
    bid, price, won = confounded(20_000)
    key = np.zeros(len(bid), np.int64)
    blind = fit_win_curve(bid, won, unknown(bid), key, 1, PRIOR)[0]
    told = fit_win_curve(bid, won, np.where(won, np.nan, price), key, 1, PRIOR)[0]
    assert blind[0] == K_MIN  # higher bids seem to lose
    # Prices of wins stay hidden, and bids tell about them: not exact, but no longer absurd.
    assert told[0] == pytest.approx(np.pi / (np.sqrt(3.0) * np.log(price).std()), rel=0.3)
    assert told[1] == pytest.approx(np.median(price), rel=0.15)


def test_fit_of_exact_prices_is_the_distribution_of_those_prices() -> None:
    rng = np.random.default_rng(6)
    price = 2e6 * np.exp(rng.logistic(0.0, 1.0 / 3.0, 20_000))
    bid = np.full(20_000, 1e6)
    k, c = fit_win_curve(bid, price <= bid, price, np.zeros(20_000, np.int64), 1, PRIOR)[0]
    assert k == pytest.approx(3.0, rel=0.03)
    assert c == pytest.approx(2e6, rel=0.03)
