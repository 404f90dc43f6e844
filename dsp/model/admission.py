"""The gates before a model may score traffic: what training said of it, how fast it is, and how far its scores move.

A model that was calibrated on its hold-out can still be wrong for today: trained on the wrong week, exported from the
wrong run. Its scores on recent traffic, beside those of the model that serves, show that before money does.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dsp.base.config import Config
from dsp.log.decisions import FEATURES, read_decisions
from dsp.model.context import HEADS
from dsp.model.features import SPEC_HASH, F
from dsp.model.manifest import BOOTSTRAP, Manifest
from dsp.model.registry import current_dir
from dsp.model.score import Scorer

F32 = npt.NDArray[np.float32]

ROWS = 256
SLOWEST_US = 3.0  # per row, the best of the repeats: three times the bar of the hot path
FARTHEST = 4.0  # a head's mean score on recent traffic, over or under the current model's
_REPEATS = 100
_ENOUGH = 200  # recent rows for a verdict
_RECENT = 20_000


def refusals(config: Config, path: Path) -> list[str]:
    """Why the version in ``path`` may not score traffic; empty if it may. Raises `ModelError` where it can't load."""
    manifest = Manifest.load(path)
    scorer = Scorer.load(path)
    reasons = list(manifest.refused)
    spent = row_us(scorer)
    if spent > SLOWEST_US:
        reasons.append(f"scoring takes {spent:.1f} us a row, more than {SLOWEST_US:.0f}")
    now = current_dir(config)
    if now is not None and now != path and Manifest.load(now).kind != BOOTSTRAP:  # hand-set rates are no yardstick
        reasons += score_shift(scorer, Scorer.load(now), recent_features(config))
    return reasons


def row_us(scorer: Scorer) -> float:
    """Microseconds to score one of ROWS rows, the best of many runs: what others do to the machine does not count."""
    scorer.rows[:ROWS] = 0.5
    best = np.inf
    for _ in range(_REPEATS):
        began = time.perf_counter_ns()
        scorer.run(ROWS)
        best = min(best, time.perf_counter_ns() - began)
    return best / 1e3 / ROWS


def score_shift(new: Scorer, now: Scorer, x: F32) -> list[str]:
    """Heads whose scores of ``x`` float32[n, F] are not numbers, or lie too far from the current model's."""
    if len(x) < _ENOUGH:
        return []
    sums = np.zeros((2, len(HEADS)))
    for at in range(0, len(x), ROWS):
        part = x[at : at + ROWS]
        for k, scorer in enumerate((new, now)):
            sums[k] += scorer.score(part).sum(axis=0)
    reasons = []
    for head, (mean, was) in zip(HEADS, (sums / len(x)).T, strict=True):
        if not np.isfinite(mean):
            reasons.append(f"{head}: scores of recent traffic are not numbers")
        elif not was / FARTHEST <= mean <= was * FARTHEST:
            reasons.append(
                f"{head}: scores recent traffic {mean:.2g} on average, the current model {was:.2g}; "
                f"more than {FARTHEST:.0f} times apart"
            )
    return reasons


def recent_features(config: Config) -> F32:
    """The features of the newest logged bids, float32[n, F], at most _RECENT; none without a log."""
    directory = config.path("log", "decisions")
    if not directory.is_dir():
        return np.zeros((0, F), np.float32)
    x: F32 = read_decisions(directory, None, SPEC_HASH)[FEATURES]
    return x[-_RECENT:] if x.shape[1:] == (F,) else np.zeros((0, F), np.float32)
