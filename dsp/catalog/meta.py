"""The texts of a snapshot, for everybody who is not in the hot path: ledger, console, reports, start-up.

Scalars ``version revision compiled_s valid_until_s public_url``; lists of text ``currencies seats``; lists of objects,
in the order of the arrays' indices where there are arrays: ``exchanges segments offers deals advertisers campaigns
line_items creatives``. Amounts are micros of the line item's ``currency``; no limit is `layout.NO_LIMIT_MICROS`.
Flights are unix seconds, a line item's within its campaign's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from dsp.catalog.records import FOREVER_S, Catalog, Creative, LineItem
from dsp.catalog.times import next_offset_change
from dsp.catalog.view import View

_ADVERTISER = ("id", "name", "currency", "seat", "domains", "timezone", "total_micros", "daily_micros")
_CAMPAIGN = ("id", "name", "advertiser_id", "total_micros", "daily_micros", "start_s", "end_s", "status")
_EXCHANGE = ("id", "name", "token", "billable", "seat", "currency")


def build_meta(catalog: Catalog, view: View, zones: Iterable[str]) -> dict[str, Any]:
    """The meta of a compiled catalog; ``zones`` are the time zones whose offsets the snapshot depends on."""
    changes = [at for name in sorted(zones) if (at := next_offset_change(name, view.now_s)) is not None]
    advertisers = {a.id: a for a in catalog.advertisers}
    return {
        "version": view.version,
        "revision": catalog.revision,
        "compiled_s": int(view.now_s),
        "valid_until_s": min(changes, default=FOREVER_S),
        "public_url": view.urls.public,
        "currencies": [c.code for c in catalog.currencies],
        "seats": view.seats,
        "exchanges": _objects(catalog.exchanges, _EXCHANGE),
        "segments": _objects(catalog.segments, ("name", "number", "demographic")),
        "offers": [msgspec.structs.asdict(o) for o in catalog.offers],
        "deals": [msgspec.structs.asdict(d) for d in catalog.deals],
        "advertisers": _objects(catalog.advertisers, _ADVERTISER),
        "campaigns": [
            {**campaign, "currency": advertiser.currency, "timezone": advertiser.timezone}
            for campaign in _objects(catalog.campaigns, _CAMPAIGN)
            for advertiser in (advertisers[campaign["advertiser_id"]],)
        ],
        "line_items": [_line_item(item, view) for item in catalog.line_items],
        "creatives": [_creative(creative) for of_item in view.creatives for creative in of_item],
    }


def _objects(records: Sequence[msgspec.Struct], names: tuple[str, ...]) -> list[dict[str, Any]]:
    return [{name: getattr(record, name) for name in names} for record in records]


def _line_item(item: LineItem, view: View) -> dict[str, Any]:
    advertiser = view.advertiser_of(item)
    start_s, end_s = view.flight(item)
    return {
        "id": item.id,
        "name": item.name,
        "campaign_id": item.campaign_id,
        "advertiser_id": advertiser.id,
        "offer_id": item.offer_id,
        "product": view.offers[item.offer_id].product,
        "currency": advertiser.currency,
        "total_micros": item.total_micros,
        "daily_micros": item.daily_micros,
        "timezone": item.timezone,
        "start_s": start_s,
        "end_s": end_s,
        "pacing": item.pacing,
        "status": item.status,
    }


def _creative(creative: Creative) -> dict[str, Any]:
    return {
        "id": creative.id,
        "name": creative.name,
        "line_item_id": creative.line_item_id,
        "landing": creative.spec.landing,
        "w": creative.w,
        "h": creative.h,
        "format": creative.format,
    }
