"""How values are written: money with its currency, counts, shares, times, differences, addresses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

NONE = "–"
_THIN = "\u00a0"
_STEPS = ((1e9, "B"), (1e6, "M"), (1e3, "k"))


def money(micros: float | None, currency: str = "") -> str:
    """Micros as "1,234.50 USD"."""
    if micros is None:
        return NONE
    text = f"{micros / 1e6:,.2f}"
    return f"{text}{_THIN}{currency}" if currency else text


def amount(text: str | float | None, currency: str = "") -> str:
    """A decimal of the catalog as "1,234.50 USD"; a dash for none."""
    return NONE if text in (None, "") else money(float(text or 0) * 1e6, currency)


def count(n: float | None) -> str:
    """ "12,345"."""
    return NONE if n is None else f"{n:,.0f}"


def compact(n: float | None) -> str:
    """ "12.3k"."""
    if n is None:
        return NONE
    for step, unit in _STEPS:
        if abs(n) >= step:
            return f"{n / step:.3g}{unit}"
    return f"{n:.3g}"


def share(value: float | None, digits: int = 1) -> str:
    """A part of one as "12.3 %"."""
    return NONE if value is None else f"{value * 100:.{digits}f}{_THIN}%"


def change(value: float) -> str:
    """A part of one, with its sign."""
    return f"{value * 100:+.0f}{_THIN}%"


def ratio(value: float | None) -> str:
    """What each unit spent brought: "1.42 x"."""
    return NONE if value is None else f"{value:.2f}{_THIN}×"


def when(s: float) -> str:
    """Unix seconds as UTC."""
    return datetime.fromtimestamp(s, UTC).strftime("%Y-%m-%d %H:%M:%S")


def difference(change: Any) -> list[tuple[str, str, str]]:
    """What a change changed: (field, before, after)."""
    before, after = change.before or {}, change.after or {}
    if not isinstance(after, dict) or not isinstance(before, dict) or not before:
        return []
    old, new = _flat(before), _flat(after)
    return [(k, _short(old.get(k)), _short(new.get(k))) for k in new if old.get(k) != new[k]]


def _flat(one: dict[str, Any]) -> dict[str, Any]:
    """A budget and a flight as fields of their own: who reads what changed sees the one amount or time that did."""
    found: dict[str, Any] = {}
    for name, value in one.items():
        parts = dict.fromkeys(_PARTS.get(name, ())) | value if isinstance(value, dict) else value
        inside = name in _PARTS and isinstance(parts, dict)
        found |= {f"{name}.{k}": v for k, v in parts.items()} if inside else {name: value}
    return found


_PARTS = {"budget": ("total", "daily", "hourly"), "flight": ("start", "end")}
FIELDS = {  # a field in the API's words, and in a person's
    "name": "Name", "status": "Status", "budget": "Budget", "total": "Total budget", "daily": "Daily budget",
    "hourly": "Hourly budget", "flight": "Flight", "start": "Start", "end": "End", "max_bid_cpm": "Maximum bid, CPM",
    "offer": "Offer", "pacing": "Pacing", "targeting": "Targeting", "creatives": "Creatives", "creative": "Creative",
    "deals": "Deals", "frequency": "Frequency cap", "target": "Goal", "attribution": "Attribution",
    "timezone": "Time zone", "experiments": "Experiments", "currency": "Currency", "seat": "Seat",
    "domain": "Domains", "category": "Categories", "language": "Language", "agency_margin": "Agency's margin",
    "prepaid": "Prepaid", "product_frequency": "Frequency cap by product", "special_category": "Special category",
    "email": "E-mail", "password": "Password", "roles": "Roles", "role": "Role", "disabled": "Locked out",
    "code": "One-time code", "url": "Picture", "scopes": "Scopes", "spec": "The ad", "format": "Format", "size": "Size",
    "landing": "Landing page", "id": "Number", "advertiser_id": "Advertiser", "campaign_id": "Campaign",
    "line_item_id": "Line item", "bill": "Bill", "action": "What", "report": "Report",
}  # fmt: skip


def field(name: str) -> str:
    """What a person calls a field, by the last step of its path; what has no name of its own stays as it is."""
    return FIELDS.get(name.rpartition(".")[2], name)


def _short(value: Any) -> str:
    if isinstance(value, dict):
        value = {k: v for k, v in value.items() if v is not None}
    if value is None or isinstance(value, bool):
        return NONE if value is None else "yes" if value else "no"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 300 else text[:300] + "…"


def address(path: str, query: Mapping[str, Any]) -> str:
    """A path with its query; what is None or empty is left out."""
    given = {k: v for k, v in query.items() if v not in (None, "") and k not in ("lang", "done")}
    return path + ("?" + urlencode(given) if given else "")
