"""Two versions' bids are told apart, and what they cost and brought is counted by the offer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from dsp.catalog.layout import LI_CURRENCY, LI_ID, LI_WIDTH, LIV_EAD, LIV_LGD, LIV_MARGIN, LIV_PAYOUT_CLICK, LIV_WIDTH
from dsp.catalog.snapshot import Snapshot
from dsp.log.decisions import DECISION_FIELDS
from dsp.log.outcomes import BILLING, CLICK, DEFAULTED, FUNDED, LOSS, WIN
from dsp.model.compared import results


def test_bids_are_counted_for_the_version_that_made_them() -> None:
    rows: dict[str, Any] = {name: np.zeros((6, w) if w else 6, t) for name, (t, w) in DECISION_FIELDS.items()}
    rows["bid_id"] = np.arange(1, 7, dtype=np.uint64)
    rows["line_item"][:] = 40
    rows["model"] = np.array([1, 1, 1, 2, 2, 2], np.uint32)
    rows["bid_cpm_micros"][:] = 4_000_000
    rows["reserve_micros"][:] = 4_000
    told = [
        (1, WIN, 0), (1, BILLING, 2_000_000), (1, CLICK, 0), (2, LOSS, 0), (3, LOSS, 0),
        (4, WIN, 0), (4, FUNDED, 0), (5, WIN, 0), (5, DEFAULTED, 0), (6, LOSS, 0),
    ]  # fmt: skip
    bid, kind, price = zip(*told, strict=True)
    outcomes = {
        "bid_id": np.array(bid, np.uint64), "kind": np.array(kind, np.uint8),
        "price_micros": np.array(price, np.int64), "time_ms": np.full(len(told), 99, np.int64),
    }  # fmt: skip
    li_i, li_v = np.zeros((1, LI_WIDTH), np.int64), np.zeros((1, LIV_WIDTH))
    li_i[0, [LI_ID, LI_CURRENCY]] = 40, 1
    li_v[0, [LIV_MARGIN, LIV_LGD, LIV_EAD, LIV_PAYOUT_CLICK]] = 300.0, 0.5, 1_000.0, 2.0
    snapshot = cast(Snapshot, SimpleNamespace(li_i=li_i, li_v=li_v, cur_usd=np.array([1.0, 0.5])))
    one, two = results(rows, outcomes, snapshot, (1, 2))
    assert one.bids.sum() == two.bids.sum() == 3
    assert (one.shown.sum(), two.shown.sum()) == (1, 2)
    assert one.spent.sum() == 0.5 * 0.002  # the notice said half of the bid
    assert two.spent.sum() == 0.5 * 0.008
    assert one.value.sum() == 0.5 * 2.0
    assert two.value.sum() == 0.5 * (2 * (300.0 + 2.0) - 500.0)
    assert set(one.ratios()) == set(two.ratios())
