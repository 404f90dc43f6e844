"""Taking people out of the decision log: what they saw stays, for learning, but no longer says that it was one person.

The log knows a person only by the hash that experiments draw arms with, and only where one ran. It is overwritten in
place, in segments that are still being written too (they only grow at their end), so no freed page keeps it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dsp.log.segments import TEMPORARY, segment_files

UnitsOf = Callable[[int], npt.NDArray[np.uint32]]


def forget_units(directory: Path, units_of: UnitsOf) -> int:
    """Set "unit" to 0 in the rows of some people; how many rows.

    ``units_of(experiment)`` gives their hashes in an experiment. Rows of the last half second may not be on disk yet:
    repeat for certainty. Raises OSError.
    """
    return sum(_forget(file, units_of) for file in segment_files(directory))


def _forget(file: Path, units_of: UnitsOf) -> int:
    if file.name.endswith(TEMPORARY) and not file.exists():  # finished meanwhile
        file = file.with_name(file.name.removesuffix(TEMPORARY))
    known: dict[int, npt.NDArray[np.uint32]] = {}
    changed = 0
    for at, units, experiments in _units(file):
        gone = np.zeros(len(units), np.bool_)
        for experiment in np.unique(experiments[experiments != 0]).tolist():
            if experiment not in known:
                known[experiment] = units_of(experiment)
            gone |= (experiments == experiment) & np.isin(units, known[experiment])
        if gone.any():
            units[gone] = 0
            changed += int(gone.sum())
            with file.open("r+b") as opened:
                opened.seek(at)
                opened.write(units.tobytes())
    return changed


def _units(file: Path) -> list[tuple[int, npt.NDArray[np.uint32], npt.NDArray[np.uint32]]]:
    """(where in the file the column "unit" begins, it, the column "experiment") of every complete batch with both."""
    out = []
    if not file.stat().st_size:
        return []
    with pa.memory_map(str(file)) as source:
        start = source.read_buffer().address
        source.seek(0)
        try:
            reader = pa.ipc.open_stream(source)
            while True:
                batch = reader.read_next_batch()
                if "unit" in batch.schema.names and batch.num_rows:
                    column = batch.column("unit")
                    at = column.buffers()[1].address - start + 4 * column.offset  # a stream is not compressed
                    out.append((at, column.to_numpy().copy(), batch.column("experiment").to_numpy().copy()))
        except (StopIteration, OSError, pa.ArrowException):
            pass  # the end, or where a writer is
    return out
