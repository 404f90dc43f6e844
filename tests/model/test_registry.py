"""Versions are whole or absent, and CURRENT changes in one step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dsp.base.config import Config
from dsp.model.bootstrap import RATES, bootstrap_model
from dsp.model.features import F
from dsp.model.registry import ModelError, current_dir, make_current, save_version, version_dir, versions
from dsp.model.score import Scorer


def write(directory: Path, version: int) -> None:
    directory.joinpath("version").write_text(str(version))


def test_nothing_is_current_at_first(config: Config) -> None:
    assert current_dir(config) is None
    assert versions(config) == []


def test_versions_count_up_and_only_make_current_moves_current(config: Config) -> None:
    first = save_version(config, write)
    second = save_version(config, write)
    assert (first.name, second.name) == ("000001", "000002")
    assert versions(config) == [1, 2]
    assert second == version_dir(config, 2)
    assert second.joinpath("version").read_text() == "2"
    assert current_dir(config) is None
    make_current(config, second)
    assert current_dir(config) == second
    make_current(config, first)  # rolling back is the same step
    assert current_dir(config) == first


def test_a_version_whose_writing_fails_leaves_no_trace(config: Config) -> None:
    def fail(directory: Path, version: int) -> None:
        write(directory, version)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        save_version(config, fail)
    assert list(config.path("models").iterdir()) == []


def test_a_number_taken_by_another_trainer_is_not_reused(config: Config) -> None:
    def race(directory: Path, version: int) -> None:
        write(directory, version)
        if version == 1:
            version_dir(config, 1).mkdir()
            write(version_dir(config, 1), -1)

    path = save_version(config, race)
    assert path.name == "000002"
    assert version_dir(config, 1).joinpath("version").read_text() == "-1"


@pytest.mark.parametrize("name", ["000009", "../etc", "", "latest"])
def test_a_current_that_names_nothing_says_what_to_do(config: Config, name: str) -> None:
    config.path("models").mkdir()
    config.path("models", "CURRENT").write_text(name)
    with pytest.raises(ModelError, match="dsp train"):
        current_dir(config)


def test_bootstrap_writes_once_and_then_leaves_what_serves(config: Config) -> None:
    first = bootstrap_model(config)
    assert current_dir(config) == first
    assert bootstrap_model(config) == first
    second = save_version(config, write)
    make_current(config, second)
    assert bootstrap_model(config) == second


def test_bootstrap_takes_the_rates_of_a_market_known_to_differ(config: Config) -> None:
    path = bootstrap_model(config, {**RATES, "click": 0.02})
    p = Scorer.load(path).score(np.zeros((1, F), np.float32))[0]
    np.testing.assert_allclose(p[:2], [0.02, RATES["apply"]], rtol=1e-5)
