"""A compiled catalog as one immutable file: named arrays and named JSON texts, memory-mapped read-only.

File: 8 bytes magic, uint32 format, uint32 header length n, uint64 file length, 16 bytes BLAKE2b of the header, header
(JSON: version, per array dtype/shape/offset, per meta text offset/length), then the data, each block 64-byte aligned.
Loading reads the header only; pages come in as they are touched, shared by all worker processes of a machine. A file is
never changed once it has its name: writers write a temporary file, fsync and rename.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from dsp.base.mapped import map_file, uncache
from dsp.catalog.layout import N_DIMS, WHENS
from dsp.catalog.table import Table

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
Arrays = Mapping[str, npt.NDArray[Any]]

MAGIC = b"DSPSNAP\n"
FORMAT = 1
_HEAD = struct.Struct("<8sIIQ16s")
_ALIGN = 64

ARRAYS: dict[str, tuple[str, int]] = {
    "li_i": ("<i8", 2),
    "li_v": ("<f8", 2),
    "cr_i": ("<i8", 2),
    "ex_i": ("<i8", 2),
    "rows": ("<u8", 2),
    "dim_keys": ("<u8", 1),
    "dim_rows": ("<i4", 1),
    "dim_any": ("<i4", 1),
    "dim_used": ("|u1", 1),
    "cur_hash": ("<i8", 1),
    "cur_code": ("|S3", 1),
    "cur_usd": ("<f8", 1),
    "seat_hash": ("<i8", 1),
    "tpl_json": ("|u1", 1),
    "tpl_json_off": ("<i8", 1),
    "tpl_pb": ("|u1", 1),
    "tpl_pb_off": ("<i8", 1),
    "tpl_tokens": ("<i4", 2),
    "native_json": ("|u1", 1),
    "native_off": ("<i8", 1),
    "caps": ("<i8", 2),
    "cr_caps": ("<i4", 2),
    "when_rows": ("<u8", 2),
    "when_keys": ("<u8", 1),
    "when_key_rows": ("<i4", 1),
    "when_any": ("<i4", 1),
    "when_used": ("|u1", 1),
    "cr_when": ("<i4", 2),
    "dialect_words": ("<i8", 1),
    "dialect_first": ("<i8", 1),
}  # name -> dtype, dimensions


# What a file of an earlier release doesn't have: no caps, no conditions, no dialects.
_LATER: dict[str, Callable[[Arrays], tuple[int, ...]]] = {
    "caps": lambda _: (0, 4),
    "cr_caps": lambda arrays: (len(arrays["cr_i"]), 2),
    "when_rows": lambda _: (0, 0),
    "when_keys": lambda _: (1,),
    "when_key_rows": lambda _: (1,),
    "when_any": lambda _: (N_DIMS,),
    "when_used": lambda _: (N_DIMS,),
    "cr_when": lambda arrays: (len(arrays["cr_i"]), WHENS),
    "dialect_words": lambda _: (0,),
    "dialect_first": lambda _: (0,),
}


class SnapshotError(Exception):
    """A file that is not a usable snapshot; the message names it and says what is wrong."""


class _Block(msgspec.Struct, forbid_unknown_fields=True):
    dtype: str
    shape: list[int]
    offset: int


class _Header(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    arrays: dict[str, _Block]
    meta: dict[str, tuple[int, int]]  # offset, length


class Meta(Mapping[str, Any]):
    """The snapshot's JSON texts by name, each parsed when first asked for: who skips the long lists pays nothing.

    A JSON object is a `Table`, the only kind there is.
    """

    def __init__(self, texts: Mapping[str, memoryview | bytes]) -> None:
        self._texts = texts
        self._parsed: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._parsed:
            value = msgspec.json.decode(self._texts[name])
            self._parsed[name] = Table(value) if isinstance(value, dict) else value
        return self._parsed[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)


class Snapshot:
    """The arrays of `dsp.catalog.layout` as attributes, ``meta`` (a mapping, parsed lazily) and ``version``."""

    li_i: I64
    li_v: F64
    cr_i: I64
    ex_i: I64
    rows: U64
    dim_keys: U64
    dim_rows: I32
    dim_any: I32
    dim_used: U8
    cur_hash: I64
    cur_code: npt.NDArray[np.bytes_]
    cur_usd: F64
    seat_hash: I64
    tpl_json: U8
    tpl_json_off: I64
    tpl_pb: U8
    tpl_pb_off: I64
    tpl_tokens: I32
    native_json: U8
    native_off: I64
    caps: I64
    cr_caps: I32
    when_rows: U64
    when_keys: U64
    when_key_rows: I32
    when_any: I32
    when_used: U8
    cr_when: I32
    dialect_words: I64
    dialect_first: I64

    def __init__(self, arrays: Arrays, meta: Mapping[str, Any], version: int) -> None:
        """From arrays in memory (tests) or a mapped file (`Snapshot.load`). Raises `SnapshotError`."""
        for name, (dtype, ndim) in ARRAYS.items():
            array = arrays.get(name)
            if array is None and name in _LATER:
                array = np.zeros(_LATER[name](arrays), dtype)
            if array is None or array.dtype != np.dtype(dtype) or array.ndim != ndim:
                found = "missing" if array is None else f"{array.dtype}[{array.ndim}d]"
                raise SnapshotError(f"array {name}: {found}, not {np.dtype(dtype)}[{ndim}d]")
            setattr(self, name, array)
        self.meta = meta
        self.version = version
        creatives = len(self.cr_i)
        self._json: list[bytes | None] = [None] * creatives
        self._pb: list[bytes | None] = [None] * creatives
        self._native: dict[int, Any] = {}

    @classmethod
    def load(cls, path: str | Path) -> Snapshot:
        """Map the file at ``path`` read-only; the mapping lives as long as an array of it. Raises `SnapshotError`."""
        try:
            with open(path, "rb") as file:
                data = map_file(file)
        except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
            raise SnapshotError(f"{path}: {error}") from error
        header = _read_header(str(path), data)
        view = memoryview(data)
        arrays = {name: _array(path, view, block) for name, block in header.arrays.items()}
        meta = Meta({name: view[offset : offset + length] for name, (offset, length) in header.meta.items()})
        try:
            return cls(arrays, meta, header.version)
        except SnapshotError as error:
            raise SnapshotError(f"{path}: {error}") from None

    def template_json(self, creative: int) -> bytes:
        """The JSON bid template of creative index ``creative``, a bytes %-format."""
        found = self._json[creative]
        if found is None:
            found = self.tpl_json[self.tpl_json_off[creative] : self.tpl_json_off[creative + 1]].tobytes()
            self._json[creative] = found
        return found

    def template_pb(self, creative: int) -> bytes:
        """The protobuf bid template of creative index ``creative``, a bytes %-format."""
        found = self._pb[creative]
        if found is None:
            found = self.tpl_pb[self.tpl_pb_off[creative] : self.tpl_pb_off[creative + 1]].tobytes()
            self._pb[creative] = found
        return found

    def native(self, creative: int) -> dict[str, Any]:
        """The parts of native creative index ``creative`` (`layout`: native_json); {} for other media."""
        found = self._native.get(creative)
        if found is None:
            text = self.native_json[self.native_off[creative] : self.native_off[creative + 1]].tobytes()
            found = self._native[creative] = msgspec.json.decode(text) if text else {}
        return found


def _read_header(path: str, data: mmap.mmap) -> _Header:
    if len(data) < _HEAD.size:
        raise SnapshotError(f"{path}: {len(data)} bytes are too few for a snapshot")
    magic, fmt, length, total, digest = _HEAD.unpack_from(data)
    if magic != MAGIC:
        raise SnapshotError(f"{path}: not a snapshot (starts with {magic!r})")
    if fmt != FORMAT:
        raise SnapshotError(f"{path}: snapshot format {fmt}, this program reads {FORMAT}; publish the catalog again")
    if total != len(data):
        raise SnapshotError(f"{path}: cut short or grown: {len(data)} bytes, not {total}")
    text = data[_HEAD.size : _HEAD.size + length]
    if blake2b(text, digest_size=16).digest() != digest:
        raise SnapshotError(f"{path}: damaged header")
    return msgspec.json.decode(text, type=_Header)


def _array(path: str | Path, view: memoryview, block: _Block) -> npt.NDArray[Any]:
    dtype = np.dtype(block.dtype)
    count = int(np.prod(block.shape, dtype=np.int64))
    if block.offset + count * dtype.itemsize > len(view):
        raise SnapshotError(f"{path}: an array reaches beyond the end of the file")
    return np.frombuffer(view, dtype, count, block.offset).reshape(block.shape)


def write_snapshot(path: str | Path, arrays: Arrays, meta: Mapping[str, Any], version: int | None = None) -> None:
    """Write a snapshot to ``path`` atomically: readers see the old file or the whole new one.

    ``meta`` values are `Table`, or JSON-able and no objects; ``version`` defaults to ``meta["version"]``.
    """
    target = Path(path)
    texts = {
        name: msgspec.json.encode(value.columns if isinstance(value, Table) else value) for name, value in meta.items()
    }
    header = _Header(int(meta["version"] if version is None else version), {}, {})
    for name, array in arrays.items():
        header.arrays[name] = _Block(array.dtype.str, list(array.shape), 1 << 62)  # placeholder: the longest number
    for name, text in texts.items():
        header.meta[name] = (1 << 62, len(text))
    position = _HEAD.size + len(msgspec.json.encode(header))
    for name, array in arrays.items():
        position = -(-position // _ALIGN) * _ALIGN
        header.arrays[name].offset = position
        position += array.nbytes
    for name, text in texts.items():
        position = -(-position // _ALIGN) * _ALIGN
        header.meta[name] = (position, len(text))
        position += len(text)
    packed = msgspec.json.encode(header)
    head = _HEAD.pack(MAGIC, FORMAT, len(packed), position, blake2b(packed, digest_size=16).digest())
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(head + packed)
            for name, array in arrays.items():
                file.seek(header.arrays[name].offset)
                file.write(np.ascontiguousarray(array).data)
            for name, text in texts.items():
                file.seek(header.meta[name][0])
                file.write(text)
            file.truncate(position)
        uncache(temporary)
        os.replace(temporary, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
    _sync_directory(target.parent)


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
