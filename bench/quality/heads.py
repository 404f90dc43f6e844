"""How good the training pipeline's probabilities are: AUC, log loss and calibration on two public tables, out of fold.

`dsp.model.heads.train_heads` is what `dsp train` runs; here it gets one head and another table's features. Every row is
predicted by a model that never saw it, calibration included.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from bench.quality.page import INK, Page
from bench.quality.tables import Table, encode, load_bank, load_credit
from dsp.model.heads import FOLDS, Trained, train_heads
from dsp.model.logistic import Sample
from dsp.model.network import Network
from dsp.model.quality import auc, calibration_bins, expected_calibration_error, log_loss

F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

SEED = 1
CASES = {"bank": (load_bank, 5), "credit": (load_credit, 3)}
BARS = {"bank": {"auc": 0.80, "log_loss": 0.272, "ece": 0.01}, "credit": {"auc": 0.775}}
REFERENCE = {"bank": "LightGBM: AUC 0.805, log loss 0.2695", "credit": "LightGBM: AUC 0.784"}
DRAWS = 300


def fit(table: Table, known: Bool, seed: int = SEED) -> tuple[Trained, npt.NDArray[np.float32]]:
    """The pipeline's head trained on ``known`` rows, and all rows' features."""
    x, y = encode(table, known), table.y[known]
    rate = float(y.mean())
    prior = Network.from_linear(np.zeros((x.shape[1], 1)), np.array([np.log(rate / (1 - rate))]))
    inner = np.random.default_rng(seed).integers(0, FOLDS, len(y))
    return train_heads([Sample(x[known], y, np.ones(len(y)))], [inner], prior, seed), x


def out_of_fold(table: Table, folds: int, seed: int = SEED) -> tuple[F64, list[str]]:
    """(predictions float64[n] by models that never saw the row, the family of each fold's model)."""
    fold = np.random.default_rng(seed).permutation(len(table.y)) % folds
    p, families = np.zeros(len(table.y)), []
    for f in range(folds):
        trained, x = fit(table, fold != f, seed)
        p[fold == f] = trained.network.predict(x[fold == f])[:, 0]
        families.append(trained.families[0])
    return p, families


def measures(p: F64, y: F64) -> dict[str, float]:
    """The three numbers."""
    out = {"auc": auc(p, y), "log_loss": log_loss(p, y), "ece": expected_calibration_error(p, y)}
    return {name: float(value or 0.0) for name, value in out.items()}


def intervals(p: F64, y: F64) -> dict[str, tuple[float, float]]:
    """95 % intervals by the bootstrap over rows."""
    rng = np.random.default_rng(SEED)
    drawn = [measures(p[rows], y[rows]) for rows in rng.integers(0, len(y), (DRAWS, len(y)))]
    out = {}
    for name in drawn[0]:
        low, high = np.quantile([d[name] for d in drawn], [0.025, 0.975])
        out[name] = (round(float(low), 4), round(float(high), 4))
    return out


def measure(data: Path, row: Callable[[dict[str, Any]], None], page: Page) -> bool:
    """Both tables; each bar is its own."""
    held, curves = True, {}
    lines: list[list[object]] = []
    for name, (load, folds) in CASES.items():
        table = load(data)
        with threadpool_limits(1):
            p, families = out_of_fold(table, folds)
        got, around = measures(p, table.y), intervals(p, table.y)
        curves[name] = calibration_bins(p, table.y)
        row({"table": name, "rows": len(p), "folds": folds, "families": families, **got, "intervals": around})
        for what, value in got.items():
            bar = BARS[name].get(what)
            ok = bar is None or (value >= bar if what == "auc" else value <= bar)
            held &= ok
            low, high = around[what]
            limit = "-" if bar is None else f"{'≥' if what == 'auc' else '≤'} {bar}"
            lines.append([name, what, value, f"{low} … {high}", limit, ok, REFERENCE[name]])
    page.text("Out of fold; intervals: 95 %, bootstrap of rows.")
    page.table(["table", "measure", "value", "interval", "bar", "", "reference"], lines)

    def draw(axes: Any) -> None:
        axes.plot([0, 0.8], [0, 0.8], color=INK[-1], linewidth=1)
        for colour, (name, bins) in zip(INK, curves.items(), strict=False):
            axes.plot(bins[:, 1], bins[:, 2], marker="o", color=colour, label=name)
        axes.set_xlabel("predicted")
        axes.set_ylabel("observed")
        axes.legend(frameon=False)

    page.plot(draw)
    return held
