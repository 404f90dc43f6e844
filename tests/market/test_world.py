"""Settling responses, and what the viewers of won ads then do."""

from __future__ import annotations

import numpy as np
import pytest
from world_fixture import VENUES, bid_for, make_world, response_to

from dsp.market.supply import Scene
from dsp.market.world import LOSS_BELOW_FLOOR, LOSS_INVALID, LOSS_OUTBID, STEPS, World


@pytest.fixture(scope="module")
def world() -> World:
    return make_world()


@pytest.fixture(scope="module")
def scenes(world: World) -> list[Scene]:
    return [world.factory.scene(i) for i in range(600)]


def test_an_enormous_bid_wins_and_first_price_pays_it(world: World, scenes: list[Scene]) -> None:
    for scene in scenes[:100]:
        venue = VENUES[scene.venue]
        if any(slot.private for slot in scene.slots):
            continue
        (sale,) = world.sell(scene, response_to(scene, venue.currency, bid_for(scene, 0, 5000.0)))
        assert sale.settlement.won
        assert sale.loss == 0
        price = sale.settlement.price_micros
        assert price == (5_000_000_000 if venue.at == 1 else sale.settlement.min_to_win_micros)


def test_losses_say_why(world: World, scenes: list[Scene]) -> None:
    reasons = set()
    for scene in scenes:
        slot, venue = scene.slots[0], VENUES[scene.venue]
        low = bid_for(scene, 0, slot.floor + 0.001)
        (sale,) = world.sell(scene, response_to(scene, venue.currency, low))
        if not sale.settlement.won:
            reasons.add(sale.loss)
            assert sale.loss == (LOSS_INVALID if slot.private else LOSS_OUTBID)
        (sale,) = world.sell(scene, response_to(scene, venue.currency, bid_for(scene, 0, slot.floor - 0.01)))
        assert not sale.settlement.won
        assert sale.loss == (LOSS_INVALID if slot.private else LOSS_BELOW_FLOOR)
    assert LOSS_OUTBID in reasons


def test_one_slot_is_sold_once_and_strangers_are_ignored(world: World, scenes: list[Scene]) -> None:
    scene = next(s for s in scenes if not s.slots[0].private)
    twice = (bid_for(scene, 0, 900.0), bid_for(scene, 0, 901.0))
    strange = (bid_for(scene, 0, 5.0, crid="999"), bid_for(scene, 0, 5.0) | {"impid": "77"})
    sales = world.sell(scene, response_to(scene, VENUES[scene.venue].currency, *twice, *strange))
    assert [sale.settlement.won for sale in sales] == [True, False]
    assert sales[0].bid["price"] == 901.0


def test_a_deal_bid_is_sold_by_the_deals_rules(world: World, scenes: list[Scene]) -> None:
    scene, k, deal = next((s, k, d) for s in scenes for k, slot in enumerate(s.slots) for d in slot.deals if d.at == 3)
    (sale,) = world.sell(scene, response_to(scene, "USD", bid_for(scene, k, 9.0, dealid=deal.id)))
    assert sale.settlement.won
    assert sale.settlement.price_micros == 5_000_000
    (sale,) = world.sell(scene, response_to(scene, "USD", bid_for(scene, k, 9.0, dealid="other")))
    assert sale.loss == LOSS_INVALID


def test_charges_are_converted_and_rounded_half_up(world: World, scenes: list[Scene]) -> None:
    scene = next(s for s in scenes if s.venue == 1 and not s.slots[0].private)
    (sale,) = world.sell(scene, response_to(scene, "EUR", bid_for(scene, 0, 5000.0, crid="12")))
    exact = sale.settlement.price_micros / 1000 * 1.08 / 1.27
    assert abs(sale.charge_micros - exact) <= 0.5 + 1e-6


def test_viewers_do_the_same_again_and_in_the_order_of_the_funnel(world: World, scenes: list[Scene]) -> None:
    sure = [0.999999] * 5
    seen = set()
    for scene in scenes[:100]:
        for sale in world.sell(scene, response_to(scene, VENUES[scene.venue].currency, bid_for(scene, 0, 5000.0))):
            deeds = world.deeds(sale, sure)
            assert deeds == world.deeds(sale, sure)
            steps = [STEPS.index(deed.step) for deed in deeds]
            assert steps == sorted(steps)
            assert steps[0] == 0
            assert all(0 < deed.after_s <= 1.5 for deed in deeds)
            seen.update(deed.step for deed in deeds)
    assert seen == set(STEPS)


def test_the_share_of_clickers_is_the_true_probability(world: World, scenes: list[Scene]) -> None:
    sales = [s for scene in scenes for s in world.sell(scene, response_to(
        scene, VENUES[scene.venue].currency, bid_for(scene, 0, 5000.0)))]  # fmt: skip
    clicked = np.mean([bool(world.deeds(sale, [0.3, 0.5, 0.5, 0.5, 0.5])) for sale in sales])
    assert clicked == pytest.approx(0.3, abs=4 * (0.21 / len(sales)) ** 0.5)


def test_behave_follows_only_what_was_won(world: World, scenes: list[Scene]) -> None:
    sales = [s for scene in scenes[:200] for s in world.sell(scene, response_to(
        scene, VENUES[scene.venue].currency, bid_for(scene, 0, 6.0)))]  # fmt: skip
    all_deeds = world.behave(sales, np.full(len(sales), 12.0))
    assert len(all_deeds) == len(sales)
    assert all(not deeds for deeds, sale in zip(all_deeds, sales, strict=True) if not sale.settlement.won)
    value = world.value_cpm_usd(sales, world.probabilities(sales, np.full(len(sales), 12.0)))
    assert value.shape == (len(sales),)
    assert np.isfinite(value).all()
