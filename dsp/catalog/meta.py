"""The texts of a snapshot, for everybody who is not in the hot path: ledger, console, reports, start-up.

Scalars ``version revision compiled_s valid_until_s public_url``; lists of text ``currencies seats``; lists of objects
``exchanges segments offers deals``; `Table` (rows by iteration, columns by name) ``advertisers campaigns line_items
creatives``; in the order of the arrays' indices where there are arrays. Amounts are micros of the line item's
``currency``; no limit is `layout.NO_LIMIT_MICROS`. Flights are unix seconds, a line item's within its campaign's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from dsp.catalog.records import FOREVER_S, Advertiser, Catalog
from dsp.catalog.table import Table
from dsp.catalog.times import next_offset_change
from dsp.catalog.view import View

_ADVERTISER = (
    "id",
    "name",
    "currency",
    "seat",
    "domains",
    "timezone",
    "total_micros",
    "daily_micros",
    "hourly_micros",
    "margin_ppm",
    "prepaid",
)
_CAMPAIGN = (
    "id",
    "name",
    "advertiser_id",
    "total_micros",
    "daily_micros",
    "hourly_micros",
    "start_s",
    "end_s",
    "status",
)
_LINE_ITEM = (
    "id", "name", "campaign_id", "offer_id", "total_micros", "daily_micros", "timezone", "pacing", "status",
    "hourly_micros", "minute_micros", "tolerance_ppm", "target_micros", "target_stage", "click_window_s",
    "view_window_s",
)  # fmt: skip
_EXCHANGE = ("id", "name", "token", "billable", "seat", "currency", "client_header", "ips", "match_url")


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
        "rates_day": max((c.date for c in catalog.currencies), default=""),
        "seats": view.seats,
        "exchanges": [
            {**of_exchange, "price": x.profile.price, "seats": [x.seats.get(seat, seat) for seat in view.seats]}
            for x, of_exchange in zip(catalog.exchanges, _objects(catalog.exchanges, _EXCHANGE), strict=True)
        ],
        "segments": _objects(catalog.segments, ("name", "number", "demographic")),
        "offers": [msgspec.structs.asdict(o) for o in catalog.offers],
        "deals": [msgspec.structs.asdict(d) for d in catalog.deals],
        "advertisers": _table(catalog.advertisers, _ADVERTISER),
        "campaigns": _campaigns(catalog, advertisers),
        "line_items": _line_items(catalog, view),
        "creatives": _creatives(view),
    }


def _objects(records: Sequence[msgspec.Struct], names: tuple[str, ...]) -> list[dict[str, Any]]:
    return [{name: getattr(record, name) for name in names} for record in records]


def _columns(records: Sequence[msgspec.Struct], names: tuple[str, ...]) -> dict[str, list[Any]]:
    return {name: [getattr(record, name) for record in records] for name in names}


def _table(records: Sequence[msgspec.Struct], names: tuple[str, ...]) -> Table:
    return Table(_columns(records, names))


def _campaigns(catalog: Catalog, advertisers: dict[int, Advertiser]) -> Table:
    owners = [advertisers[campaign.advertiser_id] for campaign in catalog.campaigns]
    return Table({**_columns(catalog.campaigns, _CAMPAIGN), **_columns(owners, ("currency", "timezone"))})


def _line_items(catalog: Catalog, view: View) -> Table:
    owners = [view.advertiser_of(item) for item in catalog.line_items]
    flights = [view.flight(item) for item in catalog.line_items]
    return Table(
        {
            **_columns(catalog.line_items, _LINE_ITEM),
            "advertiser_id": [owner.id for owner in owners],
            "currency": [owner.currency for owner in owners],
            "product": [view.offers[item.offer_id].product for item in catalog.line_items],
            "start_s": [start_s for start_s, _ in flights],
            "end_s": [end_s for _, end_s in flights],
        }
    )


def _creatives(view: View) -> Table:
    creatives = [creative for of_item in view.creatives for creative in of_item]
    landing = [creative.spec.landing for creative in creatives]
    return Table({**_columns(creatives, ("id", "name", "line_item_id", "w", "h", "format")), "landing": landing})
