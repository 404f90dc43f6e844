"""How a trained model did on rows it never saw, and whether it may serve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dsp.model.context import HEADS
from dsp.model.labels import Labels
from dsp.model.manifest import HeadMetrics
from dsp.model.network import Network
from dsp.model.quality import auc, calibration_ratio, expected_calibration_error, log_loss
from dsp.model.score import Scorer
from dsp.model.weights import Weighted, clipped

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

PARITY = 1e-5  # ONNX against the trainer's arithmetic
CALIBRATION_BAND = (0.7, 1.4)  # predicted over observed, where the hold-out can tell
_SIGNIFICANT = 3.0  # standard deviations
_WORSE = 1.05  # log loss over that of the constant base rate
_ENOUGH = 50  # positives for the log loss to be worth a verdict


@dataclass(frozen=True)
class Judged:
    """One head's population: ``rows``, ``positives``, the rate among rows that were not held out, and the held-out
    rows' predictions ``p``, labels ``y`` and, where they have some, weights (float64[k]).
    """

    rows: int
    positives: int
    base_rate: float
    p: F64
    y: F64
    weight: F64 | None = None

    def metrics(self, family: str, weighted: Weighted | None = None) -> HeadMetrics:
        """The numbers of the manifest; ``weighted`` is what the weights of the rows learned from came to."""
        p, y = self.p, self.y
        of_all = None if self.weight is None or not self.weight @ y > 0 else float(self.weight @ p / (self.weight @ y))
        return HeadMetrics(
            rows=self.rows,
            positives=self.positives,
            holdout_rows=len(y),
            holdout_positives=int(y.sum()),
            base_rate=self.base_rate,
            mean_prediction=float(p.mean()) if len(p) else 0.0,
            auc=auc(p, y),
            log_loss=log_loss(p, y),
            base_log_loss=log_loss(np.full(len(y), self.base_rate), y),
            ece=expected_calibration_error(p, y),
            calibration_ratio=calibration_ratio(p, y),
            family=family,
            effective=0.0 if weighted is None else weighted.effective,
            clip=0.0 if weighted is None else weighted.clip,
            weighted_ratio=of_all,
        )


def judge(
    network: Network, x: F32, labels: Labels, held: npt.NDArray[np.bool_], weight: F64 | None = None
) -> list[Judged]:
    """Every head on the rows of its population that are ``held`` (bool[n]) out; ``x`` float32[n, f] are all rows and
    ``weight`` float64[n] what each stands for (`dsp.model.weights.inverse_chance`).
    """
    out = []
    for h in range(len(HEADS)):
        rows, y = labels.of(h)
        keep = held[rows]
        base_rate = float(y[~keep].mean()) if not keep.all() else 0.5
        p = network.predict(x[rows[keep]])[:, h]
        stands_for = None if weight is None else clipped(weight[rows[keep]])[0]
        out.append(Judged(len(y), int(y.sum()), base_rate, p, y[keep], stands_for))
    return out


def gates(network: Network, metrics: Mapping[str, HeadMetrics]) -> list[str]:
    """Why this model must not serve; empty if it may."""
    refused = []
    if not all(np.isfinite(a).all() for a in (network.linear, network.bias, network.hidden, network.deep)):
        refused.append("weights are not finite")
    low, high = CALIBRATION_BAND
    for head, m in metrics.items():
        expected, came = m.mean_prediction * m.holdout_rows, m.holdout_positives
        inside = low * came <= expected <= high * came
        if not inside and abs(expected - came) > _SIGNIFICANT * np.sqrt(max(expected, 1.0)):
            refused.append(f"{head}: {expected:.1f} positives predicted, {came} came: not within {low} to {high} times")
        if m.log_loss is None or m.base_log_loss is None or came < _ENOUGH:
            continue
        if m.log_loss > _WORSE * m.base_log_loss:
            refused.append(f"{head}: log loss {m.log_loss:.4f} is worse than the base rate's {m.base_log_loss:.4f}")
    return refused


def parity(directory: Path, network: Network, x: F32) -> float:
    """Largest difference between the saved graph, loaded as a bidder loads it, and the trainer's own arithmetic."""
    return float(np.abs(Scorer.load(directory).score(x) - network.predict(x)).max(initial=0.0))
