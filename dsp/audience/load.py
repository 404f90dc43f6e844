"""Loads people into the audience store: from arrays (`write_people`) and from CSV or Parquet files (`load_profiles`).

A file has identifier columns (`ID_COLUMNS`) and profile columns (`FIELDS`, ``segments``); all are optional but one
identifier, empty means unknown. A row that can't be used is skipped, counted and written to a reject file with its
number and the reason, never with its values: an identifier must not come to rest outside the store. The rest loads.

Identifiers are hashed here with the same pepper and kernel as at the edge; raw ones are never stored.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from dsp.audience.identity import (
    KIND_BUYERUID,
    KIND_DIDMD5,
    KIND_DIDSHA1,
    KIND_DPIDMD5,
    KIND_DPIDSHA1,
    KIND_EID,
    KIND_IFA,
    KIND_USER_ID,
    identity_keys_packed,
    load_pepper,
)
from dsp.audience.lmdb_store import profiles_path
from dsp.audience.lmdb_writer import LmdbWriter
from dsp.audience.profile import MAX_SEGMENTS, PROFILE
from dsp.audience.store import (
    KEY_BYTES,
    MAX_AGE_BAND,
    MAX_GENDER,
    MAX_INCOME_BAND,
    N_LIFECYCLES,
    N_PRODUCTS,
    U8,
    StoreError,
)
from dsp.base.config import Config

U64 = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]
Columns = dict[str, pa.Array]

NEVER_D = 65535
BATCH_ROWS = 1 << 16

# Identifier columns in match priority: column, kind, column of its scope.
ID_COLUMNS: tuple[tuple[str, int, str], ...] = (
    ("buyeruid", KIND_BUYERUID, "exchange"),  # the exchange's id in the catalog
    ("ifa", KIND_IFA, ""),
    ("dpidmd5", KIND_DPIDMD5, ""),
    ("didmd5", KIND_DIDMD5, ""),
    ("dpidsha1", KIND_DPIDSHA1, ""),
    ("didsha1", KIND_DIDSHA1, ""),
    ("eid", KIND_EID, "eid_source"),  # a domain
    ("user_id", KIND_USER_ID, "exchange"),
)
RISKS = ("device", "multi_lender", "contact", "social", "region", "qualification")


@dataclass(frozen=True)
class Field:
    """A whole-number column: where it goes in a PROFILE, its largest value and what an empty cell means."""

    column: str
    name: str
    index: int  # within a field that is an array, -1 for a scalar
    largest: int
    unknown: int = 0


FIELDS: tuple[Field, ...] = (
    Field("consent", "consent", -1, 3),  # bits: 1 profiling, 2 financial
    Field("age_band", "age_band", -1, MAX_AGE_BAND),
    Field("income_band", "income_band", -1, MAX_INCOME_BAND),
    Field("gender", "gender", -1, MAX_GENDER),
    Field("owned", "owned", -1, (1 << N_PRODUCTS) - 1),  # bit per product
    *(Field(f"lifecycle_{i + 1}", "lifecycle", i, N_LIFECYCLES - 1) for i in range(N_PRODUCTS)),
    *(Field(f"intent_{i + 1}", "intent", i, 255, 255) for i in range(N_PRODUCTS)),
    *(Field(f"risk_{name}", "risk", i, 255, 255) for i, name in enumerate(RISKS)),
    Field("recency_days", "recency_days", -1, 255, 255),
    Field("activity", "activity", -1, 255, 255),
    *(Field(f"hours_{i + 1}", "hours", i, 255) for i in range(3)),  # 24 bits of active hours, 8 a column
    *(Field(f"affinity_{i + 1}", "affinity", i, 255, 255) for i in range(8)),
    Field("home_region", "home_region", -1, 255),
    Field("updated_d", "updated_d", -1, 65535),
)
COLUMNS = frozenset(
    [name for column in ID_COLUMNS for name in (column[0], column[2]) if name]
    + [field.column for field in FIELDS]
    + ["segments"]  # number or number:expiry day, separated by |
)


@dataclass(frozen=True)
class LoadReport:
    """What a load did; ``rejects`` is the file that says which rows and why, None if there were none."""

    loaded: int
    rejected: int
    rejects: Path | None


def people_writer(root: Path) -> LmdbWriter:
    """The writer of the profiles of the data directory ``root``; a context manager, see `LmdbWriter.write`."""
    return LmdbWriter(profiles_path(root))


def write_people(root: Path, records: npt.NDArray[np.void], ids: U8 | Sequence[Sequence[bytes]]) -> int:
    """Write PROFILE[n] with their identity keys into the data directory ``root``; how many were written.

    ``ids``: uint8[n, KEY_BYTES] (one key each), uint8[n, k, KEY_BYTES] (all-zero: none), or per person a sequence of
    keys; the most trusted first. For more people than fit in memory, use `people_writer` and write block by block.
    """
    keys = ids if isinstance(ids, np.ndarray) else _pad_keys(ids)
    with people_writer(root) as writer:
        writer.write(records, keys[:, None, :] if keys.ndim == 2 else keys)
    return len(records)


def _pad_keys(ids: Sequence[Sequence[bytes]]) -> U8:
    """Ragged keys as uint8[n, k, KEY_BYTES]."""
    width = max((len(keys) for keys in ids), default=1)
    packed = b"".join(b"".join(keys).ljust(width * KEY_BYTES, b"\0") for keys in ids)
    return np.frombuffer(packed, np.uint8).reshape(len(ids), width, KEY_BYTES)


def load_profiles(
    config: Config,
    path: Path,
    progress: Callable[[int, int], None] = lambda loaded, rejected: None,
    *,
    hash_text: Callable[[str], int] | None = None,
) -> LoadReport:
    """Load the CSV (with a header) or Parquet file ``path``; bad rows are reported, the rest loads.

    ``progress(loaded, rejected)`` is called per block of rows. ``hash_text`` is needed for an ``eid`` column: it must
    be the hash that the decoder gives an EID's source. Raises `StoreError` where the file as a whole can't be used.
    """
    pepper = load_pepper(config.path("secrets", "pepper.json"))
    rejects = config.path("rejects", f"{path.name}.csv")
    rejects.parent.mkdir(parents=True, exist_ok=True)
    loaded = rejected = last_row = 0
    with rejects.open("w", newline="") as file, people_writer(config.root) as writer:
        out = csv.writer(file)
        out.writerow(["row", "column", "reason"])
        malformed: dict[int, str] = {}
        for columns, n in _read_blocks(path, malformed):
            bad = _Rejects(n)
            records = _records(columns, n, bad)
            keys = _keys(columns, n, pepper, hash_text, bad)
            writer.write(records[bad.good], keys[bad.good])
            rows = _row_numbers(last_row, n, malformed)
            out.writerows((rows[row], column, reason) for row, column, reason in bad.sorted())
            last_row = rows[-1] if rows else last_row
            loaded += int(bad.good.sum())
            rejected += n - int(bad.good.sum())
            progress(loaded, rejected + len(malformed))
        out.writerows((row, "", reason) for row, reason in malformed.items())
        rejected += len(malformed)
    if not rejected:
        rejects.unlink()
    return LoadReport(loaded, rejected, rejects if rejected else None)


class _Rejects:
    """Which rows of a block can't be used, with the first reason for each."""

    def __init__(self, n: int) -> None:
        self.good: Bools = np.ones(n, bool)
        self._reasons: list[tuple[int, str, str]] = []

    def add(self, rows: npt.NDArray[np.intp], column: str, reason: str) -> None:
        for row in rows[self.good[rows]].tolist():
            self._reasons.append((row, column, reason))
        self.good[rows] = False

    def sorted(self) -> list[tuple[int, str, str]]:
        return sorted(self._reasons)


def _row_numbers(last: int, n: int, malformed: dict[int, str]) -> list[int]:
    """The numbers (1: the first after the header) of the ``n`` rows after row ``last``, malformed ones left out."""
    rows = np.arange(last + 1, last + 1 + n + len(malformed))
    return [int(row) for row in rows[~np.isin(rows, list(malformed))][:n]]


def _read_blocks(path: Path, malformed: dict[int, str]) -> Iterator[tuple[Columns, int]]:
    """The columns as binary arrays, a block of rows at a time; unreadable CSV rows go to ``malformed`` by number."""

    def skip(row: pa.csv.InvalidRow) -> str:
        malformed[row.number - 1] = f"row has {row.actual_columns} columns, the header {row.expected_columns}"
        return "skip"

    try:
        if path.suffix == ".parquet":
            batches = pa.parquet.ParquetFile(path).iter_batches(BATCH_ROWS)
        else:
            with path.open("rb") as file:
                names = next(csv.reader([file.readline().decode("utf-8-sig")]), [])
            _check_names(path, names)
            batches = pa.csv.open_csv(
                path,
                read_options=pa.csv.ReadOptions(use_threads=False, block_size=4 << 20),
                parse_options=pa.csv.ParseOptions(invalid_row_handler=skip),
                convert_options=pa.csv.ConvertOptions(
                    check_utf8=False, column_types=dict.fromkeys(names, pa.binary()), null_values=[""]
                ),
            )
        for batch in batches:
            _check_names(path, batch.schema.names)
            columns = {
                name: column if pa.types.is_binary(column.type) else column.cast(pa.string()).cast(pa.binary())
                for name, column in zip(batch.schema.names, batch.columns, strict=True)
            }
            yield columns, batch.num_rows
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise StoreError(f"{path}: {error}") from error


def _check_names(path: Path, names: Sequence[str]) -> None:
    unknown = [name for name in names if name not in COLUMNS]
    if unknown or len(set(names)) != len(names):
        raise StoreError(f"{path}: unknown or repeated columns {unknown or names}; known: {', '.join(sorted(COLUMNS))}")
    if not any(column in names for column, _, _ in ID_COLUMNS):
        raise StoreError(f"{path}: no identifier column; one of {', '.join(c for c, _, _ in ID_COLUMNS)}")


def _whole_numbers(column: pa.Array, largest: int, unknown: int) -> tuple[npt.NDArray[np.int64], Bools]:
    """(values, is wrong) of a binary column of whole numbers 0..largest; empty is ``unknown``."""
    digits = pc.fill_null(pc.match_substring_regex(column, r"^[0-9]{1,9}$"), False)
    given = pc.greater(pc.fill_null(pc.binary_length(column), 0), 0)
    kept = pc.if_else(digits, column, pa.scalar(str(unknown).encode(), column.type))
    values = np.asarray(kept.cast(pa.string()).cast(pa.int64()))
    wrong = np.asarray(given) & ~np.asarray(digits) | (values > largest)
    return values, wrong


def _records(columns: Columns, n: int, bad: _Rejects) -> npt.NDArray[np.void]:
    """The profile records of a block; what is out of range is rejected, never clipped."""
    records = np.zeros(n, PROFILE)
    for field in FIELDS:
        target = records[field.name] if field.index < 0 else records[field.name][:, field.index]
        if field.column not in columns:
            target[:] = field.unknown
            continue
        values, wrong = _whole_numbers(columns[field.column], field.largest, field.unknown)
        bad.add(wrong.nonzero()[0], field.column, f"not a whole number of 0 to {field.largest}")
        target[:] = np.where(wrong, 0, values)
    if "segments" in columns:
        for row, text in enumerate(columns["segments"].to_pylist()):
            if text and not _put_segments(records, row, text):
                reason = f"not up to {MAX_SEGMENTS} segments like 101:20800|102"
                bad.add(np.array([row], np.intp), "segments", reason)
    return records


def _put_segments(records: npt.NDArray[np.void], row: int, text: bytes) -> bool:
    """Parse "101:20800|102" into a record, ascending; False where it isn't that."""
    expiry: dict[int, int] = {}
    for item in text.split(b"|"):
        number, _, day = item.strip().partition(b":")
        if not number.isdigit() or (day and not day.isdigit()) or len(number) > 5 or len(day) > 5:
            return False
        expiry[int(number)] = int(day) if day else NEVER_D
    numbers = sorted(expiry)
    if len(numbers) > MAX_SEGMENTS or numbers[0] < 1 or numbers[-1] > 65535 or max(expiry.values()) > NEVER_D:
        return False
    records["n_segments"][row] = len(numbers)
    records["segments"][row, : len(numbers)] = numbers
    records["segment_expiry_d"][row, : len(numbers)] = [expiry[number] for number in numbers]
    return True


def _keys(
    columns: Columns, n: int, pepper: U64, hash_text: Callable[[str], int] | None, bad: _Rejects
) -> npt.NDArray[np.uint8]:
    """Identity keys uint8[n, k, KEY_BYTES] of a block; rows without a usable identifier are rejected."""
    found: list[U8] = []
    for column, kind, scope_column in ID_COLUMNS:
        if column not in columns:
            continue
        texts = columns[column]
        if not scope_column:
            found.append(identity_keys_packed(kind, *_packed(texts), pepper))
            continue
        if scope_column not in columns:
            raise StoreError(f"column {column} needs a column {scope_column}")
        if kind == KIND_EID and hash_text is None:
            raise StoreError("an eid column needs the hash of its sources")
        found.append(_scoped_keys(kind, texts, columns[scope_column], pepper, hash_text, column, bad))
    keys = np.stack(found, axis=1)
    bad.add(np.flatnonzero(~keys.any(axis=(1, 2))), "", "no usable identifier")
    return keys


def _scoped_keys(
    kind: int,
    texts: pa.Array,
    scopes: pa.Array,
    pepper: U64,
    hash_text: Callable[[str], int] | None,
    column: str,
    bad: _Rejects,
) -> U8:
    """Keys of identifiers that mean something to one exchange or source only; one batch per scope."""
    keys = np.zeros((len(texts), KEY_BYTES), np.uint8)
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
        keys[rows] = identity_keys_packed(kind, *_packed(texts.take(pa.array(rows))), pepper, scope)
    return keys


def _packed(column: pa.Array) -> tuple[U8, npt.NDArray[np.int64]]:
    """A binary column as (text, starts int64[n + 1]); null is empty."""
    column = pc.fill_null(column, b"")
    buffers = column.buffers()
    starts = np.frombuffer(buffers[1], np.int32, len(column) + 1, 4 * column.offset).astype(np.int64)
    return np.frombuffer(buffers[2] if buffers[2] is not None and buffers[2].size else b"\0", np.uint8), starts
