"""How spend answers the multiplier, learned in closed loop."""

import numpy as np

from dsp.control.response import Response, observe

ON = np.ones(1, bool)


def feed(r: Response, rng: np.random.Generator, rate: float, log_m: float, elasticity: float, seconds: float = 10.0):
    """One interval of a market: ``rate`` wins per second at m = 1, price 1,000 micros."""
    wins = float(rng.poisson(rate * np.exp(elasticity * log_m) * seconds))
    observe(r, np.array([1000.0 * wins]), np.array([wins]), np.ones(1), np.array([log_m]), seconds, ON)


def test_elasticity_is_learned_while_the_multiplier_follows_the_level() -> None:
    rng = np.random.default_rng(3)
    r, log_m, level = Response.prior(1), -0.7, 0.0
    for _ in range(4000):
        level += rng.normal(0, 0.02)
        feed(r, rng, 60.0 * np.exp(level), log_m, 3.0)
        # A controller holding 20 wins per second, as pacing does: it moves against the level it sees.
        log_m = float(np.clip((np.log(20e3) - r.level[0]) / r.elasticity[0], log_m - 0.5, log_m + 0.5))
    assert 2.1 < r.elasticity[0] < 3.9  # from 1.5


def test_spike_is_followed_within_two_steps() -> None:
    rng = np.random.default_rng(4)
    r = Response.prior(1)
    for _ in range(200):
        feed(r, rng, 30.0, -0.5, 2.0)
    before = r.rate(np.ones(1), np.array([-0.5]))[0]
    for _ in range(2):
        feed(r, rng, 90.0, -0.5, 2.0)
    assert 2.6 < r.rate(np.ones(1), np.array([-0.5]))[0] / before < 3.4


def test_outage_teaches_nothing_and_ends_with_the_first_win() -> None:
    rng = np.random.default_rng(5)
    r = Response.prior(1)
    for _ in range(200):
        feed(r, rng, 30.0, -0.5, 2.0)
    level = r.level[0]
    for _ in range(700):
        feed(r, rng, 0.0, -0.5, 2.0)
    assert r.dark[0]
    assert r.level[0] == level
    feed(r, rng, 30.0, -0.5, 2.0)
    assert not r.dark[0]
    assert abs(r.level[0] - level) < 0.3


def test_nothing_is_learned_while_a_line_item_could_not_spend() -> None:
    rng = np.random.default_rng(6)
    r = Response.prior(1)
    for _ in range(100):
        feed(r, rng, 30.0, -0.5, 2.0)
    level = r.level[0]
    for _ in range(500):
        observe(r, np.zeros(1), np.zeros(1), np.ones(1), np.array([-0.5]), 10.0, np.zeros(1, bool))
    assert r.level[0] == level
    assert not r.dark[0]


def test_few_wins_count_as_few() -> None:
    """A market that has thinned to a tenth is noticed though no interval has enough wins."""
    rng = np.random.default_rng(7)
    r = Response.prior(1)
    for _ in range(720):
        feed(r, rng, 0.2, 0.0, 2.0)
    before = r.rate(np.ones(1), np.zeros(1))[0]
    for _ in range(720):
        feed(r, rng, 0.02, 0.0, 2.0)
    assert r.rate(np.ones(1), np.zeros(1))[0] < 0.25 * before
