"""Seeded markets with a lift that is known: it lies within the interval, and where there is none, none is found."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dsp.bidder.arms import units_of
from dsp.catalog.layout import LI_CURRENCY, LI_ID, LI_WIDTH, LIV_MARGIN, LIV_WIDTH
from dsp.control.experiment import Compared, compare
from dsp.log.decisions import DECISION_FIELDS
from dsp.log.outcomes import APPLIED, BILLING, CLICK, FUNDED, OUTCOME_FIELDS
from dsp.model.trial import Arm, Conversions, arms_of, stages_of, times_of

EXPERIMENT: dict[str, Any] = {
    "id": 4711,
    "arms": [{"name": "held out", "control": True}, {"name": "shown", "control": False}],
}
A_B: dict[str, Any] = {"id": 42, "arms": [{"name": "a", "control": False}, {"name": "b", "control": False}]}
MARGIN = 100.0
FIRST_MS = 1_000_000


def snapshot() -> Any:
    li_i, li_v = np.zeros((1, LI_WIDTH), np.int64), np.zeros((1, LIV_WIDTH))
    li_i[0, LI_ID], li_i[0, LI_CURRENCY], li_v[0, LIV_MARGIN] = 9, 0, MARGIN
    return SimpleNamespace(li_i=li_i, li_v=li_v, cur_usd=np.ones(1))


def market(seed: int, n: int, rates: tuple[float, float], experiment: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """People of two arms, one to three bids each, who are funded with the probability of their arm: decisions, outcomes
    of those who were shown an ad, and the advertiser's own list; arm per person.
    """
    rng = np.random.default_rng(seed)
    unit, draw = units_of(rng.integers(0, 256, (n, 16), np.uint8), experiment["id"])
    arm = 1 + (draw >= 0.5).astype(np.int64)
    ghost = np.array([spec["control"] for spec in experiment["arms"]])[arm - 1]
    person = np.repeat(np.arange(n), rng.integers(1, 4, n))
    decisions = {name: np.zeros((len(person), w) if w else len(person), t) for name, (t, w) in DECISION_FIELDS.items()}
    decisions["bid_id"][:] = np.arange(1, len(person) + 1)
    decisions["time_ms"][:] = FIRST_MS + rng.permutation(len(person))
    decisions["line_item"][:], decisions["reserve_micros"][:], decisions["bid_cpm_micros"][:] = 9, 3_000, 3_000_000
    decisions["experiment"][:] = experiment["id"]
    decisions["arm"][:], decisions["unit"][:], decisions["ghost"][:] = arm[person], unit[person], ghost[person]
    funded = rng.random(n) < np.array(rates)[arm - 1]
    first = np.unique(person, return_index=True)[1]
    rows = [(b, BILLING) for b in decisions["bid_id"][ghost[person] == 0]]
    rows += [(decisions["bid_id"][first[i]], kind) for i in np.flatnonzero(funded & ~ghost) for kind in (CLICK, FUNDED)]
    outcomes = {name: np.zeros(len(rows), t) for name, (t, _) in OUTCOME_FIELDS.items()}
    outcomes["bid_id"][:], outcomes["kind"][:] = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    outcomes["time_ms"][:] = FIRST_MS + 10**6
    who = np.flatnonzero(funded)
    listed = Conversions(unit[who], np.full(len(who), FIRST_MS + 10**7), np.full(len(who), 3))
    return decisions, outcomes, listed, arm


def compared(arms: list[Arm], metric: str) -> Compared:
    return compare(arms[0].ratios(arms[1])[metric], arms[1].ratios(arms[0])[metric])


FUNDED_RATE = "funded per thousand people"


def test_a_known_lift_of_ghost_bids_lies_within_its_interval_as_often_as_is_said() -> None:
    within, found = 0, 0
    for seed in range(60):
        decisions, outcomes, listed, _ = market(seed, 4_000, (0.05, 0.08), EXPERIMENT)
        arms = arms_of(decisions, outcomes, snapshot(), EXPERIMENT, listed)
        row = compared(arms, FUNDED_RATE)
        assert row.low is not None
        assert row.high is not None
        within += row.low <= 30.0 <= row.high
        found += row.significant
    print(f"seeds 0..59: {within} intervals hold the true lift, {found} are significant")
    assert within >= 52  # 57 expected; below 52 one time in a hundred
    assert found >= 50


def test_two_arms_that_are_alike_look_different_one_time_in_twenty() -> None:
    wrong = 0
    for seed in range(100, 200):
        decisions, outcomes, _, _ = market(seed, 2_000, (0.05, 0.05), A_B)
        wrong += compared(arms_of(decisions, outcomes, snapshot(), A_B), FUNDED_RATE).significant
    print(f"seeds 100..199: {wrong} of 100 significant")
    assert wrong <= 12  # 5 expected; above 12 three times in a thousand


def test_an_arm_counts_people_spend_and_worth_once_each() -> None:
    decisions, outcomes, _, arm = market(7, 500, (0.2, 0.2), A_B)
    arms = arms_of(decisions, outcomes, snapshot(), A_B)
    for k, each in enumerate(arms):
        totals = each.totals()
        mine = decisions["arm"] == k + 1
        assert totals["people"] == (arm == k + 1).sum()
        assert totals["bids"] == mine.sum() == totals["shown"]
        assert totals["spent_usd"] == pytest.approx(0.003 * mine.sum())
        assert totals["value_usd"] == pytest.approx(MARGIN * totals["funded"])
        assert totals["clicks"] == totals["funded"] == totals["applications"] > 0


def test_what_held_out_people_did_is_unknown_without_a_list() -> None:
    decisions, outcomes, listed, _ = market(3, 500, (0.2, 0.2), EXPERIMENT)
    held, shown = arms_of(decisions, outcomes, snapshot(), EXPERIMENT)
    assert held.totals()["funded"] is None
    assert held.ghosts > 0
    assert held.bids == held.totals()["spent_usd"] == 0
    assert not shown.ratios(held)
    held, shown = arms_of(decisions, outcomes, snapshot(), EXPERIMENT, listed)
    assert held.totals()["funded"] + shown.totals()["funded"] == len(listed.units)


def test_conversions_from_before_the_first_bid_and_of_strangers_do_not_count() -> None:
    decisions, outcomes, listed, _ = market(3, 500, (0.2, 0.2), EXPERIMENT)
    early = Conversions(listed.units, np.full(len(listed.units), FIRST_MS - 1), listed.head)
    strangers = Conversions(listed.units + np.uint32(1), listed.time_ms, listed.head)
    for other in (early, strangers):
        arms = arms_of(decisions, outcomes, snapshot(), EXPERIMENT, other)
        assert sum(arm.totals()["funded"] for arm in arms) == 0


def test_erased_people_and_tests_are_left_out() -> None:
    decisions, outcomes, _, _ = market(5, 300, (0.2, 0.2), A_B)
    gone = decisions["unit"] == decisions["unit"][0]
    decisions["unit"][gone] = 0
    decisions["flags"][-1] = 1
    arms = arms_of(decisions, outcomes, snapshot(), A_B)
    assert sum(arm.erased for arm in arms) == gone.sum()
    assert sum(arm.bids for arm in arms) == len(gone) - 1


def test_a_list_of_conversions_is_read_or_refused_by_row() -> None:
    assert stages_of([b"applied", b"defaulted"]).tolist() == [1, 4]
    assert times_of([b"1700000000", b"1970-01-01T00:00:01Z", b"1970-01-01"]).tolist() == [1_700_000_000_000, 1000, 0]
    with pytest.raises(ValueError, match=r"row 2: no such stage; write one of applied"):
        stages_of([b"applied", b"bought"])
    with pytest.raises(ValueError, match="row 1: no time"):
        times_of([None])


def test_outcomes_of_later_stages_prove_the_earlier_ones() -> None:
    decisions, outcomes, _, _ = market(5, 200, (0.3, 0.3), A_B)
    outcomes["kind"][outcomes["kind"] == FUNDED] = APPLIED
    arms = arms_of(decisions, outcomes, snapshot(), A_B)
    assert all(arm.totals()["applications"] > 0 and arm.totals()["funded"] == 0 for arm in arms)
