"""Counting what was shown, and reading caps off it: against a plain list of impressions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsp.audience.frequency import (
    HEADER_BYTES,
    MAX_EVENTS,
    STATE_BYTES,
    Shown,
    States,
    add_event,
    apply_lifecycle,
    billed,
    room,
    set_lifecycle,
    sound,
)
from dsp.audience.profile import LIFECYCLE, P_LIFECYCLE, PROFILE_BYTES
from dsp.base.caps import FLIGHT, KINDS, LINE_ITEM, MAX_CAP, PRODUCT, WINDOWS_S

NOW = 1_790_000_000


def row_of(state: bytes | None) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    states = States(1)
    states.rows[:] = 255  # what an earlier person left
    states.put(0, state)
    return states.rows[0]


shown = st.builds(
    Shown,
    st.integers(NOW - 700_000, NOW),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(1, 2),
    st.integers(0, 4),
)


@settings(deadline=None, max_examples=60)
@given(history=st.lists(shown, max_size=40), kind=st.integers(0, 4), number=st.integers(0, 3))
def test_counts_are_those_of_a_list(history: list[Shown], kind: int, number: int) -> None:
    state = b""
    for one in history:
        state = add_event(state, one)
        assert sound(state)
    row = row_of(state or None)
    for window_s in (60, 3600, 86_400):
        expected = sum(one[1 + kind] == number and one.time_s > NOW - window_s for one in history)
        assert billed(row, kind, number, window_s, NOW) == expected
    assert billed(row, kind, number, FLIGHT, NOW) == sum(one[1 + kind] == number for one in history)


def test_windows_slide() -> None:
    state = add_event(b"", Shown(NOW, 1, 2, 3, 4, 0))
    row = row_of(state)
    for name, window_s in WINDOWS_S.items():
        if name == "flight":
            continue
        assert billed(row, LINE_ITEM, 2, window_s, NOW + window_s - 1) == 1
        assert billed(row, LINE_ITEM, 2, window_s, NOW + window_s) == 0
    assert billed(row, LINE_ITEM, 2, FLIGHT, NOW + 10**7) == 1


def test_a_person_shown_more_than_is_kept_is_capped() -> None:
    state = b""
    for i in range(MAX_EVENTS + 50):
        state = add_event(state, Shown(NOW + i, 1, 2, 3, 4, 0))
    row = row_of(state)
    assert len(state) <= STATE_BYTES
    assert billed(row, LINE_ITEM, 77, WINDOWS_S["week"], NOW + 200) == MAX_CAP
    assert billed(row, LINE_ITEM, 77, 60, NOW + 200) == 0  # the last minute is known
    assert billed(row, LINE_ITEM, 2, FLIGHT, NOW + 200) == MAX_EVENTS + 50


def test_room_is_that_of_the_tightest_cap() -> None:
    state = add_event(add_event(b"", Shown(NOW - 100, 1, 2, 3, 4, 0)), Shown(NOW - 10, 1, 2, 3, 4, 0))
    caps = np.array([[LINE_ITEM, 2, 60, 2], [PRODUCT, 0, 86_400, 3], [LINE_ITEM, 9, 60, 5]], np.int64)
    row = row_of(state)
    assert room(row, 1, caps, 0, 3, NOW) == 1
    assert room(row, 1, caps, 2, 3, NOW) == 5
    assert room(row, 1, np.array([[PRODUCT, 0, 86_400, 2]], np.int64), 0, 1, NOW) == 0
    assert room(row, 1, caps, 0, 0, NOW) > MAX_CAP  # no caps, no limit
    assert room(row, 0, caps, 0, 1, NOW) == 0  # not known: nothing capped may be shown
    assert room(row, 0, caps, 0, 0, NOW) > MAX_CAP


def test_a_person_never_seen_has_all_the_room() -> None:
    caps = np.array([[LINE_ITEM, 2, 60, 2], [LINE_ITEM, 2, FLIGHT, 7]], np.int64)
    assert room(row_of(None), 1, caps, 0, 2, NOW) == 2


@pytest.mark.parametrize("state", [b"", b"\1", b"\2" + bytes(7), b"\1\5" + bytes(6), b"\xff" * 200])
def test_a_damaged_state_reads_as_never_seen_and_counts_anew(state: bytes) -> None:
    assert not sound(state)
    assert not row_of(state)[:HEADER_BYTES].any()
    fresh = add_event(state, Shown(NOW, 1, 2, 3, 4, 0))
    assert billed(row_of(fresh), LINE_ITEM, 2, 60, NOW) == 1


def test_a_conversion_raises_the_life_cycle_and_survives_impressions() -> None:
    applied, funded = LIFECYCLE.index("applied"), LIFECYCLE.index("funded")
    state = set_lifecycle(b"", 1, funded)
    state = set_lifecycle(add_event(state, Shown(NOW, 1, 2, 3, 4, 0)), 1, applied)  # a late postback takes nothing back
    states = States(3)
    for i in range(2):
        states.put(i, state)
    profiles = np.zeros((3, PROFILE_BYTES), np.uint8)
    found = np.array([1, 0, 1], np.int64)
    apply_lifecycle(3, states.rows, states.known, profiles, found, P_LIFECYCLE)
    assert profiles[:, P_LIFECYCLE : P_LIFECYCLE + 5].tolist() == [[0, funded, 0, 0, 0], [0] * 5, [0] * 5]


def test_kinds_are_the_order_of_what_was_shown() -> None:
    assert Shown._fields[1:] == KINDS
