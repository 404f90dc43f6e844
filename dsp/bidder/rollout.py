"""Which model scores a batch: the current one, or for its share of the batches a challenger.

The share goes by a low-discrepancy sequence over batches, so it is kept closely from the first hundred on. A challenger
without a share shadows: of every SAMPLE-th batch both score the same rows, and only their sums are kept, as metrics.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dsp.base.metrics import Metrics
from dsp.bidder.wintable import WinTable, win_table
from dsp.model.score import Scorer

F32 = npt.NDArray[np.float32]

SAMPLE = 16
_GOLDEN = 0.6180339887498949
_CURRENT, _CHALLENGER = range(2)  # MODEL_ROLES of dsp.base.metrics


@dataclass(frozen=True)
class Loaded:
    """A model ready to score: its session and its win curves as the pricing kernel reads them."""

    scorer: Scorer
    wins: WinTable

    @classmethod
    def of(cls, scorer: Scorer) -> Loaded:
        """Derive the tables."""
        return cls(scorer, win_table(scorer.win_curve, scorer.win_scale))


class Rollout:
    """The models of one engine."""

    def __init__(self, scorer: Scorer) -> None:
        self.current = Loaded.of(scorer)
        self.challenger: Loaded | None = None
        self.share = 0.0
        self._turn = 0

    def challenge(self, scorer: Scorer | None, share: float) -> None:
        """Put a challenger beside the current model, or none."""
        self.challenger = None if scorer is None else Loaded.of(scorer)
        self.share = share

    def pick(self) -> Loaded:
        """The model of the next batch."""
        if self.challenger is None:
            return self.current
        self._turn += 1
        return self.challenger if (self._turn * _GOLDEN) % 1.0 < self.share else self.current

    @property
    def challenger_version(self) -> int:
        """Of the challenger, 0 without one."""
        return self.challenger.scorer.version if self.challenger is not None else 0

    @property
    def shadows(self) -> bool:
        """Whether there is a challenger without a share of the batches: experiments may give it people instead."""
        return self.challenger is not None and self.share == 0.0

    def score_arm(self, n: int, p: F32, rows: npt.NDArray[np.bool_]) -> None:
        """Let the challenger score those of the current model's ``n`` rows that ``rows`` bool[n] names, in ``p``."""
        other = self.challenger
        assert other is not None
        other.scorer.rows[:n] = self.current.scorer.rows[:n]
        np.copyto(p, other.scorer.run(n), where=rows[:, None])

    def shadow(self, n: int, p: F32, metrics: Metrics) -> None:
        """Let a shadowing challenger score the rows that gave ``p`` float32[n, 5], now and then."""
        other = self.challenger
        if other is None or self.share > 0.0 or self._turn % SAMPLE or n == 0:
            return
        other.scorer.rows[:n] = self.current.scorer.rows[:n]
        rows, sums = metrics.counter("dsp_shadow_rows_total"), metrics.counter("dsp_shadow_score_millionths_total")
        rows[...] += n
        for role, scores in ((_CURRENT, p), (_CHALLENGER, other.scorer.run(n))):
            sums[role] += np.rint(scores.sum(axis=0, dtype=np.float64) * 1e6).astype(np.int64)
