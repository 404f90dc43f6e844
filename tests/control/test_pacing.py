"""Pacing over a day with a real diurnal curve, on a simulated clock (the market of `bench.pacing`)."""

import numpy as np
import pytest

from bench.pacing import CASES, Case, errors, pace, target_cpa
from dsp.control.pacing import ASAP, FRONT, Pacing, Plans


def plans(shape: int, budget: float = 1e9, n: int = 1) -> Plans:
    ones = np.ones(n)
    return Plans(0.0 * ones, 86_400.0 * ones, budget * ones, np.full(n, shape, np.int8), 0 * ones, np.inf * ones, ones)


@pytest.fixture(scope="module")
def day() -> tuple[list[str], list[Case], dict[str, np.ndarray]]:
    """One day of all cases side by side; the traffic of the week before is known, nothing else."""
    cases = CASES | {"front": Case(shape=FRONT), "asap": Case(shape=ASAP), "more than the market": Case(part=3.0)}
    print("seed 11")
    return list(cases), list(cases.values()), pace(list(cases.values()), 1, seed=11, learn=0, told=7, step_s=20.0)


def test_hourly_spend_follows_the_plan_through_spike_and_outage(day) -> None:
    names, cases, out = day
    for name, row in zip(names, errors(out, cases), strict=True):
        if name in CASES:
            assert row["worst_hour"] <= 0.05, (name, row)
            assert row["delivered"] >= 0.99, (name, row)


def test_outage_is_made_good_within_the_hour_after_it(day) -> None:
    names, _, out = day
    i = names.index("outage, 10-12 h")
    spent, planned = out["hourly"][0, :, i], out["planned"][0, :, i]
    assert spent[10] + spent[11] < 0.01 * planned[10]
    assert spent[:13].sum() == pytest.approx(planned[:13].sum(), rel=0.01)


def test_front_loaded_spends_more_early_and_all_in_the_end(day) -> None:
    names, _, out = day
    front, even = names.index("front"), names.index("plain")
    assert out["hourly"][0, :8, front].sum() > 1.25 * out["hourly"][0, :8, even].sum()
    assert out["delivered"][0, front] >= 0.99


def test_asap_bids_the_whole_value_until_the_money_is_gone(day) -> None:
    names, _, out = day
    spent = out["hourly"][0, :, names.index("asap")]
    assert out["delivered"][0, names.index("asap")] == pytest.approx(1.0)
    assert spent[12:].sum() == 0.0


def test_never_bids_above_the_ceiling(day) -> None:
    """A budget that the market cannot take is not forced into it at any price."""
    names, _, out = day
    assert out["delivered"][0, names.index("more than the market")] < 0.5


def test_planned_ends_at_the_budget_and_never_falls() -> None:
    pacing = Pacing.fresh(1)
    for shape in (0, FRONT):
        done = [pacing.planned(plans(shape), t)[0] for t in np.linspace(-3600, 90_000, 60)]
        assert done[0] == 0.0
        assert done[-1] == pytest.approx(1e9)
        assert (np.diff(done) >= -1e-3).all()


def test_same_spend_gives_the_same_multipliers() -> None:
    """Pure: no clock, no randomness of its own."""

    def run() -> list[float]:
        pacing, rng, seen = Pacing.fresh(1), np.random.default_rng(1), []
        spent = 0.0
        for k in range(200):
            wins = float(rng.poisson(50))
            spent += wins * 1000
            now = 10.0 * k
            pacing.step(
                plans(0), now, 10.0, np.array([spent]), np.array([wins * 1000]), np.array([wins]), np.ones(1, bool)
            )
            seen.append(float(pacing.log_m[0]))
        return seen

    assert run() == run()


def test_target_cost_per_action_is_met_with_the_budget_spent() -> None:
    print("first 3")
    rows = target_cpa(4, first=3, step_s=300.0)
    for row in rows:
        assert row["actions"] >= 1000, row
        assert abs(row["cpa_of_target"] - 1) <= 0.10, row
        assert row["spent"] >= 0.9, row
