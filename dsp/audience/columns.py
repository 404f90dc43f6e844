"""From the columns of a file to profile records and identity keys, a block of rows at a time, without Python per row.

A file has identifier columns (`ID_COLUMNS`), columns of the schema (``profile.yaml``), ``segments`` and ``delete``; all
are optional but one identifier, empty means unknown. What is out of range is rejected with row, column and reason,
never clipped and never quoted: an identifier must not come to rest outside the store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numba as nb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dsp.audience.identity import (
    KIND_BUYERUID,
    KIND_DIDMD5,
    KIND_DIDSHA1,
    KIND_DPIDMD5,
    KIND_DPIDSHA1,
    KIND_EID,
    KIND_IFA,
    KIND_MACMD5,
    KIND_USER_ID,
    identity_keys_packed,
)
from dsp.audience.profile import MAX_SEGMENTS, PROFILE, PROFILE_BYTES, SCHEMA
from dsp.audience.store import KEY_BYTES, U8, StoreError

I64 = npt.NDArray[np.int64]
U16 = npt.NDArray[np.uint16]
U64 = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]
Columns = dict[str, pa.Array]
HashText = Callable[[str], int]

NEVER_D = 65535

# Identifier columns in match priority: column, kind, column of its scope or "=scope" where it is always the same.
ID_COLUMNS: tuple[tuple[str, int, str], ...] = (
    ("buyeruid", KIND_BUYERUID, "exchange"),  # the exchange's id in the catalog
    ("ifa", KIND_IFA, ""),
    ("idfa", KIND_IFA, ""),  # what iOS,
    ("gaid", KIND_IFA, ""),  # Google's Android
    ("oaid", KIND_IFA, ""),  # and China's put into device.ifa
    ("caid", KIND_EID, "=caid"),  # China Advertising ID, as user.eids with this source
    ("caid_md5", KIND_EID, "=caid_md5"),
    ("dpidmd5", KIND_DPIDMD5, ""),
    ("idfa_md5", KIND_DPIDMD5, ""),  # the same by the names that RTA platforms use
    ("oaid_md5", KIND_DPIDMD5, ""),
    ("android_id_md5", KIND_DPIDMD5, ""),
    ("mac_md5", KIND_MACMD5, ""),
    ("didmd5", KIND_DIDMD5, ""),
    ("imei_md5", KIND_DIDMD5, ""),  # what device.didmd5 is on Android
    ("dpidsha1", KIND_DPIDSHA1, ""),
    ("didsha1", KIND_DIDSHA1, ""),
    ("eid", KIND_EID, "eid_source"),  # a domain
    ("user_id", KIND_USER_ID, "exchange"),
)
SEGMENTS_COLUMN = "segments"  # number or number:expiry day, separated by |
DELETE_COLUMN = "delete"  # 1: this person goes
FILLED_BY_SEGMENTS = ("n_segments", "segments", "segment_expiry_d")
COLUMNS = frozenset(
    [name for column in ID_COLUMNS for name in (column[0], column[2]) if name and not name.startswith("=")]
    + [name for field in SCHEMA.fields for name in field.column_names]
    + [SEGMENTS_COLUMN, DELETE_COLUMN]
)


class Rejects:
    """Which rows of a block can't be used, with the first reason for each."""

    def __init__(self, n: int) -> None:
        self.good: Bools = np.ones(n, bool)
        self._reasons: list[tuple[int, str, str]] = []

    def add(self, rows: npt.NDArray[np.intp], column: str, reason: str) -> None:
        """Reject ``rows``, those that aren't already."""
        for row in rows[self.good[rows]].tolist():
            self._reasons.append((row, column, reason))
        self.good[rows] = False

    def sorted(self) -> list[tuple[int, str, str]]:
        """(row, column, reason), by row."""
        return sorted(self._reasons)


def check_names(source: object, names: Sequence[str]) -> None:
    """Refuse a file with columns nobody knows, or without any identifier. Raises `StoreError`."""
    unknown = [name for name in names if name not in COLUMNS]
    if unknown or len(set(names)) != len(names):
        known = ", ".join(sorted(COLUMNS))
        raise StoreError(f"{source}: unknown or repeated columns {unknown or list(names)}; known: {known}")
    if not any(column in names for column, _, _ in ID_COLUMNS):
        raise StoreError(f"{source}: no identifier column; one of {', '.join(c for c, _, _ in ID_COLUMNS)}")


def given_bytes(names: Sequence[str]) -> U8:
    """uint8[PROFILE_BYTES]: 255 in the bytes of a record that a file with these columns says something about."""
    one = np.zeros(1, PROFILE)
    for field in SCHEMA.fields:
        columns = field.column_names
        if field.name in FILLED_BY_SEGMENTS and SEGMENTS_COLUMN in names:
            one[field.name] = np.iinfo(PROFILE[field.name].base).max
        elif field.count == 1 and columns and columns[0] in names:
            one[field.name] = np.iinfo(PROFILE[field.name]).max
        elif field.count > 1:
            for i, column in enumerate(columns):
                if column in names:
                    one[field.name][:, i] = np.iinfo(PROFILE[field.name].base).max
    return one.view(np.uint8).reshape(PROFILE_BYTES)


def records_of(columns: Columns, n: int, bad: Rejects) -> npt.NDArray[np.void]:
    """The profile records of a block."""
    records = np.zeros(n, PROFILE)
    for field in SCHEMA.fields:
        for i, column in enumerate(field.column_names):
            target = records[field.name] if field.count == 1 else records[field.name][:, i]
            if column not in columns:
                target[:] = field.unknown
                continue
            values, wrong = whole_numbers(columns[column], field.largest, field.unknown)
            if wrong.any():
                bad.add(wrong.nonzero()[0], column, f"not a whole number of 0 to {field.largest}")
            target[:] = values
    if SEGMENTS_COLUMN in columns:
        wrong = np.zeros(n, bool)
        text, starts = packed(columns[SEGMENTS_COLUMN])
        count = np.zeros(n, np.uint8)
        numbers, expiry = np.zeros((n, MAX_SEGMENTS), np.uint16), np.zeros((n, MAX_SEGMENTS), np.uint16)
        read_segments(text, starts, numbers, expiry, count, wrong)
        records["n_segments"], records["segments"], records["segment_expiry_d"] = count, numbers, expiry
        bad.add(wrong.nonzero()[0], SEGMENTS_COLUMN, f"not up to {MAX_SEGMENTS} segments like 101:20800|102")
    return records


def deletions_of(columns: Columns, n: int, bad: Rejects) -> Bools:
    """Which rows say that the person goes."""
    if DELETE_COLUMN not in columns:
        return np.zeros(n, bool)
    values, wrong = whole_numbers(columns[DELETE_COLUMN], 1, 0)
    bad.add(wrong.nonzero()[0], DELETE_COLUMN, "not 0 or 1")
    return values == 1


def keys_of(columns: Columns, n: int, pepper: U64, hash_text: HashText | None, bad: Rejects) -> U8:
    """Identity keys uint8[n, k, KEY_BYTES] of a block; rows without a usable identifier are rejected."""
    found: list[U8] = []
    for column, kind, scope_column in ID_COLUMNS:
        if column not in columns:
            continue
        texts = columns[column]
        if kind == KIND_EID and hash_text is None:
            raise StoreError(f"column {column} needs the hash of its sources")
        if not scope_column:
            found.append(identity_keys_packed(kind, *packed(texts), pepper))
        elif scope_column.startswith("=") and hash_text is not None:
            found.append(identity_keys_packed(kind, *packed(texts), pepper, hash_text(scope_column[1:])))
        elif scope_column not in columns:
            raise StoreError(f"column {column} needs a column {scope_column}")
        else:
            found.append(_scoped_keys(kind, texts, columns[scope_column], pepper, hash_text, column, bad))
    keys = np.stack(found, axis=1)
    bad.add(np.flatnonzero(~keys.any(axis=(1, 2))), "", "no usable identifier")
    return keys


def _scoped_keys(
    kind: int,
    texts: pa.Array,
    scopes: pa.Array,
    pepper: U64,
    hash_text: HashText | None,
    column: str,
    bad: Rejects,
) -> U8:
    """Keys of identifiers that mean something to one exchange or source only; one batch per scope."""
    keys = np.zeros((len(texts), KEY_BYTES), np.uint8)
    texts, scopes = _binary(texts), _binary(scopes)
    there = pc.greater(pc.fill_null(pc.binary_length(texts), 0), 0)
    scopes = pc.fill_null(scopes, b"")
    for name in pc.unique(pc.filter(scopes, there)).to_pylist():
        rows = np.flatnonzero(np.asarray(pc.and_(there, pc.equal(scopes, name))))
        if kind == KIND_EID and hash_text is not None and name:
            scope = hash_text(name.decode("utf-8", "replace"))
        elif kind != KIND_EID and name.isdigit() and len(name) < 10:
            scope = int(name)
        else:
            bad.add(rows, column, "no source" if kind == KIND_EID else "its exchange is not a number")
            continue
        keys[rows] = identity_keys_packed(kind, *packed(texts.take(pa.array(rows))), pepper, scope)
    return keys


def _binary(column: pa.Array) -> pa.Array:
    """A column of numbers as their digits."""
    return column.cast(pa.string()).cast(pa.binary()) if pa.types.is_integer(column.type) else column


def packed(column: pa.Array) -> tuple[U8, I64]:
    """A column as (text, starts int64[n + 1]); null is empty."""
    column = pc.fill_null(_binary(column), b"")
    buffers = column.buffers()
    starts = np.frombuffer(buffers[1], np.int32, len(column) + 1, 4 * column.offset).astype(np.int64)
    return np.frombuffer(buffers[2] if buffers[2] is not None and buffers[2].size else b"\0", np.uint8), starts


def whole_numbers(column: pa.Array, largest: int, unknown: int) -> tuple[I64, Bools]:
    """(values int64[n], which are wrong) of whole numbers 0..``largest`` in a binary or integer column.

    Empty is ``unknown``; a wrong one reads as 0.
    """
    if pa.types.is_integer(column.type):
        given = np.asarray(column.is_valid())
        values = np.asarray(pc.fill_null(column, 0)).astype(np.int64, copy=False)
        wrong = given & ((values < 0) | (values > largest))
        return np.where(wrong, 0, np.where(given, values, unknown)), wrong
    values, wrong = np.empty(len(column), np.int64), np.zeros(len(column), bool)
    _read_numbers(*packed(column), largest, unknown, values, wrong)
    return values, wrong


@nb.njit(cache=True, nogil=True)
def _number(text: U8, at: int, end: int) -> int:
    """The decimal digits ``text[at:end]`` as a number, -1 where they aren't 1 to 9 digits."""
    if not 0 < end - at < 10:
        return -1
    value = 0
    for i in range(at, end):
        digit = int(text[i]) - 48
        if not 0 <= digit <= 9:
            return -1
        value = value * 10 + digit
    return value


@nb.njit(cache=True, nogil=True)
def _read_numbers(text: U8, starts: I64, largest: int, unknown: int, out: I64, wrong: Bools) -> None:
    """See `whole_numbers`; ``text[starts[i]:starts[i+1]]`` is cell i."""
    for i in range(out.shape[0]):
        if starts[i] == starts[i + 1]:
            out[i] = unknown
            continue
        value = _number(text, starts[i], starts[i + 1])
        if value < 0 or value > largest:
            wrong[i] = True
            value = 0
        out[i] = value


@nb.njit(cache=True, nogil=True)
def read_segments(text: U8, starts: I64, numbers: U16, expiry: U16, count: npt.NDArray[np.uint8], wrong: Bools) -> None:
    """Parse cells like ``101:20800|102`` into ascending ``numbers`` and ``expiry`` uint16[n, MAX_SEGMENTS].

    Of a number given twice the last one counts. ``wrong`` is set, and the row left empty, where a cell isn't that.
    """
    for i in range(count.shape[0]):
        at, end, n = starts[i], starts[i + 1], 0
        good = True
        while at < end and good:
            stop = at
            colon = -1
            while stop < end and text[stop] != np.uint8(124):
                if text[stop] == np.uint8(58) and colon < 0:
                    colon = stop
                stop += 1
            first, last = at, colon if colon >= 0 else stop
            while first < last and text[first] == np.uint8(32):
                first += 1
            tail = stop
            while tail > first and text[tail - 1] == np.uint8(32):
                tail -= 1
            number = _number(text, first, min(last, tail))
            day = NEVER_D if colon < 0 else _number(text, colon + 1, tail)
            at = stop + 1
            if not 1 <= number <= 65535 or not 0 <= day <= NEVER_D or (stop < end and at == end):
                good = False
                break
            place = n
            while place > 0 and numbers[i, place - 1] >= number:
                place -= 1
            if place < n and numbers[i, place] == number:
                expiry[i, place] = day
                continue
            if n == MAX_SEGMENTS:
                good = False
                break
            for k in range(n, place, -1):
                numbers[i, k], expiry[i, k] = numbers[i, k - 1], expiry[i, k - 1]
            numbers[i, place], expiry[i, place] = number, day
            n += 1
        if not good:
            wrong[i] = True
            numbers[i] = 0
            expiry[i] = 0
            n = 0
        count[i] = n
