"""What a line item's open reservations may count for, where its advertiser tolerates a little overspend (rule 11).

Strictly a reservation counts in full until its bucket closes. Where losses are not reported and buckets live long, that
holds back a budget's last percents. With a tolerance they count at an upper quantile of what reservations have come to
cost lately, and never less than in full minus the slack the ledger has given this lease, so the stated bound grows by
no more than the tolerance.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

_Z = 3.0  # standard deviations above the observed share: 1 in 700
_MEMORY_S = 600.0


def relief(open_micros: I64, slack: I64, ended: F64, cost: F64, bid_micros: I64) -> I64:
    """Micros, [L], by which ``open_micros`` of reservations count less than in full; at most ``slack``.

    ``ended`` micros of reservations have lately ended and cost ``cost``; ``bid_micros`` is about one of them.
    """
    n = ended / np.maximum(bid_micros, 1)
    share = np.minimum(cost / np.maximum(ended, 1.0), 1.0)
    upper = np.minimum(
        share + _Z * np.sqrt(share * (1.0 - share) / np.maximum(n, 1.0)) + _Z * _Z / np.maximum(n, 1.0), 1.0
    )
    free: I64 = np.minimum(slack, ((1.0 - upper) * np.maximum(open_micros, 0)).astype(np.int64))
    return free


def fade(elapsed_s: float) -> float:
    """The weight that sums of the past keep after ``elapsed_s``."""
    return float(np.exp(-elapsed_s / _MEMORY_S))
