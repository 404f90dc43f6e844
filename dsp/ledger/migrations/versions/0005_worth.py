"""Rollups say what the outcomes were worth."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column."""
    for table in ("rollup_hours", "rollup_days"):
        op.add_column(table, sa.Column("worth_micros", sa.BigInteger(), nullable=False, server_default="0"))


def downgrade() -> None:
    """Drop the column: reports forget what outcomes were worth."""
    for table in ("rollup_hours", "rollup_days"):
        op.drop_column(table, "worth_micros")
