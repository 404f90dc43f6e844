"""Drift: the bank table in time order, a model trained on its first 80 %, its last 20 % as a stream of outcomes.

The crisis of 2008 lies in between: up to three times as many buy as was learned. Two models are followed: the
pipeline's own, and boosted trees, the reference's family, which cannot extrapolate and fall to a third of the truth.
`dsp.model.drift` follows the stream, one outcome after the other, keyed by month of the year as a line item would be;
every prediction that is judged was made before its own outcome. Its memory was fixed beforehand.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from bench.quality.heads import fit, measures
from bench.quality.page import INK, Page
from bench.quality.tables import load_bank
from dsp.model.drift import Drift

F64 = npt.NDArray[np.float64]

TRAINED_ON = 0.8
WINDOWS = 16
BAND = (0.8, 1.25)
DRAWS = 2_000


def windows(p: F64, y: F64) -> list[float]:
    """Predicted over observed in equal stretches of the stream."""
    return [
        float(a.sum() / b.sum()) for a, b in zip(np.array_split(p, WINDOWS), np.array_split(y, WINDOWS), strict=True)
    ]


def interval(p: F64, y: F64) -> tuple[float, float]:
    """95 % interval of predicted over observed, bootstrap of rows."""
    rows = np.random.default_rng(1).integers(0, len(y), (DRAWS, len(y)))
    low, high = np.quantile(p[rows].sum(axis=1) / y[rows].sum(axis=1), [0.025, 0.975])
    return round(float(low), 3), round(float(high), 3)


def measure(data: Path, row: Callable[[dict[str, Any]], None], page: Page) -> bool:
    """The bar is on the last quarter of the stream, for both models."""
    table = load_bank(data)
    known = np.arange(len(table.y)) < TRAINED_ON * len(table.y)
    with threadpool_limits(1):
        trained, x = fit(table, known)
        trees = HistGradientBoostingClassifier(random_state=1, max_iter=100, learning_rate=0.05, max_leaf_nodes=31)
        trees.fit(x[known], table.y[known])
    y = table.y[~known]
    models = {"pipeline": trained.network.predict(x[~known])[:, 0], "trees": trees.predict_proba(x[~known])[:, 1]}
    _, month = np.unique(table.columns["month"], return_inverse=True)
    key = month[~known].astype(np.int64)
    shown: dict[str, F64] = {}
    for name, p in models.items():
        shown[name] = p
        shown[f"{name}, corrected online"] = Drift(int(month.max()) + 1).follow(p, y, key)
    last = slice(3 * len(y) // 4, None)
    lines: list[list[object]] = []
    held = True
    for name, q in shown.items():
        ratio, end = float(q.sum() / y.sum()), float(q[last].sum() / y[last].sum())
        got, around = measures(q, y), interval(q[last], y[last])
        ok = BAND[0] <= end <= BAND[1] and BAND[0] <= windows(q, y)[-1] <= BAND[1]
        held &= ok or "corrected" not in name
        row({
            "model": name, "predicted_over_observed": round(ratio, 3), "last_quarter": round(end, 3),
            "last_quarter_interval": around, "windows": np.round(windows(q, y), 3).tolist(), **got,
        })  # fmt: skip
        lines.append([name, ratio, end, "{} … {}".format(*around), got["auc"], got["log_loss"]])
    row({"bar": "corrected: predicted / observed within 0.8 … 1.25 over the last quarter and its end", "held": held})
    page.text(f"{len(y):,} outcomes after {int(known.sum()):,} trained on; intervals: 95 %, bootstrap of rows.")
    page.table(["", "predicted / observed", "last quarter", "interval", "AUC", "log loss"], lines)

    def draw(axes: Any) -> None:
        for colour, (name, q) in zip(INK, shown.items(), strict=False):
            axes.plot(np.arange(1, WINDOWS + 1) / WINDOWS, windows(q, y), marker="o", color=colour, label=name)
        axes.axhspan(*BAND, color=INK[2], alpha=0.15, linewidth=0)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("share of the stream")
        axes.set_ylabel("predicted / observed")
        axes.legend(frameon=False)

    page.plot(draw)
    return held
