"""Erasing a person from the books: their events stay, as money must, but no longer say whose they were.

On SQLite what is overwritten is zeroed and the write-ahead log emptied, so that no old page keeps it.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Engine, update
from sqlalchemy.exc import SQLAlchemyError

from dsp.base.config import Config
from dsp.ledger.database import open_database
from dsp.ledger.schema import EVENTS


def forget_people(config: Config, subjects: Iterable[bytes]) -> int:
    """Take the people behind ``subjects`` (16 bytes each) out of all events; how many there were.

    Without books there is nothing to do. Raises OSError where the database can't be changed.
    """
    local = config.path("ledger.db")
    if not config.ledger.database and not local.exists():
        return 0
    people = [int.from_bytes(subject[:8], "little", signed=True) for subject in subjects]
    try:
        engine = open_database(config.ledger.database or local)
        try:
            return _forget(engine, people)
        finally:
            engine.dispose()
    except SQLAlchemyError as error:
        raise OSError(f"the books could not be changed, repeat later: {error}") from error


def _forget(engine: Engine, people: list[int]) -> int:
    sqlite = engine.dialect.name == "sqlite"
    if sqlite:
        _pragma(engine, "secure_delete=ON")
    with engine.begin() as connection:
        change = update(EVENTS).where(EVENTS.c.person.in_(people)).values(person=None)
        changed = connection.execute(change).rowcount
    if sqlite:
        _pragma(engine, "wal_checkpoint(TRUNCATE)")
    return int(changed)


def _pragma(engine: Engine, text: str) -> None:
    """Outside of a transaction, on the one connection that a SQLite engine has."""
    raw = engine.raw_connection()
    try:
        cursor = raw.cursor()
        cursor.execute(f"PRAGMA {text}")
        cursor.fetchall()
        cursor.close()
    finally:
        raw.close()
