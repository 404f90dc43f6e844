"""The simulated flight, small: budgets hold, are spent, and no way of delivering notices changes the books."""

import pytest

from bench.money import Setting, run, verdict


@pytest.mark.parametrize("shuffled", [False, True])
def test_budgets_hold_and_are_spent_whatever_happens_to_notices(shuffled):
    setting = Setting(seed=7, lines=12, flight_s=900.0, win_rates=(0.15, 0.5), shuffled=shuffled)
    result = run(setting)
    print(result)
    assert verdict(result), result
    assert result["late_wins"] > 0
