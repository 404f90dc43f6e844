"""What may be spent: the budgets, flights and brakes of a snapshot, as the ledger needs them.

A daily budget runs from midnight to midnight of its advertiser's time zone, an hourly one from full hour to full hour
(`dsp.ledger.periods`). Budgets are what the advertiser pays: media cost and the agency's margin on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

from dsp.base.money import impression_micros
from dsp.catalog.layout import (
    EX_BILLABLE,
    EX_EXP_S,
    EX_ID,
    LI_FLAGS,
    LI_ID,
    LI_MAX_BID,
    LIF_PAUSED,
    LIV_EAD,
    LIV_LGD,
    LIV_MARGIN,
    LIV_PAYOUT_APPLY,
    LIV_PAYOUT_APPROVE,
    LIV_PAYOUT_CLICK,
    LIV_PAYOUT_FUND,
    NO_LIMIT_MICROS,
)
from dsp.catalog.records import FOREVER_S
from dsp.catalog.snapshot import Snapshot
from dsp.log.outcomes import APPLIED, APPROVED, BILLING, CLICK, DEFAULTED, FUNDED, IMPRESSION, WIN

NO_LIMIT = NO_LIMIT_MICROS
DEFAULT_EXP_S = 60.0
LEAST_BIDS = 8  # the smallest slice: this many of a line item's largest bids
BILLABLE_BILLING, BILLABLE_WIN, BILLABLE_PIXEL = 0, 1, 2  # catalog.layout.EX_BILLABLE
BILLED_BY = (BILLING, WIN, IMPRESSION)  # the kind of notice that each is


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that may be posted, micros of the account currency."""

    total_micros: int = NO_LIMIT
    daily_micros: int = NO_LIMIT
    hourly_micros: int = NO_LIMIT

    def below(self, other: Budget) -> bool:
        """Whether some limit is lower than ``other``'s."""
        return (
            self.total_micros < other.total_micros
            or self.daily_micros < other.daily_micros
            or self.hourly_micros < other.hourly_micros
        )


@dataclass(frozen=True, slots=True)
class LinePlan:
    """One line item: whose it is and what it may spend."""

    id: int
    campaign: int
    advertiser: int
    currency: str = "USD"
    timezone: str = "UTC"
    least_micros: int = 1
    budget: Budget = Budget()
    name: str = ""
    paused: bool = False
    start_ms: int = 0  # the flight, end exclusive
    end_ms: int = FOREVER_S * 1000
    margin_ppm: int = 0  # the agency's margin, millionths of media cost
    max_bid_cpm_micros: int = 0  # a bid above this is a fault (0: not watched)
    minute_micros: int = 0  # more spend than this within a minute is a fault (0: not watched)
    pacing: str = "even"  # control.pacing.SHAPES
    target_micros: int = 0  # cost per action to hold (0: none), account currency,
    target_stage: str = ""  # of this outcome
    click_window_s: int = 30 * 86_400  # how long after a click a conversion is its doing
    view_window_s: int = 86_400  # ... after an impression
    worth_micros: Mapping[int, int] = field(default_factory=dict)  # of an outcome, by kind, as the offer says
    tolerance_ppm: int = 0  # how far reservations may be counted below their full amount, of the budget (rule 11)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything the ledger takes from a snapshot. Ids are the catalog's."""

    lines: list[LinePlan]
    campaigns: Mapping[int, Budget] = field(default_factory=dict)
    advertisers: Mapping[int, Budget] = field(default_factory=dict)
    billable: Mapping[int, int] = field(default_factory=dict)  # exchange id -> BILLABLE_*
    exp_s: float = DEFAULT_EXP_S  # T: the longest that any reservation lives
    landings: Mapping[int, str] = field(default_factory=dict)  # creative id -> where a click goes
    senders: Mapping[str, int] = field(default_factory=dict)  # bearer token -> the exchange whose notices it may send
    prepaid: frozenset[int] = frozenset()  # advertisers that may spend what they have paid in
    rates: Mapping[str, float] = field(default_factory=dict)  # currency -> US dollars for one unit
    rates_day: str = ""  # ISO date of ``rates``
    version: int = 0


def plan_of(snapshot: Snapshot) -> Plan:
    """The plan in a snapshot: budgets from its ``meta``, the largest bids from the line item columns."""
    meta = snapshot.meta
    advertisers, campaigns, items, creatives = (
        meta[name] for name in ("advertisers", "campaigns", "line_items", "creatives")
    )
    exchanges = snapshot.ex_i
    codes = [code.decode() for code in snapshot.cur_code.tolist()]
    return Plan(
        _lines(snapshot, advertisers, items),
        _budgets(campaigns),
        _budgets(advertisers),
        dict(zip(exchanges[:, EX_ID].tolist(), exchanges[:, EX_BILLABLE].tolist(), strict=True)),
        float(exchanges[:, EX_EXP_S].max()) if len(exchanges) else DEFAULT_EXP_S,
        dict(zip(creatives["id"], creatives["landing"], strict=True)),
        {x["token"]: x["id"] for x in meta.get("exchanges", ()) if x["token"]},
        frozenset(
            key
            for key, prepaid in zip(advertisers["id"], _column(advertisers, "prepaid", False), strict=False)
            if prepaid
        ),
        dict(zip(codes, snapshot.cur_usd.tolist(), strict=True)),
        str(meta.get("rates_day", "")),
        snapshot.version,
    )


def _lines(snapshot: Snapshot, advertisers: Any, items: Any) -> list[LinePlan]:
    zones = dict(zip(advertisers["id"], advertisers["timezone"], strict=True))
    margins = dict(zip(advertisers["id"], _column(advertisers, "margin_ppm", 0), strict=False))
    largest = dict(zip(snapshot.li_i[:, LI_ID].tolist(), snapshot.li_i[:, LI_MAX_BID].tolist(), strict=True))
    budgets = _budgets(items)
    columns = (
        *(items[key] for key in ("id", "campaign_id", "advertiser_id", "currency", "name")),
        *(_column(items, "status", "active"), _column(items, "start_s", 0), _column(items, "end_s", FOREVER_S)),
        *(_column(items, "minute_micros", 0), _column(items, "tolerance_ppm", 0)),
        zip(
            *(_column(items, "pacing", "even"), _column(items, "target_micros", 0), _column(items, "target_stage", "")),
            *(_column(items, "click_window_s", 30 * 86_400), _column(items, "view_window_s", 86_400)),
            strict=False,
        ),
    )
    paused = dict(
        zip(snapshot.li_i[:, LI_ID].tolist(), (snapshot.li_i[:, LI_FLAGS] & LIF_PAUSED).tolist(), strict=True)
    )
    worth = dict(zip(snapshot.li_i[:, LI_ID].tolist(), map(_worth, snapshot.li_v.tolist()), strict=False))
    return [
        LinePlan(
            item,
            campaign,
            advertiser,
            currency,
            zones[advertiser],
            max(1, LEAST_BIDS * impression_micros(largest.get(item, 0))),
            budgets[item],
            name,
            bool(paused.get(item)) or status != "active",
            start_s * 1000,
            end_s * 1000,
            margins.get(advertiser, 0),
            largest.get(item, 0),
            minute,
            pacing=goals[0],
            target_micros=goals[1],
            target_stage=goals[2],
            click_window_s=goals[3],
            view_window_s=goals[4],
            worth_micros=worth.get(item, {}),
            tolerance_ppm=tolerance,
        )
        for item, campaign, advertiser, currency, name, status, start_s, end_s, minute, tolerance, goals in zip(
            *columns, strict=False
        )
    ]


def _worth(offer: list[float]) -> dict[int, int]:
    """What each outcome brings, micros, from a row of ``li_v``: design 4's value with what happened for what may."""
    units = {
        CLICK: offer[LIV_PAYOUT_CLICK],
        APPLIED: offer[LIV_PAYOUT_APPLY],
        APPROVED: offer[LIV_PAYOUT_APPROVE],
        FUNDED: offer[LIV_PAYOUT_FUND] + offer[LIV_MARGIN],
        DEFAULTED: -offer[LIV_LGD] * offer[LIV_EAD],
    }
    return {kind: round(value * 1e6) for kind, value in units.items() if value}


def _column(lists: Mapping[str, Any], name: str, default: Any) -> Iterable[Any]:
    """A column that snapshots of an earlier release do not have."""
    columns: Mapping[str, Any] = getattr(lists, "columns", lists)
    return columns[name] if name in columns else repeat(default, len(columns["id"]))


def _budgets(lists: Mapping[str, Any]) -> dict[int, Budget]:
    hourly = _column(lists, "hourly_micros", NO_LIMIT)
    rows = zip(lists["id"], lists["total_micros"], lists["daily_micros"], hourly, strict=True)
    return {key: Budget(total, daily, hour) for key, total, daily, hour in rows}
