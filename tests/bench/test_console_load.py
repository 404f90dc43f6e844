"""What the console-load bench makes of what it reads: quantiles between edges, ratios with their interval."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench.console_load import interval, p99s, quantile, together


def test_a_quantile_lies_between_the_edges_of_its_bucket() -> None:
    counts = [(0.001, 50.0), (0.002, 100.0), (math.inf, 100.0)]
    assert quantile(counts, 0.25) == pytest.approx(0.0005)
    assert quantile(counts, 0.99) == pytest.approx(0.00198)


def test_p99s_compare_the_windows_in_which_no_core_stood_still() -> None:
    rng = np.random.default_rng(1)
    windows = rng.normal(1000.0, 50.0, (200, 2))
    clean = np.ones((200, 2), bool)
    windows[:120, 0] *= 3  # the host took a core
    clean[:120, 0] = False
    arms, (ratio, low, high) = p99s(windows, clean)
    assert arms == pytest.approx([1000, 1000], rel=0.02)
    assert 0.97 < low <= ratio <= high < 1.03
    assert p99s(windows, np.ones_like(clean))[1][1] > 1.5
    with pytest.raises(ValueError, match="too busy"):
        p99s(windows, np.zeros_like(clean))


def test_an_interval_is_around_its_median_and_wider_for_less_alike() -> None:
    alike, unlike = interval([0.99, 1.0, 1.01] * 4), interval([0.8, 1.0, 1.2] * 4)
    assert alike[1] <= alike[0] <= alike[2]
    assert alike[2] - alike[1] < unlike[2] - unlike[1]


def test_runs_taken_together_weigh_by_what_they_know() -> None:
    sure, unsure = {"ratio": 1.0, "low": 0.95, "high": 1 / 0.95}, {"ratio": 1.5, "low": 0.75, "high": 3.0}
    ratio, low, high = together([sure, unsure])
    assert 1.0 < ratio < 1.01
    assert 0.95 < low < ratio < high < 1.07
    alone = together([sure])
    assert alone == pytest.approx((1.0, 0.95, 1 / 0.95))
    both = together([sure, sure])
    assert both[2] - both[1] == pytest.approx((alone[2] - alone[1]) / math.sqrt(2), rel=0.01)
