"""The books' tables, for SQLite and PostgreSQL; `dsp.ledger.database` opens them, `dsp.ledger.migrations` changes them.

Kinds of accounts are `accounts.ACCOUNT_KINDS`. Amounts are micros of the row's currency, ids are the catalog's. A
column added after the first release has a server default, so that old rows and old programs stay valid.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    UniqueConstraint,
)

METADATA = MetaData()
Money = BigInteger
_Id = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers only INTEGER keys by itself


def _new(name: str, kind: Any, default: str = "0") -> Column[Any]:
    """A column that came later."""
    return Column(name, kind, nullable=False, server_default=default)


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
    _new("margin_ppm", Integer),  # the agency's, on top of media cost
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
    _new("bid_ms", BigInteger),  # when the bid was made
    Column("person", BigInteger, nullable=True),  # person number, only where the bid's token may carry it
    _new("arm", SmallInteger),  # experiment arm
    _new("media", SmallInteger),
    _new("currency", String(3), ""),  # of the account: what `value_micros` is in
    _new("attribution", SmallInteger),  # conversions: ATTRIBUTION_*
    Column("credited", BigInteger, nullable=True),  # conversions: the bid that gets the credit
    Column("external_id", String, nullable=True),  # conversions: the advertiser's or partner's own number of it
    sqlite_with_rowid=False,
)
Index(  # what a person has clicked and seen
    "events_person",
    EVENTS.c.person,
    EVENTS.c.line_item,
    sqlite_where=EVENTS.c.person.is_not(None),
    postgresql_where=EVENTS.c.person.is_not(None),
)
ENTRIES = Table(  # double entry: each row debits one account and credits another
    "entries",
    METADATA,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("bid_id", BigInteger, nullable=False),  # or, for ENTRY_ADJUSTMENT and later kinds, the adjustment's id
    Column("kind", SmallInteger, nullable=False),  # ENTRY_*
    Column("time_ms", BigInteger, nullable=False),
    Column("line_item", BigInteger, nullable=False),
    Column("exchange", Integer, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("period", Integer, nullable=False),
    Column("debit", SmallInteger, nullable=False),  # kind of account
    Column("credit", SmallInteger, nullable=False),
    Column("micros", Money, nullable=False),
    Column("lease", BigInteger, nullable=False),
    Column("bucket", BigInteger, nullable=False),
    Column("reserve_micros", Money, nullable=False),
    Column("late", SmallInteger, nullable=False),  # its reservation had been closed already
    _new("debit_ref", BigInteger),  # whose account: line item, exchange or advertiser
    _new("credit_ref", BigInteger),
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

ADJUSTMENTS = Table(  # money moved by people, not by notices: once per key
    "adjustments",
    METADATA,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("key", String(200), nullable=False, unique=True),  # chosen by who asks: a repeat changes nothing
    Column("kind", SmallInteger, nullable=False),  # adjust.KINDS
    Column("time_ms", BigInteger, nullable=False),
    Column("advertiser", BigInteger, nullable=False),
    Column("line_item", BigInteger, nullable=False),
    Column("exchange", Integer, nullable=False),
    Column("period", Integer, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("micros", Money, nullable=False),
    Column("note", String, nullable=False),
)
RATES = Table(  # the rates table as it was on each day that a catalog came into force
    "rates",
    METADATA,
    Column("code", String(3), primary_key=True),
    Column("day", String(10), primary_key=True),  # ISO date
    Column("usd", Float, nullable=False),  # US dollars for one unit
    sqlite_with_rowid=False,
)
STOPS = Table(  # line items that a brake or a person has stopped; (0, 0) is everything
    "stops",
    METADATA,
    Column("kind", SmallInteger, primary_key=True, autoincrement=False),  # kind of account, 0 everything
    Column("ref", BigInteger, primary_key=True, autoincrement=False),
    Column("reason", String(40), nullable=False),
    Column("detail", String, nullable=False),
    Column("time_ms", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

PACING = Table(  # what pacing has learned of a line item (`control.pacing.dump`): a cache, not books
    "pacing",
    METADATA,
    Column("line_item", BigInteger, primary_key=True, autoincrement=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("state", LargeBinary, nullable=False),
)

MEASURES = (
    *("impressions", "spend_micros", "media_micros", "clicks"),  # spend: media cost and the agency's margin
    *("registered", "applied", "approved", "funded", "defaulted"),
    *("views", "value_micros"),  # conversions credited to views; amounts that came with funded conversions
    "worth_micros",  # what the offer says it was all worth: payouts, margin when funded, less the loss when defaulted
)


def _measures() -> list[Column[Any]]:
    """`worth_micros` came later."""
    return [
        _new(name, BigInteger) if name == "worth_micros" else Column(name, BigInteger, nullable=False)
        for name in MEASURES
    ]


ROLLUP_HOURS = Table(  # what reports read (`dsp.ledger.rollups`): the detail
    "rollup_hours",
    METADATA,
    Column("line_item", BigInteger, primary_key=True, autoincrement=False),
    Column("hour", Integer, primary_key=True, autoincrement=False),  # unix hours
    Column("exchange", Integer, primary_key=True, autoincrement=False),
    Column("creative", BigInteger, primary_key=True, autoincrement=False),
    Column("currency", String(3), nullable=False),
    *_measures(),
    sqlite_with_rowid=False,
)
ROLLUP_DAYS = Table(
    "rollup_days",
    METADATA,
    Column("kind", SmallInteger, primary_key=True, autoincrement=False),  # of account, or rollups.EXCHANGE ...
    Column("grain", SmallInteger, primary_key=True, autoincrement=False),  # days
    Column("day", Integer, primary_key=True, autoincrement=False),  # the first of them, since 1970-01-01, local
    Column("ref", BigInteger, primary_key=True, autoincrement=False),
    Column("currency", String(3), primary_key=True),
    *_measures(),
    sqlite_with_rowid=False,
)

ROLLED = Table(  # one row: the last entry whose charge the rollups hold; later ones are added at start-up
    "rolled",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("entry", BigInteger, nullable=False),
)

LEASE_OPEN, LEASE_OVER = 1, 2
ENTRY_CHARGE, ENTRY_DISPUTE, ENTRY_MARGIN, ENTRY_ADJUSTMENT, ENTRY_ADJUSTED_MARGIN = 1, 2, 3, 10, 11
ATTRIBUTION_NONE, ATTRIBUTION_CLICK, ATTRIBUTION_VIEW = 0, 1, 2


def sql_id(bid_id: int) -> int:
    """An unsigned 64-bit id as SQL's signed one."""
    return bid_id - (1 << 64) if bid_id >= 1 << 63 else bid_id


def token_id(signed: int) -> int:
    """The inverse of `sql_id`."""
    return signed + (1 << 64) if signed < 0 else signed
