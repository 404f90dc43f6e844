"""How often has this person seen us: the state kept per person, and the kernels that read caps off it.

A state is small and self-contained: the billed impressions of the last week, newest last, each with everything a cap
may speak of (creative, line item, campaign, advertiser, product); totals per thing for caps over a whole flight; and
what conversions have said since the profile was loaded (life cycle per product), so that an applicant stops seeing the
apply ad at once. Windows slide: a cap of 3 a day is 3 in any 24 hours, exactly, without buckets.

    0   version (1)            1  events n      2  totals m      3..7  life cycle per product, 0 nothing said
    8   n events of EVENT_BYTES: time_s u4, creative u4, line item u4, campaign u4, advertiser u4, product u1, 3 spare
    ..  m totals of TOTAL_BYTES: id u4, kind u1, spare u1, count u2

A person whom more than MAX_EVENTS billed impressions reached within a week counts as capped wherever the window is
longer than what is kept: a bound on bytes must not become a way past a cap. ``subject`` is the 16-byte key a state is
kept under: the person number where the profile is known, else the identity key. Counting is idempotent in the ledger,
not here: one call, one impression.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dsp.base.caps import FLIGHT, K_ID, K_KIND, K_LIMIT, K_WINDOW_S, MAX_CAP, PRODUCT, WINDOWS_S
from dsp.base.kernel import kernel

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

STATE_VERSION = 1
SUBJECT_BYTES = 16
HEADER_BYTES = 8
EVENT_BYTES = 24
TOTAL_BYTES = 8
MAX_EVENTS = 100
MAX_TOTALS = 200
STATE_BYTES = HEADER_BYTES + MAX_EVENTS * EVENT_BYTES + MAX_TOTALS * TOTAL_BYTES
S_EVENTS, S_TOTALS, S_LIFECYCLE = 1, 2, 3
N_PRODUCTS = 5

KEEP_S = WINDOWS_S["week"]
assert MAX_CAP <= MAX_EVENTS


class Shown(NamedTuple):
    """One billed impression."""

    time_s: int
    creative: int
    line_item: int
    campaign: int
    advertiser: int
    product: int  # PRODUCTS index


def add_event(state: bytes, shown: Shown) -> bytes:
    """The state after one more billed impression; what is older than a week goes. A damaged state starts anew."""
    if not sound(state):
        state = bytes([STATE_VERSION, 0, 0, 0, 0, 0, 0, 0])
    n, m = state[S_EVENTS], state[S_TOTALS]
    ends = HEADER_BYTES + n * EVENT_BYTES
    events = [state[at : at + EVENT_BYTES] for at in range(HEADER_BYTES, ends, EVENT_BYTES)]
    totals = {
        (state[at + 4], int.from_bytes(state[at : at + 4], "little")): int.from_bytes(state[at + 6 : at + 8], "little")
        for at in range(ends, ends + m * TOTAL_BYTES, TOTAL_BYTES)
    }
    oldest = shown.time_s - KEEP_S
    events = [event for event in events if int.from_bytes(event[:4], "little") > oldest]
    row = b"".join(value.to_bytes(4, "little") for value in shown[:5]) + bytes([shown.product, 0, 0, 0])
    place = len(events)  # notices arrive in any order
    while place and int.from_bytes(events[place - 1][:4], "little") > shown.time_s:
        place -= 1
    events.insert(place, row)
    events = events[-MAX_EVENTS:]
    for kind, number in enumerate(shown[1:]):
        count = totals.pop((kind, number), 0)
        totals[kind, number] = min(count + 1, 65_535)  # last in, so the oldest go first
    kept = list(totals.items())[-MAX_TOTALS:]
    head = bytes([STATE_VERSION, len(events), len(kept)]) + state[S_LIFECYCLE:HEADER_BYTES]
    tail = b"".join(n.to_bytes(4, "little") + bytes([k, 0]) + count.to_bytes(2, "little") for (k, n), count in kept)
    return head + b"".join(events) + tail


def set_lifecycle(state: bytes, product: int, stage: int) -> bytes:
    """The state after a conversion said that the person has reached ``stage`` (LIFECYCLE index) of ``product``."""
    raw = bytearray(state if sound(state) else bytes([STATE_VERSION, 0, 0, 0, 0, 0, 0, 0]))
    raw[S_LIFECYCLE + product] = max(raw[S_LIFECYCLE + product], stage)
    return bytes(raw)


def sound(state: bytes) -> bool:
    """Whether ``state`` is one: of our version and as long as it says."""
    if len(state) < HEADER_BYTES or state[0] != STATE_VERSION or state[1] > MAX_EVENTS or state[2] > MAX_TOTALS:
        return False
    return len(state) == HEADER_BYTES + state[S_EVENTS] * EVENT_BYTES + state[S_TOTALS] * TOTAL_BYTES


class States:
    """The states of one batch of people, preallocated. ``known[i]`` is 0 where there is no person to count for, or
    where the state could not be read: then nothing capped may be shown. A person never seen is known, with no events.
    """

    def __init__(self, n: int) -> None:
        self.rows: U8 = np.zeros((n, STATE_BYTES), np.uint8)
        self.known: I64 = np.zeros(n, np.int64)
        self.subjects: U8 = np.zeros((n, SUBJECT_BYTES), np.uint8)

    def put(self, i: int, state: bytes | None) -> None:
        """Row i is ``state``; None or damaged is a person never seen."""
        row = self.rows[i]
        if state is None or not sound(state):
            row[:HEADER_BYTES] = 0
        else:
            row[: len(state)] = np.frombuffer(state, np.uint8)
        self.known[i] = 1


@kernel
def _u4(row: U8, at: int) -> int:
    return int(row[at]) | int(row[at + 1]) << 8 | int(row[at + 2]) << 16 | int(row[at + 3]) << 24


@kernel
def billed(row: U8, kind: int, number: int, window_s: int, now_s: int) -> int:
    """Billed impressions of one thing in a state row within the last ``window_s`` seconds (FLIGHT: ever)."""
    n, m = int(row[S_EVENTS]), int(row[S_TOTALS])
    if window_s == FLIGHT:
        at = HEADER_BYTES + n * EVENT_BYTES
        for _ in range(m):
            if int(row[at + 4]) == kind and _u4(row, at) == number:
                return int(row[at + 6]) | int(row[at + 7]) << 8
            at += TOTAL_BYTES
        return 0 if m < MAX_TOTALS else int(MAX_CAP)
    since = now_s - window_s
    count = 0
    if n == MAX_EVENTS and _u4(row, HEADER_BYTES) > since:
        return int(MAX_CAP)  # more were shown than are kept
    for i in range(n - 1, -1, -1):  # newest first
        at = HEADER_BYTES + i * EVENT_BYTES
        if _u4(row, at) <= since:
            break
        if kind == PRODUCT:
            count += 1 if int(row[at + 20]) == number else 0
        elif _u4(row, at + 4 + 4 * kind) == number:
            count += 1
    return count


@kernel
def room(row: U8, known: int, caps: I64, first: int, last: int, now_s: int) -> int:
    """How many more impressions the caps ``caps[first:last]`` allow this person; 0 where there is no state to tell.

    A large number where there are no caps.
    """
    left = 1 << 30
    for c in range(first, last):
        if known == 0:
            return 0
        seen = billed(row, caps[c, K_KIND], caps[c, K_ID], caps[c, K_WINDOW_S], now_s)
        left = min(left, caps[c, K_LIMIT] - seen)
    return max(left, 0)


@kernel
def apply_lifecycle(n: int, rows: U8, known: I64, profiles: U8, found: I64, lifecycle_at: int) -> None:
    """Raise the life cycle of known people to what conversions have said since; in place, before anything reads it."""
    for i in range(n):
        if found[i] and known[i]:
            for p in range(N_PRODUCTS):
                said = rows[i, S_LIFECYCLE + p]
                profiles[i, lifecycle_at + p] = max(profiles[i, lifecycle_at + p], said)
