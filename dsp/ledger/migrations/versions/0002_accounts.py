"""Both sides of an entry, adjustments, dated rates, stops; events carry what attribution and rollups need."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

LINE_ITEM, PAYABLE, DISPUTE = 1, 4, 5
Kind = sa.types.TypeEngine[Any]


def upgrade() -> None:
    """Add columns and tables; what old entries left unsaid is filled in."""
    big, small, text = sa.BigInteger(), sa.SmallInteger(), sa.String()

    def add(table: str, name: str, kind: Kind, default: str = "0") -> None:
        op.add_column(table, sa.Column(name, kind, nullable=False, server_default=default))

    def key(name: str, kind: Kind) -> sa.Column[Any]:
        return sa.Column(name, kind, primary_key=True, autoincrement=False)

    def column(name: str, kind: Kind = big) -> sa.Column[Any]:
        return sa.Column(name, kind, nullable=False)

    add("lines", "margin_ppm", sa.Integer())
    for name, kind in (("bid_ms", big), ("arm", small), ("media", small), ("attribution", small)):
        add("events", name, kind)
    add("events", "currency", sa.String(3), "")
    for name in ("person", "credited"):
        op.add_column("events", sa.Column(name, big, nullable=True))
    op.add_column("events", sa.Column("external_id", text, nullable=True))
    where = sa.text("person IS NOT NULL")
    op.create_index("events_person", "events", ["person", "line_item"], sqlite_where=where, postgresql_where=where)
    add("entries", "debit_ref", big)
    add("entries", "credit_ref", big)
    op.execute(f"UPDATE entries SET debit_ref = CASE debit WHEN {LINE_ITEM} THEN line_item ELSE exchange END")
    op.execute(f"UPDATE entries SET credit_ref = exchange WHERE credit = {PAYABLE}")
    number = big.with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "adjustments", sa.Column("id", number, primary_key=True),
        sa.Column("key", sa.String(200), nullable=False, unique=True), column("kind", small), column("time_ms"),
        column("advertiser"), column("line_item"), column("exchange", sa.Integer()), column("period", sa.Integer()),
        column("currency", sa.String(3)), column("micros"), column("note", text),
    )  # fmt: skip
    op.create_table(
        "rates", key("code", sa.String(3)), key("day", sa.String(10)), column("usd", sa.Float()),
        sqlite_with_rowid=False,
    )  # fmt: skip
    op.create_table(
        "stops", key("kind", small), key("ref", big), column("reason", sa.String(40)), column("detail", text),
        column("time_ms"), sqlite_with_rowid=False,
    )  # fmt: skip


def downgrade() -> None:
    """Drop what came with it. Refused where money was moved by hand or with a margin: the older books cannot say so."""
    for what, query in (
        ("adjustments", "SELECT count(*) FROM adjustments"),
        ("agency margins", "SELECT count(*) FROM entries WHERE kind = 3"),
        ("stops", "SELECT count(*) FROM stops"),
    ):
        n = op.get_bind().exec_driver_sql(query).scalar_one()
        if n:
            raise ValueError(f"the books hold {n} {what}, which the release before cannot hold: nothing was changed")
    op.drop_table("stops")
    op.drop_table("rates")
    op.drop_table("adjustments")
    op.drop_index("events_person", "events")
    columns = ("bid_ms", "arm", "media", "attribution", "currency", "person", "credited", "external_id")
    for table, names in (("lines", ("margin_ppm",)), ("events", columns), ("entries", ("debit_ref", "credit_ref"))):
        for name in names:
            op.drop_column(table, name)
