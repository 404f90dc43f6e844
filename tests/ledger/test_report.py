"""Reports come from rollups and say what the books say."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_world import START_MS, World, simple_plan

from dsp.ledger.plan import LinePlan, Plan
from dsp.ledger.report import Question, QuestionError, ask, derived, page, spans
from dsp.ledger.schema import MEASURES
from dsp.ledger.ticket import Notice, open_ticket
from dsp.log.outcomes import APPLIED, APPROVED, BILLING, CLICK, DEFAULTED, FUNDED

DAY = START_MS // 86_400_000
SPEND, FUNDED_AT, WORTH = MEASURES.index("spend_micros"), MEASURES.index("funded"), MEASURES.index("worth_micros")
WORTH_OF = {APPLIED: 1_000_000, FUNDED: 300_000_000, DEFAULTED: -900_000_000}


@pytest.fixture(scope="module")
def world():
    """40 days, 4 line items of 2 advertisers, 2 exchanges, 2 creatives each."""
    world = World(":memory:")
    base = simple_plan(4)
    lines = [
        replace(line, campaign=10 + line.id % 2, advertiser=100 + line.id % 2, worth_micros=WORTH_OF,
                timezone="America/New_York" if line.id % 2 else "UTC")
        for line in base.lines
    ]  # fmt: skip
    world.adopt(Plan(lines, exp_s=10.0))
    rng = np.random.default_rng(3)
    for _ in range(40):
        notices = []
        for _ in range(25):
            fields = {"line_item": int(rng.integers(1, 5)), "exchange": int(rng.integers(1, 3))}
            t = open_ticket(world.signer, world.token(creative=int(rng.integers(1, 3)), lease=0, **fields))
            now = world.clock.time_ms()
            notices.append(Notice(BILLING, t, now, int(rng.integers(1, 10_000)) * 1000))
            if rng.random() < 0.4:
                notices += [Notice(CLICK, t, now), Notice(APPLIED, t, now), Notice(APPROVED, t, now)]
            if rng.random() < 0.1:
                notices += [Notice(FUNDED, t, now, 0, 5_000_000_000)]
        with world.books.batch():
            world.books.apply(notices)
        world.clock.advance(86_400)
    yield world
    world.books.close()


def asked(world: World, *by: str, first: int = DAY - 1, last: int = DAY + 40, zones=None, segments=None, **only):
    world.books.roll()
    question = Question(first, last, by, {name: [value] for name, value in only.items()})
    return ask(world.books.journal.engine, question, segments, zones)


def test_spend_by_line_item_is_what_the_books_say(world: World) -> None:
    found = asked(world, "line_item")
    assert {key[0]: row[SPEND] for key, row in found.items()} == {i: world.books.spend(i) for i in range(1, 5)}


@pytest.mark.parametrize("by", ["day", "campaign", "advertiser", "exchange", "creative", "hour"])
def test_every_grouping_adds_up_to_the_whole(world: World, by: str) -> None:
    (whole,) = asked(world).values()
    np.testing.assert_array_equal(np.sum(list(asked(world, by).values()), 0), whole)


@pytest.mark.parametrize("only", [{"advertiser": 100}, {"campaign": 11}, {"exchange": 1}, {"creative": 2}])
def test_fast_and_fine_answers_agree(world: World, only: dict[str, int]) -> None:
    """A second group sends the question to the hours; summed up again it must say the same."""
    zones = {1: "America/New_York", 2: "UTC", 3: "America/New_York", 4: "UTC"}
    first, last = DAY + 3, DAY + 29
    for by in ("day", "line_item"):
        fine = asked(world, by, "exchange", "creative", first=first, last=last, zones=zones, **only)
        summed: dict[tuple, np.ndarray] = {}
        for key, row in fine.items():
            summed[key[0], key[-1]] = summed.get((key[0], key[-1]), 0) + np.array(row)
        fast = asked(world, by, first=first, last=last, zones=zones, **only)
        assert fast.keys() == summed.keys()
        for key, row in fast.items():
            np.testing.assert_array_equal(summed[key], row)


@pytest.mark.parametrize("of", ["advertiser", "campaign", "line_item", "creative"])
@pytest.mark.parametrize("daily", [True, False])
def test_each_on_each_exchange_says_what_the_hours_say(world: World, of: str, daily: bool) -> None:
    zones = {1: "America/New_York", 2: "UTC", 3: "America/New_York", 4: "UTC"}
    by, span = (*(("day",) if daily else ()), of, "exchange"), {"first": DAY + 3, "last": DAY + 29}
    fine = asked(world, *by, "line_item" if of != "line_item" else "creative", zones=zones, **span)
    summed: dict[tuple, np.ndarray] = {}
    for key, row in fine.items():
        summed[(*key[: len(by)], key[-1])] = summed.get((*key[: len(by)], key[-1]), 0) + np.array(row)
    fast = asked(world, *by, **span)
    assert fast.keys() == summed.keys()
    for key, row in fast.items():
        np.testing.assert_array_equal(summed[key], row)


def test_days_are_the_advertisers(world: World) -> None:
    """The market trades at 22:13 UTC; 04:30 UTC of the next day is still that day in New York."""
    t = open_ticket(world.signer, world.token(line_item=1, lease=0, exchange=9))
    late = t._replace(bid_id=t.bid_id + 10**6, time_s=(DAY + 50) * 86_400 + 4 * 3600 + 1800)
    with world.books.batch():
        world.books.apply([Notice(BILLING, late, world.clock.time_ms(), 7_000_000)])
    assert {key[0] for key in asked(world, "day", exchange=9, last=DAY + 60)} == {DAY + 49}
    zones = {1: "America/New_York"}
    assert {k[0] for k in asked(world, "day", "creative", exchange=9, last=DAY + 60, zones=zones)} == {DAY + 49}


def test_segments_are_those_a_line_item_targets(world: World) -> None:
    per_line = asked(world, "line_item")
    found = asked(world, "segment", segments={1: ["movers", "savers"], 2: ["savers"]})
    spend = {key[0]: row[SPEND] for key, row in found.items()}
    line = {key[0]: row[SPEND] for key, row in per_line.items()}
    assert spend == {"movers": line[1], "savers": line[1] + line[2], "(none)": line[3] + line[4]}


def test_worth_is_what_the_offer_says_of_what_happened(world: World) -> None:
    (row,) = asked(world).values()
    applied = row[MEASURES.index("applied")]
    assert applied > 100
    assert row[WORTH] == applied * WORTH_OF[APPLIED] + row[FUNDED_AT] * WORTH_OF[FUNDED]
    out = derived(row)
    assert out["risk_adjusted_value"] == pytest.approx(row[WORTH] / 1e6)
    assert out["cost_per_applied"] == pytest.approx(out["spend"] / applied, abs=1e-4)
    assert derived([0] * len(MEASURES))["cost_per_funded"] is None


@given(st.integers(0, 400), st.integers(0, 120), st.booleans())
def test_spans_cover_each_day_once(first: int, length: int, daily: bool) -> None:
    days = [day for grain, a, b in spans(first, first + length, daily=daily)
            for start in range(a, b + 1, grain) for day in range(start, start + grain)]  # fmt: skip
    assert sorted(days) == list(range(first, first + length + 1))
    assert all(a % grain == 0 for grain, a, _ in spans(first, first + length, daily=daily) if grain > 1)


@pytest.mark.parametrize(
    "question",
    [
        Question(1, 2, ("browser",)),
        Question(2, 1),
        Question(1, 2, ("day", "hour")),
        Question(1, 2, (), {"segment": [1]}),
    ],
)
def test_senseless_questions_are_refused(world: World, question: Question) -> None:
    with pytest.raises(QuestionError):
        ask(world.books.journal.engine, question)


def test_a_line_item_without_plan_is_reported_too() -> None:
    world = World(":memory:")
    assert isinstance(LinePlan(1, 10, 100), LinePlan)
    t = open_ticket(world.signer, world.token(line_item=77, lease=0))
    with world.books.batch():
        world.books.apply([Notice(BILLING, t, START_MS, 5_000_000)])
    world.books.roll()
    ((key, row),) = ask(world.books.journal.engine, Question(DAY, DAY, ("line_item",))).items()
    assert (key[0], row[SPEND]) == (77, 5_000)
    world.books.close()


def test_charges_are_reported_once_whatever_crashes(database) -> None:
    """Killed before or after the charges of a second were added up, or closed in order: the report is the books'."""
    world = World(database)
    world.adopt(simple_plan(2))

    def charge(n: int) -> None:
        tickets = [open_ticket(world.signer, world.token(line_item=1 + i % 2, lease=0)) for i in range(n)]
        with world.books.batch():
            world.books.apply([Notice(BILLING, t, world.clock.time_ms(), 5_000_000) for t in tickets])

    def reported() -> dict:
        found = ask(world.books.journal.engine, Question(DAY, DAY, ("line_item",))).items()
        return {key[0]: row[SPEND] for key, row in found}

    def crash() -> None:
        world.books.journal.engine.dispose()
        world.open()

    charge(10)
    crash()
    charge(3)
    crash()  # twice unwritten
    with world.books.batch():
        world.books.tick(world.clock(), world.clock.time_ms())
    assert reported() == {1: 7 * 5_000, 2: 6 * 5_000}
    charge(4)
    assert reported() == {1: 7 * 5_000, 2: 6 * 5_000}, "a second's charges are added together"
    crash()
    world.books.close()
    world.open()
    assert reported() == {1: 9 * 5_000, 2: 8 * 5_000} == {i: world.books.spend(i) for i in (1, 2)}
    crash()
    world.books.roll()
    assert reported() == {1: 9 * 5_000, 2: 8 * 5_000}
    world.books.close()


@pytest.mark.parametrize(
    ("by", "only"),
    [
        (("day", "line_item"), {"advertiser": [101]}),
        (("day", "campaign"), {"advertiser": [100]}),
        (("day", "line_item"), {}),
        (("line_item",), {}),
        (("campaign",), {"advertiser": [101]}),
        (("day",), {}),
        (("day", "exchange"), {"advertiser": [100]}),
        (("day", "campaign", "exchange"), {}),
        (("day", "line_item", "exchange"), {"advertiser": [100]}),
        (("creative", "exchange"), {}),
    ],
)
@pytest.mark.parametrize("far", [0, 10**6])
def test_pages_put_together_are_the_whole_report(
    world: World, by: tuple[str, ...], only: dict[str, list[int]], far: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dsp.ledger.report._FAR", far)
    world.books.roll()
    engine, question = world.books.journal.engine, Question(DAY + 1, DAY + 38, by, only)
    whole = sorted(ask(engine, question).items())
    pages = [page(engine, question, offset, 7) for offset in range(0, len(whole) + 7, 7)]
    assert [row for one in pages for row in one] == whole
    assert len(whole) > 0


def test_campaigns_of_one_advertiser_come_from_days_and_hold_what_its_lines_spent(world: World) -> None:
    lines = asked(world, "line_item", advertiser=101)
    campaigns = asked(world, "campaign", advertiser=101)
    spent = sum(row[SPEND] for row in lines.values())
    assert spent == sum(row[SPEND] for row in campaigns.values())
    assert spent > 0


@pytest.mark.parametrize("by", [("exchange",), ("day", "exchange"), ("hour", "exchange"), ("creative", "exchange")])
def test_days_of_utc_are_added_up_in_the_database_as_they_are_here(world: World, by: tuple[str, ...]) -> None:
    there = asked(world, *by, advertiser=101)
    here = asked(world, *by, zones={1: "UTC"}, advertiser=101)
    assert there == here
    assert there
