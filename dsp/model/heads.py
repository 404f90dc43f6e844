"""From labelled rows to a calibrated `Network`: the trainer's numerics, without files or clocks.

Per head: cross-validated MAP regression around the prior head, then the shared hidden layer where there is enough to
learn it from (taught by boosted trees where those are better), then Platt calibration on out-of-sample logits. A head
without labels keeps the prior's weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dsp.model.deep import Layer, Task, fit_layer
from dsp.model.logistic import Fit, Sample, cross_validate, fit_map, platt
from dsp.model.network import Network
from dsp.model.teacher import soft_labels

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

FOLDS = 5
MAX_NEGATIVES = 100_000  # per head; a random part of more stands for all of them by weight
_LAYER_POSITIVES = 500  # of the first head: with less, a hidden layer has nothing to learn


@dataclass(frozen=True)
class Trained:
    """The network, and per head which family it came out as and the penalty its weights were held by."""

    network: Network
    families: tuple[str, ...]
    penalties: tuple[float, ...]


def subsample(rows: I64, y: F64, rng: np.random.Generator, limit: int = MAX_NEGATIVES) -> tuple[I64, F64, F64]:
    """(rows, labels, weights): every positive, at most ``limit`` negatives weighted up to stand for all of them."""
    negative = np.flatnonzero(y == 0)
    if len(negative) <= limit:
        return rows, y, np.ones(len(rows))
    keep = np.sort(np.concatenate([np.flatnonzero(y != 0), rng.choice(negative, limit, replace=False)]))
    return rows[keep], y[keep], np.where(y[keep] != 0, 1.0, len(negative) / limit)


def train_heads(
    samples: Sequence[Sample],
    folds: Sequence[I64],
    prior: Network,
    seed: int,
    tick: Callable[[float], None] = lambda share: None,
) -> Trained:
    """Fit every head of ``samples`` (one per head; ``folds`` int64[n] in [0, FOLDS) of its rows) around ``prior``.

    The prior is linear. ``tick(share)`` reports progress in [0, 1].
    """
    heads = len(samples)
    fits: list[Fit] = []
    outside: list[F64] = []  # out-of-fold logits
    families: list[str] = []
    for h, sample in enumerate(samples):
        start = Fit(prior.linear[:, h], float(prior.bias[h]), 0.0)
        if len(sample.y):
            penalty, logits = cross_validate(sample, folds[h], start)
            fits.append(fit_map(sample, start, penalty))
            outside.append(logits)
            families.append("linear")
        else:
            fits.append(start)
            outside.append(np.zeros(0))
            families.append("prior")
        tick(0.6 * (h + 1) / heads)
    layer = _layer(samples, folds, fits, outside, prior, seed, tick)
    weights = np.stack([fit.weights for fit in fits], axis=1)
    bias = np.array([fit.bias for fit in fits])
    network = Network.from_linear(weights, bias)
    if layer is not None:
        network = Network(weights, bias, layer.hidden, layer.hidden_bias, layer.deep)
    slope, offset = np.ones(heads), np.zeros(heads)
    for h, sample in enumerate(samples):
        if not len(sample.y):
            continue
        logits, judged = outside[h], np.ones(len(sample.y), np.bool_)
        if layer is not None and layer.deep[:, h].any():
            families[h] = "linear+mlp"
            judged = folds[h] == 0  # the only rows the layer has not seen
            logits = logits + layer.corrections(sample.x)[:, h]
        slope[h], offset[h] = platt(logits[judged], sample.y[judged], sample.weight[judged])
    tick(1.0)
    return Trained(network.calibrated(slope, offset), tuple(families), tuple(fit.penalty for fit in fits))


def _layer(
    samples: Sequence[Sample],
    folds: Sequence[I64],
    fits: Sequence[Fit],
    outside: Sequence[F64],
    prior: Network,
    seed: int,
    tick: Callable[[float], None],
) -> Layer | None:
    """The hidden layer, judged on fold 0; its base logits never saw the fold they are used in."""
    if samples[0].y.sum() < _LAYER_POSITIVES:
        return None
    tasks = []
    for h, sample in enumerate(samples):
        held = folds[h] == 0
        base = outside[h].copy()
        if (~held).any():
            start = Fit(prior.linear[:, h], float(prior.bias[h]), 0.0)
            base[~held] = fit_map(sample[~held], start, fits[h].penalty, fits[h]).logits(sample.x[~held])
        tasks.append(Task(sample, base, held, soft_labels(sample, folds[h], outside[h], seed)))
        tick(0.6 + 0.15 * (h + 1) / len(samples))
    return fit_layer(tasks, seed, lambda share: tick(0.75 + 0.2 * share))
