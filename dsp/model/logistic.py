"""Logistic regression that starts from a prior and leaves it only as far as the labels carry.

Maximum a posteriori with a Gaussian prior centred on given weights:

    minimise  - sum_i w_i log p(y_i | x_i)  +  1/2 sum_j lambda_j (theta_j - prior_j)^2

With hundreds of thousands of labels the prior vanishes, with ten it is nearly the answer; in between the strength is
chosen by cross-validated log loss. Convex, solved by Newton's method, so the result depends on the data alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dsp.model.network import sigmoid

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

PENALTIES = (300.0, 60.0, 15.0, 4.0)  # lambda per weight: standard deviations 0.06 .. 0.5 log-odds per unit
BIAS_PENALTY = 2.0  # the base rate is trusted after a handful of labels
_CHUNK = 16_384
_STEPS = 30
_CONVERGED = 1e-4  # squared length of the next step in posterior standard deviations
_FEW_POSITIVES = 10  # below this nothing can be cross-validated: the strongest penalty


@dataclass(frozen=True)
class Sample:
    """Rows of one head: ``x`` float32[n, f], ``y`` 0/1 [n], ``weight`` [n] (subsampled negatives count more)."""

    x: F32
    y: F64
    weight: F64

    def __getitem__(self, rows: npt.NDArray[np.bool_]) -> Sample:
        return Sample(self.x[rows], self.y[rows], self.weight[rows])


@dataclass(frozen=True)
class Fit:
    """A head's weights: ``weights`` float64[f], ``bias``, and the ``penalty`` that was chosen."""

    weights: F64
    bias: float
    penalty: float

    def logits(self, x: F32) -> F64:
        """float64[n]."""
        return np.asarray(x @ self.weights + self.bias, np.float64)


def fit_map(
    sample: Sample, prior: Fit, penalty: float, start: Fit | None = None, bias_penalty: float = BIAS_PENALTY
) -> Fit:
    """The MAP weights for one ``penalty``; ``start`` (default: the prior) only saves steps."""
    at = start or prior
    theta = np.append(at.weights, at.bias)
    centre = np.append(prior.weights, prior.bias)
    precision = np.append(np.full(len(prior.weights), penalty), bias_penalty)
    objective = _objective(sample, theta, centre, precision)
    for _ in range(_STEPS):
        gradient, hessian = _derivatives(sample, theta)
        gradient += precision * (theta - centre)
        step = np.linalg.solve(hessian + np.diag(precision), gradient)
        if float(gradient @ step) < _CONVERGED:
            break
        size = 1.0
        while size > 1e-4:  # halve until it improves: a full step can overshoot where p saturates
            trial = theta - size * step
            value = _objective(sample, trial, centre, precision)
            if value <= objective:
                theta, objective = trial, value
                break
            size *= 0.5
        else:
            break
    return Fit(theta[:-1].copy(), float(theta[-1]), penalty)


def cross_validate(sample: Sample, fold: npt.NDArray[np.int64], prior: Fit) -> tuple[float, F64]:
    """(best penalty by out-of-fold log loss, out-of-fold logits float64[n] under it). ``fold`` int64[n] from 0."""
    if min(sample.y.sum(), (1.0 - sample.y).sum()) < _FEW_POSITIVES:
        return PENALTIES[0], _out_of_fold(sample, fold, prior, PENALTIES[:1])[0]
    logits = _out_of_fold(sample, fold, prior, PENALTIES)
    losses = [_loss(row, sample.y, sample.weight) for row in logits]
    best = int(np.argmin(losses))
    return PENALTIES[best], logits[best]


def platt(logit: F64, y: F64, weight: F64, strength: float = 20.0) -> tuple[float, float]:
    """(slope, offset) so that sigmoid(slope * logit + offset) fits; held near (1, 0) by ``strength`` labels' worth.

    J. Platt (1999), with the identity as prior: few labels leave a model as it is. The slope stays positive.
    """
    sample = Sample(logit[:, None].astype(np.float32), y, weight)
    p = float(np.clip(np.average(sigmoid(logit), weights=weight), 1e-4, 1 - 1e-4)) if len(y) else 0.5
    information = strength * p * (1.0 - p)
    fit = fit_map(sample, Fit(np.ones(1), 0.0, 0.0), information, bias_penalty=information)
    return float(np.clip(fit.weights[0], 0.2, 3.0)), fit.bias


def _out_of_fold(sample: Sample, fold: npt.NDArray[np.int64], prior: Fit, penalties: tuple[float, ...]) -> F64:
    out = np.zeros((len(penalties), len(sample.y)))
    for f in np.unique(fold):
        held = fold == f
        rest = sample[~held]
        fit: Fit | None = None
        for k, penalty in enumerate(penalties):  # strong to weak, each warm from the one before
            fit = fit_map(rest, prior, penalty, fit)
            out[k, held] = fit.logits(sample.x[held])
    return out


def _loss(logit: F64, y: F64, weight: F64) -> float:
    """Weighted sum of log(1 + exp(z)) - y z, without overflow."""
    return float(weight @ (np.logaddexp(0.0, logit) - y * logit))


def _objective(sample: Sample, theta: F64, centre: F64, precision: F64) -> float:
    logit = sample.x @ theta[:-1] + theta[-1]
    return _loss(logit, sample.y, sample.weight) + 0.5 * float(precision @ (theta - centre) ** 2)


def _derivatives(sample: Sample, theta: F64) -> tuple[F64, F64]:
    """Gradient and Hessian of the log loss, chunked: only a chunk is ever copied."""
    f = len(theta) - 1
    gradient, hessian = np.zeros(f + 1), np.zeros((f + 1, f + 1))
    for begin in range(0, len(sample.y), _CHUNK):
        part = slice(begin, begin + _CHUNK)
        x = np.ones((len(sample.y[part]), f + 1), np.float32)
        x[:, :-1] = sample.x[part]
        p = sigmoid(x @ theta)
        weight = sample.weight[part]
        gradient += (weight * (p - sample.y[part])) @ x
        hessian += (x * (weight * p * (1.0 - p))[:, None].astype(np.float32)).T @ x
    return gradient, hessian
