"""The hidden layer finds what a line cannot, and stays out where there is nothing to find."""

from __future__ import annotations

import numpy as np

from dsp.model.deep import Task, fit_layer
from dsp.model.logistic import Sample
from dsp.model.network import sigmoid

N, FEATURES = 8_000, 6


def tasks(interaction: float) -> list[Task]:
    """Two heads: the first with an interaction that the base logits miss, the second fully told by them."""
    rng = np.random.default_rng(2)
    out = []
    for strength in (interaction, 0.0):
        x = rng.normal(size=(N, FEATURES)).astype(np.float32)
        base = x[:, 0].astype(np.float64) - 0.5
        y = (rng.random(N) < sigmoid(base + strength * x[:, 1] * x[:, 2])).astype(np.float64)
        out.append(Task(Sample(x, y, np.ones(N)), base, np.arange(N) % 3 == 0, y))
    return out


def test_an_interaction_is_learned_by_the_head_that_has_it() -> None:
    given = tasks(1.5)
    layer = fit_layer(given, seed=1)
    assert layer is not None
    assert layer.deep[:, 0].any()
    assert not layer.deep[:, 1].any()
    x = given[0].sample.x[given[0].held]
    assert np.corrcoef(layer.corrections(x)[:, 0], x[:, 1] * x[:, 2])[0, 1] > 0.7


def test_where_the_line_says_it_all_there_is_no_layer() -> None:
    assert fit_layer(tasks(0.0), seed=1) is None


def test_the_same_seed_gives_the_same_layer() -> None:
    first, again = (fit_layer(tasks(1.5), seed=4) for _ in range(2))
    assert first is not None
    assert again is not None
    np.testing.assert_array_equal(first.hidden, again.hidden)
    np.testing.assert_array_equal(first.deep, again.deep)
