"""How a trained model did on rows it never saw, and whether it may serve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dsp.model.context import HEADS
from dsp.model.labels import Labels
from dsp.model.manifest import HeadMetrics
from dsp.model.network import Network
from dsp.model.quality import auc, calibration_ratio, expected_calibration_error, log_loss
from dsp.model.score import Scorer

F32 = npt.NDArray[np.float32]

PARITY = 1e-5  # ONNX against the trainer's arithmetic
CALIBRATION_BAND = (0.7, 1.4)  # predicted over observed, where the hold-out can tell
_SIGNIFICANT = 3.0  # standard deviations
_WORSE = 1.05  # log loss over that of the constant base rate
_ENOUGH = 50  # positives for the log loss to be worth a verdict


def evaluate(
    network: Network, families: Sequence[str], x: F32, labels: Labels, held: npt.NDArray[np.bool_]
) -> dict[str, HeadMetrics]:
    """Every head on the rows of its population that are ``held`` (bool[n]) out; ``x`` float32[n, f] are all rows."""
    out = {}
    for h, head in enumerate(HEADS):
        rows, y = labels.of(h)
        judged = held[rows]
        p = network.predict(x[rows[judged]])[:, h]
        seen, unseen = y[~judged], y[judged]
        base_rate = float(seen.mean()) if len(seen) else 0.5
        out[head] = HeadMetrics(
            rows=len(y),
            positives=int(y.sum()),
            holdout_rows=len(unseen),
            holdout_positives=int(unseen.sum()),
            base_rate=base_rate,
            mean_prediction=float(p.mean()) if len(p) else 0.0,
            auc=auc(p, unseen),
            log_loss=log_loss(p, unseen),
            base_log_loss=log_loss(np.full(len(p), base_rate), unseen),
            ece=expected_calibration_error(p, unseen),
            calibration_ratio=calibration_ratio(p, unseen),
            family=families[h],
        )
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
