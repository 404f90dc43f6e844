"""Notices on local disk while the database is away: durable before they are acknowledged, booked when it is back.

Records are appended and synced to disk in groups. A record is its length, its CRC-32 and the notice as msgpack; a torn
tail ends a file, since it was never acknowledged. Files are drained in order and removed after what they hold is
committed; a crash in between books nothing twice, because events have keys.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import msgspec

from dsp.ledger.ticket import Notice

_HEAD = struct.Struct("<II")
_RECORD_MAX = 1 << 16
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Notice).decode


class SpoolFullError(OSError):
    """The spool has reached its bound."""


class Spool:
    """The spool in ``directory``. One thread at a time; ``pending`` is how many notices wait."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self._directory, self._max_bytes = directory, max_bytes
        directory.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO | None = None
        self._records: Iterator[Notice] | None = None
        self._draining: Path | None = None
        self._bytes = sum(path.stat().st_size for path in self._files())
        self.pending = sum(1 for path in self._files() for _ in _read(path))

    def _files(self) -> list[Path]:
        return sorted(self._directory.glob("*.spool"))

    def append(self, notices: Sequence[Notice]) -> None:
        """Keep ``notices`` durably. Raises OSError when the disk cannot; then none of them counts as kept."""
        if not notices:
            return
        bodies = [_encode(notice) for notice in notices]
        data = b"".join(_HEAD.pack(len(body), zlib.crc32(body)) + body for body in bodies)
        if self._bytes + len(data) > self._max_bytes:
            raise SpoolFullError(f"the spool holds {self._bytes} bytes, its bound is {self._max_bytes}")
        file = self._file or self._begin()
        start = file.tell()
        try:
            file.write(data)
            os.fdatasync(file.fileno())
        except OSError:
            self._give_up(file, start)
            raise
        self._bytes += len(data)
        self.pending += len(notices)

    def _begin(self) -> BinaryIO:
        last = max((int(path.stem) for path in self._files()), default=0)
        file = (self._directory / f"{last + 1:012d}.spool").open("xb", buffering=0)
        directory = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(directory)  # or the file's name could be lost
        finally:
            os.close(directory)
        self._file = file
        return file

    def _give_up(self, file: BinaryIO, start: int) -> None:
        """A write that failed half way: cut it off; where that fails, too, go on in a new file."""
        try:
            file.truncate(start)
            file.seek(start)
        except OSError:  # the reader stops at the torn record
            file.close()
            self._file = None

    def take(self, n: int) -> list[Notice]:
        """Up to ``n`` notices of the oldest file; call `taken` once they are booked. Empty: nothing waits."""
        if self._file is not None:  # what comes from now on goes to a new file
            self._file.close()
            self._file = None
        while True:
            if self._records is None:
                self._draining = next(iter(self._files()), None)
                if self._draining is None:
                    self._bytes = self.pending = 0
                    return []
                self._records = _read(self._draining)
            notices = list(islice(self._records, n))
            if notices:
                return notices
            self._drop()

    def taken(self, n: int) -> None:
        """What `take` gave is in the books."""
        self.pending -= n

    def rewind(self) -> None:
        """What `take` gave was not booked after all: begin the file again."""
        self._records = None

    def _drop(self) -> None:
        assert self._draining is not None
        self._bytes -= self._draining.stat().st_size
        self._draining.unlink()
        self._records = None

    def close(self) -> None:
        """Let go of the file; what waits stays on disk."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _read(path: Path) -> Iterator[Notice]:
    """The whole records of a file."""
    with path.open("rb") as file:
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            size, crc = _HEAD.unpack(head)
            body = file.read(size) if size <= _RECORD_MAX else b""
            if len(body) != size or zlib.crc32(body) != crc:
                return
            yield _decode(body)
