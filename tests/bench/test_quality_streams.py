"""The replays on made-up streams: no look into the future, never over a budget, better than a fixed multiplier."""

from __future__ import annotations

import numpy as np
import pytest

from bench.quality import firstprice, ipinyou
from bench.quality.bootstrap import sum_difference, sum_ratio
from bench.quality.streams import BUDGETS, EPISODE, Stream


def made_up(seed: int = 3, n: int = 8 * EPISODE) -> Stream:
    """Values that drift over the stream, prices that follow the values a little."""
    rng = np.random.default_rng(seed)
    drift = np.exp(0.5 * np.sin(np.arange(n) / n * 9))
    pctr = np.minimum(rng.lognormal(-7, 1, n) * drift, 1.0)
    price = np.clip(rng.gamma(2.0, 35.0, n) * (pctr / pctr.mean()) ** 0.1, 1, 300).astype(np.int64)
    train = np.bincount(np.clip(rng.gamma(2.0, 35.0, 50_000), 0, 300).astype(np.int64), minlength=301)
    click = (rng.random(n) < np.minimum(20 * pctr, 1)).astype(np.int64)
    return Stream("made-up", click, price, pctr, train, 50_000, 60, int((train * np.arange(301)).sum()))


def with_other_future(stream: Stream, known: int, seed: int) -> Stream:
    """The auctions from ``known`` on in another order."""
    order = np.arange(len(stream.click))
    np.random.default_rng(seed).shuffle(order[known:])
    return Stream(
        stream.name, stream.click[order], stream.price[order], stream.pctr[order],
        stream.train_prices, stream.train_imps, stream.train_clicks, stream.train_cost,
    )  # fmt: skip


@pytest.mark.parametrize("known", [1, 777, 3 * EPISODE, 5 * EPISODE + 123])
def test_another_future_leaves_past_bids_as_they_were(known: int) -> None:
    stream = made_up()
    other = with_other_future(stream, known, known)
    for bid in (
        lambda s: ipinyou.bid(s, 8), lambda s: ipinyou.bids_as_the_ledger_paces([s])[0][2], firstprice.bid,
        lambda s: firstprice.bid(s, reports_price=True),
    ):  # fmt: skip
        before, after = bid(stream), bid(other)
        np.testing.assert_array_equal(before[:known], after[:known])
        assert (before[known:] != after[known:]).any()


def test_the_price_of_an_auction_does_not_move_the_bid_on_it() -> None:
    stream = made_up()
    bids = ipinyou.bid(stream, 4)
    for at in (0, 500, 3 * EPISODE + 20):
        stream.price[at] = 301 - stream.price[at]
        assert ipinyou.bid(stream, 4)[at] == bids[at]
        stream.price[at] = 301 - stream.price[at]


@pytest.mark.parametrize("c", BUDGETS)
def test_no_episode_overspends_and_hardly_any_money_is_left(c: int) -> None:
    stream = made_up()
    spent = ipinyou.episodes(stream, ipinyou.bid(stream, c), stream.price)
    assert spent.max() <= stream.budget(c)
    assert spent.mean() >= 0.95 * stream.budget(c)


def test_the_ledgers_pacing_overspends_no_episode_and_hardly_leaves_money() -> None:
    stream = made_up(n=20 * EPISODE)
    for c, bids in zip(BUDGETS, ipinyou.bids_as_the_ledger_paces([stream])[0], strict=True):
        spent = ipinyou.episodes(stream, bids, stream.price)
        assert spent.max() <= stream.budget(c)
        assert spent.mean() >= 0.95 * stream.budget(c)


def test_a_stream_is_paced_alike_alone_and_beside_a_longer_one() -> None:
    short, long = made_up(n=3 * EPISODE), made_up(seed=4, n=5 * EPISODE)
    alone, beside = ipinyou.bids_as_the_ledger_paces([short])[0], ipinyou.bids_as_the_ledger_paces([short, long])[0]
    np.testing.assert_array_equal(alone, beside)


def test_replanning_buys_more_value_than_the_best_fixed_multiplier_in_hindsight() -> None:
    stream = made_up(n=40 * EPISODE)
    value = stream.pctr * stream.click_worth
    fixed = [
        ipinyou.episodes(stream, ipinyou.static(value, stream.price, stream.budget(8), m), value).sum()
        for m in np.geomspace(0.01, 3, 60)
    ]
    assert ipinyou.episodes(stream, ipinyou.bid(stream, 8), value).sum() > max(fixed)


def test_shading_keeps_the_surplus_of_the_best_curve_in_hindsight() -> None:
    stream = made_up(n=20 * EPISODE)
    got = {name: float(surplus.sum()) for name, surplus in firstprice.bidders(stream).items()}
    assert got["ours"] > 0.97 * got["oracle shade"]
    assert got["the value"] < got["half the value"] < got["ours"] < got["clairvoyant"]


def test_bootstrap_intervals_hold_the_truth_and_pair_the_episodes() -> None:
    rng = np.random.default_rng(1)
    b = rng.gamma(2, 100, 400)
    a = b + rng.normal(3, 5, 400)  # the episodes differ far more than the two sides
    low, high = sum_difference(a, b)
    assert low < 3 * 400 < high
    assert high - low < 6 * 5 * 20
    low, high = sum_ratio(a, b)
    assert 1.0 < low < a.sum() / b.sum() < high < 1.05
