"""Budget periods: days and hours of an advertiser's time zone, as numbers that fit a token.

0 is all time; n below `HOURS` is the local day n days after 1970-01-01; `HOURS` + (day << 5 | k) is the k-th hour of a
local day, counted as it passes, so a day has 23 or 25 hours where clocks change and no hour comes twice.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

ALL_TIME = 0
HOURS = 1 << 24
EPOCH_DAY = datetime(1970, 1, 1).toordinal()
_HOUR_MS = 3_600_000


def day_of(period: int) -> int:
    """The day that a period is, or lies in."""
    return (period - HOURS) >> 5 if period >= HOURS else period


def periods_of(period: int) -> tuple[int, ...]:
    """Every period that something of ``period`` counts in: all time, its day, its hour."""
    if period == ALL_TIME:
        return (ALL_TIME,)
    return (ALL_TIME, period) if period < HOURS else (ALL_TIME, (period - HOURS) >> 5, period)


def period_text(period: int) -> str:
    """A period for people: "2026-03-01", "2026-03-01 hour 14", or "all time"."""
    if period == ALL_TIME:
        return "all time"
    day = datetime.fromordinal(EPOCH_DAY + day_of(period)).date().isoformat()
    return day if period < HOURS else f"{day} hour {(period - HOURS) & 31}"


class Zone:
    """The current day and hour of one time zone, recomputed only when an hour ends."""

    def __init__(self, name: str) -> None:
        self._zone = ZoneInfo(name)
        self.day = self.hour = 0
        self._from_ms = self._until_ms = 0.0

    def roll(self, time_ms: int) -> bool:
        """Move to ``time_ms``; True when a new period began (none begins twice, should a clock be set back)."""
        if self._from_ms <= time_ms < self._until_ms:
            return False
        local = datetime.fromtimestamp(time_ms / 1000, self._zone)
        midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        begun_ms = midnight.astimezone(UTC).timestamp() * 1000
        tomorrow = (midnight.replace(tzinfo=None) + timedelta(days=1)).replace(tzinfo=self._zone)
        hour = int((time_ms - begun_ms) // _HOUR_MS)
        self._from_ms = begun_ms + hour * _HOUR_MS
        self._until_ms = min(self._from_ms + _HOUR_MS, tomorrow.astimezone(UTC).timestamp() * 1000)
        before = self.day, self.hour
        day = local.toordinal() - EPOCH_DAY
        self.day, self.hour = max(self.day, day), max(self.hour, HOURS + (day << 5 | hour))
        return before != (self.day, self.hour)
