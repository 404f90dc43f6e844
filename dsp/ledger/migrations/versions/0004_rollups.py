"""Rollups: what reports read."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

MEASURES = (
    *("impressions", "spend_micros", "media_micros", "clicks"),
    *("registered", "applied", "approved", "funded", "defaulted"),
    *("views", "value_micros"),
)


def upgrade() -> None:
    """Add the tables. What was booked before stays in the books and out of reports by day."""
    big, small = sa.BigInteger(), sa.SmallInteger()

    def key(name: str, kind: sa.types.TypeEngine[Any]) -> sa.Column[Any]:
        return sa.Column(name, kind, primary_key=True, autoincrement=False)

    def measures() -> list[sa.Column[Any]]:
        return [sa.Column(name, big, nullable=False) for name in MEASURES]

    op.create_table(
        "rollup_hours", key("line_item", big), key("hour", sa.Integer()), key("exchange", sa.Integer()),
        key("creative", big), sa.Column("currency", sa.String(3), nullable=False), *measures(),
        sqlite_with_rowid=False,
    )  # fmt: skip
    op.create_table(
        "rollup_days", key("kind", small), key("grain", small), key("day", sa.Integer()), key("ref", big),
        key("currency", sa.String(3)), *measures(), sqlite_with_rowid=False,
    )  # fmt: skip


def downgrade() -> None:
    """Drop the tables: reports begin anew after the next upgrade. The books keep everything."""
    op.drop_table("rollup_days")
    op.drop_table("rollup_hours")
