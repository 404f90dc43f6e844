"""Days of each line item, campaign, advertiser and creative on each exchange (`dsp.ledger.rollups.PAIRED`).

What was there before is added up from the hours. Days are UTC's then: the books don't know the time zones of old days.
"""

from alembic import op

revision = "0007"
down_revision = "0006"

_MEASURES = (
    *("impressions", "spend_micros", "media_micros", "clicks", "registered", "applied", "approved", "funded"),
    *("defaulted", "views", "value_micros", "worth_micros"),
)
_OF = {30: "h.line_item", 31: "l.campaign", 32: "l.advertiser", 33: "h.creative"}


def upgrade() -> None:
    """Add the rows."""
    sums = ", ".join(f"sum(h.{name})" for name in _MEASURES)
    for kind, of in _OF.items():
        for grain in (1, 4, 16):
            key = f"h.hour / {24 * grain} * {grain}, {of} * 65536 + h.exchange, h.currency"
            op.execute(
                f"INSERT INTO rollup_days (kind, grain, day, ref, currency, {', '.join(_MEASURES)}) "
                f"SELECT {kind}, {grain}, {key}, {sums} FROM rollup_hours h JOIN lines l ON l.id = h.line_item "
                f"GROUP BY {key}"
            )


def downgrade() -> None:
    """Take them out."""
    op.execute(f"DELETE FROM rollup_days WHERE kind IN ({', '.join(map(str, _OF))})")
