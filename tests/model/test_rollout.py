"""A model's way into service and back, and the gates it has to pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dsp.base.config import Config
from dsp.model.admission import FARTHEST, refusals, score_shift
from dsp.model.bootstrap import RATES, prior_network
from dsp.model.context import HEADS
from dsp.model.curves import prior_curves, save_curves
from dsp.model.export import to_onnx
from dsp.model.features import FEATURES, SPEC_HASH, F
from dsp.model.manifest import BOOTSTRAP, MODEL_FILE, TRAINED, Manifest
from dsp.model.registry import ModelError, current_dir, make_current, save_version
from dsp.model.rollout import challenger, former, promote, rollback, shadow
from dsp.model.score import Scorer
from dsp.model.train import train


def version(config: Config, times: float = 1.0, refused: tuple[str, ...] = (), kind: str = TRAINED) -> Path:
    """A new version whose click rate is ``times`` the prior's."""

    def write(directory: Path, number: int) -> None:
        network = prior_network({**RATES, "click": RATES["click"] * times})
        directory.joinpath(MODEL_FILE).write_bytes(to_onnx(network, "m"))
        save_curves(directory, prior_curves())
        created = "2026-01-01T00:00:00+00:00"
        Manifest(number, "m", kind, created, SPEC_HASH, FEATURES, HEADS, refused=refused).save(directory)

    return save_version(config, write)


@pytest.fixture
def three(config: Config) -> list[Path]:
    paths = [version(config) for _ in range(3)]
    make_current(config, paths[0])
    return paths


def test_a_model_shadows_then_takes_a_share_then_everything(config: Config, three: list[Path]) -> None:
    assert challenger(config) is None
    shadow(config, 2)
    assert challenger(config) == (three[1], 0.0)
    promote(config, 2, 0.25)
    assert challenger(config) == (three[1], 0.25)
    assert current_dir(config) == three[0]
    promote(config, 2)
    assert challenger(config) is None
    assert current_dir(config) == three[1]


def test_rollback_undoes_one_step_at_a_time(config: Config, three: list[Path]) -> None:
    promote(config, 2)
    promote(config, 3)
    shadow(config, 1)
    assert rollback(config) == three[2]
    assert challenger(config) is None
    assert rollback(config) == three[1]
    assert rollback(config) == three[0]
    assert former(config) == []
    with pytest.raises(ModelError, match="no former version"):
        rollback(config)


def test_what_makes_no_sense_is_refused_with_the_reason(config: Config, three: list[Path]) -> None:
    with pytest.raises(ModelError, match="no model version 9"):
        shadow(config, 9)
    with pytest.raises(ModelError, match="current model already"):
        shadow(config, 1)
    with pytest.raises(ModelError, match="not between 0 and 1"):
        promote(config, 2, 1.5)
    config.path("models", "CHALLENGER").write_text("{")
    with pytest.raises(ModelError, match="rollback"):
        challenger(config)
    rollback(config)
    assert challenger(config) is None


def test_a_model_that_failed_its_training_gates_stays_out(config: Config, three: list[Path]) -> None:
    bad = version(config, refused=("click: worse than the base rate",))
    assert refusals(config, bad) == ["click: worse than the base rate"]
    assert refusals(config, three[1]) == []


def test_scores_far_from_the_current_models_on_recent_traffic_are_refused(
    config: Config, three: list[Path], log_world: Callable[..., np.ndarray]
) -> None:
    log_world(config, 600)
    assert refusals(config, version(config, times=2.0)) == []
    (reason,) = refusals(config, version(config, times=2 * FARTHEST))
    assert reason.startswith("click: scores recent traffic")
    assert "the current model" in reason


def test_hand_set_rates_are_no_yardstick_for_what_was_learned(
    config: Config, three: list[Path], log_world: Callable[..., np.ndarray]
) -> None:
    log_world(config, 600)
    make_current(config, version(config, kind=BOOTSTRAP))
    assert refusals(config, version(config, times=2 * FARTHEST)) == []


def test_what_training_wrote_serves_only_past_all_gates(
    config: Config, three: list[Path], log_world: Callable[..., np.ndarray]
) -> None:
    log_world(config, 6_000)
    make_current(config, version(config, times=1e-4))
    path = train(config)
    assert any("scores recent traffic" in reason for reason in refusals(config, path))
    assert current_dir(config) != path


def test_too_little_traffic_gives_no_verdict(config: Config, three: list[Path]) -> None:
    far, now = Scorer.load(version(config, times=50.0)), Scorer.load(three[0])
    assert score_shift(far, now, np.zeros((10, F), np.float32)) == []
