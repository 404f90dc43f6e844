"""What became of each logged decision: outcomes joined by bid id, and each head's population and label.

A head learns only from rows that reached the stage before it: clicks among shown impressions, applications among
clicks, approvals among applications, funding among approvals, defaults among funded. A later stage proves the earlier
ones (a postback whose click was lost is still a click). Test requests never count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dsp.log.outcomes import (
    APPLIED,
    APPROVED,
    BILLING,
    CLICK,
    DEFAULTED,
    FUNDED,
    IMPRESSION,
    LOSS,
    REGISTERED,
    WIN,
)
from dsp.model.context import HEADS

TEST_FLAG = 1  # dsp.base.token.TOKEN_TEST in the decision's flags
HORIZON_SHARE = 0.99  # of the positives that a horizon waits for
SETTLE_MS = 10_000  # a bid without any notice for so long is a lost one

Bool = npt.NDArray[np.bool_]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
SECOND_PRICE = 2  # `at`


@dataclass(frozen=True)
class Labels:
    """Per decision row. For the win curve: ``won`` and ``settled`` bool[n], and ``price`` float64[n], the price to win
    in CPM micros of the bid's currency, NaN where no notice told it.

    For the heads: ``stage`` bool[n, 6], column 0 shown, column h + 1 head h came true; ``usable`` bool[n, heads] where
    the row is in the head's population and old enough to tell; ``ripe`` bool[n] where it is for every head.
    """

    won: Bool
    settled: Bool
    price: F64
    stage: Bool
    usable: Bool
    ripe: Bool

    def of(self, head: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """(rows of the head's population, their labels 0/1)."""
        rows = np.flatnonzero(self.usable[:, head])
        return rows, self.stage[rows, head + 1].astype(np.float64)


def join_labels(
    decisions: Mapping[str, Any], outcomes: Mapping[str, Any], horizon_ms: Mapping[str, int] | None = None
) -> Labels:
    """Join the columns of `dsp.log.read_decisions` and `read_outcomes` by bid id.

    ``horizon_ms``: per head, how long after the decision its label needs to be known; younger rows are left out of
    that head, positive or not (keeping early positives alone would overstate the rate). Outcomes of unknown bids are
    ignored, repeated ones count once.
    """
    rows, kind = _rows_of(decisions["bid_id"], outcomes["bid_id"]), outcomes["kind"].astype(np.int64)
    known = rows >= 0
    seen = np.zeros(len(decisions["bid_id"]), np.int64)
    np.bitwise_or.at(seen, rows[known], np.int64(1) << kind[known])

    def has(*kinds: int) -> Bool:
        return np.asarray(seen & sum(1 << kind for kind in kinds) != 0)

    n = len(seen)
    stage = np.zeros((n, len(HEADS) + 1), np.bool_)
    stage[:, 5] = has(DEFAULTED)
    stage[:, 4] = has(FUNDED) | stage[:, 5]
    stage[:, 3] = has(APPROVED) | stage[:, 4]
    stage[:, 2] = has(APPLIED) | stage[:, 3]
    stage[:, 1] = has(CLICK, REGISTERED) | stage[:, 2]
    stage[:, 0] = has(BILLING, IMPRESSION) | stage[:, 1] | _billed_by_win(decisions["exchange"], has(WIN), has(BILLING))

    time_ms = decisions["time_ms"]
    newest = max(time_ms.max(initial=0), outcomes["time_ms"].max(initial=0))
    real = (decisions["flags"] & TEST_FLAG) == 0
    usable = stage[:, :-1] & real[:, None]
    for h, head in enumerate(HEADS):
        usable[:, h] &= time_ms <= newest - (horizon_ms or {}).get(head, 0)
    ripe = time_ms <= newest - max((horizon_ms or {}).values(), default=0)
    won = has(WIN) | stage[:, 0]
    settled = real & (won | has(LOSS) | (time_ms <= newest - SETTLE_MS))
    # A loss may name the minimum that had won; what a second-price win paid is that minimum.
    tells = known & (outcomes["price_micros"] > 0)
    tells &= (kind == LOSS) | ((kind == WIN) & (decisions["at"][rows] == SECOND_PRICE))
    price = np.full(n, np.nan)
    price[rows[tells]] = outcomes["price_micros"][tells]
    return Labels(won, settled, price, stage, usable, np.asarray(ripe))


def stage_times(decisions: Mapping[str, Any], outcomes: Mapping[str, Any]) -> I64:
    """int64[n, heads]: unix ms at which head h of a bid is known to have come true; -1 where it has not.

    A later stage proves the earlier ones, at its own time.
    """
    rows = _rows_of(decisions["bid_id"], outcomes["bid_id"])
    never = np.iinfo(np.int64).max
    out = np.full((len(decisions["bid_id"]), len(HEADS)), never)
    for h, kinds in enumerate(((CLICK, REGISTERED), (APPLIED,), (APPROVED,), (FUNDED,), (DEFAULTED,))):
        told = (rows >= 0) & np.isin(outcomes["kind"], kinds)
        np.minimum.at(out[:, h], rows[told], outcomes["time_ms"][told])
    for h in range(len(HEADS) - 2, -1, -1):
        out[:, h] = np.minimum(out[:, h], out[:, h + 1])
    return np.where(out == never, -1, out)


def learned_horizons(decisions: Mapping[str, Any], outcomes: Mapping[str, Any]) -> dict[str, int]:
    """Per head, the milliseconds after a bid within which HORIZON_SHARE of its positives came; 0 without any.

    A label younger than that is not ripe: that nothing came yet does not make it a negative. Where a log is shorter
    than the delays it learns too short a horizon at first, and a longer one with every run.
    """
    times = stage_times(decisions, outcomes)
    out = {}
    for h, head in enumerate(HEADS):
        came = times[:, h] >= 0
        delay = times[came, h] - decisions["time_ms"][came]
        out[head] = int(max(np.quantile(delay, HORIZON_SHARE), 0)) if len(delay) else 0
    return out


def label_times(decisions: Mapping[str, Any], outcomes: Mapping[str, Any], horizon_ms: Mapping[str, int]) -> I64:
    """int64[n, heads]: when each label became known, a positive with its outcome, a negative after its horizon."""
    times = stage_times(decisions, outcomes)
    ripe = decisions["time_ms"][:, None] + np.array([horizon_ms.get(head, 0) for head in HEADS])
    return np.where(times >= 0, times, ripe)


def _rows_of(bid_id: npt.NDArray[np.uint64], wanted: npt.NDArray[np.uint64]) -> I64:
    """int64[k]: the decision row of each ``wanted`` bid, -1 where there is none."""
    if not len(bid_id):
        return np.full(len(wanted), -1, np.int64)
    order = np.argsort(bid_id, kind="stable")
    rows = order[np.minimum(np.searchsorted(bid_id, wanted, sorter=order), len(bid_id) - 1)]
    return np.where(bid_id[rows] == wanted, rows, -1)


def _billed_by_win(exchange: npt.NDArray[np.uint16], win: Bool, billing: Bool) -> Bool:
    """Wins of exchanges that never send a billing notice: there the win is the impression."""
    bills = np.bincount(exchange[billing], minlength=int(exchange.max(initial=0)) + 1) > 0
    return np.asarray(win & ~bills[exchange])
