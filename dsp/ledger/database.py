"""How the books' database is opened: SQLite by default, PostgreSQL by one setting; every commit on disk before it is
acknowledged. An empty database gets today's tables, an older one is migrated; `go_back` undoes it for an older release.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, inspect
from sqlalchemy.engine import make_url
from sqlalchemy.pool import StaticPool

from dsp.ledger.schema import LEDGER, METADATA

BASELINE = "0001"  # the tables of a database made before migrations were kept
CONNECT_S = 5
STATEMENT_S = 20  # a commit that takes longer is taken for a dead database
_MIGRATE_LOCK = 0x647370  # PostgreSQL advisory lock: one process migrates


def open_database(path_or_url: Path | str, *, durable: bool = True) -> Engine:
    """An engine on a SQLite file (":memory:" too) or a ``postgresql://`` URL, its tables made or migrated.

    ``durable=False`` only for simulation. Raises SQLAlchemyError or OSError when the database is away.
    """
    engine = connect(path_or_url, durable=durable)
    try:
        migrate(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


def connect(path_or_url: Path | str, *, durable: bool = True) -> Engine:
    """An engine on the tables as they are."""
    text = str(path_or_url)
    return _postgresql(text) if text.startswith("postgres") else _sqlite(text, durable=durable)


def _sqlite(path: str, *, durable: bool) -> Engine:
    if path != ":memory:":
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        f"sqlite:///{path}", poolclass=StaticPool, connect_args={"check_same_thread": False, "timeout": 5.0}
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves: the driver's own is too late and too weak
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'OFF'}")
        connection.execute("PRAGMA cache_size=-65536")

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _postgresql(url: str) -> Engine:
    """Waits are bounded on both sides: a ledger that hangs in a transaction loses it, so another can take over."""
    parsed = make_url(url).set(drivername="postgresql+psycopg")
    settings = {
        "synchronous_commit": "on",
        "lock_timeout": f"{CONNECT_S}s",
        "statement_timeout": f"{STATEMENT_S}s",
        "idle_in_transaction_session_timeout": f"{STATEMENT_S}s",
        "timezone": "UTC",
    }
    arguments = {
        "connect_timeout": CONNECT_S,
        "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
        "keepalives_idle": 5,
        "tcp_user_timeout": STATEMENT_S * 1000,
        "application_name": "dsp ledger",
    }
    return create_engine(parsed, pool_size=2, max_overflow=4, connect_args=arguments)


def migrate(engine: Engine) -> None:
    """Bring the tables to today's shape."""
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATE_LOCK})")
        context, scripts = MigrationContext.configure(connection), _scripts()
        now = context.get_current_revision()
        if now == scripts.get_current_head():
            return
        if now is None and not inspect(connection).has_table(LEDGER.name):
            METADATA.create_all(connection)
            context.stamp(scripts, "head")
            return
        if now is None:
            context.stamp(scripts, BASELINE)
        command.upgrade(alembic_config(connection), "head")


def go_back(engine: Engine, revision: str) -> None:
    """Bring today's tables back to those of an earlier ``revision`` ("0005"), in one transaction.

    No ledger may be at work on them (`Books.open` fences it), and the rollups must hold every charge (`Books.close`).
    Raises ValueError when there is no such revision, or it could not hold what the books do; then nothing has changed.
    """
    if revision not in revisions():
        raise ValueError(f"{revision!r} is none of {', '.join(revisions())}")
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATE_LOCK})")
        command.downgrade(alembic_config(connection), revision)


def revisions() -> list[str]:
    """Every shape the tables have had, oldest first."""
    return [script.revision for script in _scripts().walk_revisions()][::-1]


def revision_of(engine: Engine) -> str:
    """The shape the tables have."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision() or ""


@cache
def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(alembic_config())


def alembic_config(connection: Connection | None = None) -> AlembicConfig:
    """Alembic's view of our migrations, working on ``connection``."""
    config = AlembicConfig()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config
