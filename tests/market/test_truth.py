"""The true funnel: probabilities, in the directions that a marketer would expect; value and regret."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsp.catalog.layout import LIV_EAD, LIV_LGD, LIV_MARGIN, LIV_PAYOUT_APPLY, LIV_WIDTH, PRODUCTS
from dsp.market.people import People
from dsp.market.supply import RequestFactory
from dsp.market.truth import APPLY, APPROVE, CLICK, DEFAULT, Exposures, Truth, impression_value, regret


@pytest.fixture(scope="module")
def people() -> People:
    return People.generate(20_000, 1)


@pytest.fixture(scope="module")
def funnels(people: People) -> dict[str, tuple[Exposures, np.ndarray]]:
    factory = RequestFactory(people, 1)
    scenes = [factory.scene(i) for i in range(4000)]
    truth = Truth(people, 1)
    out = {}
    for i, product in enumerate(PRODUCTS):
        shown = [(i, 3, 7, 6000.0, scene.slots[0].media & -scene.slots[0].media) for scene in scenes]
        x = Exposures.of(scenes, [0] * len(scenes), shown, np.full(len(scenes), 18.0))
        out[product] = (x, truth.funnel(x))
    return out


def test_every_probability_is_one(funnels: dict[str, tuple[Exposures, np.ndarray]]) -> None:
    for _, p in funnels.values():
        assert p.shape == (4000, 5)
        assert ((p > 0) & (p < 1)).all()


def test_intent_drives_clicks_and_applications(
    people: People, funnels: dict[str, tuple[Exposures, np.ndarray]]
) -> None:
    for i, product in enumerate(PRODUCTS):
        x, p = funnels[product]
        wants = people.intent[x.person, i] > 0.5
        assert p[wants, CLICK].mean() > 2.5 * p[~wants, CLICK].mean()
        assert p[wants, APPLY].mean() > 2.5 * p[~wants, APPLY].mean()


def test_credit_decides_about_loans_but_not_about_deposits(
    people: People, funnels: dict[str, tuple[Exposures, np.ndarray]]
) -> None:
    x, p = funnels["loan"]
    good = people.credit[x.person] > 0
    assert p[good, APPROVE].mean() > 1.5 * p[~good, APPROVE].mean()
    assert p[good, DEFAULT].mean() < 0.6 * p[~good, DEFAULT].mean()
    _, deposit = funnels["deposit"]
    assert deposit[:, APPROVE].min() > 0.7
    assert deposit[:, DEFAULT].max() < 0.01


def test_the_funnel_is_brisk_enough_for_a_demo_and_rare_enough_to_need_a_model(
    funnels: dict[str, tuple[Exposures, np.ndarray]],
) -> None:
    for _, p in funnels.values():
        assert 0.004 < p[:, CLICK].mean() < 0.05
        funded = p[:, :4].prod(1)
        assert 3e-5 < funded.mean() < 1e-2
        assert np.percentile(funded, 95) > 8 * np.percentile(funded, 50)  # worth telling people apart


def test_the_same_world_has_the_same_truth(people: People) -> None:
    factory = RequestFactory(people, 1)
    scenes = [factory.scene(i) for i in range(50)]
    x = Exposures.of(scenes, [0] * 50, [(0, 1, 2, 9000.0, 1)] * 50, np.arange(50.0) % 24)
    assert np.array_equal(Truth(people, 1).funnel(x), Truth(People.generate(20_000, 1), 1).funnel(x))
    assert not np.array_equal(Truth(people, 1).funnel(x), Truth(people, 2).funnel(x))


def test_one_exposure_is_judged_as_in_a_crowd(people: People) -> None:
    factory = RequestFactory(people, 1)
    scenes = [factory.scene(i) for i in range(20)]
    shown = [(i % 5, i, 2 * i, 500.0 * i, 1) for i in range(20)]
    hours = np.arange(20.0)
    truth = Truth(people, 1)
    together = truth.funnel(Exposures.of(scenes, [0] * 20, shown, hours))
    alone = truth.funnel(Exposures.of(scenes[7:8], [0], shown[7:8], hours[7:8]))
    assert alone[0] == pytest.approx(together[7])


def test_value_is_the_designs_formula() -> None:
    offer = np.zeros(LIV_WIDTH)
    offer[LIV_MARGIN], offer[LIV_LGD], offer[LIV_EAD], offer[LIV_PAYOUT_APPLY] = 400, 0.5, 6000, 20
    p = np.array([[0.02, 0.2, 0.5, 0.8, 0.05]])
    applied, funded = 0.02 * 0.2, 0.02 * 0.2 * 0.5 * 0.8
    assert impression_value(p, offer)[0] == pytest.approx(funded * (400 - 0.05 * 0.5 * 6000) + applied * 20)


money = st.floats(0, 1000)


@given(money, money, money)
def test_regret_is_never_negative(value: float, price: float, over: float) -> None:
    one = lambda x: np.array([x])  # noqa: E731
    assert regret(one(value), one(price), np.array([False]), one(0.0))[0] >= 0
    assert regret(one(value), one(price), np.array([True]), one(price + over))[0] >= -1e-9


def test_regret_is_nothing_for_the_omniscient_bid() -> None:
    value, price = np.array([5.0, 1.0]), np.array([3.0, 2.0])
    assert regret(value, price, np.array([True, False]), np.array([3.0, 0.0])).tolist() == [0.0, 0.0]
