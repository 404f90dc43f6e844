"""Append-only Arrow files: a caller that never waits, a bounded buffer, one background thread.

`append` copies columns into a preallocated chunk and publishes the new length; the thread writes what is published as
record batches of an Arrow IPC *stream*, which stays readable up to its last complete batch whatever happens to the
process. A segment is written as ``NAME.arrows.tmp`` and renamed when it is closed, by size or age. When the disk is
full or slow and all chunks are taken, rows are dropped and counted: a log never blocks a bid.

Published length, not a lock: only the appending thread writes `_Chunk.rows`, only the background thread writes
`_Chunk.written`, and a chunk is reused after the background thread has handed it back.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

SUFFIX = ".arrows"
TEMPORARY = ".tmp"
Array = npt.NDArray[np.generic]


class _Chunk:
    """Preallocated columns of ``capacity`` rows; ``rows`` of them filled, ``written`` of those on disk."""

    def __init__(self, fields: Mapping[str, tuple[str, int]], capacity: int) -> None:
        self.columns = {
            name: np.zeros((capacity, width) if width else capacity, dtype) for name, (dtype, width) in fields.items()
        }
        self.arrays = tuple(self.columns.values())
        self.rows = 0
        self.written = 0


class SegmentWriter:
    """Writes rows of ``fields`` (name -> (dtype, width), width 0: scalar) to segments in ``directory``.

    ``meta`` is the schema's metadata. ``dropped`` counts rows lost to a full buffer or disk, ``errors`` failed writes.
    """

    def __init__(
        self,
        directory: Path,
        name: str,
        fields: Mapping[str, tuple[str, int]],
        meta: Mapping[str, str],
        *,
        chunk_rows: int = 4096,
        chunks: int = 8,
        flush_s: float = 0.5,
        segment_bytes: int = 64 << 20,
        segment_s: float = 60.0,
        min_free_bytes: int = 256 << 20,
        threaded: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.directory, self.name, self.fields = directory, name, dict(fields)
        self.dropped = self.errors = self.rows = 0
        self._meta = dict(meta)
        self._flush_s, self._segment_bytes, self._segment_s = flush_s, segment_bytes, segment_s
        self._min_free_bytes, self._clock = min_free_bytes, clock
        self._capacity = chunk_rows
        self._chunk = _Chunk(fields, chunk_rows)
        self._full: deque[_Chunk] = deque()
        self._free: deque[_Chunk] = deque(_Chunk(fields, chunk_rows) for _ in range(chunks - 1))
        self._file: _Segment | None = None
        self._number = 0
        self._lock = threading.Lock()  # between the background thread and rotate/flush/close, never in append
        self._stop = False
        self._wake = threading.Event()  # set once per full chunk
        self._thread: threading.Thread | None = None
        if threaded:
            self._thread = threading.Thread(target=self._run, name=f"log-{name}", daemon=True)
            self._thread.start()

    def append(self, columns: Mapping[str, Array], n: int) -> None:
        """Copy ``n`` rows, every field present. Called by one thread; never blocks, never raises on I/O."""
        room = self.reserve(n)
        if room is None:
            return
        targets, start = room
        for name, target in zip(self.fields, targets, strict=True):
            target[start : start + n] = columns[name]
        self.commit(n)

    def reserve(self, n: int) -> tuple[tuple[Array, ...], int] | None:
        """Whole columns, in the order of the fields, and where ``n`` rows may be written; None drops them.

        What is written there is only taken by `commit`. Called by one thread; never blocks.
        """
        chunk = self._chunk
        start = chunk.rows
        if start + n > self._capacity:
            if n > self._capacity or not self._free:
                self.dropped += n
                return None
            self._full.append(chunk)
            chunk = self._chunk = self._free.popleft()
            start = 0
            self._wake.set()
        return chunk.arrays, start

    def commit(self, n: int) -> None:
        """Take the ``n`` rows that were written where `reserve` said."""
        self._chunk.rows += n  # publishes
        self.rows += n

    def flush(self) -> None:
        """Write everything appended so far and hand it to the operating system."""
        with self._lock:
            self._drain()

    def rotate(self, meta: Mapping[str, str] | None = None) -> None:
        """Close the current segment under its final name; later rows go to a new one, with ``meta`` if given."""
        with self._lock:
            self._drain()
            self._end_segment()
            if meta is not None:
                self._meta = dict(meta)

    def close(self) -> None:
        """Write everything, close the segment, stop the thread."""
        self._stop = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        self.rotate()

    def _run(self) -> None:
        while not self._stop:
            self._wake.wait(self._flush_s)
            self._wake.clear()
            with self._lock:
                self._drain()
                if self._file is not None and self._file.due(self._clock(), self._segment_bytes, self._segment_s):
                    self._end_segment()

    def _drain(self) -> None:
        while True:
            current = self._chunk  # read before `full`: if the caller moves on meanwhile, we see it on the next turn
            if not self._full:
                self._write(current, current.rows)
                return
            chunk = self._full[0]
            self._write(chunk, chunk.rows)
            self._full.popleft()
            chunk.rows = chunk.written = 0
            self._free.append(chunk)

    def _write(self, chunk: _Chunk, end: int) -> None:
        start, chunk.written = chunk.written, end
        if end <= start:
            return
        try:
            if self._file is None:
                self._file = self._new_segment()
            self._file.write([column[start:end] for column in chunk.columns.values()])
        except (OSError, pa.ArrowException):
            self.errors += 1
            self.dropped += end - start
            self._end_segment()

    def _new_segment(self) -> _Segment:
        self.directory.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(self.directory).free < self._min_free_bytes:
            raise OSError(f"less than {self._min_free_bytes} bytes free under {self.directory}")
        now = self._clock()
        self._number += 1
        file = self.directory / f"{int(now * 1000):013d}-{self.name}-{os.getpid()}-{self._number}{SUFFIX}"
        return _Segment(file, arrow_schema(self.fields, self._meta), now)

    def _end_segment(self) -> None:
        segment, self._file = self._file, None
        if segment is not None:
            try:
                segment.close()
            except (OSError, pa.ArrowException):
                self.errors += 1


class _Segment:
    """One file being written; unbuffered, so a batch is whole in the operating system when `write` returns."""

    def __init__(self, file: Path, schema: pa.Schema, opened_s: float) -> None:
        self.file, self.temporary, self.opened_s = file, file.with_name(file.name + TEMPORARY), opened_s
        self._schema = schema
        self._sink = self.temporary.open("xb")
        try:
            self._writer = pa.ipc.new_stream(self._sink, schema)
        except BaseException:
            self._sink.close()
            raise

    def write(self, columns: list[Array]) -> None:
        arrays = [as_arrow(column) for column in columns]
        self._writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        self._sink.flush()

    def due(self, now_s: float, max_bytes: int, max_s: float) -> bool:
        return self._sink.tell() >= max_bytes or now_s - self.opened_s >= max_s

    def close(self) -> None:
        with self._sink:
            self._writer.close()
        self.temporary.rename(self.file)


def arrow_schema(fields: Mapping[str, tuple[str, int]], meta: Mapping[str, str]) -> pa.Schema:
    """The Arrow schema of ``fields``; a width makes FixedSizeList."""
    columns = []
    for name, (dtype, width) in fields.items():
        kind = pa.from_numpy_dtype(np.dtype(dtype))
        columns.append(pa.field(name, pa.list_(kind, width) if width else kind, nullable=False))
    return pa.schema(columns, metadata=dict(meta))


def as_arrow(column: Array) -> pa.Array:
    """A column without copying: [n] or [n, width]."""
    if column.ndim == 1:
        return pa.array(column)
    values = pa.array(column.reshape(-1))
    kind = pa.list_(pa.field("item", values.type), column.shape[1])
    return pa.FixedSizeListArray.from_arrays(values, type=kind)


def segment_files(directory: Path, since_ms: int | None = None) -> list[Path]:
    """Segments, oldest first, unfinished ones included; ``since_ms`` leaves out those closed before that moment."""
    if not directory.is_dir():
        return []
    files = [f for f in directory.iterdir() if f.name.endswith((SUFFIX, SUFFIX + TEMPORARY))]
    if since_ms is not None:
        files = [f for f in files if _modified_ms(f) >= since_ms]
    return sorted(files)


def _modified_ms(file: Path) -> float:
    try:
        return file.stat().st_mtime * 1000
    except FileNotFoundError:  # renamed meanwhile: read it under its new name
        return float("inf")


class SegmentReader:
    """One file's metadata and complete batches; ``truncated`` is set when it ends in the middle of one."""

    def __init__(self, file: Path) -> None:
        self.file, self.truncated, self.meta = file, False, dict[str, str]()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Every complete batch. A file that vanished under its temporary name is read under its final one."""
        file = self.file
        if file.name.endswith(TEMPORARY) and not file.exists():
            file = file.with_name(file.name.removesuffix(TEMPORARY))
        with contextlib.ExitStack() as stack:
            try:
                source = stack.enter_context(pa.memory_map(str(file)))
                reader = pa.ipc.open_stream(source)
                self.meta = {k.decode(): v.decode() for k, v in (reader.schema.metadata or {}).items()}
                while True:
                    yield reader.read_next_batch()
            except StopIteration:
                return
            except (OSError, pa.ArrowException):
                self.truncated = True


def column_of(batch: pa.RecordBatch, name: str, width: int) -> Array:
    """A column of a batch as NumPy, [n] or [n, width]."""
    array = batch.column(name)
    return array.flatten().to_numpy().reshape(-1, width) if width else array.to_numpy()
