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


def judged(columns, fresh=1.0):
    """Of a run whose fresh worker has ``fresh`` times the p99 the aged one has, on average."""
    noise = np.random.default_rng(SEED + 1).lognormal(0, 0.3, len(TIMES) // 3)
    return judge(TIMES, columns, np.median(columns["p99_us"]) * fresh * noise)


def test_a_steady_process_holds_even_though_its_p99_is_noisy():
    assert judged(columns())["ok"]


def test_memory_that_creeps_three_percent_is_a_leak():
    found = judged(columns(rss=400e6 * (1 + 0.04 * TIMES / TIMES[-1])))
    assert not found["held"]["memory"]
    assert found["held"]["threads"]


def test_memory_of_the_warm_up_is_no_leak():
    assert judged(columns(rss=np.where(TIMES < 100, 300e6, 400e6)))["ok"]


def test_one_descriptor_more_is_a_leak():
    assert not judged(columns(descriptors=30.0 + (TIMES > 1700)))["held"]["descriptors"]


def test_a_p99_a_third_above_a_fresh_workers_is_a_drift():
    found = judged(columns(), fresh=0.75)
    assert not found["held"]["p99"]
    assert found["p99_of_fresh"]["low"] > 1


def test_a_p99_that_rises_with_the_machines_is_told_but_no_drift():
    rising = columns()["p99_us"] * (1 + 0.33 * TIMES / TIMES[-1])
    found = judged(columns(p99_us=rising), fresh=1.15)
    assert found["p99_rise"] > 0.2
    assert found["held"]["p99"]
