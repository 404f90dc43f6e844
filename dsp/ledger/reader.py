"""The books opened for reading, beside a working ledger: never locks it out, never changes anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import StaticPool

from dsp.base.config import Config
from dsp.ledger.database import CONNECT_S

STATEMENT_S = 60  # a question that takes longer is asked wrongly


@contextmanager
def open_reader(config: Config) -> Iterator[Engine]:
    """An engine that reads, until the end of the ``with``. Raises OSError where the books can't be read."""
    engine = _engine(config)
    try:
        yield engine
    except SQLAlchemyError as error:
        raise OSError(f"the books can't be read now: {error.__cause__ or error}") from error
    finally:
        engine.dispose()


def _engine(config: Config) -> Engine:
    if config.ledger.database:
        url = make_url(config.ledger.database).set(drivername="postgresql+psycopg")
        options = f"-c default_transaction_read_only=on -c statement_timeout={STATEMENT_S}s -c timezone=UTC"
        arguments = {"connect_timeout": CONNECT_S, "options": options, "application_name": "dsp report"}
        return create_engine(url, pool_size=2, connect_args=arguments)
    path = config.path("ledger.db")
    if not path.exists():
        raise FileNotFoundError(f"there are no books at {path}: has the ledger run?")
    return open_file(path)


def open_file(path: Path) -> Engine:
    """An engine that reads a SQLite file."""
    engine = create_engine(
        f"sqlite:///file:{path.absolute()}?mode=ro&uri=true",
        poolclass=StaticPool,
        connect_args={"check_same_thread": False, "timeout": 5.0},
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA query_only=1")
        connection.execute("PRAGMA cache_size=-65536")
        connection.execute("PRAGMA mmap_size=1073741824")

    return engine
