"""The score session agrees with the trainer's arithmetic and refuses what it cannot feed."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from dsp.base.config import Config
from dsp.model.bootstrap import RATES, bootstrap_model, prior_network
from dsp.model.context import HEADS
from dsp.model.curves import MEDIA_SLOTS, PRIOR, X_EXCHANGES, media_slot
from dsp.model.export import to_onnx
from dsp.model.features import SPEC_HASH, F
from dsp.model.manifest import MANIFEST_FILE, MODEL_FILE, WIN_CURVE_FILE
from dsp.model.network import Network
from dsp.model.registry import ModelError
from dsp.model.score import MAX_ROWS, SIZES, Scorer


@pytest.fixture
def model_dir(config: Config) -> Path:
    return bootstrap_model(config)


@pytest.fixture
def deep_dir(model_dir: Path) -> tuple[Path, Network]:
    rng = np.random.default_rng(0)
    network = Network(
        rng.normal(size=(F, 5)) * 0.2,
        rng.normal(size=5),
        rng.normal(size=(F, 32)) * 0.2,
        rng.normal(size=32),
        rng.normal(size=(32, 5)) * 0.2,
    )
    model_dir.joinpath(MODEL_FILE).write_bytes(to_onnx(network, "deep"))
    return model_dir, network


def rows(n: int) -> np.ndarray:
    return np.random.default_rng(n).normal(size=(n, F)).astype(np.float32)


def test_prior_model_says_the_priors_of_somebody_unknown(model_dir: Path) -> None:
    p = Scorer.load(model_dir).score(np.zeros((1, F), np.float32))[0]
    np.testing.assert_allclose(p, [RATES[head] for head in HEADS], rtol=1e-5)


@pytest.mark.parametrize("n", [1, 7, 8, 9, 200, SIZES[-1], SIZES[-1] + 1, 2_000])
def test_scores_equal_the_networks_own_for_any_batch_size(deep_dir: tuple[Path, Network], n: int) -> None:
    directory, network = deep_dir
    scorer = Scorer.load(directory)
    scorer.score(rows(600))  # leave something in the buffers
    p = scorer.score(rows(n))
    assert p.shape == (n, len(HEADS))
    assert p.dtype == np.float32
    np.testing.assert_allclose(p, network.predict(rows(n)), atol=1e-5)


def test_rows_built_in_place_are_scored_without_a_copy(model_dir: Path) -> None:
    scorer = Scorer.load(model_dir)
    scorer.rows[:10] = rows(10)
    np.testing.assert_allclose(scorer.run(10), prior_network().predict(rows(10)), atol=1e-5)
    np.testing.assert_array_equal(scorer.score(scorer.rows[:10]), scorer.run(10))


def test_no_rows_score_to_nothing(model_dir: Path) -> None:
    assert Scorer.load(model_dir).run(0).shape == (0, len(HEADS))


def test_the_largest_legal_batch_fits(model_dir: Path) -> None:
    assert Scorer.load(model_dir).run(MAX_ROWS).shape == (MAX_ROWS, len(HEADS))


def test_another_feature_spec_is_refused_naming_both(model_dir: Path) -> None:
    path = model_dir / MANIFEST_FILE
    raw = msgspec.json.decode(path.read_bytes())
    raw["spec_hash"] = "0" * 64
    path.write_bytes(msgspec.json.encode(raw))
    with pytest.raises(ModelError) as error:
        Scorer.load(model_dir)
    assert "0" * 64 in str(error.value)
    assert SPEC_HASH in str(error.value)


@pytest.mark.parametrize("name", [MANIFEST_FILE, MODEL_FILE, WIN_CURVE_FILE])
@pytest.mark.parametrize("damage", ["missing", "garbage", "empty"])
def test_a_damaged_model_is_refused_naming_the_trouble(model_dir: Path, name: str, damage: str) -> None:
    path = model_dir / name
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(b"\x00garbage" if damage == "garbage" else b"")
    with pytest.raises(ModelError, match=r"manifest\.json|model\.onnx|win_curve\.json|prior-000001"):
        Scorer.load(model_dir)


def test_a_graph_of_another_shape_is_refused(model_dir: Path) -> None:
    narrow = Network.from_linear(np.zeros((F - 1, 5)), np.zeros(5))
    model_dir.joinpath(MODEL_FILE).write_bytes(to_onnx(narrow, "narrow"))
    with pytest.raises(ModelError, match=f"{F - 1}"):
        Scorer.load(model_dir)


@pytest.mark.parametrize("curve", [[64, 0, 2.0, 1e6], [0, 4, 2.0, 1e6], [0, 0, -1.0, 1e6], [0, 0, 2.0, 0.0]])
def test_a_win_curve_that_cannot_price_is_refused(model_dir: Path, curve: list[float]) -> None:
    path = model_dir / WIN_CURVE_FILE
    path.write_bytes(msgspec.json.encode({"prior": PRIOR, "curves": [curve]}))
    with pytest.raises(ModelError, match="win_curve"):
        Scorer.load(model_dir)


def test_win_curves_are_the_prior_unless_the_file_says_otherwise(model_dir: Path) -> None:
    path = model_dir / WIN_CURVE_FILE
    path.write_bytes(msgspec.json.encode({"prior": PRIOR, "curves": [[3, 1, 4.0, 2e6]]}))
    curves = Scorer.load(model_dir).win_curve
    assert curves.shape == (X_EXCHANGES, MEDIA_SLOTS, 2)
    assert tuple(curves[3, media_slot(2)]) == (4.0, 2e6)
    assert tuple(curves[3, media_slot(1)]) == PRIOR


def test_media_slots_are_the_bit_positions() -> None:
    assert [media_slot(bit) for bit in (1, 2, 4, 8)] == [0, 1, 2, 3]


def test_scoring_a_batch_costs_less_than_a_microsecond_per_row(deep_dir: tuple[Path, Network]) -> None:
    scorer = Scorer.load(deep_dir[0])
    scorer.score(rows(256))
    best = 1e9
    for _ in range(50):
        start = time.thread_time()
        scorer.run(256)
        best = min(best, time.thread_time() - start)
    assert best / 256 < 1e-6  # measured 0.12 µs
