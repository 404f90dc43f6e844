"""The model before any log: hand-set priors in the shape of a trained model, so that a new system can explore.

Rates are the trade's rough orders (0.4 % of impressions click, 8 % of clicks apply, 45 % are approved, 80 % of those
draw the loan or activate, 4 % default), moved by the few directions nobody doubts. Training starts from these weights
and leaves them only as far as its labels carry.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dsp.base.config import Config
from dsp.model.context import HEADS
from dsp.model.curves import prior_curves, save_curves
from dsp.model.export import to_onnx
from dsp.model.features import FEATURES, SPEC_HASH, F
from dsp.model.manifest import BOOTSTRAP, MODEL_FILE, Manifest
from dsp.model.network import Network
from dsp.model.registry import current_dir, make_current, save_version

RATES = {"click": 0.004, "apply": 0.08, "approve": 0.45, "fund": 0.80, "default": 0.04}
"""Of somebody of whom nothing is known, given the stage before."""

WEIGHTS: dict[str, dict[str, float]] = {
    "click": {
        "intent": 1.0, "cat_finance": 0.3, "above_fold": 0.2, "below_fold": -0.3, "customer": -0.5, "delinquent": -0.3,
    },
    "apply": {"intent": 1.2, "warm": 0.5, "customer": -0.7, "rejected": -0.3},
    "approve": {"income": 0.5, "risk_lenders": -1.0, "rejected": -0.8, "delinquent": -1.5},
    "fund": {"intent": 0.3},
    "default": {"income": -0.3, "risk_lenders": 1.0, "risk_device": 0.3, "delinquent": 1.0},
}  # fmt: skip
"""Log-odds per unit of a feature."""


def prior_network(rates: Mapping[str, float] = RATES) -> Network:
    """The priors as a linear network; ``rates`` per head in place of `RATES`."""
    linear = np.zeros((F, len(HEADS)))
    bias = np.zeros(len(HEADS))
    for h, head in enumerate(HEADS):
        bias[h] = math.log(rates[head] / (1.0 - rates[head]))
        for feature, weight in WEIGHTS[head].items():
            linear[FEATURES.index(feature), h] = weight
    return Network.from_linear(linear, bias)


def bootstrap_model(config: Config, rates: Mapping[str, float] = RATES) -> Path:
    """The current model's directory; where there is none, the prior model is written and made current first.

    ``rates`` are the priors of a market known to differ (a demonstration world in which everything happens faster): a
    prior far too low never wins the impressions that would correct it.
    """
    current = current_dir(config)
    if current is not None:
        return current

    def write(directory: Path, version: int) -> None:
        directory.joinpath(MODEL_FILE).write_bytes(to_onnx(prior_network(rates), "prior"))
        save_curves(directory, prior_curves())
        created = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        Manifest(version, f"prior-{version:06d}", BOOTSTRAP, created, SPEC_HASH, FEATURES, HEADS).save(directory)

    path = save_version(config, write)
    make_current(config, path)
    return path
