"""Local times of a line item as UTC: flights, and dayparts as half hours of the week.

A daypart means local hours, so its UTC half hours move when the zone's offset does; `next_offset_change` says when a
compiled snapshot stops being right.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dsp.catalog.names import DAYS

HALF_HOURS = 336
_DAY_MINUTES = 24 * 60
_WEEK_MINUTES = 7 * _DAY_MINUTES
_SPAN = re.compile(r"(\d{1,2})(?::(\d\d))?\s*-\s*(\d{1,2})(?::(\d\d))?")
_DAY_GROUPS = {"weekdays": (0, 5), "weekend": (5, 7), "daily": (0, 7)}


@lru_cache(maxsize=1024)
def zone(name: str) -> ZoneInfo:
    """The IANA time zone of that name. Raises ValueError."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a name that is a directory ("America")
        raise ValueError(f"unknown time zone {name!r}; write an IANA name such as America/New_York") from None


def parse_instant(text: str, zone_name: str, *, end: bool) -> int:
    """A date or ISO time in ``zone_name`` as unix seconds; a date that is an ``end`` includes its day. ValueError."""
    tz = zone(zone_name)
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            day = date.fromisoformat(text)
            moment = datetime.combine(day + timedelta(days=1) if end else day, time(), tz)
        else:
            moment = datetime.fromisoformat(text)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=tz)
        return int(moment.timestamp())
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is not a time; write 2026-01-31 or 2026-01-31T18:00") from None


def parse_days(text: str) -> tuple[int, ...]:
    """The days ``text`` names, Monday 0: "mon", "mon-fri", "fri-mon", "weekend"... ValueError."""
    if text in _DAY_GROUPS:
        return tuple(range(*_DAY_GROUPS[text]))
    first, _, last = text.partition("-")
    try:
        a, b = DAYS.index(first), DAYS.index(last or first)
    except ValueError:
        raise ValueError(f"unknown day {text!r}; write mon, mon-fri, weekdays, weekend or daily") from None
    return tuple(d % 7 for d in range(a, (b if b >= a else b + 7) + 1))


def parse_span(text: object) -> tuple[int, int]:
    """ "8-22" or "13:30-18" as minutes of the day (start, end); an end at or before the start is on the next day."""
    match = _SPAN.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f'{text!r} is not a span of hours; write "8-22" or "13:30-18" (with quotes)')
    h0, m0, h1, m1 = (int(part or 0) for part in match.groups())
    start, end = h0 * 60 + m0, h1 * 60 + m1
    if start >= _DAY_MINUTES or end > _DAY_MINUTES or m0 not in (0, 30) or m1 not in (0, 30):
        raise ValueError(f"{text!r}: hours go from 0 to 24, minutes are 00 or 30")
    return start, end if end > start else end + _DAY_MINUTES


def parse_daypart(daypart: Mapping[str, object]) -> frozenset[int]:
    """The local half hours of the week (Monday 00:00 = 0) of a daypart, as the catalog file has it. ValueError."""
    halves: set[int] = set()
    for days, spans in daypart.items():
        for span in spans if isinstance(spans, (list, tuple)) else (spans,):
            start, end = parse_span(span)
            for day in parse_days(days):
                first = day * _DAY_MINUTES + start
                halves.update(minute % _WEEK_MINUTES // 30 for minute in range(first, first + end - start, 30))
    return frozenset(halves)


def offset_s(zone_name: str, now_s: float) -> int:
    """Seconds east of UTC in a zone at unix time ``now_s``."""
    offset = datetime.fromtimestamp(now_s, zone(zone_name)).utcoffset()
    assert offset is not None
    return int(offset.total_seconds())


def utc_half_hours(local: frozenset[int], zone_name: str, now_s: float) -> tuple[int, ...]:
    """The UTC half hours of the week that begin inside ``local``, with the offset the zone has at ``now_s``."""
    shift = offset_s(zone_name, now_s) // 60
    return tuple(u for u in range(HALF_HOURS) if (u * 30 + shift) % _WEEK_MINUTES // 30 in local)


def next_offset_change(zone_name: str, now_s: float, days: int = 400) -> int | None:
    """The first unix second after ``now_s`` at which the zone's UTC offset is another one; None within ``days``."""
    current = offset_s(zone_name, now_s)
    low = int(now_s)
    for day in range(1, days + 1):
        high = int(now_s) + day * 86400
        if offset_s(zone_name, high) != current:
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if offset_s(zone_name, middle) == current else (low, middle)
            return high
        low = high
    return None


def utc_text(unix_s: int) -> str:
    """A unix time as ISO text in UTC, for messages."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="minutes")
