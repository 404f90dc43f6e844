"""The books' tables and how they are opened: SQLite in WAL mode, every commit on disk before it is acknowledged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Engine,
    Float,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    UniqueConstraint,
    create_engine,
    event,
)
from sqlalchemy.pool import StaticPool

METADATA = MetaData()
Money = BigInteger

LEDGER = Table(  # one row: who may write
    "ledger", METADATA, Column("id", Integer, primary_key=True), Column("epoch", Integer, nullable=False)
)
LINES = Table(  # every line item ever seen: late notices outlive snapshots
    "lines",
    METADATA,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("campaign", BigInteger, nullable=False),
    Column("advertiser", BigInteger, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("name", String, nullable=False),
)
LEASES = Table(
    "leases",
    METADATA,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("worker", String, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("opened_ms", BigInteger, nullable=False),
    Column("closed", BigInteger, nullable=False),  # buckets below are closed, and
    Column("closed_ms", BigInteger, nullable=False),  # all older notices belong to closed buckets
    Column("state", SmallInteger, nullable=False),  # LEASE_*
)
GRANTS = Table(
    "grants",
    METADATA,
    Column("lease", BigInteger, primary_key=True, autoincrement=False),
    Column("line_item", BigInteger, primary_key=True, autoincrement=False),
    Column("period", Integer, primary_key=True, autoincrement=False),
    Column("granted", Money, nullable=False),
    Column("returned", Money, nullable=False),
    Column("posted", Money, nullable=False),
    sqlite_with_rowid=False,
)
EVENTS = Table(  # one row per thing that happened to a bid: the key makes notices idempotent
    "events",
    METADATA,
    Column("bid_id", BigInteger, primary_key=True, autoincrement=False),  # two's complement of the token's
    Column("kind", SmallInteger, primary_key=True, autoincrement=False),  # OUTCOMES index
    Column("time_ms", BigInteger, nullable=False),
    Column("line_item", BigInteger, nullable=False),
    Column("creative", BigInteger, nullable=False),
    Column("exchange", Integer, nullable=False),
    Column("price_micros", Money, nullable=False),  # as the notice said: CPM, bid currency
    Column("value_micros", Money, nullable=False),  # conversions
    sqlite_with_rowid=False,
)
ENTRIES = Table(  # double entry: each row debits one account and credits another
    "entries",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("bid_id", BigInteger, nullable=False),
    Column("kind", SmallInteger, nullable=False),  # ENTRY_*
    Column("time_ms", BigInteger, nullable=False),
    Column("line_item", BigInteger, nullable=False),
    Column("exchange", Integer, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("period", Integer, nullable=False),
    Column("debit", SmallInteger, nullable=False),  # kind of account: LINE_ITEM or DISPUTE
    Column("credit", SmallInteger, nullable=False),  # PAYABLE
    Column("micros", Money, nullable=False),
    Column("lease", BigInteger, nullable=False),
    Column("bucket", BigInteger, nullable=False),
    Column("reserve_micros", Money, nullable=False),
    Column("late", SmallInteger, nullable=False),  # its reservation had been closed already
    UniqueConstraint("bid_id", "kind"),  # one event, one posting
)
Index("entries_line_item", ENTRIES.c.line_item)
BALANCES = Table(
    "balances",
    METADATA,
    Column("kind", SmallInteger, primary_key=True, autoincrement=False),  # accounts.ACCOUNT_KINDS
    Column("ref", BigInteger, primary_key=True, autoincrement=False),  # line item, campaign, advertiser, exchange
    Column("period", Integer, primary_key=True, autoincrement=False),
    Column("currency", String(3), primary_key=True),
    Column("debit_micros", Money, nullable=False),
    Column("credit_micros", Money, nullable=False),
    sqlite_with_rowid=False,
)
TALLIES = Table(  # events added up by line item
    "tallies",
    METADATA,
    Column("line_item", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", SmallInteger, primary_key=True, autoincrement=False),
    Column("n", BigInteger, nullable=False),
    Column("charge_micros", Money, nullable=False),  # what the notices amount to, account currency
    Column("posted_micros", Money, nullable=False),
    Column("value", Float, nullable=False),  # conversions, whole units
    sqlite_with_rowid=False,
)

LEASE_OPEN, LEASE_OVER = 1, 2
ENTRY_CHARGE, ENTRY_DISPUTE = 1, 2


def open_database(path: Path | str, *, durable: bool = True) -> Engine:
    """The SQLite engine of ``path`` (":memory:" too), tables made; ``durable=False`` only for simulation."""
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

    METADATA.create_all(engine)
    return engine


def sql_id(bid_id: int) -> int:
    """An unsigned 64-bit id as SQL's signed one."""
    return bid_id - (1 << 64) if bid_id >= 1 << 63 else bid_id


def token_id(signed: int) -> int:
    """The inverse of `sql_id`."""
    return signed + (1 << 64) if signed < 0 else signed
