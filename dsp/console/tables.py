"""The console's own SQL tables. They live in the catalog's database, so that a change and its audit row are one commit.

Secrets (session, link, API key) are kept as SHA-256 only. Audit rows can't be changed or deleted: triggers refuse it,
and each row's hash covers the one before.
"""

from __future__ import annotations

from sqlalchemy import (
    DDL,
    BigInteger,
    Boolean,
    Column,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    event,
    insert,
    select,
)

metadata = MetaData()
_Id = BigInteger().with_variant(Integer, "sqlite")

lock = Table(  # one row, written first by every change: changes follow one another
    "console_lock", metadata, Column("id", Integer, primary_key=True), Column("n", BigInteger, nullable=False)
)
user = Table(
    "console_user",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("email", String(200), nullable=False, unique=True),
    Column("password", String(200), nullable=False),  # argon2id; empty: none set
    Column("totp", String(64), nullable=False),  # base32; empty: not asked for
    Column("totp_step", BigInteger, nullable=False),  # the last one used: a code works once
    Column("disabled", Boolean, nullable=False),
    Column("created_s", BigInteger, nullable=False),
)
membership = Table(  # a role for one advertiser; 0 all of them
    "console_membership",
    metadata,
    Column("user_id", _Id, primary_key=True, autoincrement=False),
    Column("advertiser_id", _Id, primary_key=True, autoincrement=False),
    Column("role", String(10), nullable=False),
)
session = Table(
    "console_session",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("user_id", _Id, nullable=False),
    Column("csrf", String(64), nullable=False),
    Column("expires_s", BigInteger, nullable=False),
)
link = Table(  # one-time sign-in; user 0: makes the first owner
    "console_link",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("user_id", _Id, nullable=False),
    Column("expires_s", BigInteger, nullable=False),
)
api_key = Table(
    "console_api_key",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("hash", String(64), nullable=False, unique=True),
    Column("user_id", _Id, nullable=False),
    Column("name", String(200), nullable=False),
    Column("scopes", String(100), nullable=False),  # comma-separated
    Column("created_s", BigInteger, nullable=False),
    Column("revoked", Boolean, nullable=False),
)
audit = Table(
    "console_audit",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("time_s", BigInteger, nullable=False),
    Column("who", String(200), nullable=False),
    Column("via", String(10), nullable=False),
    Column("action", String(20), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("ref", BigInteger, nullable=False),
    Column("advertiser_id", BigInteger, nullable=False, index=True),
    Column("before", Text, nullable=False),
    Column("after", Text, nullable=False),
    Column("hash", String(64), nullable=False),
)
draft = Table(  # campaigns and line items that were made here and have never been live
    "console_draft",
    metadata,
    Column("kind", String(20), primary_key=True),
    Column("ref", BigInteger, primary_key=True, autoincrement=False),
)
review = Table(  # changes of campaigns that wait for a second person
    "console_review",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("campaign_id", _Id, nullable=False),
    Column("advertiser_id", BigInteger, nullable=False, index=True),
    Column("state", String(10), nullable=False),  # waiting, approved, returned
    Column("etag", String(40), nullable=False),  # of the campaign when it was asked for
    Column("changes", Text, nullable=False),
    Column("asked_by", String(200), nullable=False),
    Column("asked_id", _Id, nullable=False),
    Column("asked_s", BigInteger, nullable=False),
    Column("decided_by", String(200), nullable=False),
)
idempotency = Table(
    "console_idempotency",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("user_id", _Id, nullable=False),
    Column("key", String(200), nullable=False),
    Column("request", String(64), nullable=False),
    Column("status", Integer, nullable=False),
    Column("body", Text, nullable=False),
    Column("time_s", BigInteger, nullable=False),
    UniqueConstraint("user_id", "key"),
)
owner = Table(  # whose an offer, deal or segment is (`dsp.console.owned`)
    "console_owner",
    metadata,
    Column("kind", String(20), primary_key=True),
    Column("key", String(200), primary_key=True),
    Column("advertiser_id", _Id, nullable=False),
)

report_job = Table(  # files of whole reports (`dsp.console.export`)
    "console_report_job",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("user_id", _Id, nullable=False),
    Column("rights", Text, nullable=False),  # advertisers that it is of, comma-separated; empty: all
    Column("report", Text, nullable=False),
    Column("format", String(10), nullable=False),
    Column("state", String(10), nullable=False),
    Column("progress", Integer, nullable=False),  # millionths
    Column("rows", BigInteger, nullable=False),
    Column("time_s", BigInteger, nullable=False),  # of the last progress
)
saved_report = Table(
    "console_saved_report",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("name", String(200), nullable=False),
    Column("advertiser_id", BigInteger, nullable=False, index=True),  # whose people find it; 0: who sees all
    Column("report", Text, nullable=False),
    Column("user_id", _Id, nullable=False),
    Column("who", String(200), nullable=False),
)

for _what in ("UPDATE", "DELETE"):
    event.listen(
        audit,
        "after_create",
        DDL(
            f"CREATE TRIGGER console_audit_{_what.lower()} BEFORE {_what} ON console_audit "
            "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
        ).execute_if(dialect="sqlite"),  # type: ignore[no-untyped-call, unused-ignore]
    )
event.listen(
    audit,
    "after_create",
    DDL(
        "CREATE FUNCTION console_audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "RAISE EXCEPTION 'the audit log is append-only'; END $$; "
        "CREATE TRIGGER console_audit_refuse BEFORE UPDATE OR DELETE OR TRUNCATE ON console_audit "
        "EXECUTE FUNCTION console_audit_refuse()"
    ).execute_if(dialect="postgresql"),  # type: ignore[no-untyped-call, unused-ignore]
)


def create(engine: Engine) -> None:
    """Make what is missing."""
    metadata.create_all(engine)
    with engine.begin() as connection:
        if connection.execute(select(lock.c.id)).first() is None:
            connection.execute(insert(lock).values(id=1, n=0))
