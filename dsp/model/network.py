"""The model as numbers: five calibrated logistic heads over one feature row.

    logit = x · linear + relu(x · hidden + hidden_bias) · deep + bias        p = sigmoid(logit)

A linear part that few labels can carry, plus one small shared hidden layer that a head uses only where it was shown to
help (its column of ``deep`` is zero otherwise). Platt calibration is affine in the logit, so it is folded into these
arrays and costs nothing when scoring.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Network:
    """``linear`` float64[f, heads], ``bias`` [heads], ``hidden`` [f, h], ``hidden_bias`` [h], ``deep`` [h, heads]."""

    linear: F64
    bias: F64
    hidden: F64
    hidden_bias: F64
    deep: F64

    @classmethod
    def from_linear(cls, linear: F64, bias: F64) -> Network:
        """A network without a hidden layer."""
        features, heads = linear.shape
        return cls(linear, bias, np.zeros((features, 0)), np.zeros(0), np.zeros((0, heads)))

    def logits(self, x: F32) -> F64:
        """float64[n, heads] of ``x`` float32[n, f]."""
        out = x @ self.linear + self.bias
        if self.hidden.shape[1]:
            out += np.maximum(x @ self.hidden + self.hidden_bias, 0.0) @ self.deep
        return np.asarray(out, np.float64)

    def predict(self, x: F32) -> F64:
        """Probabilities, float64[n, heads]."""
        return sigmoid(self.logits(x))

    def calibrated(self, slope: F64, offset: F64) -> Network:
        """The same with every head's logit replaced by ``slope · logit + offset`` ([heads] each)."""
        return Network(
            self.linear * slope, self.bias * slope + offset, self.hidden, self.hidden_bias, self.deep * slope
        )


def sigmoid(logit: F64) -> F64:
    """1 / (1 + exp(-logit)) without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logit)), np.float64)
