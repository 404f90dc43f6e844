"""What budgets, flights, margins, payments and brakes do to what a worker may bid."""

from datetime import UTC, datetime

import pytest
from ledger_world import START_MS, World, simple_plan

from dsp.ledger.accounts import ADVERTISER, CAMPAIGN, CASH, DISPUTE, HOUSE, LINE_ITEM, MARGIN, PAYABLE, PREPAID
from dsp.ledger.adjust import Adjustment, AdjustmentError
from dsp.ledger.audit import audit
from dsp.ledger.plan import Budget, LinePlan, Plan

BID = 10_000
ITEM = {"least_micros": 3 * BID}


def plan(**fields) -> Plan:
    return Plan([LinePlan(1, 10, 100, **{**ITEM, "budget": Budget(10**9), **fields})], exp_s=5.0)


def run(world: World, slices, seconds: float, step_s: float = 0.25, price: str = "10") -> list[int]:
    """Bid and win whenever possible; the simulated times of wins in ms."""
    wins = []
    for _ in range(int(seconds / step_s)):
        world.clock.advance(step_s)
        token = world.bid(slices, 0, BID)
        if token is not None:
            wins.append(world.clock.time_ms())
            world.ledger.notice("b", token, {"p": price})
    return wins


def adjust(world: World, *args, **fields) -> bool:
    with world.books.batch():
        return world.books.adjust(Adjustment(*args, **fields), world.clock.time_ms())


def test_an_hourly_budget_begins_anew_each_full_hour(world):
    world.adopt(plan(timezone="Asia/Kolkata", budget=Budget(10**9, 12 * BID, 5 * BID)))
    slices = world.worker()
    wins = run(world, slices, 4 * 3600, 20)
    hours = [datetime.fromtimestamp(ms / 1000 + 19_800, UTC).strftime("%d %H") for ms in wins]
    by_hour = {hour: hours.count(hour) for hour in hours}
    assert list(by_hour.values()) == [5, 5, 2]  # 03:43 in Kolkata when it begins; then the day's budget is gone
    assert world.books.balance(CAMPAIGN, 10) == 12 * BID
    world.books.check()


def test_a_campaigns_hourly_budget_binds_all_its_line_items(world):
    items = [LinePlan(i, 10, 100, **ITEM, budget=Budget(10**9)) for i in (1, 2)]
    world.adopt(Plan(items, {10: Budget(hourly_micros=6 * BID)}, exp_s=5.0))
    slices = world.worker()
    for _ in range(200):
        world.clock.advance(0.25)
        for row in (0, 1):
            token = world.bid(slices, row, BID)
            if token is not None:
                world.ledger.notice("b", token, {"p": "10"})
    assert world.books.balance(CAMPAIGN, 10) == 6 * BID


def test_hours_survive_a_restart(disk_world):
    world = disk_world
    world.adopt(plan(budget=Budget(10**9, 10**9, 5 * BID)))
    assert len(run(world, world.worker(), 30)) == 5
    world.restart()
    assert run(world, world.worker("next"), 30) == []
    world.books.check()


def test_a_flight_begins_and_ends_by_itself(world):
    world.adopt(plan(start_ms=START_MS + 60_000, end_ms=START_MS + 120_000))
    slices = world.worker()
    wins = run(world, slices, 180)
    assert START_MS + 60_000 <= wins[0] <= START_MS + 62_000
    assert START_MS + 115_000 <= wins[-1] <= START_MS + 120_500
    assert world.books.granting.account(LINE_ITEM, 1).outstanding[0] == 0


@pytest.mark.parametrize("change", [{"paused": True}, {"budget": Budget(0)}, {"budget": Budget(10**9, 0)}])
def test_pausing_and_cutting_stop_a_worker_within_two_seconds_and_raising_starts_it_again(world, change):
    world.adopt(plan())
    slices = world.worker()
    assert run(world, slices, 5)
    world.adopt(plan(**change))
    run(world, slices, 2)
    assert run(world, slices, 10) == []
    assert world.books.granting.account(LINE_ITEM, 1).outstanding[0] == 0
    world.adopt(plan())
    began = world.clock.time_ms()
    assert run(world, slices, 5)[0] - began <= 2000


def test_the_agencys_margin_is_charged_on_top_and_budgets_include_it(world):
    world.adopt(plan(margin_ppm=150_000, budget=Budget(10 * BID)))
    slices = world.worker()
    wins = run(world, slices, 60, price="9.9991")
    media, margin = world.books.balance(PAYABLE, 7), world.books.balance(MARGIN, 1)
    assert media == -9999 * len(wins)
    assert margin == -(9999 * len(wins) * 15 // 100)
    assert world.books.spend(1) == world.books.balance(ADVERTISER, 100) == -media - margin <= 10 * BID
    assert world.books.spend(1) > 10 * BID - 1.15 * BID
    world.books.check()
    audit(world.books.journal.engine)


def test_an_advertiser_that_pays_in_advance_spends_what_it_paid_in(world):
    before = plan()
    world.adopt(Plan(before.lines, exp_s=5.0, prepaid=frozenset({100})))
    slices = world.worker()
    assert run(world, slices, 5) == []
    assert adjust(world, "bank 1", "deposit", 4 * BID, advertiser=100, currency="USD")
    assert len(run(world, slices, 60)) == 4
    assert adjust(world, "note 1", "credit_note", 2 * BID, advertiser=100, currency="USD")
    assert len(run(world, slices, 60)) == 2
    assert world.books.balance(CASH, 100) == 4 * BID
    assert world.books.balance(HOUSE, 100) == 2 * BID
    assert world.books.balance(PREPAID, 100) == -6 * BID
    world.books.check()


def test_a_clawback_reopens_the_budget_and_returns_its_margin(world):
    world.adopt(plan(margin_ppm=100_000, budget=Budget(11 * BID)))
    slices = world.worker()
    assert len(run(world, slices, 60)) == 10
    assert adjust(world, "ivt 1", "clawback", 3 * BID, line_item=1, exchange=7)
    assert not adjust(world, "ivt 1", "clawback", 3 * BID, line_item=1, exchange=7)
    assert world.books.spend(1) == 7.7 * BID
    assert world.books.balance(MARGIN, 1) == -0.7 * BID
    assert world.books.balance(PAYABLE, 7) == -7 * BID
    assert len(run(world, slices, 60)) == 3
    world.books.check()
    audit(world.books.journal.engine)


def test_what_a_platform_bills_is_spend_with_its_margin_and_survives_a_restart(disk_world):
    world = disk_world
    world.adopt(plan(margin_ppm=100_000, budget=Budget(11 * BID)))
    day = START_MS // 86_400_000 - 1
    assert adjust(world, "bill 1", "platform_cost", 4 * BID, line_item=1, exchange=7, period=day)
    assert not adjust(world, "bill 1", "platform_cost", 4 * BID, line_item=1, exchange=7, period=day)
    assert adjust(world, "bill 2", "clawback", BID, line_item=1, exchange=7, period=day)
    for _ in range(2):
        assert world.books.spend(1) == 3.3 * BID
        assert world.books.balance(MARGIN, 1) == -0.3 * BID
        assert world.books.balance(PAYABLE, 7) == -3 * BID
        world.books.check()
        audit(world.books.journal.engine)
        world.restart()
    world.adopt(plan(margin_ppm=100_000, budget=Budget(11 * BID)))
    assert len(run(world, world.worker(), 60)) == 7  # of ten, three are the platform's


def test_a_make_good_is_delivered_at_our_cost(world):
    world.adopt(plan(budget=Budget(4 * BID)))
    slices = world.worker()
    run(world, slices, 30)
    assert adjust(world, "mg 1", "make_good", 2 * BID, line_item=1, advertiser=100)
    assert len(run(world, slices, 30)) == 2
    assert world.books.spend(1) == 4 * BID
    assert world.books.balance(HOUSE, 100) == 2 * BID
    assert world.books.balance(PAYABLE, 7) == -6 * BID


def test_a_dispute_ends_either_way(world):
    world.adopt(plan())
    for price in ("12", "13"):
        world.ledger.notice("b", world.token(reserve_micros=BID), {"p": price})
    assert world.books.balance(DISPUTE, 7) == 5000
    adjust(world, "d1", "dispute_won", 2000, exchange=7, currency="USD")
    adjust(world, "d2", "dispute_lost", 3000, exchange=7, currency="USD")
    assert world.books.balance(DISPUTE, 7) == 0
    assert world.books.balance(PAYABLE, 7) == -23_000
    world.books.check()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "gift"}, "none of"),
        ({"micros": 0}, "more than 0"),
        ({"micros": -5}, "more than 0"),
        ({"key": ""}, "key"),
        ({"line_item": 0}, "needs the line item"),
        ({"line_item": 99}, "no line item has the id 99"),
        ({"exchange": 0}, "needs the exchange"),
        ({"micros": 10**12}, "has spent"),
        ({"kind": "deposit", "line_item": 0}, "needs the advertiser"),
        ({"kind": "deposit", "line_item": 0, "advertiser": 100}, "currency"),
    ],
)
def test_a_wrong_adjustment_says_why_and_changes_nothing(world, fields, message):
    world.adopt(plan())
    world.ledger.notice("b", world.token(), {"p": "5"})
    balances = world.books.balances()
    right = {"key": "k", "kind": "clawback", "micros": 100, "line_item": 1, "exchange": 7}
    with world.books.batch(), pytest.raises(AdjustmentError, match=message):
        world.books.adjust(Adjustment(**{**right, **fields}), 0)
    assert world.books.balances() == balances


def test_rates_are_kept_by_date(disk_world):
    world = disk_world
    for day, usd in (("2026-01-05", 1.08), ("2026-01-06", 1.09), ("2026-01-06", 1.1)):
        world.adopt(Plan(plan().lines, rates={"EUR": usd, "USD": 1.0}, rates_day=day))
    world.restart()
    assert world.books.rates["EUR", "2026-01-05"] == 1.08
    assert world.books.rates["EUR", "2026-01-06"] == 1.1


def test_a_price_in_another_currency_is_converted_by_the_rate_in_force(world):
    world.adopt(Plan(plan().lines, rates={"EUR": 1.25, "USD": 1.0}, rates_day="2023-11-14"))
    world.ledger.notice("b", world.token(), {"p": "4", "c": "EUR"})
    assert world.books.spend(1) == 5000


# --- brakes -----------------------------------------------------------------------------------------------------------


def stopped(world: World) -> str | None:
    return world.books.stops.get((LINE_ITEM, 1), (None,))[0]


def test_a_bid_above_the_maximum_stops_the_line_item(world):
    world.adopt(plan(max_bid_cpm_micros=10_000_000))
    slices = world.worker()
    run(world, slices, 2)
    assert stopped(world) is None
    world.ledger.notice("b", world.token(bid_cpm_micros=10_200_000, reserve_micros=20_000), {"p": "5"})
    assert stopped(world) == "max_bid"
    run(world, slices, 1)
    assert run(world, slices, 10) == []


def test_too_much_spend_within_a_minute_stops_the_line_item_and_a_person_lets_it_go_on(disk_world):
    world = disk_world
    world.adopt(plan(minute_micros=20 * BID))
    slices = world.worker()
    assert len(run(world, slices, 100, step_s=4)) > 20
    assert stopped(world) is None
    wins = run(world, slices, 60)
    assert stopped(world) == "spend_per_minute"
    assert len(wins) <= 27
    world.restart()
    assert stopped(world) == "spend_per_minute"
    assert run(world, slices, 10) == []
    with world.books.batch():
        assert world.books.resume(LINE_ITEM, 1, world.clock.time_ms())
    assert run(world, slices, 3)


def feed(world: World, minutes: int, wins: int, losses: int, price: str) -> None:
    for _ in range(minutes):
        for i in range(losses + wins):
            token = world.token(reserve_micros=30_000, bid_cpm_micros=30_000_000)
            world.ledger.notice(*(("l", token, {"r": "102"}) if i < losses else ("b", token, {"p": price})))
        world.clock.advance(60)


@pytest.mark.parametrize(
    ("wins", "losses", "price", "reason"),
    [
        (250, 250, "5", None),
        (250, 300, "5", None),  # a rise, not a jump
        (220, 1, "5", "win_rate_jump"),
        (250, 1500, "24", "price_jump"),
        (250, 1500, "12", None),
    ],
)
def test_jumps_stop_the_line_item(world, wins, losses, price, reason):
    world.adopt(plan())
    feed(world, 7, 250, 1500, "5")
    assert stopped(world) is None
    feed(world, 1, wins, losses, price)
    assert stopped(world) == reason


@pytest.mark.parametrize(("wins", "losses", "price"), [(220, 1, "5"), (250, 1500, "14")])
def test_what_pacing_explains_is_no_jump(world, wins, losses, price):
    """After an outage a line item bids three times what it did for a while: more is won, at higher prices."""
    world.adopt(plan())
    line = world.books.granting.lines[1]
    line.multiplier = 0.3
    feed(world, 7, 250, 1500, "3")
    line.multiplier = 0.9
    feed(world, 1, wins, losses, price)
    assert stopped(world) is None


def test_the_kill_switch_stops_everything_and_survives_a_restart(disk_world):
    world = disk_world
    world.adopt(simple_plan(2))
    slices = world.worker()
    slices.refresh(world.clock())
    with world.books.batch():
        world.books.stop(0, 0, "person", "", world.clock.time_ms())
    run(world, slices, 1)
    assert not slices.live(world.clock())
    world.restart()
    assert run(world, slices, 10) == []
    with world.books.batch():
        world.books.resume(0, 0, world.clock.time_ms())
    assert run(world, slices, 5)
