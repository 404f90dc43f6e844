"""What a line item's budgets would buy of the traffic it would bid on, and which of the two ends first.

Its own budgets, its campaign's and its advertiser's hold together, so the least of each kind counts. They are in the
advertiser's currency and include the agency's margin; bids are in the exchange's, and what is won costs no more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from dsp.base.money import MICROS
from dsp.catalog.layout import NO_LIMIT_MICROS
from dsp.catalog.records import Catalog
from dsp.console.reach import Reach


@dataclass(frozen=True)
class Affordable:
    """``daily`` and ``total``: the least budgets, in ``currency``, and whose they are, None without any; ``bought``:
    impressions a day that ``daily`` pays for, at the mean bid; ``days``: how long ``total`` lasts at least.
    """

    currency: str
    daily: float | None
    daily_of: str
    total: float | None
    total_of: str
    bought: float | None
    days: float | None


def _amount(budget: tuple[int, str]) -> int:
    return budget[0]  # of equal ones the first, the nearest


def affordable(catalog: Catalog, line_item: int, found: Reach) -> Affordable | None:
    """Of a line item of ``catalog``; None where it would bid on nothing, or a currency has no rate."""
    item = next(one for one in catalog.line_items if one.id == line_item)
    campaign = next(one for one in catalog.campaigns if one.id == item.campaign_id)
    advertiser = next(one for one in catalog.advertisers if one.id == campaign.advertiser_id)
    usd = {one.code: one.usd for one in catalog.currencies} | {"USD": 1.0}
    if not found.cpm or found.currency not in usd or advertiser.currency not in usd:
        return None
    rate = usd[found.currency] / usd[advertiser.currency] * (1 + advertiser.margin_ppm / 1e6)
    each = found.cpm * rate / 1000
    whose = (("line item", item), ("campaign", campaign), ("advertiser", advertiser))
    daily, daily_of = min(((one.daily_micros, name) for name, one in whose), key=_amount)
    total, total_of = min(((one.total_micros, name) for name, one in whose), key=_amount)
    a_day = None if daily >= NO_LIMIT_MICROS else daily / MICROS
    ever = None if total >= NO_LIMIT_MICROS else total / MICROS
    pace = min(found.bids_a_day * each, math.inf if a_day is None else a_day)
    return Affordable(
        advertiser.currency, a_day, daily_of, ever, total_of, None if a_day is None else a_day / each,
        None if ever is None or not pace else ever / pace,
    )  # fmt: skip
