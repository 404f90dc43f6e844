"""A backup taken under load restores to sound books, and repeated notices bring them to what they would have been."""

import signal
import sqlite3
import threading
from pathlib import Path

import pytest
from ledger_role import Role, publish
from sqlalchemy import select, update

from dsp.base.config import Config, LedgerConfig
from dsp.ledger.backup import (
    BOOKS,
    FACTS,
    BackupError,
    check_backup,
    make_backup,
    prune_backups,
    restore_backup,
)
from dsp.ledger.database import open_database
from dsp.ledger.retain import DAY_MS, forget_old_people, people_due
from dsp.ledger.schema import EVENTS

NOTICES = 400


def test_a_backup_under_load_is_restored_and_reconciles_to_the_micro(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    role = Role(tmp_path / "data", slice_s=1.0)
    publish(role.config, total_micros=10**9)
    role.start()
    urls = [f"/b/{role.token(bid_id=1 + k, line_item=1)}?p=0.5" for k in range(NOTICES)]
    done: list[str] = []
    some, enough = threading.Event(), threading.Event()

    def load() -> None:
        for url in urls:
            assert role.client.get(url).status_code < 300
            done.append(url)
            if len(done) == NOTICES // 4:
                some.set()
                enough.wait(30)  # so that the backup has notices before it, during it and after it

    loader = threading.Thread(target=load)
    loader.start()
    try:
        assert some.wait(60)
        before = len(done)
        enough.set()
        backup = make_backup(role.config, tmp_path / "backups")
        after = len(done)
        loader.join()
        whole = role.client.get("/totals").json()
        role.stop(signal.SIGKILL)
        role.config.path("ledger.db").write_bytes(b"the disk is gone")
        aside = restore_backup(role.config, backup)
        assert (aside / "ledger.db").read_bytes() == b"the disk is gone"
        role.start()
        restored = role.client.get("/totals").json()["events"]["billing"]["n"]
        assert before <= restored <= after + 1, "all that was acknowledged when it began"
        for url in urls:
            assert role.client.get(url).status_code < 300
        again = role.client.get("/totals").json()
        assert again.pop("counts")["duplicates"] == restored
        whole.pop("counts")  # of one life of a ledger
        assert again == whole
        assert whole["spend_micros"] > 0
        assert again["events"]["billing"]["n"] == NOTICES
    finally:
        enough.set()
        role.close()


def test_postgresql_books_are_dumped_and_restored(tmp_path: Path, postgres) -> None:
    config = Config(data_dir=str(tmp_path), ledger=LedgerConfig(database=postgres.create()))
    engine = open_database(config.ledger.database)
    with engine.begin() as connection:
        connection.execute(EVENTS.insert(), [_event(1, 0, None)])
    backup = make_backup(config, tmp_path / "backups")
    with engine.begin() as connection:
        connection.execute(EVENTS.insert(), [_event(2, 0, None)])
    engine.dispose()
    restore_backup(config, backup)
    engine = open_database(config.ledger.database)
    with engine.connect() as connection:
        assert [row.bid_id for row in connection.execute(select(EVENTS))] == [1]
    engine.dispose()


def _books(tmp_path: Path) -> Config:
    config = Config(data_dir=str(tmp_path))
    open_database(config.path("ledger.db")).dispose()
    return config


def test_a_backup_that_was_changed_or_is_anothers_is_refused_and_nothing_is_touched(tmp_path: Path) -> None:
    config = _books(tmp_path)
    backup = make_backup(config, tmp_path / "backups", now_s=0.0)
    check_backup(config, backup)
    with pytest.raises(BackupError, match="exists already"):
        make_backup(config, tmp_path / "backups", now_s=0.0)
    before = config.path("ledger.db").read_bytes()
    with (backup / BOOKS).open("r+b") as file:
        file.write(b"x")
    with pytest.raises(BackupError, match="not what was written"):
        restore_backup(config, backup)
    (backup / FACTS).unlink()
    with pytest.raises(BackupError, match="is no backup"):
        restore_backup(config, backup)
    assert config.path("ledger.db").read_bytes() == before
    other = make_backup(config, tmp_path / "backups", now_s=9.0)
    with pytest.raises(BackupError, match="other kind"):
        check_backup(Config(data_dir=str(tmp_path), ledger=LedgerConfig(database="postgresql://x/y")), other)


def test_books_that_do_not_add_up_are_no_backup(tmp_path: Path) -> None:
    config = _books(tmp_path)
    with sqlite3.connect(config.path("ledger.db")) as database:
        database.execute("INSERT INTO balances VALUES (1, 1, 0, 'USD', 7, 0)")
    database.close()
    with pytest.raises(BackupError, match="debits 7, credits 0"):
        make_backup(config, tmp_path / "backups")


def test_only_the_newest_backups_are_kept(tmp_path: Path) -> None:
    config = _books(tmp_path)
    made = [make_backup(config, tmp_path / "backups", now_s=86_400.0 * k) for k in range(4)]
    assert prune_backups(tmp_path / "backups", 2) == made[:2]
    assert sorted((tmp_path / "backups").iterdir()) == made[2:]


def _event(bid_id: int, time_ms: int, person: int | None) -> dict[str, object]:
    return {
        "bid_id": bid_id, "kind": 1, "time_ms": time_ms, "line_item": 1, "creative": 1, "exchange": 7,
        "price_micros": 0, "value_micros": 0, "bid_ms": 0, "person": person, "arm": 0, "media": 0, "currency": "USD",
        "attribution": 0,
    }  # fmt: skip


def test_old_events_forget_whose_they_were_and_keep_everything_else(tmp_path: Path) -> None:
    engine = open_database(tmp_path / "ledger.db")
    now_ms = 1_000 * DAY_MS
    with engine.begin() as connection:
        connection.execute(EVENTS.insert(), [_event(k, k * DAY_MS, 42) for k in range(1, 1_001)])
        connection.execute(update(EVENTS).where(EVENTS.c.bid_id == 3).values(value_micros=5))
    assert people_due(engine, 180, now_ms) == 819
    assert forget_old_people(engine, 0, now_ms) == 0, "0 is for ever"
    assert forget_old_people(engine, 180, now_ms) == 819
    assert forget_old_people(engine, 180, now_ms) == 0
    with engine.connect() as connection:
        rows = {row.bid_id: row for row in connection.execute(select(EVENTS))}
    assert len(rows) == 1_000
    assert rows[3].person is None
    assert rows[3].value_micros == 5
    assert rows[820].person == 42
    engine.dispose()
