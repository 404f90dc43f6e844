"""µs per request of each stage over a stretch of time, from the metrics that a worker keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from dsp.base.metrics import STAGES, Metrics


class StageMeter:
    """Reads ``dsp_stage_seconds`` and ``dsp_batch_size`` of one worker without disturbing it."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.start()

    @classmethod
    def of_file(cls, path: Path) -> StageMeter:
        """Of another process."""
        return cls(Metrics(np.memmap(path, np.int64, mode="r"), "bench", path))

    def _sums(self) -> tuple[npt.NDArray[np.int64], int, int]:
        sizes = self._metrics.histogram("dsp_batch_size")
        return self._metrics.histogram("dsp_stage_seconds").sums.copy(), int(sizes.sums[0]), int(sizes.counts.sum())

    def start(self) -> None:
        """Begin."""
        self._before = self._sums()

    def read(self) -> dict[str, float]:
        """Since `start`: µs per request by stage, and ``batch``, the mean batch. Empty without requests."""
        before, now = self._before, self._sums()
        requests, batches = now[1] - before[1], now[2] - before[2]
        if requests <= 0:
            return {}
        us = (now[0] - before[0]) / 1e3 / requests
        return {
            **dict(zip(STAGES, (round(float(v), 3) for v in us), strict=True)),
            "batch": round(requests / batches, 2),
        }
