"""A person's hash is gone from every segment, finished or not, and nothing else has changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_decisions import batch

from dsp.log.decisions import DecisionWriter, read_decisions
from dsp.log.forget import forget_units

HASHES = {7: np.array([1000, 1001], np.uint32), 8: np.array([3000], np.uint32)}


def write(directory: Path, *, close: bool) -> DecisionWriter:
    writer = DecisionWriter(directory, "w0", "spec", "3", threaded=False)
    for start in (0, 100):
        rows, features = batch(start, 8)
        rows["experiment"] = np.array([0, 7, 7, 7, 8, 8, 8, 7], np.uint32)
        rows["unit"] = np.array([1000, 1000, 1001, 1002, 3000, 1000, 3001, 1000], np.uint32)
        writer.append(rows, features)
        writer.flush()
    if close:
        writer.close()
    return writer


def units_of(experiment: int) -> Any:
    return HASHES[experiment]


@pytest.mark.parametrize("close", [True, False])
def test_only_the_hashes_of_that_person_in_that_experiment_become_nothing(tmp_path: Path, close: bool) -> None:
    writer = write(tmp_path, close=close)
    before = read_decisions(tmp_path)
    assert forget_units(tmp_path, units_of) == 8
    after = read_decisions(tmp_path)
    assert after["unit"].tolist() == [1000, 0, 0, 1002, 0, 1000, 3001, 0] * 2
    for name, column in before.items():
        if name != "unit":
            assert (after[name] == column).all() if isinstance(column, np.ndarray) else after[name] == column
    assert forget_units(tmp_path, units_of) == 0
    if not close:  # the writer goes on as if nothing had been
        writer.append(*batch(200, 3))
        writer.close()
        assert len(read_decisions(tmp_path)["bid_id"]) == 19


def test_a_cut_or_empty_file_does_not_stop_it(tmp_path: Path) -> None:
    write(tmp_path, close=True)
    (file,) = tmp_path.iterdir()
    raw = file.read_bytes()
    file.write_bytes(raw[: len(raw) - 500])
    (tmp_path / "0-empty.arrows").touch()
    assert forget_units(tmp_path, units_of) == 4
    assert forget_units(tmp_path / "none", units_of) == 0
