"""After a time the books no longer say whose an event was: money stays, the person goes.

Attribution needs the person for as long as conversions may come (90 days); beyond that nothing does.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, Engine, and_, or_, select, update
from sqlalchemy.exc import SQLAlchemyError

from dsp.base.config import Config
from dsp.ledger.database import open_database
from dsp.ledger.schema import EVENTS

AT_ONCE = 500  # rows of one transaction: the writer waits for it
DAY_MS = 86_400_000


def keep_people_in_time(config: Config, now_ms: int, *, dry: bool = False) -> int:
    """Apply ``retention.people_days`` to the books, if there are any. Raises OSError where they can't be changed."""
    days, local = config.retention.people_days, config.path("ledger.db")
    if days <= 0 or not (config.ledger.database or local.exists()):
        return 0
    try:
        engine = open_database(config.ledger.database or local)
        try:
            return (people_due if dry else forget_old_people)(engine, days, now_ms)
        finally:
            engine.dispose()
    except SQLAlchemyError as error:
        raise OSError(f"the books could not be changed, repeat later: {error}") from error


def people_due(engine: Engine, days: float, now_ms: int) -> int:
    """How many events are older than ``days`` and still say whose they were."""
    with engine.connect() as connection:
        return len(connection.execute(select(EVENTS.c.bid_id).where(_due(days, now_ms))).all())


def forget_old_people(engine: Engine, days: float, now_ms: int) -> int:
    """Take the person out of events older than ``days`` (0: never), a few rows at a time; how many there were."""
    done = 0
    while days > 0:
        with engine.begin() as connection:
            query = select(EVENTS.c.bid_id, EVENTS.c.kind).where(_due(days, now_ms)).limit(AT_ONCE)
            rows = connection.execute(query).all()
            if rows:
                these = or_(*(and_(EVENTS.c.bid_id == bid_id, EVENTS.c.kind == kind) for bid_id, kind in rows))
                connection.execute(update(EVENTS).where(these).values(person=None))
        done += len(rows)
        if len(rows) < AT_ONCE:
            break
    return done


def _due(days: float, now_ms: int) -> ColumnElement[bool]:
    return and_(EVENTS.c.person.is_not(None), EVENTS.c.time_ms < now_ms - int(days * DAY_MS))
