"""The hidden layer: what a linear head misses, learned as a correction of its logit.

One small layer shared by all heads, so that the stages with few labels see through units that the clicks have shaped.
Training starts at exactly the linear model (``deep`` is zero) and minimises every head's log loss on its own population
(Adam, D. Kingma and J. Ba 2015); a head keeps its correction only if it helps on held-out rows by more than chance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dsp.model.logistic import Sample

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

UNITS = 32
_BATCH = 1024
_MAX_EPOCHS = 40
_MAX_ROW_VISITS = 3_000_000  # bounds the time: about ten seconds of one core
_RATE = 2e-3
_DECAY = 1e-4  # of the weights, per step and unit of rate


@dataclass(frozen=True)
class Task:
    """One head's rows with the linear logits they start from (float64[n], out of sample for ``held`` rows)."""

    sample: Sample
    base: F64
    held: npt.NDArray[np.bool_]  # rows that only judge
    target: F64  # what the others learn: their labels, or a teacher's word on them


@dataclass(frozen=True)
class Layer:
    """``hidden`` float64[f, h], ``hidden_bias`` [h], ``deep`` [h, heads]: `dsp.model.network.Network`'s last three."""

    hidden: F64
    hidden_bias: F64
    deep: F64

    def corrections(self, x: F32) -> F64:
        """What is added to the logits: float64[n, heads]."""
        return np.asarray(np.maximum(x @ self.hidden + self.hidden_bias, 0.0) @ self.deep, np.float64)


def fit_layer(tasks: Sequence[Task], seed: int, tick: Callable[[float], None] = lambda share: None) -> Layer | None:
    """Train on the rows not held; the epoch with the best held-out loss, heads that don't gain set to zero.

    ``tick(share)`` reports progress in [0, 1]. None where no head gains: the linear model is all there is to say.
    """
    rng = np.random.default_rng(seed)
    features = tasks[0].sample.x.shape[1]
    weights: list[F32] = [
        (rng.normal(size=(features, UNITS)) * np.sqrt(2.0 / features)).astype(np.float32),
        np.zeros(UNITS, np.float32),
        np.zeros((UNITS, len(tasks)), np.float32),
    ]
    optimiser = _Adam(weights)
    order = _schedule([int((~task.held).sum()) for task in tasks])
    rows = [np.flatnonzero(~task.held) for task in tasks]
    total = sum(len(r) for r in rows)
    epochs = max(1, min(_MAX_EPOCHS, _MAX_ROW_VISITS // max(total, 1)))
    best = _judge(tasks, weights)
    kept = [w.copy() for w in weights]
    for epoch in range(epochs):
        shuffled = [rng.permutation(r) for r in rows]
        for head, begin in rng.permutation(order):
            optimiser.step(_gradients(tasks[head], shuffled[head][begin : begin + _BATCH], weights, int(head)))
        losses = _judge(tasks, weights)
        if losses.sum() < best.sum():
            best, kept = losses, [w.copy() for w in weights]
        elif losses.sum() > best.sum() * 1.01:
            break
        tick((epoch + 1) / epochs)
    tick(1.0)
    gains = np.array([_gains(task, kept, head) for head, task in enumerate(tasks)])
    if not gains.any():
        return None
    hidden, bias, deep = (w.astype(np.float64) for w in kept)
    return Layer(hidden, bias, deep * gains)


class _Adam:
    """Adam over a list of arrays, updated in place."""

    def __init__(self, weights: list[F32]) -> None:
        self.weights = weights
        self._first = [np.zeros_like(w) for w in weights]
        self._second = [np.zeros_like(w) for w in weights]
        self._t = 0

    def step(self, gradients: list[F32]) -> None:
        self._t += 1
        scale = np.float32(_RATE * np.sqrt(1.0 - 0.999**self._t) / (1.0 - 0.9**self._t))
        for k, gradient in enumerate(gradients):
            first, second = self._first[k], self._second[k]
            first += np.float32(0.1) * (gradient - first)
            second += np.float32(0.001) * (gradient * gradient - second)
            self.weights[k] *= np.float32(1.0 - _DECAY * _RATE)
            self.weights[k] -= scale * first / (np.sqrt(second) + np.float32(1e-8))


def _schedule(counts: list[int]) -> npt.NDArray[np.int64]:
    """(head, first row) of every minibatch of an epoch."""
    return np.array([(h, b) for h, count in enumerate(counts) for b in range(0, count, _BATCH)], np.int64)


def _gradients(task: Task, rows: npt.NDArray[np.int64], weights: list[F32], head: int) -> list[F32]:
    """Of one head's mean log loss over ``rows`` with respect to hidden, hidden_bias and deep."""
    hidden, bias, deep = weights
    x = task.sample.x[rows]
    active = x @ hidden + bias
    units = np.maximum(active, np.float32(0.0))
    logit = task.base[rows].astype(np.float32) + units @ deep[:, head]
    p = np.float32(0.5) * (np.float32(1.0) + np.tanh(np.float32(0.5) * logit))
    weight = task.sample.weight[rows]
    error = ((p - task.target[rows]) * (weight / weight.sum())).astype(np.float32)
    back = np.outer(error, deep[:, head]) * (active > 0)
    d_deep = np.zeros_like(deep)
    d_deep[:, head] = units.T @ error
    return [x.T @ back, back.sum(axis=0), d_deep]


def _row_losses(task: Task, weights: list[F32] | None, head: int) -> F64:
    """Weighted log loss of every held-out row; without ``weights`` that of the linear model."""
    held = task.held
    logit = task.base[held]
    if weights is not None:
        hidden, bias, deep = weights
        logit = logit + np.maximum(task.sample.x[held] @ hidden + bias, 0.0) @ deep[:, head]
    return np.asarray(task.sample.weight[held] * (np.logaddexp(0.0, logit) - task.sample.y[held] * logit), np.float64)


def _judge(tasks: Sequence[Task], weights: list[F32]) -> F64:
    """Held-out loss per head, relative to the linear model's: heads of any size count alike."""
    out = np.ones(len(tasks))
    for h, task in enumerate(tasks):
        linear = float(_row_losses(task, None, h).sum())
        if linear > 0:
            out[h] = float(_row_losses(task, weights, h).sum()) / linear
    return out


def _gains(task: Task, weights: list[F32], head: int) -> bool:
    """Whether the correction lowers the held-out loss by more than two standard errors."""
    gain = _row_losses(task, None, head) - _row_losses(task, weights, head)
    return len(gain) > 1 and bool(gain.mean() > 2.0 * gain.std() / np.sqrt(len(gain)))
