"""Loads people into the audience store: from arrays (`write_people`) and from CSV or Parquet files (`load_profiles`).

A row that can't be used is skipped, counted and written to a reject file with its number and the reason, never with its
values: an identifier must not come to rest outside the store. The rest loads. A store that has people is updated: a
file changes what its columns speak of and leaves the rest of a record as it is; ``delete`` = 1 takes the person out.

Identifiers are hashed here with the same pepper and kernel as at the edge; raw ones are never stored. Every ``SAVE``
rows a checkpoint is kept beside the rejects: an interrupted load of the same file goes on from there.
"""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from dsp.audience.aerospike_store import AerospikeWriter
from dsp.audience.cipher import CipherError, RecordCipher
from dsp.audience.columns import Columns, Rejects, check_names, deletions_of, given_bytes, keys_of, records_of
from dsp.audience.identity import load_peppers
from dsp.audience.lmdb_store import profiles_path
from dsp.audience.lmdb_writer import BulkState, LmdbWriter
from dsp.audience.lock import profiles_lock
from dsp.audience.store import KEY_BYTES, U8, StoreError
from dsp.base.config import Config

BATCH_ROWS = 1 << 16
BLOCK_BYTES = 4 << 20
SAVE_ROWS = 1_000_000  # between checkpoints
Progress = Callable[[int, int], None]


class PeopleWriter(Protocol):
    """What a load writes to: `LmdbWriter` or `AerospikeWriter`, which say what the methods do."""

    bulk: bool

    def write(self, records: npt.NDArray[np.void], keys: U8, given: U8 | None = None) -> None:
        """Write people."""
        ...

    def delete(self, keys: U8) -> int:
        """Delete people; how many were there."""
        ...

    def checkpoint(self) -> BulkState | None:
        """Make durable what was written so far."""
        ...

    def finish(self) -> None:
        """Make everything findable and durable."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


@dataclass(frozen=True)
class LoadReport:
    """What a load did; ``rejects`` is the file that says which rows and why, None if there were none."""

    loaded: int
    rejected: int
    rejects: Path | None
    deleted: int = 0
    resumed: int = 0  # rows that an earlier, interrupted load had done


class Checkpoint(msgspec.Struct, frozen=True):
    """How far the load of a file is."""

    size: int
    mtime_ns: int
    blocks: int
    last_row: int
    loaded: int
    rejected: int
    deleted: int
    reject_bytes: int
    bulk: BulkState | None


def people_writer(root: Path) -> LmdbWriter:
    """The writer of the profiles of the data directory ``root``; a context manager, see `LmdbWriter.write`."""
    return LmdbWriter(profiles_path(root), cipher=_cipher())


def write_people(root: Path, records: npt.NDArray[np.void], ids: U8 | Sequence[Sequence[bytes]]) -> int:
    """Write PROFILE[n] with their identity keys into the data directory ``root``; how many were written.

    ``ids``: uint8[n, KEY_BYTES] (one key each), uint8[n, k, KEY_BYTES] (all-zero: none), or per person a sequence of
    keys; the most trusted first. For more people than fit in memory, use `people_writer` and write block by block.
    """
    keys = ids if isinstance(ids, np.ndarray) else pad_keys(ids)
    with people_writer(root) as writer:
        writer.write(records, keys[:, None, :] if keys.ndim == 2 else keys)
    return len(records)


def open_writer(config: Config, resume: BulkState | None = None) -> PeopleWriter:
    """The writer of the configured store."""
    settings = config.audience
    if settings.store == "aerospike":
        ttl_s = settings.ttl_days * 86_400
        return AerospikeWriter(settings.aerospike_hosts, settings.namespace, ttl_s=ttl_s, cipher=_cipher())
    return LmdbWriter(profiles_path(config.root), resume=resume, cipher=_cipher())


def _cipher() -> RecordCipher | None:
    try:
        return RecordCipher.from_environment()
    except CipherError as error:
        raise StoreError(str(error)) from error


def pad_keys(ids: Sequence[Sequence[bytes]]) -> U8:
    """Ragged keys as uint8[n, k, KEY_BYTES]."""
    width = max((len(keys) for keys in ids), default=1)
    packed = b"".join(b"".join(keys).ljust(width * KEY_BYTES, b"\0") for keys in ids)
    return np.frombuffer(packed, np.uint8).reshape(len(ids), width, KEY_BYTES)


def load_profiles(
    config: Config,
    path: Path,
    progress: Progress = lambda loaded, rejected: None,
    *,
    hash_text: Callable[[str], int] | None = None,
    fresh: bool = False,
) -> LoadReport:
    """Load the CSV (with a header) or Parquet file ``path``; bad rows are reported, the rest loads.

    ``progress(loaded, rejected)`` is called per block of rows. ``hash_text`` is needed for ``eid`` and ``caid``: it
    must be the hash that the decoder gives an EID's source. ``fresh``: start over where an earlier load of this file
    was interrupted. Raises `StoreError` where the file as a whole can't be used.
    """
    load = _Load(config, path, None if fresh else _unfinished(config, path), hash_text)
    with load:
        for columns, n in read_blocks(path, load.malformed):
            load.block(columns, n)
            progress(load.loaded, load.rejected + len(load.malformed))
    return load.report()


def _checkpoint_file(config: Config, path: Path) -> Path:
    return config.path("rejects", f"{path.name}.resume.json")


def _unfinished(config: Config, path: Path) -> Checkpoint | None:
    """Where an interrupted load of this very file stood."""
    try:
        state = msgspec.json.decode(_checkpoint_file(config, path).read_bytes(), type=Checkpoint)
        status = path.stat()
    except (OSError, msgspec.DecodeError):
        return None
    return state if (state.size, state.mtime_ns) == (status.st_size, status.st_mtime_ns) else None


class _Load:
    """One load: the writer, the reject file and how far they are."""

    def __init__(
        self, config: Config, path: Path, state: Checkpoint | None, hash_text: Callable[[str], int] | None
    ) -> None:
        self._config, self._path, self._hash_text = config, path, hash_text
        peppers = load_peppers(config.path("secrets", "pepper.json")).keys
        self._peppers = [pepper for _, pepper in sorted(peppers.items(), reverse=True)]
        self._resume = state
        self.loaded, self.rejected, self.deleted, self.last_row = (
            (state.loaded, state.rejected, state.deleted, state.last_row) if state else (0, 0, 0, 0)
        )
        self._resumed = self.last_row
        self._skip = state.blocks if state else 0
        self._blocks = 0
        self._saved_at = self.last_row
        self.malformed: dict[int, str] = {}
        self._rejects = config.path("rejects", f"{path.name}.csv")

    def __enter__(self) -> None:
        self._rejects.parent.mkdir(parents=True, exist_ok=True)
        bulk = self._resume.bulk if self._resume else None
        self._lock = contextlib.ExitStack()
        self._lock.enter_context(profiles_lock(self._config.root, wait=True))
        self._writer = open_writer(self._config, bulk)
        self._bulk = self._writer.bulk
        if bulk is None and self._bulk and self._resume is not None:
            self._writer.close()
            raise StoreError(f"{self._path}: the store it was being loaded into is gone; use --fresh")
        self._file: IO[str] = self._rejects.open("r+" if self._resume else "w", newline="")
        self._csv = csv.writer(self._file)
        if self._resume:
            self._file.truncate(self._resume.reject_bytes)
            self._file.seek(0, 2)
        else:
            self._csv.writerow(["row", "column", "reason"])

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._writer.finish()
                self._csv.writerows((row, "", reason) for row, reason in self.malformed.items() if row > self._resumed)
                self.rejected += len(self.malformed)
                _checkpoint_file(self._config, self._path).unlink(missing_ok=True)
        finally:
            self._writer.close()
            self._file.close()
            self._lock.close()

    def block(self, columns: Columns, n: int) -> None:
        """Load one block of rows, unless the load that is resumed has done so."""
        self._blocks += 1
        if self._blocks <= self._skip:
            return
        bad = Rejects(n)
        records = records_of(columns, n, bad)
        leaving = deletions_of(columns, n, bad)
        keys = self._keys(columns, n, bad)
        staying = bad.good & ~leaving
        self._writer.write(records[staying], keys[staying], given_bytes(list(columns)))
        if leaving.any():
            self.deleted += self._writer.delete(keys[bad.good & leaving])
        rows = _row_numbers(self.last_row, n, self.malformed)
        self._csv.writerows((rows[row], column, reason) for row, column, reason in bad.sorted())
        self.last_row = rows[-1] if rows else self.last_row
        self.loaded += int(staying.sum())
        self.rejected += n - int(bad.good.sum())
        if self.last_row - self._saved_at >= SAVE_ROWS:
            self._save()

    def _keys(self, columns: Columns, n: int, bad: Rejects) -> U8:
        """The keys under every pepper, the current one's first: a person loaded under the last one is the same."""
        first = keys_of(columns, n, self._peppers[0], self._hash_text, bad)
        if len(self._peppers) == 1:
            return first
        others = [keys_of(columns, n, pepper, self._hash_text, Rejects(n)) for pepper in self._peppers[1:]]
        return np.concatenate([first, *others], axis=1)

    def report(self) -> LoadReport:
        """What was done; an empty reject file goes."""
        if not self.rejected:
            self._rejects.unlink()
        rejects = self._rejects if self.rejected else None
        return LoadReport(self.loaded, self.rejected, rejects, self.deleted, self._resumed)

    def _save(self) -> None:
        """Keep where we are, once it is durable."""
        bulk = self._writer.checkpoint()
        self._file.flush()
        status = self._path.stat()
        state = Checkpoint(
            status.st_size, status.st_mtime_ns, self._blocks, self.last_row, self.loaded, self.rejected, self.deleted,
            self._file.tell(), bulk if self._bulk else None,
        )  # fmt: skip
        file = _checkpoint_file(self._config, self._path)
        partial = file.with_suffix(".partial")
        partial.write_bytes(msgspec.json.encode(state))
        partial.replace(file)
        self._saved_at = self.last_row


def _row_numbers(last: int, n: int, malformed: dict[int, str]) -> list[int]:
    """The numbers (1: the first after the header) of the ``n`` rows after row ``last``, malformed ones left out."""
    if not malformed:
        return list(range(last + 1, last + 1 + n))
    rows = np.arange(last + 1, last + 1 + n + len(malformed))
    return [int(row) for row in rows[~np.isin(rows, list(malformed))][:n]]


def read_blocks(path: Path, malformed: dict[int, str]) -> Iterator[tuple[Columns, int]]:
    """The columns as binary or integer arrays, a block of rows at a time; the same blocks for the same file.

    CSV rows of another width go to ``malformed`` by number. Raises `StoreError`.
    """

    def skip(row: pa.csv.InvalidRow) -> str:
        malformed[row.number - 1] = f"row has {row.actual_columns} columns, the header {row.expected_columns}"
        return "skip"

    try:
        if path.suffix == ".parquet":
            batches = pa.parquet.ParquetFile(path).iter_batches(BATCH_ROWS, use_threads=False)
        else:
            with path.open("rb") as file:
                names = next(csv.reader([file.readline().decode("utf-8-sig")]), [])
            check_names(path, names)
            batches = pa.csv.open_csv(
                path,
                read_options=pa.csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),
                parse_options=pa.csv.ParseOptions(invalid_row_handler=skip),
                convert_options=pa.csv.ConvertOptions(
                    check_utf8=False, column_types=dict.fromkeys(names, pa.binary()), null_values=[""]
                ),
            )
        for batch in batches:
            check_names(path, batch.schema.names)
            yield (
                {name: _plain(column) for name, column in zip(batch.schema.names, batch.columns, strict=True)},
                len(batch),
            )
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise StoreError(f"{path}: {error}") from error


def _plain(column: pa.Array) -> pa.Array:
    """A column as whole numbers or binary."""
    if pa.types.is_binary(column.type) or pa.types.is_integer(column.type):
        return column
    return column.cast(pa.string()).cast(pa.binary())
