"""The decision log: one row per bid, with the features it was scored on, as training and reports read it.

Segments are Arrow IPC streams (`dsp.log.segments`); their schema metadata names the feature spec and the model, so no
row is ever read under another spec than the one that made it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dsp.log.segments import SegmentReader, SegmentWriter, column_of, segment_files

DECISION_FIELDS: dict[str, tuple[str, int]] = {
    "bid_id": ("<u8", 0),
    "time_ms": ("<i8", 0),
    "line_item": ("<u4", 0),  # public id
    "creative": ("<u4", 0),
    "exchange": ("<u2", 0),
    "media": ("|u1", 0),
    "flags": ("|u1", 0),  # TOKEN_*
    "at": ("|u1", 0),
    "bid_cpm_micros": ("<i8", 0),  # bid currency
    "reserve_micros": ("<i8", 0),  # account currency
    "value": ("<f8", 0),  # account currency per impression
    "p": ("<f4", 5),  # HEADS
    "multiplier": ("<f4", 0),
    "propensity": ("<f4", 0),  # of its creative among the line item's that fitted
    "model": ("<u4", 0),  # version that scored it
    "experiment": ("<u4", 0),  # id of the experiment its person is in, 0 none
    "arm": ("|u1", 0),  # number of the arm, from 1
    "unit": ("<u4", 0),  # hash of person and experiment: what is compared are people
    "ghost": ("|u1", 0),  # 1: a bid that a control person would have got; it was not made
}
FEATURES = "features"
SPEC_HASH = "spec_hash"
MODEL_VERSION = "model_version"


class DecisionWriter:
    """Appends batches of decisions to ``directory``; ``features`` is F (found at the first append when not given)."""

    def __init__(
        self,
        directory: Path,
        worker: str,
        spec_hash: str,
        model_version: str,
        *,
        features: int | None = None,
        **settings: Any,
    ) -> None:
        self.directory, self.worker = Path(directory), worker
        self._meta = {SPEC_HASH: str(spec_hash), MODEL_VERSION: str(model_version), "worker": worker}
        self._settings = settings
        self._segments: SegmentWriter | None = None
        if features is not None:
            self._segments = self._open(features)

    def _open(self, width: int) -> SegmentWriter:
        fields = {**DECISION_FIELDS, FEATURES: ("<f4", width)}
        return SegmentWriter(self.directory, f"d-{self.worker}", fields, self._meta, **self._settings)

    @property
    def dropped(self) -> int:
        """Rows lost because disk or thread did not keep up."""
        return self._segments.dropped if self._segments is not None else 0

    @property
    def rows(self) -> int:
        """Rows taken so far."""
        return self._segments.rows if self._segments is not None else 0

    def append(self, rows: Mapping[str, npt.NDArray[Any]], features: npt.NDArray[np.float32]) -> None:
        """Copy n decisions: every one of `DECISION_FIELDS` as [n] ("p": [n, 5]) and their features float32[n, F].

        The caller may reuse its arrays at once. Never blocks: what can't be taken is dropped and counted.
        """
        segments = self._segments
        if segments is None:
            segments = self._segments = self._open(features.shape[1])
        segments.append({**rows, FEATURES: features}, features.shape[0])

    def reserve(self, n: int, features: int) -> tuple[tuple[npt.NDArray[Any], ...], int] | None:
        """Columns in the order of `DECISION_FIELDS`, then features [rows, ``features``]; and the first of ``n`` rows.

        For a kernel that writes them itself; `commit` takes them. None: no room, dropped and counted.
        """
        segments = self._segments
        if segments is None:
            segments = self._segments = self._open(features)
        return segments.reserve(n)

    def commit(self, n: int) -> None:
        """Take the ``n`` rows that were written where `reserve` said."""
        assert self._segments is not None
        self._segments.commit(n)

    def set_model(self, spec_hash: str, model_version: str) -> None:
        """Later rows were made by another model: begin a new segment (writes to disk: not from the hot path)."""
        self._meta = {**self._meta, SPEC_HASH: str(spec_hash), MODEL_VERSION: str(model_version)}
        if self._segments is not None:
            self._segments.rotate(self._meta)

    def flush(self) -> None:
        """Write what was appended."""
        if self._segments is not None:
            self._segments.flush()

    def close(self) -> None:
        """Write everything and close the segment under its final name."""
        if self._segments is not None:
            self._segments.close()


class DecisionRehearsal:
    """Lets decisions be written where the next real ones will be, and takes none of them."""

    def __init__(self, writer: DecisionWriter) -> None:
        self._writer = writer

    def reserve(self, n: int, features: int) -> tuple[tuple[npt.NDArray[Any], ...], int] | None:
        """As `DecisionWriter.reserve`."""
        return self._writer.reserve(n, features)

    def commit(self, n: int) -> None:
        """Forget them."""


class DecisionSink:
    """Takes decisions and forgets them: what an engine that keeps no log warms up with."""

    def __init__(self, rows: int, features: int) -> None:
        fields = {**DECISION_FIELDS, FEATURES: ("<f4", features)}
        self._columns = tuple(np.zeros((rows, w) if w else rows, dtype) for dtype, w in fields.values())

    def reserve(self, n: int, features: int) -> tuple[tuple[npt.NDArray[Any], ...], int] | None:
        """As `DecisionWriter.reserve`."""
        return self._columns, 0

    def commit(self, n: int) -> None:
        """Forget them."""


def read_decisions(
    directory: Path, since: int | None = None, spec_hash: str | None = None, *, ghosts: bool = False
) -> dict[str, Any]:
    """All decisions in ``directory`` as arrays by field name, plus "features" float32[n, F] and "spec_hash".

    ``since``: unix milliseconds, rows from then on. Only rows of one feature spec are comparable: those of
    ``spec_hash``, or of the newest segment's. "truncated" counts files that end inside a batch, "skipped" rows of
    another spec. Ghost bids are left out unless ``ghosts``.
    """
    files = segment_files(Path(directory), since)
    fields = dict(DECISION_FIELDS)
    parts: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in [*fields, FEATURES]}
    truncated = skipped = 0
    for file in reversed(files):  # newest first: it decides the spec
        reader = SegmentReader(file)
        batches = list(reader.batches())
        truncated += reader.truncated
        spec_hash = spec_hash if spec_hash is not None or not batches else reader.meta[SPEC_HASH]
        for batch in reversed(batches):
            if reader.meta.get(SPEC_HASH) != spec_hash:
                skipped += batch.num_rows
                continue
            for name, (_, width) in fields.items():
                parts[name].append(_column(batch, name, width))
            parts[FEATURES].append(column_of(batch, FEATURES, batch.schema.field(FEATURES).type.list_size))
    out: dict[str, Any] = {}
    for name, columns in parts.items():
        dtype, width = fields.get(name, ("<f4", 1))
        empty = np.zeros((0, width) if width else 0, dtype)
        out[name] = np.concatenate(columns[::-1]) if columns else empty
    keep = np.ones(len(out["time_ms"]), np.bool_) if ghosts else out["ghost"] == 0
    if since is not None:
        keep &= out["time_ms"] >= since
    if not keep.all():
        out = {name: column[keep] for name, column in out.items()}
    return {**out, SPEC_HASH: spec_hash or "", "truncated": truncated, "skipped": skipped}


def read_experiment(directory: Path, experiment: int, since: int | None = None) -> dict[str, Any]:
    """The decisions of one experiment, ghosts included, as arrays by field name, without their features.

    Rows of every feature spec, as features are not looked at. Holds no more than these rows and one batch of the rest.
    ``since`` as of `read_decisions`.
    """
    parts: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in DECISION_FIELDS}
    for file in segment_files(Path(directory), since):
        for batch in SegmentReader(file).batches():
            mine = _column(batch, "experiment", 0) == experiment
            if since is not None:
                mine &= _column(batch, "time_ms", 0) >= since
            if mine.any():
                for name, (_, width) in DECISION_FIELDS.items():
                    parts[name].append(_column(batch, name, width)[mine])
    return {
        name: np.concatenate(columns) if columns else np.zeros((0, width) if width else 0, dtype)
        for (name, columns), (dtype, width) in zip(parts.items(), DECISION_FIELDS.values(), strict=True)
    }


def _column(batch: Any, name: str, width: int) -> npt.NDArray[Any]:
    """A column of a batch; zeros where the segment was written before there was such a field."""
    if name in batch.schema.names:
        return column_of(batch, name, width)
    return np.zeros((batch.num_rows, width) if width else batch.num_rows, DECISION_FIELDS[name][0])
