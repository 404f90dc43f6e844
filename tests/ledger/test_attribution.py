"""Whose doing a conversion is, in whatever order notices come."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_world import START_MS, World, simple_plan
from sqlalchemy import select

from dsp.base.token import TOKEN_CONSENT
from dsp.ledger.plan import Plan
from dsp.ledger.schema import (
    ATTRIBUTION_CLICK,
    ATTRIBUTION_NONE,
    ATTRIBUTION_VIEW,
    EVENTS,
    ROLLUP_DAYS,
    ROLLUP_HOURS,
)
from dsp.ledger.ticket import Notice, Ticket, open_ticket
from dsp.log.outcomes import APPLIED, BILLING, CLICK, FUNDED

DAY_MS = 86_400_000
PERSON = np.frombuffer(b"person-1" + bytes(8), "V16")[0]


def plan(click_days: float = 30, view_hours: float = 24) -> Plan:
    base = simple_plan(3)
    windows = {"click_window_s": int(click_days * 86_400), "view_window_s": int(view_hours * 3600)}
    return replace(base, lines=[replace(line, **windows) for line in base.lines])


@pytest.fixture
def world():
    world = World(":memory:")
    world.adopt(plan())
    yield world
    world.books.close()


def ticket(world: World, **fields) -> Ticket:
    return open_ticket(world.signer, world.token(**fields))


def of_person(world: World, **fields) -> Ticket:
    return ticket(world, flags=TOKEN_CONSENT, person=PERSON, **fields)


def book(world: World, *notices: Notice) -> None:
    with world.books.batch():
        world.books.apply(notices)


def credit(world: World, conversion: Ticket, kind: int = APPLIED) -> tuple[int, int | None]:
    query = select(EVENTS.c.attribution, EVENTS.c.credited)
    world.books.roll()
    with world.books.journal.engine.connect() as connection:
        row = connection.execute(query.where(EVENTS.c.bid_id == conversion.bid_id, EVENTS.c.kind == kind)).one()
    return row.attribution, row.credited


def days(world: World, column: str, kind: int = 1) -> dict[tuple[int, int], int]:
    table = ROLLUP_DAYS.c
    query = select(table.ref, table.day, table[column]).where(table.kind == kind, table.grain == 1, table[column] != 0)
    world.books.roll()
    with world.books.journal.engine.connect() as connection:
        return {(r[0], r[1]): r[2] for r in connection.execute(query)}


def test_click_is_credited_within_its_window(world: World) -> None:
    bid = ticket(world)
    late = ticket(world)
    book(world, Notice(CLICK, bid, START_MS), Notice(CLICK, late, START_MS))
    book(world, Notice(APPLIED, bid, START_MS + 29 * DAY_MS), Notice(APPLIED, late, START_MS + 31 * DAY_MS))
    assert credit(world, bid) == (ATTRIBUTION_CLICK, bid.bid_id)
    assert credit(world, late) == (ATTRIBUTION_NONE, None)


def test_view_is_credited_where_nothing_was_clicked(world: World) -> None:
    bid, late = ticket(world), ticket(world)
    book(world, Notice(APPLIED, bid, START_MS + 20 * 3_600_000), Notice(APPLIED, late, START_MS + 2 * DAY_MS))
    assert credit(world, bid) == (ATTRIBUTION_VIEW, bid.bid_id)
    assert credit(world, late) == (ATTRIBUTION_NONE, None)
    assert sum(days(world, "views").values()) == 1


def test_windows_are_the_line_items(world: World) -> None:
    world.adopt(plan(click_days=1, view_hours=0))
    bid, seen = ticket(world), ticket(world)
    book(world, Notice(CLICK, bid, START_MS))
    book(world, Notice(APPLIED, bid, START_MS + 2 * DAY_MS), Notice(APPLIED, seen, START_MS + 1000 * 60))
    assert credit(world, bid)[0] == ATTRIBUTION_NONE
    assert credit(world, seen)[0] == ATTRIBUTION_NONE


def test_last_click_of_the_person_wins_over_the_ad_that_reports(world: World) -> None:
    first, other = of_person(world, line_item=1), of_person(world, line_item=2)
    stranger = ticket(world, line_item=3)
    book(
        world,
        Notice(CLICK, first, START_MS),
        Notice(CLICK, other, START_MS + 1000),
        Notice(CLICK, stranger, START_MS + 2000),
    )
    book(world, Notice(APPLIED, first, START_MS + 60_000))
    assert credit(world, first) == (ATTRIBUTION_CLICK, other.bid_id)
    assert {ref for ref, _ in days(world, "applied")} == {2}


def test_conversion_counts_on_the_day_of_its_bid_however_late(world: World) -> None:
    bid = ticket(world)
    book(world, Notice(BILLING, bid, START_MS, 8_000_000), Notice(CLICK, bid, START_MS + 5_000))
    book(world, Notice(FUNDED, bid, START_MS + 25 * DAY_MS, 0, 12_000_000_000))
    day = START_MS // DAY_MS
    assert days(world, "funded") == {(1, day): 1}
    assert days(world, "value_micros") == {(1, day): 12_000_000_000}
    assert days(world, "spend_micros") == {(1, day): 8_000}


def table_of(world: World, table) -> list[tuple]:
    with world.books.journal.engine.connect() as connection:
        keys = list(table.primary_key)
        return [tuple(row) for row in connection.execute(table.select().order_by(*keys))]


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_order_and_any_duplicates_give_the_same_credits_and_rollups(data) -> None:
    """Receipt times are the notices' own here: what is shuffled is when the ledger hears of them."""

    def outcome(order: list[int], batches: int) -> tuple:
        world = World(":memory:")
        world.adopt(plan())
        notices: list[Notice] = []
        for i in range(6):
            bid = of_person(world, line_item=1 + i % 3) if i % 2 else ticket(world, line_item=1 + i % 3)
            at = START_MS + i * 1000
            notices += [Notice(BILLING, bid, at, 5_000_000), Notice(CLICK, bid, at + 100)]
            notices += [Notice(APPLIED, bid, at + 50_000), Notice(FUNDED, bid, at + 90_000, 0, 5_000_000)]
        notices = [n for i, n in enumerate(notices) if i not in {1, 9}]  # some never click
        shuffled = [notices[i % len(notices)] for i in order]
        for part in np.array_split(np.arange(len(shuffled)), batches):
            book(world, *(shuffled[i] for i in part))
        events = [(r[0], r[1], r[13], r[14]) for r in table_of(world, EVENTS)]
        found = events, table_of(world, ROLLUP_HOURS), table_of(world, ROLLUP_DAYS)
        world.books.close()
        return found

    order = data.draw(st.permutations([*range(22), 3, 7, 11, 14]))
    assert outcome(order, data.draw(st.integers(1, 8))) == outcome(list(range(22)), 1)


def test_rollups_agree_with_the_books(world: World) -> None:
    world.adopt(replace(plan(), lines=[replace(line, margin_ppm=150_000) for line in plan().lines]))
    rng = np.random.default_rng(5)
    for _ in range(20):
        notices = []
        for _ in range(30):
            bid = ticket(world, line_item=int(rng.integers(1, 4)), creative=int(rng.integers(1, 4)))
            notices.append(Notice(BILLING, bid, START_MS, int(rng.integers(1, 10_000)) * 1000))
        book(world, *notices)
        world.clock.advance(3 * 3600)
    spend = days(world, "spend_micros")
    for line in (1, 2, 3):
        assert sum(v for (ref, _), v in spend.items() if ref == line) == world.books.spend(line)
    for kind in (0, 2, 3, 20, 21):  # all, campaign, advertiser, exchange, creative
        assert sum(days(world, "spend_micros", kind).values()) == sum(spend.values())
    hours = table_of(world, ROLLUP_HOURS)
    assert sum(row[6] for row in hours) == sum(spend.values())
    assert len({row[1] for row in hours}) == 20
