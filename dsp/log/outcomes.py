"""The outcome log: one row per thing that happened to a bid, joined to decisions by bid id.

Written by the ledger after an event is durable. The ledger's books are the truth for money; this log is for learning,
so it may miss rows of a crash, and a reader must expect none or several kinds per bid, in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dsp.log.segments import SegmentReader, SegmentWriter, column_of, segment_files

OUTCOMES = (
    "win",
    "loss",
    "billing",
    "click",
    "registered",
    "applied",
    "approved",
    "funded",
    "defaulted",
    "impression",  # our own pixel
)
(WIN, LOSS, BILLING, CLICK, REGISTERED, APPLIED, APPROVED, FUNDED, DEFAULTED, IMPRESSION) = range(len(OUTCOMES))

OUTCOME_FIELDS: dict[str, tuple[str, int]] = {
    "bid_id": ("<u8", 0),
    "kind": ("|u1", 0),  # OUTCOMES index
    "time_ms": ("<i8", 0),
    "price_micros": ("<i8", 0),  # CPM, bid currency: paid (win, billing) or the minimum that had won (loss; 0 unknown)
    "value": ("<f8", 0),  # conversions: amount, whole units; losses: the exchange's reason code
}
_ROW = np.dtype([(name, dtype) for name, (dtype, _) in OUTCOME_FIELDS.items()])
_AT_ONCE = 1024


class OutcomeWriter:
    """Appends outcomes to ``directory``; settings as of `SegmentWriter`."""

    def __init__(self, directory: Path, worker: str, **settings: Any) -> None:
        self._segments = SegmentWriter(Path(directory), f"o-{worker}", OUTCOME_FIELDS, {"worker": worker}, **settings)

    @property
    def dropped(self) -> int:
        """Rows lost because disk or thread did not keep up."""
        return self._segments.dropped

    def append(self, rows: Sequence[tuple[int, int, int, int, float]]) -> None:
        """Rows (bid id, kind, time ms, price micros, value); never blocks, drops and counts."""
        for start in range(0, len(rows), _AT_ONCE):
            table = np.array(rows[start : start + _AT_ONCE], _ROW)
            self._segments.append({name: table[name] for name in OUTCOME_FIELDS}, len(table))

    def flush(self) -> None:
        """Write what was appended."""
        self._segments.flush()

    def close(self) -> None:
        """Write everything and close the segment under its final name."""
        self._segments.close()


def read_outcomes(
    directory: Path, since: int | None = None, bids: npt.NDArray[np.uint64] | None = None
) -> dict[str, Any]:
    """All outcomes in ``directory`` as arrays by field name; ``since`` in unix ms. "truncated" counts broken files.

    With ``bids`` only what happened to these bid ids, and no more than that is held in memory.
    """
    parts: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in OUTCOME_FIELDS}
    truncated = 0
    for file in segment_files(Path(directory), since):
        reader = SegmentReader(file)
        for batch in reader.batches():
            columns = {name: column_of(batch, name, 0) for name in OUTCOME_FIELDS}
            if bids is not None:
                mine = np.isin(columns["bid_id"], bids)
                columns = {name: column[mine] for name, column in columns.items()}
            for name, column in columns.items():
                parts[name].append(column)
        truncated += reader.truncated
    out: dict[str, Any] = {
        name: np.concatenate(columns) if columns else np.zeros(0, OUTCOME_FIELDS[name][0])
        for name, columns in parts.items()
    }
    if since is not None:
        keep = out["time_ms"] >= since
        out = {name: column[keep] for name, column in out.items()}
    return {**out, "truncated": truncated}
