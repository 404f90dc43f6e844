"""The bandit finds the best creative, keeps looking at the others, and is fair to creatives that get poor slots."""

from __future__ import annotations

import numpy as np
import pytest

from dsp.control.bandit import FLOOR, shares

GROUP = np.array([1, 1, 1, 2, 2, 7])


def test_shares_sum_to_one_per_line_item_and_none_falls_below_the_floor() -> None:
    out = shares(GROUP, np.array([90.0, 10, 10, 0, 0, 3]), np.array([30.0, 30, 30, 0, 0, 3]), seed=1)
    for g in (1, 2, 7):
        assert out[g == GROUP].sum() == pytest.approx(1.0)
    assert out[:3].min() >= FLOOR / 3 - 1e-12
    assert out[0] > 0.9
    assert out[5] == 1.0


def test_nothing_known_is_shown_evenly() -> None:
    assert shares(np.zeros(2, np.int64), np.zeros(2), np.zeros(2), seed=3) == pytest.approx(0.5, abs=0.05)


def test_fewer_clicks_in_poor_slots_are_not_held_against_a_creative() -> None:
    out = shares(np.zeros(2, np.int64), np.array([200.0, 60.0]), np.array([200.0, 30.0]), seed=3)
    assert out[1] > 0.9


def test_over_time_it_wins_more_clicks_than_an_even_split_and_stays_fair_to_none() -> None:
    rng = np.random.default_rng(5)
    theta, expected = np.array([0.8, 1.0, 1.5]), 0.02
    clicks, hoped = np.zeros(3), np.zeros(3)
    for day in range(60):
        split = rng.multinomial(2_000, shares(np.zeros(3, np.int64), clicks, hoped, seed=day))
        clicks += rng.poisson(split * theta * expected)
        hoped += split * expected
    even = 60 * 2_000 * expected * theta.mean()
    assert clicks.sum() > 1.2 * even
    assert hoped.min() > 60 * 2_000 * expected * FLOOR / 3 * 0.9


def test_an_ad_that_is_clicked_by_those_who_never_apply_is_no_good_ad() -> None:
    events = np.array([[200.0, 5.0], [120.0, 60.0]])
    expected = np.array([[100.0, 40.0], [100.0, 24.0]])
    assert shares(np.zeros(2, np.int64), events, expected, seed=2)[1] > 0.9
    assert shares(np.zeros(2, np.int64), events[:, 0], expected[:, 0], seed=2)[0] > 0.9
