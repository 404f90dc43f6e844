"""What may be spent: the budgets of a snapshot, as the ledger needs them, and which budget period a moment is in.

A daily budget runs from midnight to midnight of its advertiser's time zone. Periods are numbered: 0 is all time, n is
the local day n days after 1970-01-01.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from dsp.base.money import impression_micros
from dsp.catalog.layout import EX_BILLABLE, EX_EXP_S, EX_ID, LI_ID, LI_MAX_BID, NO_LIMIT_MICROS
from dsp.catalog.snapshot import Snapshot

NO_LIMIT = NO_LIMIT_MICROS
ALL_TIME = 0
DEFAULT_EXP_S = 60.0
LEAST_BIDS = 8  # the smallest slice: this many of a line item's largest bids
BILLABLE_BILLING = 0
BILLABLE_WIN = 1
_EPOCH_DAY = datetime(1970, 1, 1).toordinal()


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that may be posted, micros of the account currency."""

    total_micros: int = NO_LIMIT
    daily_micros: int = NO_LIMIT


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


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything the ledger takes from a snapshot. Ids are the catalog's."""

    lines: list[LinePlan]
    campaigns: Mapping[int, Budget] = field(default_factory=dict)
    advertisers: Mapping[int, Budget] = field(default_factory=dict)
    billable: Mapping[int, int] = field(default_factory=dict)  # exchange id -> BILLABLE_*
    exp_s: float = DEFAULT_EXP_S  # T: the longest that any reservation lives
    landings: Mapping[int, str] = field(default_factory=dict)  # creative id -> where a click goes
    version: int = 0


class Zone:
    """The current period of one time zone, recomputed only when a day ends."""

    def __init__(self, name: str) -> None:
        self._zone = ZoneInfo(name)
        self.period = 0
        self._from_ms = self._until_ms = 0.0

    def roll(self, time_ms: int) -> bool:
        """Move to ``time_ms``; True when a new period began (none begins twice, should a clock be set back)."""
        if self._from_ms <= time_ms < self._until_ms:
            return False
        local = datetime.fromtimestamp(time_ms / 1000, self._zone)
        midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
        self._from_ms = midnight.astimezone(UTC).timestamp() * 1000
        tomorrow = (midnight.replace(tzinfo=None) + timedelta(days=1)).replace(tzinfo=self._zone)
        self._until_ms = tomorrow.astimezone(UTC).timestamp() * 1000
        before, self.period = self.period, max(self.period, local.toordinal() - _EPOCH_DAY)
        return before != self.period


def plan_of(snapshot: Snapshot) -> Plan:
    """The plan in a snapshot: budgets from its ``meta``, the largest bids from the line item columns."""
    meta = snapshot.meta
    advertisers, campaigns, items, creatives = (
        meta[name] for name in ("advertisers", "campaigns", "line_items", "creatives")
    )
    zones = dict(zip(advertisers["id"], advertisers["timezone"], strict=True))
    largest = dict(zip(snapshot.li_i[:, LI_ID].tolist(), snapshot.li_i[:, LI_MAX_BID].tolist(), strict=True))
    budgets = _budgets(items)
    lines = [
        LinePlan(
            item,
            campaign,
            advertiser,
            currency,
            zones[advertiser],
            max(1, LEAST_BIDS * impression_micros(largest.get(item, 0))),
            budgets[item],
            name,
        )
        for item, campaign, advertiser, currency, name in zip(
            *(items[key] for key in ("id", "campaign_id", "advertiser_id", "currency", "name")), strict=True
        )
    ]
    exchanges = snapshot.ex_i
    return Plan(
        lines,
        _budgets(campaigns),
        _budgets(advertisers),
        dict(zip(exchanges[:, EX_ID].tolist(), exchanges[:, EX_BILLABLE].tolist(), strict=True)),
        float(exchanges[:, EX_EXP_S].max()) if len(exchanges) else DEFAULT_EXP_S,
        dict(zip(creatives["id"], creatives["landing"], strict=True)),
        snapshot.version,
    )


def _budgets(lists: Mapping[str, list[int]]) -> dict[int, Budget]:
    rows = zip(lists["id"], lists["total_micros"], lists["daily_micros"], strict=True)
    return {key: Budget(total, daily) for key, total, daily in rows}
