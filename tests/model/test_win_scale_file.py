"""Prices by context beside a model: what is written is read, and what can't price is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dsp.control.wincurve import fit_win_curve
from dsp.control.winscale import fit_win_scale
from dsp.model.curves import PRIOR
from dsp.model.features import FEATURES, SHARED, F
from dsp.model.registry import ModelError
from dsp.model.winscale import KEYS, WIN_SCALE_FILE, WinScale, better, load_win_scale, save_win_scale


def example() -> WinScale:
    ratio = np.geomspace(0.2, 4.0, 50)
    mass = np.diff(1.0 / (1.0 + ratio**-3.0), prepend=0.0, append=1.0)[None]
    row = np.full(KEYS, -1, np.int64)
    row[4] = 0
    weights = np.zeros(SHARED + 1)
    weights[FEATURES.index("video")], weights[-1] = np.log(3.0), np.log(1e6)
    return WinScale(weights, (13.0, 16.0), ratio, mass, row)


def test_what_is_saved_is_loaded_and_none_is_none(tmp_path: Path) -> None:
    assert load_win_scale(tmp_path) is None
    save_win_scale(tmp_path, example())
    loaded = load_win_scale(tmp_path)
    assert loaded is not None
    for name in ("weights", "ratio", "mass", "row"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(example(), name))
    assert loaded.reach == (13.0, 16.0)


def test_the_same_bid_wins_less_where_such_slots_go_for_more() -> None:
    x = np.zeros((3, F), np.float32)
    x[1, FEATURES.index("video")] = 1.0
    chance = example().chance(x, np.full(3, 1e6), np.array([4, 4, 5]))
    assert chance[0] == pytest.approx(0.5, abs=0.01)
    assert chance[1] == pytest.approx(1.0 / 28.0, abs=0.02)
    assert np.isnan(chance[2])


@pytest.mark.parametrize(
    "wrong",
    [
        {"weights": np.zeros(3)},
        {"ratio": np.geomspace(4.0, 0.2, 50)},
        {"mass": np.full((1, 51), np.nan)},
        {"row": np.full(KEYS, 1, np.int64)},
    ],
)
def test_prices_that_make_no_sense_are_refused(tmp_path: Path, wrong: dict[str, np.ndarray]) -> None:
    save_win_scale(tmp_path, replace(example(), **wrong))
    with pytest.raises(ModelError, match=WIN_SCALE_FILE):
        load_win_scale(tmp_path)
    tmp_path.joinpath(WIN_SCALE_FILE).write_bytes(b"not a table")
    with pytest.raises(ModelError, match=WIN_SCALE_FILE):
        load_win_scale(tmp_path)


def test_a_context_that_says_nothing_of_prices_is_not_better_than_the_curve() -> None:
    print("seed 3")
    rng = np.random.default_rng(3)
    n = 12_000
    x = np.zeros((n, F), np.float32)
    x[:, :SHARED] = rng.normal(0, 1, (n, SHARED))
    key = np.full(n, 4)
    bid = 1e6 * np.exp(rng.normal(0, 0.5, n))
    for weight, expected in ((0.0, False), (0.6, True)):
        price = 1e6 * np.exp(weight * x[:, 0] + rng.logistic(0, 1 / 3.0, n))
        won = bid >= price
        known = np.where(won, np.nan, price)
        half = slice(0, n // 2)
        curve = fit_win_curve(bid[half], won[half], known[half], key[half], KEYS, PRIOR)
        learned = fit_win_scale(x[half, :SHARED], bid[half], won[half], known[half], key[half], KEYS)
        assert learned is not None
        rest = slice(n // 2, n)
        assert better(WinScale(*learned), curve, x[rest], bid[rest], won[rest], key[rest]) is expected
