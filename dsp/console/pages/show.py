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
    return [(k, _short(before.get(k)), _short(after[k])) for k in after if before.get(k) != after[k]]


def _short(value: Any) -> str:
    if isinstance(value, dict):
        value = {k: v for k, v in value.items() if v is not None}
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 300 else text[:300] + "…"


def address(path: str, query: Mapping[str, Any]) -> str:
    """A path with its query; what is None or empty is left out."""
    given = {k: v for k, v in query.items() if v not in (None, "") and k not in ("lang", "done")}
    return path + ("?" + urlencode(given) if given else "")
