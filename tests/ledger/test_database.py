"""The books' tables by migration and at once are the same; money from before a migration is still explained."""

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from ledger_world import World, simple_plan
from sqlalchemy import inspect
from typer.testing import CliRunner

from dsp.cli.main import app
from dsp.ledger.accounts import PREPAID
from dsp.ledger.adjust import Adjustment
from dsp.ledger.audit import audit, explain
from dsp.ledger.books import Books
from dsp.ledger.database import alembic_config, connect, go_back, migrate, open_database, revision_of, revisions
from dsp.ledger.journal import FencedError
from dsp.ledger.schema import ENTRIES, METADATA

COLUMNS = (
    "bid_id, kind, time_ms, line_item, exchange, currency, period, debit, credit, micros, "
    "lease, bucket, reserve_micros, late"
)


def differences(engine) -> list:
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return compare_metadata(context, METADATA)


def old_database(engine) -> None:
    """As the first release left it: its tables, two charges, one disputed, and no word of migrations."""
    with engine.begin() as connection:
        for table in reversed(METADATA.sorted_tables):
            table.drop(connection)
        connection.exec_driver_sql("DROP TABLE alembic_version")
        command.upgrade(alembic_config(connection), "0001")
        connection.exec_driver_sql("DROP TABLE alembic_version")
        for statement in (
            "INSERT INTO ledger VALUES (1, 3)",
            "INSERT INTO lines VALUES (1, 10, 100, 'USD', 'Loan')",
            "INSERT INTO entries ({columns}) VALUES (77, 1, 5, 1, 7, 'USD', 0, 1, 4, 9000, 0, 0, 9000, 0)",
            "INSERT INTO entries ({columns}) VALUES (77, 2, 5, 1, 7, 'USD', 0, 5, 4, 500, 0, 0, 9000, 0)",
            "INSERT INTO balances VALUES (1, 1, 0, 'USD', 9000, 0)",
            "INSERT INTO balances VALUES (4, 7, 0, 'USD', 0, 9500)",
            "INSERT INTO balances VALUES (5, 7, 0, 'USD', 500, 0)",
        ):
            connection.exec_driver_sql(statement.format(columns=COLUMNS))


def test_a_fresh_database_has_todays_tables(database):
    engine = open_database(database)
    assert differences(engine) == []
    assert set(inspect(engine).get_table_names()) == {*METADATA.tables, "alembic_version"}
    engine.dispose()


def test_an_old_database_is_migrated_and_its_money_still_explained(database):
    engine = open_database(database)
    old_database(engine)
    engine.dispose()
    books = Books.open(database)
    assert differences(books.journal.engine) == []
    assert books.epoch == 4
    assert books.spend(1) == 9000
    books.check()
    audit(books.journal.engine)
    assert [step.micros for step in explain(books.journal.engine, 1)] == [9000, 500]
    with books.journal.engine.connect() as connection:
        rows = connection.execute(ENTRIES.select().order_by(ENTRIES.c.kind)).all()
    assert [(row.debit_ref, row.credit_ref) for row in rows] == [(1, 7), (7, 7)]
    books.close()


def test_a_database_can_be_opened_twice(database):
    first = open_database(database)
    second = open_database(database)
    assert differences(second) == []
    first.dispose()
    second.dispose()


def test_a_migrated_database_books_on(database):
    engine = open_database(database)
    old_database(engine)
    engine.dispose()
    world = World(database)
    world.adopt(simple_plan())
    assert world.ledger.notice("b", world.token(), {"p": "5"}) == 204
    assert world.books.spend(1) == 14_000
    world.books.close()


def rows_of(engine) -> dict:
    with engine.connect() as connection:
        return {name: sorted(map(str, connection.execute(METADATA.tables[name].select()))) for name in BOOKED}


BOOKED = ("lines", "events", "entries", "balances", "tallies", "rollup_hours", "rollup_days")


@pytest.mark.parametrize("revision", revisions())
def test_the_tables_go_back_to_every_earlier_shape_and_forward_again(database, revision):
    world = World(database)
    world.adopt(simple_plan())
    assert world.ledger.notice("b", world.token(lease=0), {"p": "5"}) == 204
    world.books.close()
    engine = open_database(database)
    before = rows_of(engine)
    go_back(engine, revision)
    assert revision_of(engine) == revision
    migrate(engine)
    assert (differences(engine), revision_of(engine)) == ([], revisions()[-1])
    assert (rows_of(engine) == before) == (revision >= "0004"), "reports begin anew from what had none"
    engine.dispose()
    world.open()
    assert world.books.spend(1) == 5_000
    assert world.ledger.notice("b", world.token(lease=0), {"p": "5"}) == 204
    world.books.check()
    audit(world.books.journal.engine)
    world.books.close()


def test_no_way_back_to_a_shape_that_cannot_hold_the_money(database):
    world = World(database)
    world.adopt(simple_plan())
    with world.books.batch():
        world.books.adjust(Adjustment("invoice 1", "deposit", 5_000_000, advertiser=100, currency="USD"), 5)
    world.books.close()
    engine = open_database(database)
    go_back(engine, "0002")
    with pytest.raises(ValueError, match="1 adjustments"):
        go_back(engine, "0001")
    assert revision_of(engine) == "0002"
    migrate(engine)
    assert differences(engine) == []
    with pytest.raises(ValueError, match="none of 0001"):
        go_back(engine, "1999")
    engine.dispose()
    world.open()
    assert world.books.balance(PREPAID, 100) == -5_000_000
    world.books.close()


def test_the_command_fences_a_ledger_at_work_and_leaves_its_reports_whole(tmp_path):
    path = tmp_path / "ledger.db"
    world = World(path)
    world.adopt(simple_plan())
    assert world.ledger.notice("b", world.token(lease=0), {"p": "5"}) == 204
    config = tmp_path / "dsp.yaml"
    config.write_text(f"data_dir: {tmp_path}\n")
    run = CliRunner().invoke(app, ["--config", str(config), "ledger", "migrate", "--to", "0005"])
    assert (run.exit_code, run.output) == (0, "the books' tables are those of 0005\n")
    with pytest.raises(FencedError), world.books.batch():
        world.books.adopt(simple_plan(2), 0)
    engine = connect(path)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT sum(spend_micros) FROM rollup_hours").scalar_one() == 5_000
    engine.dispose()
    world.books.close()
    run = CliRunner().invoke(app, ["--config", str(config), "ledger", "migrate"])
    assert (run.exit_code, run.output) == (0, f"the books' tables are those of {revisions()[-1]}\n")


@pytest.mark.parametrize("damage", ["DROP TABLE events", "UPDATE alembic_version SET version_num = '9999'"])
def test_a_database_of_a_later_release_or_a_broken_one_is_refused(tmp_path, damage):
    engine = open_database(tmp_path / "ledger.db")
    with engine.begin() as connection:
        connection.exec_driver_sql(damage)
    engine.dispose()
    with pytest.raises(Exception, match=r"events|9999"):
        World(tmp_path / "ledger.db").ledger.notice("b", World(":memory:").token(), {"p": "5"})
