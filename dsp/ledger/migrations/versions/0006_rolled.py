"""Rollups are written once a second: how far they go is kept beside them."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the table. What was charged before is in the rollups already."""
    op.create_table(
        "rolled",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("entry", sa.BigInteger(), nullable=False),
    )
    op.execute("INSERT INTO rolled (id, entry) SELECT 1, coalesce(max(id), 0) FROM entries")


def downgrade() -> None:
    """Drop the table. Its caller has seen to it that the rollups hold every charge."""
    op.drop_table("rolled")
