"""Weights against winner's bias: right for all that was bid on, not only for what was won."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsp.model.curves import MEDIA_SLOTS, X_EXCHANGES, prior_curves
from dsp.model.logistic import Fit, Sample, fit_map
from dsp.model.network import sigmoid
from dsp.model.weights import LEAST_EFFECTIVE, clipped, inverse_chance, shares_now

SEED = 11


def test_what_was_won_alone_misleads_and_weighted_by_its_chance_it_does_not() -> None:
    """A linear model of a bent truth: rivals want the best people, so what is won is mostly the rest."""
    print(f"seed {SEED}")
    rng = np.random.default_rng(SEED)
    n = 60_000
    x = rng.uniform(-1.0, 1.0, (n, 1)).astype(np.float32)
    truth = sigmoid(-2.5 + 1.5 * x[:, 0] + 2.0 * x[:, 0].astype(np.float64) ** 2)
    curves = prior_curves()
    curves[:, :] = 3.0, 1.5e6
    bid = 1.5e6 * np.exp(-0.6 * x[:, 0])  # an old model that thought little of them
    won = rng.random(n) < 1.0 / (1.0 + (1.5e6 / bid) ** 3.0)
    y = (rng.random(n) < truth).astype(np.float64)
    decisions = {"features": x, "creative": np.ones(n, np.uint32), "propensity": np.ones(n, np.float32)}
    weight, told = clipped(inverse_chance(decisions, bid, np.zeros(n, np.int64), curves, None)[won])
    prior = Fit(np.zeros(1), -2.0, 0.0)
    plain = fit_map(Sample(x[won], y[won], np.ones(int(won.sum()))), prior, 1.0)
    fair = fit_map(Sample(x[won], y[won], weight), prior, 1.0)
    off = [abs(float(sigmoid(fit.logits(x)).mean() / truth.mean()) - 1.0) for fit in (plain, fair)]
    best = sigmoid(fit_map(Sample(x, y, np.ones(n)), prior, 1.0).logits(x))
    apart = [float(np.abs(sigmoid(fit.logits(x)) - best).mean()) for fit in (plain, fair)]
    assert off[0] > 0.05
    assert off[1] < 0.02
    assert apart[1] < 0.4 * apart[0]
    assert LEAST_EFFECTIVE * won.sum() <= told.effective < won.sum()


def test_creatives_count_as_often_as_they_are_shown_now() -> None:
    """Half the traffic went to each creative, now nine tenths go to the better one."""
    print(f"seed {SEED}")
    rng = np.random.default_rng(SEED)
    n = 40_000
    before = np.arange(n) < 0.9 * n
    share = np.where(before, 0.5, 0.9)
    creative = np.where(rng.random(n) < share, 7, 8).astype(np.uint32)
    propensity = np.where(creative == 7, share, 1.0 - share)
    y = rng.random(n) < np.where(creative == 7, 0.2, 0.05)
    now = 0.9 * 0.2 + 0.1 * 0.05
    weight = clipped(shares_now(creative, propensity))[0]
    assert abs(y.mean() / now - 1.0) > 0.2
    assert float(weight @ y / weight.sum()) == pytest.approx(now, rel=0.04)


def test_a_log_without_propensities_changes_nothing() -> None:
    assert (shares_now(np.array([1, 2, 1]), np.zeros(3)) == 1.0).all()


@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=200))
def test_weights_average_one_and_keep_their_effective_sample(weights: list[float]) -> None:
    out, told = clipped(np.array(weights))
    assert out.mean() == pytest.approx(1.0)
    assert (out > 0).all()
    assert told.effective >= LEAST_EFFECTIVE * len(out) * 0.99 or told.clip < 1.0


def test_an_impression_nearly_impossible_to_win_is_no_more_than_a_rare_one() -> None:
    decisions = {
        "features": np.zeros((2, 1), np.float32), "creative": np.ones(2, np.uint32), "propensity": np.ones(2),
    }  # fmt: skip
    key = np.array([0, X_EXCHANGES * MEDIA_SLOTS - 1])
    inverse = inverse_chance(decisions, np.array([1.0, 1e9]), key, prior_curves(), None)
    assert inverse == pytest.approx([1000.0, 1.0], rel=0.01)
