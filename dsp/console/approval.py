"""What one person may not decide alone: a campaign that may spend more than `console.approval_above`.

What a campaign may spend is its total budget, over all its life; without one it may spend anything, whatever its daily
budget and its flight say today, since both can be moved tomorrow. Asked where a catalog is changed, so it holds for
API, pages, bulk changes, undo and command line alike. Line items spend within their campaign and are not asked about.
What has been live and approved may be made smaller, and go on, by one person.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from dsp.catalog import tables
from dsp.console.errors import ApiError

_Shown = dict[str, Any]


def limit_of(campaign: _Shown) -> float:
    """What it may ever spend, in its advertiser's currency."""
    total = campaign["budget"].get("total")
    return math.inf if total is None else float(total)


def may_cost_more(before: _Shown, after: _Shown) -> bool:
    """Whether a live campaign may spend more, or faster where nothing but its pace and its flight limit it."""
    if limit_of(after) < math.inf:
        return limit_of(after) > limit_of(before)
    if limit_of(before) < math.inf:
        return True
    for name in ("daily", "hourly"):
        if _amount(after["budget"].get(name)) > _amount(before["budget"].get(name)):
            return True
    was, now = before["flight"], after["flight"]
    return _time(now.get("end"), math.inf) > _time(was.get("end"), math.inf) or (
        _time(now.get("start"), -math.inf) < _time(was.get("start"), -math.inf)
    )


def require_second(connection: Connection, above_usd: float, kind: str, before: _Shown | None, after: _Shown) -> None:
    """Raise 409 where the change needs a second person. An advertiser's currency can't be changed at all."""
    if kind != "campaign" or after["status"] != "active":
        return
    if before is not None and before["status"] == "active" and not may_cost_more(before, after):
        return
    if limit_of(after) == math.inf:
        raise ApiError(
            409, "approval", f"without a total budget it may spend anything; give it one of at most "
            f"{above_usd:,.0f} USD, or send it for review by a second person",
        )  # fmt: skip
    if _usd(connection, after) > above_usd:
        raise ApiError(
            409, "approval", f"it may spend more than {above_usd:,.0f} USD; send it for review by a second person"
        )


def _usd(connection: Connection, campaign: _Shown) -> float:
    c, a = tables.currency.c, tables.advertiser.c
    rate = select(c.usd).join(tables.advertiser, a.currency == c.code).where(a.id == campaign["advertiser_id"])
    return limit_of(campaign) * float(connection.execute(rate).scalar() or 1.0)


def _amount(value: Any) -> float:
    return math.inf if value is None else float(value)


def _time(value: str | None, without: float) -> float:
    return without if value is None else datetime.fromisoformat(value).timestamp()


def needs_second(connection: Connection, above_usd: float, campaign: _Shown) -> bool:
    """Whether one person may not let this campaign go live."""
    if not above_usd:
        return False
    try:
        require_second(connection, above_usd, "campaign", None, {**campaign, "status": "active"})
    except ApiError:
        return True
    return False
