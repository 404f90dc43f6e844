"""Whom a file's rows speak of, as the bidder counts people: the subjects that each row's person may be known by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from dsp.audience.columns import ID_COLUMNS, Columns, HashText, Rejects, keys_of
from dsp.audience.identity import load_peppers
from dsp.audience.open import open_audience
from dsp.audience.profile import P_PERSON, PROFILE_BYTES
from dsp.audience.store import KEY_BYTES, StoreError
from dsp.base.config import Config

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
BLOCK = 4096  # rows looked up at a time


def read_table(path: Path) -> tuple[Columns, int]:
    """The columns of a CSV (with a header) or Parquet file as binary arrays, and how many rows. Raises `StoreError`."""
    try:
        if path.suffix == ".parquet":
            table = pa.parquet.read_table(path)
        else:
            table = pa.csv.read_csv(path, convert_options=pa.csv.ConvertOptions(null_values=[""]))
        columns = {
            name: table.column(name).combine_chunks().cast(pa.string()).cast(pa.binary()) for name in table.schema.names
        }
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{path}: {error}") from error
    return columns, len(table)


def subjects_of(config: Config, columns: Columns, n: int, hash_text: HashText) -> tuple[I64, U8]:
    """(row int64[m], subject uint8[m, 16]): all that the person of each row may be counted under.

    That is the person number where the store knows them, and every identity key: which one the bidder took depends on
    what a request carried. Rows without a usable identifier have none. Raises `StoreError`.
    """
    known = {column for column, _, _ in ID_COLUMNS}
    if not known & columns.keys():
        raise StoreError(f"no column with an identifier; one of {', '.join(sorted(known))}")
    rows, subjects = [np.zeros(0, np.int64)], [np.zeros((0, KEY_BYTES), np.uint8)]
    audience = open_audience(config)
    try:
        for pepper in load_peppers(config.path("secrets", "pepper.json")).keys.values():
            keys = keys_of(columns, n, pepper, hash_text, Rejects(n))
            each, which = np.nonzero(keys.any(axis=2))
            rows.append(each)
            subjects.append(keys[each, which])
            for at in range(0, n, BLOCK):
                block = np.ascontiguousarray(keys[at : at + BLOCK])
                out, found = np.zeros((len(block), PROFILE_BYTES), np.uint8), np.zeros(len(block), np.int64)
                wanted = block.any(axis=2).astype(np.int64).reshape(-1)
                audience.store.read(block.reshape(-1, KEY_BYTES), wanted, out, found, block.shape[1])
                there = np.flatnonzero(found)
                people = np.zeros((len(there), KEY_BYTES), np.uint8)
                people[:, :8] = out[there, P_PERSON : P_PERSON + 8]
                rows.append(at + there)
                subjects.append(people)
    finally:
        audience.close()
    return np.concatenate(rows).astype(np.int64), np.concatenate(subjects)
