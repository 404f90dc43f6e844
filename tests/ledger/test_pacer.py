"""Pacing through the ledger: budgets become plans, posted money becomes multipliers, workers hear of them."""

from dataclasses import replace

import numpy as np
import pytest
from ledger_world import World, simple_plan

from dsp.base.config import Config, LedgerConfig
from dsp.ledger.plan import Budget, Plan
from dsp.ledger.ticket import Notice, Ticket, open_ticket
from dsp.log.outcomes import APPLIED, BILLING, LOSS

SLOW = Config(ledger=LedgerConfig(slice_s=60.0))  # one sync per simulated step
DAY_MICROS = 20_000_000_000
BID_MICROS = 10_000


class Market:
    """Auctions whose wins rise with the square of the multiplier; 40 a step at multiplier 1."""

    def __init__(self, world: World, seed: int = 1) -> None:
        self.world, self.rng = world, np.random.default_rng(seed)
        self.later: list[Notice] = []
        self.spent = 0
        self.ticket = open_ticket(world.signer, world.token(reserve_micros=BID_MICROS))

    def bid(self, slices) -> Ticket | None:
        """What the engine does, without the sealing."""
        if slices.available[0] < BID_MICROS:
            return None
        slices.available[0] -= BID_MICROS
        slices.reserved[0] += BID_MICROS
        self.world.next_bid += 1
        return self.ticket._replace(
            period=int(slices.period[0]), bucket=slices.bucket, lease=slices.lease, epoch=slices.epoch,
            bid_id=self.world.next_bid, time_s=self.world.clock.time_ms() // 1000,
        )  # fmt: skip

    def step(self, slices, seconds: float, auctions: float = 60.0) -> None:
        world = self.world
        world.clock.advance(seconds)
        slices.refresh(world.clock())
        due, self.later = self.later, []
        with world.books.batch():
            world.books.apply(due)
        now = world.clock.time_ms() + 2000
        for _ in range(self.rng.poisson(auctions)):
            ticket = self.bid(slices)
            if ticket is None:
                continue
            if self.rng.random() < min(1.0, 0.9 * slices.multiplier[0] ** 2):
                price = int(self.rng.integers(4_000, 10_000))
                self.later.append(Notice(BILLING, ticket, now, price * 1000))
                self.spent += price
            else:
                self.later.append(Notice(LOSS, ticket, now, 0))


def run(world: World, market: Market, slices, hours: int, step_s: float = 20.0, auctions: float = 60.0) -> list[int]:
    spent = []
    for _ in range(hours):
        before = market.spent
        for _ in range(int(3600 / step_s)):
            market.step(slices, step_s, auctions)
        spent.append(market.spent - before)
    return spent


def daily(pacing: str = "even", micros: int = DAY_MICROS, **plan) -> Plan:
    base = simple_plan(1, **plan)
    budget = Budget(daily_micros=micros)
    return replace(base, lines=[replace(base.lines[0], budget=budget, pacing=pacing, timezone="UTC")])


@pytest.fixture
def world():
    world = World(":memory:", config=SLOW)
    yield world
    world.books.close()


def test_even_pacing_spends_the_rest_of_the_day_evenly(world: World) -> None:
    """22:13 is no time to spend a day's budget: what is left of the day gets it all, then midnight begins a new one."""
    world.clock.advance(2 * 3600)  # 00:13
    world.adopt(daily(micros=24 * 30_000_000))
    print("seed 1")
    spent = run(world, Market(world), world.worker(), 4)
    hourly = 24 * 30_000_000 / 23.78
    np.testing.assert_allclose(spent[1:], hourly, rtol=0.05)


def test_asap_and_unlimited_line_items_bid_their_whole_value(world: World) -> None:
    world.adopt(daily("asap"))
    slices = world.worker()
    run(world, Market(world), slices, 1, 60.0)
    assert slices.multiplier[0] == 1.0
    world.adopt(simple_plan(1, total=1 << 62))
    run(world, Market(world), slices, 1, 60.0)
    assert slices.multiplier[0] == 1.0


def test_a_raised_budget_makes_a_new_plan_at_once(world: World) -> None:
    world.clock.advance(2 * 3600)
    world.adopt(daily(micros=24 * 20_000_000))
    slices, market = world.worker(), Market(world)
    before = run(world, market, slices, 2)[1]
    world.adopt(daily(micros=24 * 40_000_000))
    after = run(world, market, slices, 2)[1]
    assert 1.8 < after / before < 2.5


def test_campaign_budget_is_shared_by_its_line_items(world: World) -> None:
    world.clock.advance(2 * 3600)
    base = simple_plan(2, campaign=1 << 62)
    lines = [replace(line, budget=Budget(daily_micros=10**9)) for line in base.lines]
    world.adopt(replace(base, lines=lines, campaigns={10: Budget(daily_micros=10**9)}))
    for _ in range(3):
        world.clock.advance(20)
        with world.books.batch():
            world.books.tick(world.clock(), world.clock.time_ms())
    np.testing.assert_allclose(world.books.pacer._budget, 0.5e9)


def test_what_was_learned_survives_a_restart(tmp_path) -> None:
    world = World(tmp_path / "books.db", config=SLOW)
    world.clock.advance(2 * 3600)
    world.adopt(daily(micros=24 * 30_000_000))
    slices, market = world.worker(), Market(world)
    run(world, market, slices, 2)
    before = world.books.pacer._state
    world.restart()
    run(world, market, slices, 0)
    for _ in range(3):
        market.step(slices, 20.0)
    after = world.books.pacer._state
    assert after.response.known[0]
    assert after.response.elasticity[0] == pytest.approx(before.response.elasticity[0], rel=0.05)
    assert after.log_m[0] == pytest.approx(before.log_m[0], abs=0.5)
    world.books.close()


def test_target_cost_per_action_lowers_the_multiplier_when_actions_are_dear(world: World) -> None:
    """A budget that asks for more than the target allows: the target wins. Every 40th impression brings an action."""
    world.clock.advance(2 * 3600)
    plan = daily(micros=10 * DAY_MICROS)
    target = 150_000
    line = replace(plan.lines[0], target_micros=target, target_stage="applied")
    world.adopt(replace(plan, lines=[line]))
    slices, market = world.worker(), Market(world)
    acted, costs = 0, 0
    for k in range(4 * 180):
        market.step(slices, 20.0)
        # Actions come for a part of the spend that falls as the multiplier rises: cost per action = 400,000 m.
        now = world.clock.time_ms()
        spend = sum(n.price_micros // 1000 for n in market.later if n.kind == BILLING)
        number = market.rng.poisson(spend / (400_000 * slices.multiplier[0]))
        if k >= 180:
            acted, costs = acted + number, costs + spend
        world.next_bid += number
        made = [market.ticket._replace(bid_id=world.next_bid - i, time_s=now // 1000) for i in range(number)]
        with world.books.batch():
            world.books.apply([Notice(APPLIED, t, now) for t in made])
    assert costs / acted == pytest.approx(target, rel=0.12)
