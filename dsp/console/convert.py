"""Catalog rows back to the words of the catalog file (`dsp.catalog.types`): what the API shows and takes.

The inverse of `dsp.catalog.apply`, so that the API, the pages and the file share one vocabulary and one set of checks.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from dsp.base.money import MICROS
from dsp.catalog import types
from dsp.catalog.layout import NO_LIMIT_MICROS
from dsp.catalog.records import FOREVER_S
from dsp.catalog.times import zone

_CAPS = msgspec.json.Decoder(tuple[types.Cap, ...]).decode
_PRODUCT_CAPS = msgspec.json.Decoder(dict[str, tuple[types.Cap, ...]]).decode
_NAMES = msgspec.json.Decoder(tuple[str, ...]).decode
_EXPERIMENTS = msgspec.json.Decoder(tuple[types.Experiment, ...]).decode
_TARGETING = msgspec.json.Decoder(types.Targeting).decode
_CREATIVE = msgspec.json.Decoder(types.Creative).decode


def decimal(micros: int) -> str:
    """Micros as the shortest decimal: "12.5"."""
    text = f"{Decimal(micros) / MICROS:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _amount(micros: int) -> str | None:
    return None if micros >= NO_LIMIT_MICROS else decimal(micros)


def budget_of(row: Any) -> types.Budget:
    """The budget of a row of advertiser, campaign or line item."""
    return types.Budget(_amount(row.total_micros), _amount(row.daily_micros), _amount(row.hourly_micros))


def flight_of(row: Any, zone_name: str) -> types.Flight:
    """The flight, as ISO times with their offset."""
    start = None if row.start_s <= 0 else datetime.fromtimestamp(row.start_s, zone(zone_name)).isoformat()
    end = None if row.end_s >= FOREVER_S else datetime.fromtimestamp(row.end_s, zone(zone_name)).isoformat()
    return types.Flight(start, end)


def advertiser_of(row: Any) -> types.Advertiser:
    """Without its campaigns."""
    return types.Advertiser(
        name=row.name, seat=row.seat, domain=_NAMES(row.domains), category=_NAMES(row.categories),
        currency=row.currency, timezone=row.timezone, bundle=row.bundle, language=row.language, budget=budget_of(row),
        agency_margin=decimal(row.margin_ppm), prepaid=row.prepaid, frequency=_CAPS(row.frequency),
        product_frequency=_PRODUCT_CAPS(row.product_frequency),
    )  # fmt: skip


def campaign_of(row: Any, zone_name: str) -> types.Campaign:
    """Without its line items. An archived one reads as paused."""
    return types.Campaign(
        name=row.name, budget=budget_of(row), flight=flight_of(row, zone_name),
        status="active" if row.status == "active" else "paused", frequency=_CAPS(row.frequency),
        experiments=_EXPERIMENTS(row.experiments),
    )  # fmt: skip


def creative_of(row: Any) -> types.Creative:
    """One ad in one size."""
    return msgspec.structs.replace(_CREATIVE(row.spec), name=row.name)


def line_item_of(row: Any, offer: str, creatives: list[Any]) -> types.LineItem:
    """With its creatives (rows). An archived one reads as paused."""
    return types.LineItem(
        name=row.name, offer=offer, max_bid_cpm=decimal(row.max_bid_micros), budget=budget_of(row),
        creatives=tuple(creative_of(c) for c in creatives), pacing=row.pacing,
        target=types.Target(decimal(row.target_micros), row.target_stage) if row.target_micros else None,
        attribution=types.Windows(row.click_window_s / 86_400, row.view_window_s / 3_600),
        flight=flight_of(row, row.timezone), timezone=row.timezone, targeting=_TARGETING(row.targeting),
        strategy=row.strategy, deals=_NAMES(row.deals), deal_only=row.deal_only, allow_uncapped=row.allow_uncapped,
        special_category="credit" if row.credit else "none", status="active" if row.status == "active" else "paused",
        spend_per_minute=decimal(row.minute_micros) if row.minute_micros else None,
        tolerance=decimal(row.tolerance_ppm), language=row.language, frequency=_CAPS(row.frequency),
        suppress=_NAMES(row.suppress),
    )  # fmt: skip
