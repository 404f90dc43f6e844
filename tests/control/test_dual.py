"""Budget and target as one problem."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsp.control.dual import BINDS_BUDGET, BINDS_CEILING, BINDS_FLOOR, BINDS_TARGET, solve, solve_curves


def one(rate: float, reach: float, elasticity: float, allowed: float, kappa: float):
    args = (np.array([x], float) for x in (rate, reach, elasticity, allowed, kappa, -4.0, 0.0))
    return solve(*args)


def test_each_constraint_binds_where_it_is_the_tightest() -> None:
    assert one(25.0, 100.0, 2.0, np.inf, 1.0).log_m[0] == pytest.approx(np.log(0.5))
    assert one(25.0, 100.0, 2.0, np.inf, 1.0).binds[0] == BINDS_BUDGET
    assert one(25.0, 100.0, 2.0, 3.0, 10.0).log_m[0] == pytest.approx(np.log(0.3))
    assert one(25.0, 100.0, 2.0, 3.0, 10.0).binds[0] == BINDS_TARGET
    assert one(400.0, 100.0, 2.0, np.inf, 1.0).binds[0] == BINDS_CEILING
    assert one(400.0, 100.0, 2.0, np.inf, 1.0).price[0] == 0.0
    assert one(1e-9, 100.0, 2.0, np.inf, 1.0).binds[0] == BINDS_FLOOR


@given(
    st.lists(st.floats(0.001, 10.0), min_size=5, max_size=5),
    st.lists(st.floats(0.05, 2.0), min_size=5, max_size=5),
    st.floats(0.01, 40.0),
    st.floats(0.1, 5.0),
)
def test_solution_of_curves_is_feasible_and_the_largest(
    steps: list[float], efficiency: list[float], budget: float, target: float
) -> None:
    """With decreasing actions per unit of spend (every real market), more than the solution breaks a constraint."""
    m = np.linspace(0.0, 1.0, 6)
    spend = np.concatenate([[0.0], np.cumsum(steps)])
    actions = np.concatenate([[0.0], np.cumsum(np.array(steps) * sorted(efficiency, reverse=True))])
    got = solve_curves(m, spend, actions, budget, 0.0, 0.0, target)

    def feasible(x: float) -> bool:
        cost, acts = np.interp(x, m, spend), np.interp(x, m, actions)
        return bool(cost <= budget * (1 + 1e-9) + 1e-9 and cost <= target * acts * (1 + 1e-9) + 1e-9)

    assert feasible(got)
    assert got == pytest.approx(1.0) or not feasible(got + 1e-3)


def test_a_good_past_allows_a_dearer_future() -> None:
    m = np.linspace(0.0, 1.0, 11)
    spend, actions = 100.0 * m**2, 10.0 * m  # cost per action 10 m
    assert solve_curves(m, spend, actions, 1e9, 0.0, 0.0, 5.0) == pytest.approx(0.5, abs=0.02)
    assert solve_curves(m, spend, actions, 1e9, 100.0, 30.0, 5.0) > 0.6
    assert solve_curves(m, spend, actions, 1e9, 100.0, 15.0, 5.0) < 0.4
