"""The bitmap index of a snapshot: which line items accept a value of a dimension (`dsp.catalog.layout`).

`IndexBuilder` collects rules (dimension, value, line item) and turns them into rows of bits plus one open-addressing
hash table; `find_row` is the kernel by which the engine looks a row up. Rows with equal bits are stored once, so a
hundred half hours of one daypart cost one row.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

import numba as nb
import numpy as np
import numpy.typing as npt

from dsp.catalog.layout import DIM_KEY_MULTIPLIER, N_DIMS
from dsp.openrtb.hashing import mix64

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

_MULTIPLIER = np.uint64(DIM_KEY_MULTIPLIER)
_ZERO = np.uint64(0)
_ONE = np.uint64(1)


@nb.njit(cache=True, inline="always")
def dim_key(dim: int, value: int) -> np.uint64:
    """The table key of (dimension, value); never 0, which marks an empty slot."""
    key = np.uint64(value) ^ (np.uint64(dim + 1) * _MULTIPLIER)
    return _ONE if key == _ZERO else key


@nb.njit(cache=True, nogil=True)
def find_row(dim_keys: U64, dim_rows: I32, dim: int, value: int) -> int:
    """Row of ``rows`` for value ``value`` (int64, 0 = absent) of dimension ``dim``, or -1.

    The table is at most half full, so the probe ends.
    """
    if value == 0:
        return -1
    key = dim_key(dim, value)
    mask = np.uint64(dim_keys.shape[0] - 1)
    slot = mix64(key) & mask
    while dim_keys[slot] != _ZERO:
        if dim_keys[slot] == key:
            return int(dim_rows[slot])
        slot = (slot + _ONE) & mask
    return -1


@nb.njit(cache=True)
def _fill_table(dims: I64, values: I64, rows: I32, dim_keys: U64, dim_rows: I32) -> None:
    mask = np.uint64(dim_keys.shape[0] - 1)
    for i in range(dims.shape[0]):
        key = dim_key(dims[i], values[i])
        slot = mix64(key) & mask
        while dim_keys[slot] != _ZERO and dim_keys[slot] != key:
            slot = (slot + _ONE) & mask
        dim_keys[slot] = key
        dim_rows[slot] = rows[i]


def build_table(dims: I64, values: I64, rows: I32) -> tuple[U64, I32]:
    """The hash table (``dim_keys`` uint64[2^k], ``dim_rows`` int32[2^k]) of n entries (dimension, value) -> row."""
    size = 8
    while size < 2 * len(dims) + 1:
        size *= 2
    dim_keys, dim_rows = np.zeros(size, np.uint64), np.full(size, -1, np.int32)
    _fill_table(dims, values, rows, dim_keys, dim_rows)
    return dim_keys, dim_rows


@nb.njit(cache=True)
def _set_bits(row: U64, items: I64) -> None:
    for k in range(items.shape[0]):
        i = items[k]
        row[i >> 6] |= _ONE << np.uint64(i & 63)


class IndexBuilder:
    """Collects the rules of ``n`` line items and builds the index.

    `accept`: the line item wants these values of an inclusive dimension, and no others (none at all, if empty).
    `refuse`: it must not see these values of an exclusive dimension.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self._items: list[dict[int, list[int]]] = [{} for _ in range(N_DIMS)]
        self._ruled: list[list[int]] = [[] for _ in range(N_DIMS)]

    def accept(self, dim: int, values: Iterable[int], item: int) -> None:
        """Line item ``item`` accepts ``values`` of inclusive dimension ``dim`` and, but for other calls, no others."""
        self._ruled[dim].append(item)
        self._add(dim, values, item)

    def refuse(self, dim: int, values: Iterable[int], item: int) -> None:
        """Line item ``item`` refuses ``values`` of exclusive dimension ``dim``."""
        self._add(dim, values, item)

    def _add(self, dim: int, values: Iterable[int], item: int) -> None:
        of_dim = self._items[dim]
        for value in values:
            if value in of_dim:
                of_dim[value].append(item)
            else:
                of_dim[value] = [item]

    def build(self, exclusive_from: int) -> dict[str, npt.NDArray[np.generic]]:
        """``rows, dim_keys, dim_rows, dim_any, dim_used`` by name; dimensions >= ``exclusive_from`` are exclusive."""
        words = (self.n + 63) // 64
        rows = _Rows(words)
        dims: list[int] = []
        values: list[int] = []
        numbers: list[int] = []
        dim_any = np.full(N_DIMS, -1, np.int32)
        dim_used = np.zeros(N_DIMS, np.uint8)
        everybody = np.zeros(words, np.uint64)
        _set_bits(everybody, np.arange(self.n, dtype=np.int64))
        for dim in range(N_DIMS):
            base = np.zeros(words, np.uint64)
            if dim < exclusive_from:
                _set_bits(base, np.asarray(self._ruled[dim], np.int64))
                base = everybody & ~base
                dim_any[dim] = rows.add(base)
            dim_used[dim] = bool(self._ruled[dim] or self._items[dim])
            for value, items in self._items[dim].items():
                row = base.copy()
                _set_bits(row, np.asarray(items, np.int64))
                dims.append(dim)
                values.append(value)
                numbers.append(rows.add(row))
        dim_keys, dim_rows = build_table(
            np.asarray(dims, np.int64), np.asarray(values, np.int64), np.asarray(numbers, np.int32)
        )
        return {
            "rows": rows.array(),
            "dim_keys": dim_keys,
            "dim_rows": dim_rows,
            "dim_any": dim_any,
            "dim_used": dim_used,
        }


class _Rows:
    """Rows of bits, equal ones once."""

    def __init__(self, words: int) -> None:
        self._words = words
        self._rows: list[U64] = []
        self._known: dict[bytes, int] = {}

    def add(self, row: U64) -> int:
        digest = blake2b(row.tobytes(), digest_size=16).digest()
        number = self._known.setdefault(digest, len(self._rows))
        if number == len(self._rows):
            self._rows.append(row)
        return number

    def array(self) -> U64:
        return np.vstack(self._rows) if self._words else np.zeros((len(self._rows), 0), np.uint64)
