"""Auction rules as properties, and rivals that do not react to us."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dsp.market.auction import TICK_MICROS, Rivals, settle, ticks
from dsp.market.people import People
from dsp.market.supply import RequestFactory
from dsp.market.venues import Deal

price = st.integers(0, 100_000).map(lambda t: t * TICK_MICROS)
rivals = st.lists(price, max_size=6)
at = st.sampled_from([1, 2, 3])


@given(at, price, price, rivals)
def test_a_winner_pays_at_least_the_floor_and_at_most_its_bid(at: int, floor: int, bid: int, rivals: list[int]) -> None:
    sold = settle(at, floor, bid, rivals)
    assert sold.won == (bid >= sold.min_to_win_micros)
    assert sold.min_to_win_micros > max(rivals, default=0)
    assert sold.min_to_win_micros >= floor
    if sold.won:
        assert floor <= sold.price_micros <= bid
        assert sold.price_micros > 0
    else:
        assert sold.price_micros == 0


@given(at, price, price, price, rivals)
def test_a_higher_bid_wins_whenever_a_lower_one_does(at: int, floor: int, a: int, b: int, rivals: list[int]) -> None:
    low, high = sorted((a, b))
    if settle(at, floor, low, rivals).won:
        assert settle(at, floor, high, rivals).won


@given(price, price, price, rivals)
def test_bidding_the_truth_is_optimal_at_second_price(value: int, other: int, floor: int, rivals: list[int]) -> None:
    def profit(bid: int) -> int:
        sold = settle(2, floor, bid, rivals)
        return value - sold.price_micros if sold.won else 0

    assert profit(value) >= profit(other)
    assert profit(value) >= 0


@given(price, price, price, rivals)
def test_second_price_does_not_depend_on_the_winning_bid(floor: int, a: int, b: int, rivals: list[int]) -> None:
    first, second = settle(2, floor, a, rivals), settle(2, floor, b, rivals)
    if first.won and second.won:
        assert first.price_micros == second.price_micros


@given(price, price, rivals)
def test_a_first_price_winner_pays_its_bid(floor: int, bid: int, rivals: list[int]) -> None:
    sold = settle(1, floor, bid, rivals)
    assert sold.price_micros == (bid if sold.won else 0)


@given(price, price)
def test_a_fixed_price_deal_costs_its_floor(floor: int, bid: int) -> None:
    sold = settle(3, floor, bid, [])
    assert not sold.won or sold.price_micros == max(floor, TICK_MICROS)


@given(st.floats(0, 5000))
def test_tick_prices_cost_whole_micros_per_impression(cpm: float) -> None:
    assert ticks(cpm) % 1000 == 0
    assert abs(ticks(cpm) - cpm * 1e6) <= TICK_MICROS / 2 + 1


def test_rivals_repeat_themselves_whatever_was_asked_between() -> None:
    people = People.generate(2000, 1)
    factory = RequestFactory(people, 1)
    a, b = Rivals(people, 1), Rivals(people, 1)
    scenes = [factory.scene(i) for i in range(600)]
    in_order = [a.bids(s, 0, factory.venues[s.venue]) for s in scenes]
    assert [b.bids(s, 0, factory.venues[s.venue]) for s in reversed(scenes)] == in_order[::-1]
    top = np.array([max(bids, default=0) for bids in in_order])
    assert 0.05 < np.mean(top == 0) < 0.3  # now and then nobody else bids
    assert len(set(top.tolist())) > 400


def test_a_fixed_price_deal_has_no_rivals() -> None:
    people = People.generate(100, 1)
    factory = RequestFactory(people, 1)
    rivals = Rivals(people, 1)
    scene = factory.scene(5)
    assert rivals.deal_bids(scene, 0, factory.venues[scene.venue], Deal("d", 2.0, at=3)) == []
