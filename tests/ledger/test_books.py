import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_world import World, simple_plan
from sqlalchemy.exc import SQLAlchemyError

from dsp.base.config import Config, LedgerConfig
from dsp.base.token import TOKEN_TEST
from dsp.ledger.accounts import ADVERTISER, CAMPAIGN, DISPUTE, PAYABLE
from dsp.ledger.audit import audit, explain
from dsp.ledger.books import Books
from dsp.ledger.journal import FencedError
from dsp.ledger.plan import BILLABLE_PIXEL, BILLABLE_WIN, Budget, LinePlan, Plan
from dsp.ledger.status import totals


def test_spend_is_exact_to_the_micro_at_every_level(world):
    world.adopt(simple_plan(2))
    for line_item, price in ((1, "7.512"), (2, "0.001"), (1, "2.4995")):
        assert world.ledger.notice("b", world.token(line_item=line_item), {"p": price}) == 204
    assert world.books.spend(1) == 7512 + 2500  # 2,499.5 half up
    assert world.books.spend(2) == 1
    assert world.books.balance(CAMPAIGN, 10) == world.books.balance(ADVERTISER, 100) == 10013
    assert world.books.balance(PAYABLE, 7) == -10013
    world.books.check()


def test_prices_are_converted_by_the_tokens_frozen_rate(world):
    world.adopt(simple_plan())
    world.ledger.notice("b", world.token(fx=1.0873, currency=b"EUR"), {"p": "5.001", "c": "EUR"})
    assert world.books.spend(1) == 5438  # 5,001 * 1.0873 = 5,437.5873


def test_unfilled_price_macro_costs_the_bid_price_and_is_counted(world):
    world.adopt(simple_plan())
    world.ledger.notice("b", world.token(bid_cpm_micros=6_000_000), {"p": "${AUCTION_PRICE}"})
    assert world.books.spend(1) == 6000
    assert world.books.counts["price_unfilled"] == 1


def test_a_price_in_another_currency_costs_the_bid_price(world):
    world.adopt(simple_plan())
    world.ledger.notice("b", world.token(bid_cpm_micros=6_000_000), {"p": "900", "c": "JPY"})
    assert world.books.spend(1) == 6000


def test_what_exceeds_the_reservation_is_disputed_not_spent(world):
    world.adopt(simple_plan())
    world.ledger.notice("b", world.token(reserve_micros=10_000), {"p": "12.5"})
    assert world.books.spend(1) == 10_000
    assert world.books.balance(DISPUTE, 7) == 2_500
    assert world.books.balance(PAYABLE, 7) == -12_500
    assert world.books.counts["disputed"] == 1
    world.books.check()
    assert [step.micros for step in explain(world.books.journal.engine, 1)] == [10_000, 2_500]


def test_billable_event_is_set_by_exchange_and_posts_once(world):
    world.adopt(simple_plan(billable={7: BILLABLE_WIN}))
    token = world.token()
    world.ledger.notice("n", token, {"p": "5"})
    world.ledger.notice("b", token, {"p": "5"})
    assert world.books.spend(1) == 5000
    world.adopt(simple_plan(billable={}))  # the setting changes between the two notices of one bid
    late = world.token()
    world.adopt(simple_plan(billable={7: BILLABLE_WIN}))
    world.ledger.notice("n", late, {"p": "5"})
    world.adopt(simple_plan(billable={}))
    world.ledger.notice("b", late, {"p": "5"})
    assert world.books.spend(1) == 10_000
    assert world.books.counts["billed_twice"] == 1


def test_our_own_pixel_can_be_what_is_billed(world):
    """At the price the exchange filled in, else at the bid's; what comes by win and billing notice moves nothing."""
    world.adopt(simple_plan(billable={7: BILLABLE_PIXEL}))
    told, silent = world.token(bid_cpm_micros=6_000_000), world.token(bid_cpm_micros=6_000_000)
    for route in "nb":
        assert world.ledger.notice(route, told, {"p": "5"}) == 204
    assert world.books.spend(1) == 0
    for _ in range(2):
        assert world.ledger.notice("i", told, {"p": "5.5"}) == 204
        assert world.ledger.notice("i", silent, {}) == 204
    assert world.books.spend(1) == 5_500 + 6_000
    assert [step.price_micros for step in explain(world.books.journal.engine, 1)] == [5_500_000, None]
    world.books.check()


def test_test_requests_have_no_effect(world):
    world.adopt(simple_plan())
    token = world.token(flags=TOKEN_TEST)
    for path in "nblcp":
        assert world.ledger.notice(path, token, {"p": "5", "e": "applied"}) == 204
    assert world.books.balances() == {}
    assert world.books.outcomes == []


def test_conversions_are_counted_with_their_value(world):
    world.adopt(simple_plan())
    token = world.token()
    for stage, value in (("applied", ""), ("approved", "120.50"), ("approved", "999")):
        assert world.ledger.notice("p", token, {"e": stage, "v": value}) == 204
    events = totals(world.books)["events"]
    assert events["applied"]["n"] == events["approved"]["n"] == 1
    assert events["approved"]["value"] == 120.5


@given(st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_duplicates_in_any_order_leave_the_books_of_one_delivery(data):
    seed = data.draw(st.integers(0, 2**32), label="seed")
    rng = random.Random(seed)
    once, shuffled = World(":memory:"), World(":memory:")
    try:
        for world in (once, shuffled):
            world.adopt(simple_plan(3))
        notices = []
        for i in range(30):
            token = once.token(line_item=1 + i % 3, reserve_micros=rng.randint(1000, 12_000))
            price = {"p": f"{rng.uniform(0, 13):.4f}"}
            notices += [("n", token, price), ("b", token, price)][: rng.randint(1, 2)]
            notices += [("c", token, {}), ("p", token, {"e": "applied"})][: rng.randint(0, 2)]
            notices += [("l", token, {"r": "102"})] if rng.random() < 0.1 else []
        for notice in notices:
            once.ledger.notice(*notice)
        again = [notice for notice in notices for _ in range(rng.randint(1, 5))]
        rng.shuffle(again)
        for notice in again:
            shuffled.ledger.notice(*notice)
        assert shuffled.books.balances() == once.books.balances()
        first, second = totals(once.books)["events"], totals(shuffled.books)["events"]
        del first["loss"], second["loss"]  # not durable, so not deduplicated outside a lease
        assert first == second
        shuffled.books.check()
        audit(shuffled.books.journal.engine)
    finally:
        once.books.close()
        shuffled.books.close()


def test_duplicates_within_one_batch_count_once(world):
    world.adopt(simple_plan())
    from dsp.ledger.notices import read_notice

    token = world.token().decode()
    notice = read_notice(world.signer, "b", token, {"p": "5"}, world.clock.time_ms())
    with world.books.batch():
        assert world.books.apply([notice, notice, notice]) == [True, False, False]
    assert world.books.spend(1) == 5000


def test_restart_keeps_the_books_and_raises_the_epoch(disk_world):
    world = disk_world
    world.adopt(simple_plan(2))
    slices = world.worker()
    tokens = [world.bid(slices, row, 10_000) for row in (0, 1, 0)]
    for token in tokens[:2]:
        world.ledger.notice("b", token, {"p": "7.5"})
    balances, before, epoch = world.books.balances(), totals(world.books), world.books.epoch
    world.restart()
    assert world.books.balances() == balances
    assert totals(world.books)["events"] == before["events"]
    assert world.books.epoch == epoch + 1
    world.books.check()
    world.ledger.notice("b", tokens[0], {"p": "7.5"})  # a repeat after the crash
    assert world.books.balances() == balances
    world.ledger.notice("b", tokens[2], {"p": "7.5"})
    assert world.books.spend(1) == 15_000
    world.clock.advance(0.3)
    slices.refresh(world.clock())  # the worker goes on under its lease
    assert slices.epoch == epoch + 1
    assert slices.lease == 1
    world.books.check()


def test_reservations_posted_before_a_restart_are_settled_after_it(disk_world):
    world = disk_world
    world.adopt(simple_plan())
    slices = world.worker()
    for _ in range(2):
        world.ledger.notice("b", world.bid(slices, 0, 10_000), {"p": "10"})
    world.restart()
    world.clock.advance(0.3)
    slices.refresh(world.clock())
    granted = int(slices._granted[0])
    assert slices.available[0] == granted - 20_000  # not counted both as posted and as reserved


def test_an_older_ledger_is_fenced(disk_world):
    world = disk_world
    world.adopt(simple_plan())
    newer = Books.open(world.path, world.config.ledger)
    with pytest.raises(FencedError):
        world.ledger.notice("b", world.token(), {"p": "5"})
    assert world.books.broken
    assert newer.spend(1) == 0
    newer.close()


def test_a_failed_batch_leaves_nothing_behind(disk_world, monkeypatch):
    world = disk_world
    world.adopt(simple_plan())
    token = world.token()

    def fail(rows):
        raise SQLAlchemyError("disk full")

    monkeypatch.setattr(world.books.journal, "add_balances", fail)
    with pytest.raises(SQLAlchemyError):
        world.ledger.notice("b", token, {"p": "5"})
    with pytest.raises(RuntimeError, match="opened again"):
        world.ledger.notice("b", token, {"p": "5"})
    world.restart()
    assert world.books.spend(1) == 0
    assert world.ledger.notice("b", token, {"p": "5"}) == 204
    assert world.books.spend(1) == 5000
    audit(world.books.journal.engine)


def test_cost_of_an_unknown_line_item_is_owed_and_adopted_later(world):
    world.ledger.notice("b", world.token(), {"p": "5"})
    assert world.books.spend(1) == 5000
    world.adopt(simple_plan())
    assert world.books.balance(CAMPAIGN, 10) == 5000
    assert world.books.granting.line(1).chain[1].posted[0] == 5000
    world.books.check()


def test_bid_ids_beyond_63_bits_survive_sql(world):
    world.adopt(Plan([LinePlan(1, 10, 100, budget=Budget(10**9))]))
    token = world.token(bid_id=(1 << 64) - 5)
    world.ledger.notice("b", token, {"p": "5"})
    world.ledger.notice("b", token, {"p": "5"})
    assert world.books.spend(1) == 5000
    assert next(explain(world.books.journal.engine, 1)).bid_id == (1 << 64) - 5
    assert world.books.outcomes[0][0] == (1 << 64) - 5


def test_books_can_be_opened_without_a_plan_and_grant_nothing():
    world = World(":memory:", config=Config(ledger=LedgerConfig()))
    world.ledger.notice("b", world.token(), {"p": "5"})
    with world.books.batch():
        world.books.tick(world.clock(), world.clock.time_ms())
    world.books.check()
    world.books.close()
