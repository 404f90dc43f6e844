"""What became of the bids that two model versions made: per bid, what it won, cost and brought."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dsp.catalog.layout import (
    LI_CURRENCY,
    LI_ID,
    LIV_EAD,
    LIV_LGD,
    LIV_MARGIN,
    LIV_PAYOUT_APPLY,
    LIV_PAYOUT_APPROVE,
    LIV_PAYOUT_CLICK,
    LIV_PAYOUT_FUND,
)
from dsp.catalog.snapshot import Snapshot
from dsp.log.outcomes import BILLING, WIN
from dsp.model.labels import join_labels

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Results:
    """Of the settled bids of one version, float64[n] each: 1 where shown, clicked, funded; USD spent and brought."""

    bids: F64
    shown: F64
    clicks: F64
    funded: F64
    spent: F64
    value: F64

    def ratios(self) -> dict[str, tuple[F64, F64]]:
        """What is compared: (numerator, denominator) by name."""
        return {
            "win rate": (self.shown, self.bids),
            "cost per thousand shown, USD": (1_000 * self.spent, self.shown),
            "click rate": (self.clicks, self.shown),
            "cost per funded, USD": (self.spent, self.funded),
            "value per USD spent": (self.value, self.spent),
            "profit per thousand bids, USD": (1_000 * (self.value - self.spent), self.bids),
        }


def brought(stage: F64, offer: F64) -> F64:
    """Worth float64[n], account currency: ``stage`` float64[n, 5] says which heads came true, or how likely they all
    are up to each (click, click and apply, …); ``offer`` float64[n, LIV_WIDTH]. The design's value formula.
    """
    out = stage[:, 3] * (offer[:, LIV_MARGIN] + offer[:, LIV_PAYOUT_FUND])
    out -= stage[:, 4] * offer[:, LIV_LGD] * offer[:, LIV_EAD]
    for column, payout in ((0, LIV_PAYOUT_CLICK), (1, LIV_PAYOUT_APPLY), (2, LIV_PAYOUT_APPROVE)):
        out += stage[:, column] * offer[:, payout]
    return np.asarray(out)


@dataclass(frozen=True)
class Fates:
    """Of each decision: ``stage`` float64[n, 6] as `labels.Labels` has it, USD ``spent`` and ``value`` float64[n],
    ``settled`` and ``known`` (whether the snapshot has its line item) bool[n].
    """

    stage: F64
    spent: F64
    value: F64
    settled: npt.NDArray[np.bool_]
    known: npt.NDArray[np.bool_]


def fates(decisions: Mapping[str, Any], outcomes: Mapping[str, Any], snapshot: Snapshot) -> Fates:
    """What became of each. What a shown impression cost is its notice's price, or without one what was reserved."""
    labels = join_labels(decisions, outcomes)
    at, known = rows_of_line_items(decisions["line_item"], snapshot)
    usd = snapshot.cur_usd[snapshot.li_i[at, LI_CURRENCY]]
    stage = labels.stage.astype(np.float64)
    value = brought(stage[:, 1:], snapshot.li_v[at]) * usd
    spent = stage[:, 0] * decisions["reserve_micros"] * 1e-6 * _paid_share(decisions, outcomes) * usd
    return Fates(stage, spent, value, labels.settled, known)


def rows_of_line_items(
    numbers: npt.NDArray[Any], snapshot: Snapshot
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """(rows int64[n] of line items by public id, bool[n] whether there is one)."""
    ids = snapshot.li_i[:, LI_ID]  # sorted
    at = np.minimum(np.searchsorted(ids, numbers), len(ids) - 1)
    return at, ids[at] == numbers


def results(
    decisions: Mapping[str, Any], outcomes: Mapping[str, Any], snapshot: Snapshot, versions: tuple[int, ...]
) -> list[Results]:
    """One per version, see `fates`."""
    fate = fates(decisions, outcomes, snapshot)
    out = []
    for version in versions:
        rows = (decisions["model"] == version) & fate.settled & fate.known
        of = fate.stage[rows]
        out.append(Results(np.ones(len(of)), of[:, 0], of[:, 1], of[:, 4], fate.spent[rows], fate.value[rows]))
    return out


def _paid_share(decisions: Mapping[str, Any], outcomes: Mapping[str, Any]) -> F64:
    """Price paid over bid, float64[n]; 1 where no notice said it."""
    out = np.ones(len(decisions["bid_id"]))
    told = np.isin(outcomes["kind"], (WIN, BILLING)) & (outcomes["price_micros"] > 0)
    order = np.argsort(decisions["bid_id"], kind="stable")
    if not len(order):
        return out
    wanted = outcomes["bid_id"][told]
    at = order[np.minimum(np.searchsorted(decisions["bid_id"], wanted, sorter=order), len(order) - 1)]
    right = decisions["bid_id"][at] == wanted
    out[at[right]] = outcomes["price_micros"][told][right] / np.maximum(decisions["bid_cpm_micros"][at[right]], 1)
    return np.minimum(out, 1.0)
