"""Flights and dayparts: local time means local time, also across a change of offset."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from dsp.catalog.times import (
    HALF_HOURS,
    next_offset_change,
    parse_daypart,
    parse_days,
    parse_instant,
    parse_span,
    utc_half_hours,
    zone,
)

WINTER = datetime(2026, 1, 14, 12, tzinfo=UTC).timestamp()
SUMMER = datetime(2026, 7, 15, 12, tzinfo=UTC).timestamp()


def test_a_flight_ends_with_the_end_of_its_last_day():
    start = parse_instant("2026-03-01", "America/New_York", end=False)
    end = parse_instant("2026-03-31", "America/New_York", end=True)
    assert datetime.fromtimestamp(start, UTC) == datetime(2026, 3, 1, 5, tzinfo=UTC)
    assert datetime.fromtimestamp(end, UTC) == datetime(2026, 4, 1, 4, tzinfo=UTC)  # daylight saving by then


@pytest.mark.parametrize(
    ("text", "utc"),
    [("2026-03-01T18:30", "2026-03-01T10:30"), ("2026-03-01T18:30+02:00", "2026-03-01T16:30"), ("2026-03-01T00", None)],
)
def test_times_are_local_unless_they_say_otherwise(text, utc):
    moment = datetime.fromtimestamp(parse_instant(text, "Asia/Shanghai", end=True), UTC)
    assert moment == datetime.fromisoformat(utc or "2026-02-28T16:00").replace(tzinfo=UTC)


@pytest.mark.parametrize("text", ["tomorrow", "2026-02-30", "20-01-01", "2026-01-01 25:00", ""])
def test_what_is_no_time_says_what_to_write(text):
    with pytest.raises(ValueError, match="write 2026-01-31"):
        parse_instant(text, "UTC", end=False)


@pytest.mark.parametrize("name", ["Mars/Olympus", "", "America", "../etc/passwd", "/etc/localtime"])
def test_an_unknown_time_zone_is_named(name):
    with pytest.raises(ValueError, match="unknown time zone"):
        zone(name)


def test_days():
    assert parse_days("mon-fri") == parse_days("weekdays") == (0, 1, 2, 3, 4)
    assert parse_days("fri-mon") == (4, 5, 6, 0)
    assert parse_days("weekend") == (5, 6)
    assert parse_days("sun") == (6,)
    assert len(parse_days("daily")) == 7
    with pytest.raises(ValueError, match="unknown day"):
        parse_days("monday")


def test_spans():
    assert parse_span("8-22") == (480, 1320)
    assert parse_span("13:30 - 24") == (810, 1440)
    assert parse_span("22-6") == (1320, 1800)
    for wrong in ("8", "8-25", "24-25", "8:15-9", 8, None, "a-b"):
        with pytest.raises(ValueError, match=r"hours|span"):
            parse_span(wrong)


def test_a_night_span_runs_into_the_next_day():
    halves = parse_daypart({"sun": "22-6"})
    assert 6 * 48 + 44 in halves
    assert 0 in halves  # Monday 00:00
    assert 11 in halves
    assert 12 not in halves
    assert len(halves) == 16


@pytest.mark.parametrize(
    "name", ["UTC", "America/New_York", "Europe/Berlin", "Asia/Shanghai", "Asia/Kolkata", "Asia/Kathmandu"]
)
@pytest.mark.parametrize("now", [WINTER, SUMMER])
def test_utc_half_hours_are_those_whose_beginning_is_inside(name, now):
    daypart = {"mon-fri": ["8-12", "13:30-18"], "sat": "22-4"}
    found = utc_half_hours(parse_daypart(daypart), name, now)
    assert len(set(found)) == len(found)
    offset = datetime.fromtimestamp(now, zone(name)).utcoffset()
    for half in range(HALF_HOURS):
        local = datetime(2026, 1, 5, tzinfo=UTC) + timedelta(minutes=30 * half) + offset
        hour, day = local.hour + local.minute / 60, local.weekday()
        inside = day < 5 and (8 <= hour < 12 or 13.5 <= hour < 18)
        inside |= (day == 5 and hour >= 22) or (day == 6 and hour < 4)
        assert (half in found) == inside, (name, half, local)


def test_the_next_change_of_offset_is_exact():
    spring = datetime(2026, 3, 8, 7, tzinfo=UTC).timestamp()  # 02:00 EST
    assert next_offset_change("America/New_York", WINTER) == spring
    assert next_offset_change("America/New_York", spring - 1) == spring
    assert next_offset_change("America/New_York", spring) == datetime(2026, 11, 1, 6, tzinfo=UTC).timestamp()
    assert next_offset_change("Europe/Berlin", SUMMER) == datetime(2026, 10, 25, 1, tzinfo=UTC).timestamp()
    assert next_offset_change("Asia/Shanghai", WINTER) is None
