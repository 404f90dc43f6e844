"""Bids between being sent and being billed, counted per person and cap in one table that all workers of a host share.

Without it a burst of requests for one person would all see "2 of 3 shown" and all bid. The table is a memory-mapped
file of buckets of 16 words; a word is one bid in flight towards one cap: a 40-bit fingerprint of (person, kind, id) and
the second until which it counts. To reserve: put the word into a free place (compare-and-swap), *then* count the
bucket's live words of that fingerprint; more than there is room for, and it is taken out again. Of two workers at once
each sees the other's word, so together they never exceed the room; both may step back, which loses a bid, not the cap.
No locks, so a worker killed at any point blocks nobody: its words end by time. A full bucket refuses (and is counted).

A billed bid's word isn't removed at once but lingers for ``LINGER_S``: a worker that read the person's state just
before the billing was written, and reserves just after, still sees it. States must therefore be used within that time.

On several hosts each has its own table. There only one bid per cap may be in flight on a host, so that with h hosts at
most cap + h - 1 are billed: when the billed count reaches the cap, no other host has more than one under way.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numba.core import cgutils, types
from numba.extending import intrinsic

from dsp.audience.frequency import SUBJECT_BYTES, room
from dsp.base.caps import CAP_WIDTH, K_ID, K_KIND, KINDS
from dsp.base.kernel import kernel

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]

FILE_NAME = "inflight.table"
WAYS = 16
BUCKETS = 1 << 17  # 16 MB: two million bids in flight
LINGER_S = 3
EPOCH_S = 1_700_000_000
_EXPIRY_BITS = 24
_EXPIRY_MASK = (1 << _EXPIRY_BITS) - 1

RESERVED, CAPPED, FULL = 1, 0, -1


@intrinsic
def compare_and_swap(typing: Any, array: Any, index: Any, expected: Any, new: Any) -> Any:
    """Atomically replace ``array[index]`` by ``new`` if it is ``expected``; returns what was there."""
    signature = types.uint64(array, types.intp, types.uint64, types.uint64)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = signature.args[0]
        made = context.make_array(kind)(context, builder, args[0])
        at = cgutils.get_item_pointer(context, builder, kind, made, [args[1]], wraparound=False)
        return builder.extract_value(builder.cmpxchg(at, args[2], args[3], "seq_cst", "seq_cst"), 0)

    return signature, generate


@kernel
def _mix(x: np.uint64) -> np.uint64:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@kernel
def fingerprint(subject: U8, kind: int, number: int) -> np.uint64:
    """64 bits of (person, cap's kind, id): the low ones choose the bucket, the high 40 go into the word."""
    low, high = np.uint64(0), np.uint64(0)
    for k in range(8):
        low |= np.uint64(subject[k]) << np.uint64(8 * k)
        high |= np.uint64(subject[8 + k]) << np.uint64(8 * k)
    h = _mix(low + np.uint64(0x9E3779B97F4A7C15))
    h = _mix(h ^ high)
    return _mix(h ^ (np.uint64(number) << np.uint64(3)) ^ np.uint64(kind))


@kernel
def _word(print64: np.uint64, until_s: int) -> np.uint64:
    stamp = np.uint64((until_s - EPOCH_S) & _EXPIRY_MASK)
    return (print64 & ~np.uint64(_EXPIRY_MASK)) | stamp


@kernel
def _live(word: np.uint64, now_s: int) -> bool:
    """Whether a word still counts; expiries are compared on a circle of 2^24 s."""
    if word == np.uint64(0):
        return False
    left = (np.int64(word & np.uint64(_EXPIRY_MASK)) - (now_s - EPOCH_S)) & _EXPIRY_MASK
    return bool(0 < left < (1 << (_EXPIRY_BITS - 1)))


@kernel
def put_word(table: U64, print64: np.uint64, until_s: int, now_s: int) -> int:
    """Put a word into a free place of its bucket; how many live ones of its fingerprint there are then, FULL if none is
    free.
    """
    base = np.int64(print64 & np.uint64(table.shape[0] // WAYS - 1)) * WAYS
    word = _word(print64, until_s)
    placed = False
    for k in range(WAYS):
        old = compare_and_swap(table, base + k, np.uint64(0), np.uint64(0))  # an atomic read
        if not _live(old, now_s) and compare_and_swap(table, base + k, old, word) == old:
            placed = True
            break
    if not placed:
        return FULL
    count = 0
    for k in range(WAYS):
        other = compare_and_swap(table, base + k, np.uint64(0), np.uint64(0))
        if (other ^ word) >> np.uint64(_EXPIRY_BITS) == np.uint64(0) and _live(other, now_s):
            count += 1
    return count


@kernel
def change_word(table: U64, print64: np.uint64, until_s: int, new_until_s: int) -> bool:
    """Set the expiry of one word that counts until ``until_s`` (0: take it out); whether there was one."""
    base = np.int64(print64 & np.uint64(table.shape[0] // WAYS - 1)) * WAYS
    word = _word(print64, until_s)
    new = np.uint64(0) if new_until_s == 0 else _word(print64, new_until_s)
    for k in range(WAYS):
        if compare_and_swap(table, base + k, word, new) == word:
            return True
    return False


@kernel
def reserve(
    table: U64, subject: U8, row: U8, known: int, caps: I64, first: int, last: int, now_s: int, until_s: int, hosts: int
) -> int:
    """Reserve one impression under all caps ``caps[first:last]``; RESERVED, CAPPED or FULL, all or nothing.

    ``row`` and ``known`` are the person's state, read after the last LINGER_S began. ``hosts``: how many bid.
    """
    for c in range(first, last):
        left = room(row, known, caps, c, c + 1, now_s)
        if hosts > 1:
            left = min(left, 1)
        count = FULL
        if left > 0:
            kind, number = caps[c, K_KIND], caps[c, K_ID]
            doubled = False  # the same thing under another window is reserved already
            for d in range(first, c):
                doubled |= caps[d, K_KIND] == kind and caps[d, K_ID] == number
            print64 = fingerprint(subject, kind, number)
            if doubled:
                count = _count(table, print64, now_s)
            else:
                count = put_word(table, print64, until_s, now_s)
            if 0 <= count <= left:
                continue
            if count >= 0 and not doubled:
                change_word(table, print64, until_s, 0)
        for d in range(first, c):
            earlier = False
            for e in range(first, d):
                earlier |= caps[e, K_KIND] == caps[d, K_KIND] and caps[e, K_ID] == caps[d, K_ID]
            if not earlier:
                change_word(table, fingerprint(subject, caps[d, K_KIND], caps[d, K_ID]), until_s, 0)
        return FULL if left > 0 and count < 0 else CAPPED
    return RESERVED


@kernel
def _count(table: U64, print64: np.uint64, now_s: int) -> int:
    """Live words of a fingerprint."""
    base = np.int64(print64 & np.uint64(table.shape[0] // WAYS - 1)) * WAYS
    count = 0
    for k in range(WAYS):
        other = compare_and_swap(table, base + k, np.uint64(0), np.uint64(0))
        if (other ^ print64) >> np.uint64(_EXPIRY_BITS) == np.uint64(0) and _live(other, now_s):
            count += 1
    return count


@kernel
def settle(table: U64, subject: U8, ids: I64, until_s: int, new_until_s: int) -> int:
    """One bid was billed (``new_until_s`` = now + LINGER_S) or lost (0); ``ids`` int64[5] in the order of KINDS.

    Returns how many of its words were found.
    """
    found = 0
    for kind in range(ids.shape[0]):
        if change_word(table, fingerprint(subject, kind, ids[kind]), until_s, new_until_s):
            found += 1
    return found


class InFlight:
    """The table of one host, shared through the file ``path``; any process may open it at any time."""

    def __init__(self, path: Path, buckets: int = BUCKETS) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        size = buckets * WAYS * 8
        with path.open("a+b") as file:
            if file.seek(0, 2) != size:
                file.truncate(size)  # same size whoever comes first; new bytes are zeros
            self._map = mmap.mmap(file.fileno(), size)
        self.table: U64 = np.frombuffer(self._map, np.uint64)

    def billed(self, subject: bytes, ids: tuple[int, ...], until_s: int, now_s: int) -> int:
        """A bid was billed and its state is written: let its words linger."""
        return int(settle(self.table, _subject(subject), np.array(ids, np.int64), until_s, now_s + LINGER_S))

    def lost(self, subject: bytes, ids: tuple[int, ...], until_s: int) -> int:
        """A bid was lost: its room is free."""
        return int(settle(self.table, _subject(subject), np.array(ids, np.int64), until_s, 0))

    def close(self) -> None:
        """Unmap; idempotent."""
        if hasattr(self, "table"):
            del self.table
            self._map.close()


def _subject(raw: bytes) -> U8:
    return np.frombuffer(raw.ljust(SUBJECT_BYTES, b"\0"), np.uint8)


assert len(KINDS) == 5
assert CAP_WIDTH == 4
