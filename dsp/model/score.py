"""The score session: feature rows in, calibrated head probabilities out, one ONNX run for a whole batch.

A run costs a fixed 14 µs through ``session.run`` and 8 µs through a binding made beforehand, more than scoring eight
rows. So the scorer owns its input and output buffers, binds them once for some sizes, and rounds a batch up to the
next (the rows past n are what an earlier batch left, and are ignored). One scorer belongs to one thread.
"""

from __future__ import annotations

import bisect
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from dsp.model.context import HEADS
from dsp.model.curves import Curves, load_curves
from dsp.model.features import SPEC_HASH, F
from dsp.model.manifest import INPUT, MODEL_FILE, OUTPUT, Manifest
from dsp.model.registry import ModelError
from dsp.model.winscale import WinScale, load_win_scale

F32 = npt.NDArray[np.float32]

SIZES = (8, 16, 32, 48, *range(64, 1025, 32), *range(1088, 2049, 64))  # bound beforehand; larger batches: a plain run
MAX_ROWS = 64 * 24 * 8  # every request of a batch with the most imps and the default candidates


class Scorer:
    """A loaded model version. ``rows`` float32[MAX_ROWS, F] is where the caller builds features."""

    def __init__(self, manifest: Manifest, model: bytes, win_curve: Curves, win_scale: WinScale | None = None) -> None:
        """Make the session and bind the buffers. Raises `ModelError` for a graph of another shape."""
        self.manifest = manifest
        self.win_scale = win_scale  # where it has a table, instead of the curve
        self.win_curve = win_curve  # float64[X_EXCHANGES, MEDIA_SLOTS, 2] of (k, c), see dsp.model.curves
        self._session = _session(model, manifest)
        self.rows: F32 = np.zeros((MAX_ROWS, F), np.float32)
        self._out: F32 = np.zeros((MAX_ROWS, len(HEADS)), np.float32)
        self._bindings = [self._bind(size) for size in SIZES]

    @classmethod
    def load(cls, model_dir: Path) -> Scorer:
        """Load a version's directory. Raises `ModelError` (spec mismatch, missing or broken files)."""
        manifest = Manifest.load(model_dir)
        path = model_dir / MODEL_FILE
        try:
            model = path.read_bytes()
        except OSError as error:
            raise ModelError(f"{path}: {error}") from error
        return cls(manifest, model, load_curves(model_dir), load_win_scale(model_dir))

    @property
    def version(self) -> int:
        """The version number, as in the directory's name."""
        return self.manifest.version

    @property
    def scores(self) -> F32:
        """What the last run gave, float32[MAX_ROWS, 5]; rows beyond it are what earlier runs left."""
        return self._out

    @property
    def name(self) -> str:
        """What the model is called in logs and reports."""
        return self.manifest.name

    @property
    def spec_hash(self) -> str:
        """The feature spec it was made for (always this build's)."""
        return SPEC_HASH

    def run(self, n: int) -> F32:
        """Score ``rows[:n]``: probabilities float32[n, 5] in HEADS order, a view that the next run overwrites."""
        if n <= 0:
            return self._out[:0]
        at = bisect.bisect_left(SIZES, n)
        if at < len(SIZES):
            self._session.run_with_iobinding(self._bindings[at])
        else:
            self._out[:n] = self._session.run([OUTPUT], {INPUT: self.rows[:n]})[0]
        return self._out[:n]

    def score(self, x: F32) -> F32:
        """Score ``x`` float32[n, F], n up to MAX_ROWS (copied into ``rows`` unless it lies there): as `run`."""
        n = len(x)
        if x.base is not self.rows or x.ctypes.data != self.rows.ctypes.data:
            self.rows[:n] = x
        return self.run(n)

    def _bind(self, size: int) -> ort.IOBinding:
        binding = self._session.io_binding()
        binding.bind_input(INPUT, "cpu", 0, np.float32, (size, F), self.rows.ctypes.data)
        binding.bind_output(OUTPUT, "cpu", 0, np.float32, (size, len(HEADS)), self._out.ctypes.data)
        return binding


def _session(model: bytes, manifest: Manifest) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions share no base class
        raise ModelError(f"model {manifest.name}: onnxruntime refuses the graph: {error}") from error
    shapes = [(v.name, v.shape[1:]) for v in (*session.get_inputs(), *session.get_outputs())]
    if shapes != [(INPUT, [F]), (OUTPUT, [len(HEADS)])]:
        raise ModelError(f"model {manifest.name}: the graph maps {shapes}, expected [n, {F}] to [n, {len(HEADS)}]")
    return session
