"""What the console-load bench makes of what it reads: quantiles between edges, ratios with their interval."""

from __future__ import annotations

import math

import pytest

from bench.console_load import between, interval


def test_a_quantile_lies_between_the_edges_of_its_bucket() -> None:
    counts = [(0.001, 50.0), (0.002, 100.0), (math.inf, 100.0)]
    assert between(counts, 0.25) == pytest.approx(0.0005)
    assert between(counts, 0.99) == pytest.approx(0.00198)


def test_an_interval_is_around_its_median_and_wider_for_less_alike() -> None:
    alike, unlike = interval([0.99, 1.0, 1.01] * 4), interval([0.8, 1.0, 1.2] * 4)
    assert alike[1] <= alike[0] <= alike[2]
    assert alike[2] - alike[1] < unlike[2] - unlike[1]
