"""A ledger that grants everything: of the money, a benchmark pays the worker's side and nothing of the ledger's.

The worker keeps its slices, rolls buckets, syncs and applies replies that name as many line items as a busy ledger's
would; nothing runs on the generator's core, and no budget ever ends a run.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dsp.control.grants import GRANT, SyncReply, SyncRequest

GRANTED = 1 << 50  # micros
LEAST = GRANTED // 4  # not to be given back as surplus
ROWS = 1000  # line items with news in one reply
OPEN_BUCKETS = 60


class GenerousLedger:
    """A `SyncTransport`: one lease, everything granted at once, then ``ROWS`` line items with news in every reply."""

    def __init__(self, line_item_ids: npt.NDArray[np.int64]) -> None:
        self._grants = np.zeros(len(line_item_ids), GRANT)
        self._grants["line_item"] = line_item_ids
        self._grants["period"] = 1
        self._grants["granted"] = GRANTED
        self._grants["least"] = LEAST
        self._grants["multiplier"] = 1.0
        self._turn = 0

    def sync(self, request: SyncRequest) -> SyncReply:
        """A reply without a wait."""
        self._turn += 1
        rows = self._grants
        if request.lease and len(rows) > ROWS:
            rows = np.roll(rows, -self._turn * ROWS)[:ROWS]
        closed = max(0, request.bucket - OPEN_BUCKETS)
        return SyncReply(1, 1, self._turn, 30.0, closed, rows.tobytes())

    def close(self) -> None:
        """Nothing to close."""
