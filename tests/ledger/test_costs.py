"""Platforms' cost reports: read, summed, and only ever booked for what is new."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from ledger_world import START_MS, World, simple_plan

from dsp.ledger.accounts import PAYABLE
from dsp.ledger.costs import Cost, due, read_costs
from dsp.ledger.reconcile import BillError

LINES = {"loans": 1}
RATES = {1: 0.125}


def report(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "report.csv"
    file.write_text(text)
    return file


def book(world: World, file: Path) -> list[tuple[str, int]]:
    found = due(world.books.journal.engine, "tencent", 3, "CNY", read_costs(file), LINES, RATES)
    with world.books.batch():
        for each in found:
            assert world.books.adjust(each, world.clock.time_ms())
    return [(each.kind, each.micros) for each in found]


def test_rows_of_a_day_and_strategy_are_added_up(tmp_path: Path) -> None:
    file = report(tmp_path, "Date,Out_Target_ID,Cost\n2026-03-04,loans,10.5\n2026-03-04,loans,2\n2026-03-03,loans,1\n")
    sums = [(str(day), strategy, micros) for day, strategy, micros in read_costs(file)]
    assert sums == [("2026-03-03", "loans", 1_000_000), ("2026-03-04", "loans", 12_500_000)]
    named = report(tmp_path, "when,who,what\n2026-03-04,loans,1\n")
    assert len(read_costs(named, {"date": "when", "strategy": "who", "cost": "what"})) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("day,strategy\n", "needs a column cost"),
        ("day,strategy,cost\nyesterday,loans,1\n", "line 2: 'yesterday' is not a date"),
        ("day,strategy,cost\n2026-03-04,loans,nan\n", "line 2: cost 'nan' is not an amount"),
        ("day,strategy,cost\n2026-03-04,loans,-1\n", "line 2: cost is below 0"),
    ],
)
def test_a_report_that_cannot_be_read_says_where(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BillError, match=message):
        read_costs(report(tmp_path, text))


def test_a_report_is_booked_once_and_its_corrections_by_their_difference(disk_world: World, tmp_path: Path) -> None:
    world = disk_world
    world.adopt(simple_plan())
    day = datetime.fromtimestamp(START_MS / 1000 - 86_400, UTC).date()
    first = report(tmp_path, f"day,strategy,cost\n{day},loans,8\n")
    assert book(world, first) == [("platform_cost", 1_000_000)]
    assert book(world, first) == []
    assert book(world, report(tmp_path, f"day,strategy,cost\n{day},loans,8.8\n")) == [("platform_cost", 100_000)]
    assert book(world, report(tmp_path, f"day,strategy,cost\n{day},loans,8.4\n")) == [("clawback", 50_000)]
    assert world.books.spend(1) == 1_050_000
    assert world.books.balance(PAYABLE, 3) == -1_050_000
    world.books.check()


def test_another_rate_of_exchange_books_nothing(disk_world: World, tmp_path: Path) -> None:
    world = disk_world
    world.adopt(simple_plan())
    day = datetime.fromtimestamp(START_MS / 1000, UTC).date()
    cost = [Cost(day, "loans", 8_000_000)]
    engine = world.books.journal.engine
    (made,) = due(engine, "tencent", 3, "CNY", cost, LINES, {1: 0.125})
    with world.books.batch():
        world.books.adjust(made, world.clock.time_ms())
    assert due(engine, "tencent", 3, "CNY", cost, LINES, {1: 0.25}) == []


def test_a_strategy_of_nobody_stops_the_whole_report(disk_world: World) -> None:
    disk_world.adopt(simple_plan())
    costs = [Cost(datetime(2026, 3, 4, tzinfo=UTC).date(), name, 1) for name in ("loans", "other")]
    with pytest.raises(BillError, match="no strategy of tencent is named 'other'"):
        due(disk_world.books.journal.engine, "tencent", 3, "CNY", costs, LINES, RATES)
