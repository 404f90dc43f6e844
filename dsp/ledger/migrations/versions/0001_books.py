"""The tables before migrations were kept."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision: str | None = None
Kind = sa.types.TypeEngine[Any]


def upgrade() -> None:
    """Make them."""
    big, small = sa.BigInteger(), sa.SmallInteger()

    def key(name: str, kind: Kind = big) -> sa.Column[Any]:
        return sa.Column(name, kind, primary_key=True, autoincrement=False)

    def column(name: str, kind: Kind = big) -> sa.Column[Any]:
        return sa.Column(name, kind, nullable=False)

    def table(name: str, *columns: sa.schema.SchemaItem) -> None:
        op.create_table(name, *columns, sqlite_with_rowid=name not in {"grants", "events", "balances", "tallies"})

    op.create_table("ledger", sa.Column("id", sa.Integer(), primary_key=True), column("epoch", sa.Integer()))
    op.create_table(
        "lines", key("id"), column("campaign"), column("advertiser"), column("currency", sa.String(3)),
        column("name", sa.String()),
    )  # fmt: skip
    op.create_table(
        "leases", key("id"), column("worker", sa.String()), column("epoch", sa.Integer()), column("opened_ms"),
        column("closed"), column("closed_ms"), column("state", small),
    )  # fmt: skip
    table(
        "grants", key("lease"), key("line_item"), key("period", sa.Integer()), column("granted"), column("returned"),
        column("posted"),
    )  # fmt: skip
    table(
        "events", key("bid_id"), key("kind", small), column("time_ms"), column("line_item"), column("creative"),
        column("exchange", sa.Integer()), column("price_micros"), column("value_micros"),
    )  # fmt: skip
    number = big.with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "entries", sa.Column("id", number, primary_key=True), column("bid_id"), column("kind", small),
        column("time_ms"), column("line_item"), column("exchange", sa.Integer()), column("currency", sa.String(3)),
        column("period", sa.Integer()), column("debit", small), column("credit", small), column("micros"),
        column("lease"), column("bucket"), column("reserve_micros"), column("late", small),
        sa.UniqueConstraint("bid_id", "kind"),
    )  # fmt: skip
    op.create_index("entries_line_item", "entries", ["line_item"])
    table(
        "balances", key("kind", small), key("ref"), key("period", sa.Integer()), key("currency", sa.String(3)),
        column("debit_micros"), column("credit_micros"),
    )  # fmt: skip
    table(
        "tallies", key("line_item"), key("kind", small), column("n"), column("charge_micros"),
        column("posted_micros"), column("value", sa.Float()),
    )  # fmt: skip
