"""Training: from logs to a model that serves, deterministic, calibrated, and refused where it would harm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np
import pytest

from dsp.base.config import Config
from dsp.catalog.layout import LI_CURRENCY, LI_ID, LI_WIDTH
from dsp.catalog.snapshot import Snapshot
from dsp.control.wincurve import fit_win_curve
from dsp.log.decisions import read_decisions
from dsp.model.bootstrap import bootstrap_model, prior_network
from dsp.model.context import HEADS
from dsp.model.curves import PRIOR
from dsp.model.evaluate import PARITY, gates, parity
from dsp.model.export import to_onnx
from dsp.model.features import SPEC_HASH, F
from dsp.model.heads import subsample
from dsp.model.manifest import MODEL_FILE, HeadMetrics, Manifest
from dsp.model.network import Network
from dsp.model.registry import ModelError, current_dir, versions
from dsp.model.rollout import challenger
from dsp.model.score import Scorer
from dsp.model.train import bid_usd_cpm, hash_share, train

World = tuple[Config, np.ndarray]


@pytest.fixture(scope="module")
def trained(world: World) -> tuple[Config, np.ndarray, Any]:
    config, x = world
    return config, x, train(config, fit_win_curve=fit_win_curve)


def test_a_sane_model_becomes_current_and_says_what_it_learned_from(trained: Any) -> None:
    config, x, path = trained
    assert current_dir(config) == path
    manifest = Manifest.load(path)
    assert manifest.refused == ()
    assert manifest.kind == "trained"
    assert manifest.rows == len(x)
    assert manifest.spec_hash == SPEC_HASH
    assert manifest.last_ms - manifest.first_ms == len(x) - 1
    assert tuple(manifest.metrics) == HEADS
    click = manifest.metrics["click"]
    assert click.rows > 10_000
    assert 0.18 < click.holdout_rows / click.rows < 0.22
    assert click.positives > click.holdout_positives > 100


def test_learned_heads_rank_and_calibrate_on_rows_never_seen(trained: Any, funnel: Callable[..., Any]) -> None:
    _, x, path = trained
    metrics = Manifest.load(path).metrics
    assert metrics["click"].auc is not None
    assert metrics["click"].auc > 0.65
    assert metrics["click"].ece is not None
    assert metrics["click"].ece < 0.03
    p, truth = Scorer.load(path).score(x[:10_000]).copy(), funnel(x[:10_000])
    for h, (head, bar) in enumerate(zip(HEADS, (0.95, 0.85, 0.75, 0.4, 0.5), strict=True)):
        assert p[:, h].mean() == pytest.approx(truth[:, h].mean(), rel=0.2), head
        correlation = np.corrcoef(np.log(p[:, h]), np.log(truth[:, h]))[0, 1]
        assert correlation > bar, f"{head}: {correlation}"


def test_parity_sees_a_difference_of_a_hundredth_and_accepts_rounding(config: Config, world: World) -> None:
    path, x = bootstrap_model(config), world[1]
    assert parity(path, prior_network(), x[:3_000]) <= PARITY
    assert parity(path, replace(prior_network(), bias=prior_network().bias + 0.01), x[:100]) > PARITY


def test_a_graph_that_is_not_the_trained_network_is_never_saved(
    config: Config, log_world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_world(config, 300)
    wrong = to_onnx(Network.from_linear(np.zeros((F, 5)), np.zeros(5)), "wrong")
    monkeypatch.setattr("dsp.model.train.to_onnx", lambda network, name: wrong)
    with pytest.raises(ModelError, match="differs"):
        train(config)
    assert versions(config) == []
    assert current_dir(config) is None


def test_logged_features_are_bit_for_bit_what_the_kernel_built(world: World) -> None:
    config, x = world
    np.testing.assert_array_equal(read_decisions(config.path("log", "decisions"))["features"], x)


def test_the_win_curve_is_learned_from_the_same_logs(trained: Any) -> None:
    curves = Scorer.load(trained[2]).win_curve
    np.testing.assert_allclose(curves[:3, 0], [(3.0, 1.2e6)] * 3, rtol=0.08)
    assert curves[40, 3, 1] == pytest.approx(1.2e6, rel=0.1)  # unseen: what all exchanges have in common


def test_a_model_trained_to_shadow_stands_beside_the_current_one(
    config: Config, log_world: Callable[..., np.ndarray]
) -> None:
    log_world(config, 3_000)
    first = train(config)
    second = train(config, shadow=True)
    assert current_dir(config) == first
    assert challenger(config) == (second, 0.0)


def test_same_seed_and_logs_give_the_same_model_and_another_seed_another(config: Config, log_world: Any) -> None:
    log_world(config, 3_000)
    first, again, other = (train(config, seed=s).joinpath(MODEL_FILE).read_bytes() for s in (1, 1, 2))
    assert first.replace(b"model-000001", b"model-000002") == again
    assert first.replace(b"model-000001", b"model-000003") != other
    assert versions(config) == [1, 2, 3]


def test_without_a_fitter_the_current_curves_stay(config: Config, log_world: Any) -> None:
    log_world(config, 300)
    bootstrap_model(config)
    assert (Scorer.load(train(config)).win_curve == PRIOR).all()


def test_with_almost_no_outcomes_the_model_stays_near_the_priors(config: Config, log_world: Any) -> None:
    x = log_world(config, 40)
    p = Scorer.load(train(config)).score(x)
    np.testing.assert_allclose(p[:, 2:], prior_network().predict(x)[:, 2:], atol=0.25)
    assert Manifest.load(train(config)).refused == ()


def test_without_logs_it_says_where_it_looked(config: Config) -> None:
    with pytest.raises(ModelError, match="decisions"):
        train(config)
    assert versions(config) == []


def test_progress_is_shown_on_demand(config: Config, log_world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    log_world(config, 60)
    train(config, progress=False)
    assert capsys.readouterr() == ("", "")
    train(config, progress=True)
    assert "done" in "".join(capsys.readouterr())


METRICS = HeadMetrics(
    rows=5_000, positives=500, holdout_rows=1_000, holdout_positives=100, base_rate=0.1, mean_prediction=0.1, auc=0.7,
    log_loss=0.3, base_log_loss=0.32, ece=0.01, calibration_ratio=1.0, family="linear",
)  # fmt: skip


def test_a_calibrated_model_passes_the_gates() -> None:
    assert gates(prior_network(), {"click": METRICS}) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"mean_prediction": 0.2}, "click: 200.0 positives predicted, 100 came"),
        ({"mean_prediction": 0.05}, "click: 50.0 positives predicted, 100 came"),
        ({"log_loss": 0.36}, "log loss 0.3600 is worse"),
    ],
)
def test_a_model_that_would_harm_is_refused_with_the_reason(change: dict[str, float], reason: str) -> None:
    (refused,) = gates(prior_network(), {"click": msgspec.structs.replace(METRICS, **change)})
    assert reason in refused


def test_too_few_labels_condemn_nobody() -> None:
    few = msgspec.structs.replace(METRICS, holdout_rows=10, holdout_positives=0, mean_prediction=0.2, log_loss=9.0)
    assert gates(prior_network(), {"click": few}) == []


def test_weights_that_are_not_finite_are_refused() -> None:
    broken = replace(prior_network(), bias=np.full(5, np.nan))
    assert gates(broken, {}) == ["weights are not finite"]


def test_a_refused_model_is_kept_but_does_not_serve(
    config: Config, log_world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_world(config, 300)
    serving = bootstrap_model(config)
    monkeypatch.setattr("dsp.model.train.gates", lambda network, metrics: ["click: says so"])
    path = train(config)
    assert Manifest.load(path).refused == ("click: says so",)
    assert current_dir(config) == serving


def test_subsampled_negatives_stand_for_all_of_them() -> None:
    y = (np.arange(1_000) % 100 == 0).astype(np.float64)
    rows, kept, weight = subsample(np.arange(1_000), y, np.random.default_rng(0), limit=90)
    assert kept.sum() == y.sum()
    assert len(rows) == 100
    assert weight @ (1 - kept) == pytest.approx((1 - y).sum())
    np.testing.assert_array_equal(kept, y[rows])


def test_the_hold_out_depends_on_bid_and_seed_only() -> None:
    ids = np.arange(10_000, dtype=np.uint64)
    share = hash_share(ids, 3)
    assert 0.19 < (share < 0.2).mean() < 0.21
    np.testing.assert_array_equal(hash_share(ids[::-1], 3), share[::-1])
    assert (hash_share(ids, 4) != share).mean() > 0.99


def test_bids_of_other_currencies_become_dollars_by_the_line_items_account() -> None:
    items = np.zeros((2, LI_WIDTH), np.int64)
    items[:, LI_ID], items[:, LI_CURRENCY] = [7, 9], [0, 1]
    snapshot = cast(Snapshot, SimpleNamespace(li_i=items, cur_usd=np.array([1.0, 1.25])))
    logged = {
        "bid_cpm_micros": np.array([2_000_000, 3_000_000, 1_000_000]),
        "reserve_micros": np.array([2_000, 2_400, 1_000]),
        "line_item": np.array([7, 9, 8], np.uint32),
    }
    np.testing.assert_allclose(bid_usd_cpm(logged, snapshot), [2e6, 3e6, 1e6])
    np.testing.assert_allclose(bid_usd_cpm(logged, None), [2e6, 3e6, 1e6])
