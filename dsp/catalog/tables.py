"""The SQL tables of the catalog, for SQLite and PostgreSQL.

What other systems ask for (names, money, flights, status) are columns; the rest of a line item or creative is one JSON
text, read and written by msgspec. Rows are never deleted: books and notices refer to their ids for years; what is gone
is ``archived``. Money is micros, times are unix seconds.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
)

from dsp.catalog.layout import NO_LIMIT_MICROS

metadata = MetaData()

_Id = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers only INTEGER keys by itself


def _id() -> Column[int]:
    return Column("id", _Id, primary_key=True, autoincrement=True)


def _name() -> Column[str]:
    return Column("name", String(200), nullable=False)


def _money() -> list[Column[int]]:
    return [
        Column("total_micros", BigInteger, nullable=False),
        Column("daily_micros", BigInteger, nullable=False),
        later("hourly_micros", BigInteger, NO_LIMIT_MICROS),
    ]


def later(name: str, kind: Any, default: Any) -> Column[Any]:
    """A column that an earlier release did not have; `dsp.catalog.store` adds it to old tables."""
    return Column(
        name, kind, nullable=False, server_default=default if isinstance(default, ColumnElement) else str(default)
    )


def _flight() -> list[Column[int]]:
    return [Column("start_s", BigInteger, nullable=False), Column("end_s", BigInteger, nullable=False)]


def _parent(table: str) -> Column[int]:
    return Column(f"{table}_id", _Id, ForeignKey(f"{table}.id"), nullable=False, index=True)


revision = Table(
    "catalog_revision",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("revision", BigInteger, nullable=False),
)
currency = Table(
    "currency",
    metadata,
    Column("code", String(3), primary_key=True),
    Column("usd", Float, nullable=False),
    Column("date", String(10), nullable=False),
)
exchange = Table(
    "exchange",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("name", String(32), nullable=False, unique=True),
    Column("token", String(200), nullable=False),
    Column("qps", Integer, nullable=False),
    Column("allowance_ms", Integer, nullable=False),
    Column("tmax_ms", Integer, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("exp_s", Integer, nullable=False),
    Column("auction", String(8), nullable=False),
    Column("billable", String(8), nullable=False),
    Column("seat", String(100), nullable=False),
    later("profile", Text, "{}"),  # JSON of `dsp.catalog.profile.Profile`
    later("seats", Text, "{}"),
    later("match_url", String(1000), ""),
    later("client_header", String(400), ""),
    later("ips", Text, "[]"),
)
segment = Table(
    "segment",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("name", String(200), nullable=False, unique=True),
    Column("demographic", String(20), nullable=False),
)
deal = Table(
    "deal",
    metadata,
    Column("id", String(200), primary_key=True),
    Column("exchange_id", Integer, ForeignKey("exchange.id"), nullable=False),
    Column("floor_micros", BigInteger, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("at", Integer, nullable=False),
)
offer = Table(
    "offer",
    metadata,
    _id(),
    Column("name", String(200), nullable=False, unique=True),
    Column("product", String(20), nullable=False),
    Column("lender", String(200), nullable=False),
    Column("currency", String(3), nullable=False),
    *(
        Column(name, Float, nullable=False)
        for name in ("margin", "lgd", "ead", "payout_click", "payout_apply", "payout_approve", "payout_fund")
    ),
    later("facts", Text, "{}"),
)
advertiser = Table(
    "advertiser",
    metadata,
    _id(),
    Column("name", String(200), nullable=False, unique=True),
    Column("seat", String(100), nullable=False),
    Column("domains", Text, nullable=False),
    Column("categories", Text, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("timezone", String(64), nullable=False),
    Column("bundle", String(200), nullable=False),
    Column("language", String(8), nullable=False),
    *_money(),
    later("margin_ppm", Integer, 0),
    later("prepaid", Boolean, false()),
    later("frequency", Text, "[]"),
    later("product_frequency", Text, "{}"),
)
campaign = Table(
    "campaign",
    metadata,
    _id(),
    _parent("advertiser"),
    _name(),
    *_money(),
    *_flight(),
    Column("status", String(10), nullable=False),
    later("frequency", Text, "[]"),
    later("experiments", Text, "[]"),
    UniqueConstraint("advertiser_id", "name"),
)
line_item = Table(
    "line_item",
    metadata,
    _id(),
    _parent("campaign"),
    _parent("offer"),
    _name(),
    Column("max_bid_micros", BigInteger, nullable=False),
    Column("timezone", String(64), nullable=False),
    Column("language", String(8), nullable=False),
    *_money(),
    *_flight(),
    Column("pacing", String(10), nullable=False),
    Column("targeting", Text, nullable=False),
    Column("strategy", String(10), nullable=False),
    Column("deals", Text, nullable=False),
    Column("deal_only", Boolean, nullable=False),
    Column("allow_uncapped", Boolean, nullable=False),
    Column("credit", Boolean, nullable=False),
    Column("status", String(10), nullable=False),  # active, paused or archived
    later("minute_micros", BigInteger, 0),
    later("tolerance_ppm", Integer, 0),
    later("frequency", Text, "[]"),
    later("suppress", Text, "[]"),
    later("target_micros", BigInteger, 0),
    later("target_stage", String(12), ""),
    later("click_window_s", Integer, 30 * 86_400),
    later("view_window_s", Integer, 86_400),
    UniqueConstraint("campaign_id", "name"),
)
creative = Table(
    "creative",
    metadata,
    _id(),
    _parent("line_item"),
    _name(),
    Column("format", String(10), nullable=False),
    Column("w", Integer, nullable=False),
    Column("h", Integer, nullable=False),
    Column("spec", Text, nullable=False),
    Column("status", String(10), nullable=False),  # active or archived
    UniqueConstraint("line_item_id", "name"),
)
