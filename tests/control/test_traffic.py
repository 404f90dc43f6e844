"""Traffic curves: what a plan is made of."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsp.control.traffic import DAY_BINS, WEEK_S, Curve, Traffic, learn

MONDAY_S = 4 * 86_400.0


def day_and_night() -> np.ndarray:
    """Half hours of a day with a quiet night and a busy evening."""
    hours = np.arange(DAY_BINS) / 2
    return 1.0 + 0.8 * np.sin((hours - 14) / 24 * 2 * np.pi)


def test_unlearned_curve_is_flat() -> None:
    curve = Curve.of(Traffic.flat(2).nodes())
    np.testing.assert_allclose(curve.between(0.0, 7200.0), 7200.0)
    np.testing.assert_allclose(curve.at(12345.0), 1.0)


def test_shape_of_the_day_is_learned_whatever_its_size() -> None:
    traffic, shape = Traffic.flat(1), day_and_night()
    for day, size in enumerate((1.0, 5.0, 0.2, 3.0)):
        learn(traffic, day, (size * 1e6 * shape)[None, :])
    np.testing.assert_allclose(traffic.day[0], shape / shape.mean(), rtol=1e-6)


def test_weekend_is_told_from_weekdays_after_some_weeks() -> None:
    traffic = Traffic.flat(1)
    for day in range(42):
        weekday = day % 7
        learn(traffic, weekday, np.full((1, DAY_BINS), 100.0 if weekday < 5 else 50.0))
    ratio = traffic.week[0, 6] / traffic.week[0, 2]
    assert 0.45 < ratio < 0.65
    curve = Curve.of(traffic.nodes())
    wednesday = curve.between(MONDAY_S + 2.2 * 86_400, MONDAY_S + 2.8 * 86_400)
    sunday = curve.between(MONDAY_S + 6.2 * 86_400, MONDAY_S + 6.8 * 86_400)
    assert sunday[0] / wednesday[0] == pytest.approx(ratio, rel=0.01)


def test_one_spike_moves_the_curve_little() -> None:
    traffic, shape = Traffic.flat(1), day_and_night()
    for day in range(10):
        learn(traffic, day % 7, shape[None, :])
    before = traffic.day[0, 20]
    spiked = shape.copy()
    spiked[20] *= 50.0
    learn(traffic, 3, spiked[None, :])
    assert traffic.day[0, 20] / before < 1.35


def test_unseen_half_hours_stay_as_they_were() -> None:
    traffic, shape = Traffic.flat(1), day_and_night()
    learn(traffic, 0, shape[None, :])
    partial = 2.0 * shape
    partial[10:20] = np.nan  # an outage
    learn(traffic, 1, partial[None, :])
    np.testing.assert_allclose(traffic.day[0], shape / shape.mean(), rtol=1e-6)
    nothing = np.full((1, DAY_BINS), np.nan)
    learn(traffic, 2, nothing)
    assert traffic.days[0] == 2


@given(
    st.lists(st.floats(0.01, 100.0), min_size=DAY_BINS, max_size=DAY_BINS),
    st.lists(st.floats(0.0, 3 * WEEK_S), min_size=3, max_size=3),
)
def test_intervals_add_up(shape: list[float], times: list[float]) -> None:
    traffic = Traffic.flat(1)
    learn(traffic, 0, np.array([shape]))
    curve = Curve.of(traffic.nodes())
    a, b, c = sorted(times)
    whole = curve.between(a, c)[0]
    assert whole == pytest.approx(curve.between(a, b)[0] + curve.between(b, c)[0], rel=1e-9, abs=1e-6)
    assert curve.between(a, a + WEEK_S)[0] == pytest.approx(curve.passed[0, -1])
    assert curve.between(c, a)[0] == 0.0
