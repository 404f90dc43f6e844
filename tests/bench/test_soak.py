"""What a soak calls a leak or a drift."""

import numpy as np

from bench.soak import judge

TIMES = np.arange(0.0, 1800.0, 4.0)
SEED = 7


def columns(**changed):
    rng = np.random.default_rng(SEED)
    n = len(TIMES)
    flat = {
        "rss": np.full(n, 400e6), "rss_anon": np.full(n, 200e6), "descriptors": np.full(n, 30.0),
        "threads": np.full(n, 9.0), "p99_us": rng.lognormal(8, 0.3, n),
    }  # fmt: skip
    return flat | changed


def test_a_steady_process_holds_even_though_its_p99_is_noisy():
    assert judge(TIMES, columns())["ok"]


def test_memory_that_creeps_three_percent_is_a_leak():
    found = judge(TIMES, columns(rss=400e6 * (1 + 0.04 * TIMES / TIMES[-1])))
    assert not found["held"]["memory"]
    assert found["held"]["threads"]


def test_memory_of_the_warm_up_is_no_leak():
    assert judge(TIMES, columns(rss=np.where(TIMES < 100, 300e6, 400e6)))["ok"]


def test_one_descriptor_more_is_a_leak():
    assert not judge(TIMES, columns(descriptors=30.0 + (TIMES > 1700)))["held"]["descriptors"]


def test_a_p99_that_rises_by_a_third_is_a_drift():
    rising = columns()["p99_us"] * (1 + 0.33 * TIMES / TIMES[-1])
    assert not judge(TIMES, columns(p99_us=rising))["held"]["p99"]
