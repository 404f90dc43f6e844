"""A segment as training data for look-alike models: who is in it, and a sample of who isn't, by features alone.

One row per person with every field of the schema that says something about them, and ``member``; no identifier, no
person number, no other segment's membership beyond the numbers asked for. Whose consent record forbids profiling is
left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from dsp.audience.profile import CONSENT_PROFILING, SCHEMA

HIDDEN_GROUPS = ("identity", "consent", "segments", "protection")


def export_segment(
    blocks: Iterable[npt.NDArray[np.void]],
    segment: int,
    path: Path,
    *,
    share: float = 0.01,
    seed: int = 1,
    progress: Callable[[int], None] = lambda people: None,
) -> tuple[int, int]:
    """Write a Parquet file of all members of ``segment`` and a ``share`` of the others; (members, others)."""
    rng = np.random.default_rng(seed)
    writer: pq.ParquetWriter | None = None
    members = others = seen = 0
    for block in blocks:
        place = np.arange(block["segments"].shape[1])
        member = ((block["segments"] == segment) & (place < block["n_segments"][:, None])).any(axis=1)
        allowed = (block["consent"] & CONSENT_PROFILING) != 0
        kept = allowed & (member | (rng.random(len(block)) < share))
        table = _table(block[kept], member[kept])
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
        members += int(member[kept].sum())
        others += int((~member[kept]).sum())
        seen += len(block)
        progress(seen)
    if writer is not None:
        writer.close()
    return members, others


def _table(rows: npt.NDArray[np.void], member: npt.NDArray[np.bool_]) -> pa.Table:
    columns: dict[str, pa.Array] = {"member": pa.array(member)}
    for field in SCHEMA.fields:
        if field.group in HIDDEN_GROUPS:
            continue
        values = rows[field.name].reshape(len(rows), -1)
        for i, name in enumerate(field.column_names):
            columns[name] = pa.array(np.ascontiguousarray(values[:, i]))
    return pa.table(columns)
