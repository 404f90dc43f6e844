"""The two public tables (bank marketing, credit default) as rows, and their encoding into float32 features."""

from __future__ import annotations

import csv
import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

CUTS = 12  # quantile bins of a numeric column


@dataclass(frozen=True)
class Table:
    """``columns`` by name ([n] float64, or str where not numeric) and the 0/1 label ``y``, in the file's order."""

    columns: dict[str, npt.NDArray[np.generic]]
    y: F64


def load_bank(data: Path) -> Table:
    """Term deposits: did the call sell one? Without `duration`, which is known only after the call."""
    rows = _rows(data / "bank" / "bank-additional-full.csv.gz", ";")
    y = np.array([row["y"] == "yes" for row in rows], np.float64)
    return Table(_columns(rows, {"duration", "y"}), y)


def load_credit(data: Path) -> Table:
    """Credit cards: did the client default next month?"""
    label = "default.payment.next.month"
    rows = _rows(data / "credit" / "taiwan-default.csv.gz", ",")
    return Table(_columns(rows, {"ID", label}), np.array([row[label] for row in rows], np.float64))


def encode(table: Table, known: Bool) -> F32:
    """float32[n, f]: categories one by one, numbers as steps at the quantiles of the ``known`` rows and as themselves.

    Only ``known`` (bool[n]) rows decide where steps lie and how numbers are scaled.
    """
    out: list[npt.NDArray[np.generic]] = []
    for values in table.columns.values():
        there = np.unique(values[known])
        if values.dtype.kind != "f":
            out += [values == value for value in there]
            continue
        x = np.asarray(values, np.float64)
        few = len(there) <= 2 * CUTS
        steps = there[:-1] if few else np.unique(np.quantile(x[known], np.linspace(0, 1, CUTS + 1)[1:-1]))
        out += [x > step for step in np.asarray(steps, np.float64)]
        if not few:
            out.append(np.clip((x - x[known].mean()) / x[known].std(), -4, 4))
    return np.stack([column.astype(np.float32) for column in out], axis=1)


def _rows(path: Path, delimiter: str) -> list[dict[str, str]]:
    with gzip.open(path, "rt") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


def _columns(rows: list[dict[str, str]], without: set[str]) -> dict[str, npt.NDArray[np.generic]]:
    out: dict[str, npt.NDArray[np.generic]] = {}
    for name in rows[0]:
        if name in without:
            continue
        values = [row[name] for row in rows]
        try:
            out[name] = np.array(values, np.float64)
        except ValueError:
            out[name] = np.array(values)
    return out
