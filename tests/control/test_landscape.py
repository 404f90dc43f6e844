"""The curve is found again from censored auctions, and the bid read off it is the best of all grid bids."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dsp.control.landscape import LOST, PRICE, WON, envelope, learn, place, shade, told

GRID = np.arange(1.0, 41.0)
FLAT = np.full(41, 1 / 41)


def learned(heard: np.ndarray, prior: np.ndarray = FLAT, strength: float = 1.0, steps: int = 2_000) -> np.ndarray:
    mass = prior.copy()
    learn(heard[0], prior, strength, steps, mass)
    return mass


def auctions(kind: str, n: int = 40_000) -> tuple[np.ndarray, np.ndarray]:
    """(what was told, the true mass): prices lump at 5 and 20, bids are anywhere."""
    rng = np.random.default_rng(4)
    true = np.concatenate([rng.dirichlet(np.ones(40)) * 0.4, [0.1]])
    true[4] += 0.3
    true[19] += 0.2
    price, bid = rng.choice(41, n, p=true), rng.integers(0, 40, n)
    heard = told(1, 40)
    for p, b in zip(price, bid, strict=True):
        if kind == "reported" or (kind == "reported on losses" and p > b):
            heard[0, *((PRICE, p) if p < 40 else (LOST, 39))] += 1
        else:
            heard[0, WON if p <= b else LOST, b] += 1
    return heard, true


def test_the_curve_is_found_again_from_wins_and_losses_alone() -> None:
    heard, true = auctions("nothing reported")
    assert np.abs(np.cumsum(learned(heard)) - np.cumsum(true)).max() < 0.03


def test_reported_prices_make_it_sharper() -> None:
    errors = []
    for kind in ("nothing reported", "reported on losses", "reported"):
        heard, true = auctions(kind, 4_000)
        errors.append(np.abs(np.cumsum(learned(heard)) - np.cumsum(true)).mean())
    assert errors[0] > errors[1]
    assert errors[0] > 2 * errors[2]


def test_without_auctions_the_prior_stays_and_with_few_it_hardly_moves() -> None:
    prior = np.random.default_rng(1).dirichlet(np.ones(41))
    np.testing.assert_allclose(learned(told(1, 40), prior), prior, atol=1e-12)
    heard = told(1, 40)
    heard[0, WON, 3] = 2
    moved = learned(heard, prior, strength=1_000.0)
    assert 0 < np.abs(moved - prior).max() < 0.003
    assert moved[:4].sum() > prior[:4].sum()


def test_losing_everything_makes_cheap_prices_rare_not_impossible() -> None:
    heard = told(1, 40)
    heard[0, LOST, 10] = 10_000
    mass = learned(heard, strength=100.0)
    assert mass[:11].sum() < 0.01
    assert (mass > 0).all()
    assert abs(mass.sum() - 1) < 1e-9


def read_off(mass: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    bids, chances, starts = np.zeros((3, 40))
    n = envelope(mass, GRID, bids, chances, starts)
    return bids, chances, starts, n


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(0, 1), min_size=41, max_size=41).filter(lambda w: sum(w) > 0.1),
    st.floats(0.01, 200),
)
def test_the_shaded_bid_has_the_surplus_of_the_best_grid_bid(weights: list[float], value: float) -> None:
    mass = np.array(weights) / sum(weights)
    bids, chances, starts, n = read_off(mass)
    chance = np.cumsum(mass[:40])
    best = max(float((chance * (value - GRID)).max()), 0.0)
    bid = shade(value, 0.0, bids, starts)
    got = chance[int(bid) - 1] * (value - bid) if bid > 0 else 0.0
    assert got >= best - 1e-9 * value
    assert 0.0 <= bid <= value
    at = place(starts, value)
    assert at < n
    if at >= 0:
        np.testing.assert_allclose(chances[at], chance[int(bid) - 1])


def test_a_floor_lifts_the_bid_and_a_value_below_it_does_not_bid() -> None:
    bids, _, starts, _ = read_off(FLAT)
    free = shade(20.0, 0.0, bids, starts)
    assert shade(20.0, free + 3, bids, starts) == free + 3
    assert shade(20.0, 20.5, bids, starts) == 0.0
    assert shade(0.0, 0.0, bids, starts) == 0.0
    assert shade(float("nan"), 0.0, bids, starts) == 0.0
    assert shade(0.5, 0.2, bids, starts) == 0.2  # below every grid bid, but not below the floor


def test_the_bid_rises_with_the_value() -> None:
    bids, _, starts, _ = read_off(np.random.default_rng(2).dirichlet(np.full(41, 0.3)))
    shaded = [shade(v, 0.0, bids, starts) for v in np.linspace(0.1, 90, 500)]
    assert (np.diff(shaded) >= 0).all()
