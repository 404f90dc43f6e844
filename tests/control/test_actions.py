"""Cost per action when actions come late."""

import numpy as np
import pytest

from dsp.control.actions import CORRECT, HOURS, Actions, allowed


def history(mean_delay_h: float, hours: int, per_hour: float, seed: int) -> Actions:
    """``hours`` hours of spend at m = 0.5, cost per action 1e6 at m = 1; what has not come by now is not known."""
    rng = np.random.default_rng(seed)
    actions = Actions.fresh(1, 1000)
    for hour in range(1000, 1000 + hours):
        actions.advance(hour)
        actions.spent(hour, np.array([per_hour * 0.5e6]), np.log(np.array([0.5])))
    born = np.repeat(np.arange(1000, 1000 + hours), rng.poisson(per_hour, hours))
    delay = rng.exponential(mean_delay_h, len(born))
    come = born + delay < 1000 + hours
    actions.acted(np.zeros(come.sum(), np.int64), born[come], delay[come])
    return actions


@pytest.mark.parametrize("mean_delay_h", [1.0, 12.0, 48.0])
def test_late_actions_do_not_look_dear(mean_delay_h: float) -> None:
    actions = history(mean_delay_h, 10 * 24, 20.0, seed=int(mean_delay_h))
    kappa = actions.kappa(np.array([1e6]))
    assert kappa[0] == pytest.approx(1e6, rel=0.08)
    naive = actions.exposure.sum() / actions.came.sum()
    assert abs(kappa[0] - 1e6) <= abs(naive - 1e6) + 2e4
    assert actions.expected(kappa)[0] == pytest.approx(20.0 * 240, rel=0.08)


def test_without_data_the_prior_holds_and_spend_without_actions_raises_it() -> None:
    actions = Actions.fresh(1, 0)
    assert actions.kappa(np.array([7.0]))[0] == 7.0
    for hour in range(100):
        actions.advance(hour)
        actions.spent(hour, np.array([10.0]), np.zeros(1))
    assert actions.kappa(np.array([7.0]))[0] > 70.0


def test_old_hours_are_forgotten() -> None:
    actions = history(1.0, 24, 20.0, seed=9)
    actions.advance(1000 + 24 + HOURS)
    assert actions.spend.sum() == actions.came.sum() == actions.delays.sum() == 0.0


def test_allowed_cost_repays_the_past_within_bounds() -> None:
    target, left = np.full(4, 10.0), np.full(4, 100.0)
    spent = np.full(4, 100.0)
    got = allowed(target, spent, np.array([10.0, 12.0, 8.0, 25.0]), left)
    np.testing.assert_allclose(got, [10.0, 12.5, 10 / 1.2, 10 * CORRECT])
    assert np.isinf(allowed(np.array([np.inf]), spent[:1], spent[:1], left[:1]))[0]
