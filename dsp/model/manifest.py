"""What a model version says of itself: ``manifest.json`` beside ``model.onnx``."""

from __future__ import annotations

from pathlib import Path

import msgspec

from dsp.model.context import HEADS
from dsp.model.features import FEATURES, SPEC_HASH
from dsp.model.registry import ModelError

MANIFEST_FILE = "manifest.json"
MODEL_FILE = "model.onnx"
WIN_CURVE_FILE = "win_curve.json"

INPUT = "features"  # the graph's tensors
OUTPUT = "probabilities"


class HeadMetrics(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One head on the held-out rows of its own population (click among billed impressions, apply among clicks, …).

    ``auc`` and ``log_loss`` are None where the hold-out has no positive or no negative; ``calibration_ratio`` is
    predicted over observed positives; ``ece`` the expected calibration error over ten equal-count bins.

    ``effective`` equally weighted rows say as much as the rows that were learned from, no row counts more than ``clip``
    average ones, and ``weighted_ratio`` is the calibration ratio over all that was bid on (`dsp.model.weights`).
    """

    rows: int
    positives: int
    holdout_rows: int
    holdout_positives: int
    base_rate: float
    mean_prediction: float
    auc: float | None
    log_loss: float | None
    base_log_loss: float | None  # of always predicting the base rate
    ece: float | None
    calibration_ratio: float | None
    family: str  # "prior", "linear", "linear+mlp"
    effective: float = 0.0
    clip: float = 0.0
    weighted_ratio: float | None = None


BOOTSTRAP, TRAINED = "bootstrap", "trained"  # kinds: hand-set priors; learned from logs


class Manifest(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Identity, input, provenance and quality of one model version."""

    version: int
    name: str
    kind: str  # BOOTSTRAP or TRAINED
    created: str  # UTC, ISO 8601
    spec_hash: str
    features: tuple[str, ...]
    heads: tuple[str, ...]
    seed: int = 0
    rows: int = 0
    first_ms: int = 0  # decision times of the data it learned from
    last_ms: int = 0
    metrics: dict[str, HeadMetrics] = {}
    refused: tuple[str, ...] = ()  # gates it failed; such a model never became current
    libraries: dict[str, str] = {}

    def save(self, directory: Path) -> None:
        """Write ``manifest.json``, readable."""
        directory.joinpath(MANIFEST_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=2))

    @classmethod
    def load(cls, directory: Path) -> Manifest:
        """Read and check that this build can feed the model. Raises `ModelError` saying why not."""
        path = directory / MANIFEST_FILE
        try:
            manifest = msgspec.json.decode(path.read_bytes(), type=cls)
        except (OSError, msgspec.DecodeError) as error:
            raise ModelError(f"{path}: {error}") from error
        if manifest.spec_hash != SPEC_HASH or manifest.features != FEATURES:
            raise ModelError(
                f"{path}: the model was made for feature spec {manifest.spec_hash}, this build has {SPEC_HASH}; "
                "train a new model with `dsp train`"
            )
        if manifest.heads != HEADS:
            raise ModelError(f"{path}: the model has heads {', '.join(manifest.heads)}, needed are {', '.join(HEADS)}")
        return manifest
