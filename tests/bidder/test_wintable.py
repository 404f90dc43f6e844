"""The table shades as the curve it was made of, to within its grid."""

from __future__ import annotations

import math
import time

import numba as nb
import numpy as np
import pytest

from dsp.bidder.wintable import CELLS, Odds, best_bid, chance_of, scale_of, win_table
from dsp.control.wincurve import K_MAX, K_MIN
from dsp.model.features import SHARED, F
from dsp.model.winscale import KEYS, WinScale

C = 1_300_000.0


def chances(bid: np.ndarray, k: float, c: float) -> np.ndarray:
    """F of a log-logistic curve."""
    return 1.0 / (1.0 + (np.maximum(bid, 1e-9) / c) ** -k)


def best_of_a_grid(worth: float, k: float, c: float) -> tuple[float, float]:
    """(bid, surplus) by brute force."""
    bids = np.linspace(0.0, worth, 20_001)[1:]
    surplus = (worth - bids) * chances(bids, k, c)
    return float(bids[surplus.argmax()]), float(surplus.max())


def row(k: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    curves = np.tile(np.array([2.0, 1_500_000.0]), (3, 4, 1))
    curves[1, 2] = k, C
    table = win_table(curves)
    at = table.curve[1, 2]
    assert (table.curve[[0, 2]] == table.curve[0, 0]).all()
    return table.value[at], table.bid[at], table.chance[at]


@pytest.mark.parametrize("k", [K_MIN, 1.0, 2.0, 6.0, K_MAX])
def test_a_bid_off_the_table_has_nearly_the_surplus_of_the_best(k: float) -> None:
    value, bid, chance = row(k)
    for worth in C * np.geomspace(0.05, 20.0, 300):
        ours, _ = best_bid(value, bid, chance, worth)
        _, best = best_of_a_grid(worth, k, C)
        assert 0.0 < ours < worth
        lost = best - (worth - ours) * float(chances(np.array(ours), k, C))
        assert lost <= 2e-3 * best + 1e-6 * worth, worth


@pytest.mark.parametrize("k", [K_MIN, 2.0, K_MAX])
def test_chances_are_those_of_the_curve_and_never_fall(k: float) -> None:
    _, bid, chance = row(k)
    prices = C * np.geomspace(0.002, 60.0, 2_000)
    ours = np.array([chance_of(bid, chance, price) for price in prices])
    curve = chances(prices, k, C)
    worth_bidding = (prices > bid[0]) & (prices < bid[np.isfinite(bid)][-1])
    assert np.abs(ours - curve)[worth_bidding].max() < 0.02
    assert (np.diff(ours) >= -1e-12).all()
    assert (ours <= 1.0).all()


@pytest.mark.parametrize("k", [K_MIN, 2.0, K_MAX])
def test_the_price_to_win_wins_every_other_auction(k: float) -> None:
    curves = np.tile(np.array([2.0, 1_500_000.0]), (3, 4, 1))
    curves[1, 2] = k, C  # its median is C
    odds = Odds.of(win_table(curves), 1, 4, np.zeros(F, np.float32))
    assert odds.price_to_win() == pytest.approx(C, rel=0.02)
    assert odds.wins(odds.price_to_win()) == pytest.approx(0.5, abs=0.01)
    assert odds.wins(0.5 * C) < 0.5 < odds.wins(2.0 * C)


def test_a_worth_below_the_table_bids_half_of_itself() -> None:
    value, bid, chance = row(2.0)
    assert best_bid(value, bid, chance, 10.0)[0] == 5.0
    assert 0 < chance_of(bid, chance, 5.0) < chance[0]
    assert np.isfinite(value).sum() <= CELLS


def test_a_table_by_context_shades_as_the_curve_around_the_auctions_own_price() -> None:
    ratio = np.geomspace(0.05, 20.0, 320)
    mass = np.diff(1.0 / (1.0 + ratio**-3.0), prepend=0.0, append=1.0)[None]
    weights = np.zeros(SHARED + 1)
    weights[2], weights[-1] = 0.7, np.log(C)
    row = np.full(KEYS, -1, np.int64)
    row[2 * 4 + 1] = 0
    table = win_table(
        np.tile(np.array([2.0, 1_500_000.0]), (64, 4, 1)), WinScale(weights, (10.0, 17.0), ratio, mass, row)
    )
    at = table.curve[2, 1]
    assert at == table.scaled
    assert (table.curve != at).sum() == KEYS - 1  # elsewhere the parametric curve
    features = np.zeros(F, np.float32)
    features[2] = 2.0
    scale = scale_of(features, table.weights, *table.reach)
    assert scale == pytest.approx(C * np.exp(1.4), rel=1e-5)
    for worth in scale * np.geomspace(0.3, 5.0, 30):
        bid, chance = best_bid(table.value[at], table.bid[at], table.chance[at], worth / scale)
        assert bid * scale == pytest.approx(best_of_a_grid(worth, 3.0, scale)[0], rel=0.03)
        assert chance == pytest.approx(float(chances(np.array(bid * scale), 3.0, scale)), abs=1e-6)
    features[2] = 1e9
    assert scale_of(features, table.weights, *table.reach) == pytest.approx(np.exp(17.0))


@nb.njit(nogil=True)
def _many(values: np.ndarray, value: np.ndarray, bid: np.ndarray, chance: np.ndarray, out: np.ndarray) -> None:
    for i in range(len(values)):
        out[i] = best_bid(value, bid, chance, values[i])[0]


def test_shading_is_cheap_enough_to_do_per_candidate() -> None:
    values = np.random.default_rng(1).uniform(2e5, 5e6, 20_000)
    table, out = row(2.3), np.zeros(20_000)
    _many(values, *table, out)
    best = math.inf
    for _ in range(10):
        start = time.thread_time()
        _many(values, *table, out)
        best = min(best, time.thread_time() - start)
    assert best / len(values) < 1e-6  # CPU time, loose, because machines share cores
