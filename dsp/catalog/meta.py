"""The texts of a snapshot, for everybody who is not in the hot path: ledger, console, reports, start-up.

Scalars ``version revision compiled_s valid_until_s public_url``; lists of text ``currencies seats``; lists of objects
``exchanges segments offers deals experiments``; `Table` (rows by iteration, columns by name) ``advertisers campaigns
line_items creatives``; in the order of the arrays' indices where there are arrays. Amounts are micros of the line
item's ``currency``; no limit is `layout.NO_LIMIT_MICROS`. Flights are unix seconds, a line item's within its
campaign's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from dsp.catalog.records import FOREVER_S, Advertiser, Catalog
from dsp.catalog.table import Table
from dsp.catalog.times import next_offset_change
from dsp.catalog.types import Arm, Experiment
from dsp.catalog.view import View
from dsp.openrtb.hashing import hash_text

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
        "experiments": experiments(catalog),
    }


def experiment_id(campaign_id: int, experiment: Experiment) -> int:
    """The number that logs know an experiment by, 1 .. 2^32 - 1: another name or salt is another experiment."""
    return hash_text(f"{campaign_id}/{experiment.name}/{experiment.salt}") & 0xFFFFFFFF or 1


def experiments(catalog: Catalog) -> list[dict[str, Any]]:
    """Every experiment, line items by id; each arm's "only" is the ids of the creatives it may show, None for all."""
    offers = {offer.id: offer.name for offer in catalog.offers}
    out = []
    for campaign in catalog.campaigns:
        for spec in campaign.experiments:
            items = {
                item.id: offers[item.offer_id]
                for item in catalog.line_items
                if item.campaign_id == campaign.id and (not spec.line_items or item.name in spec.line_items)
            }
            ads = [(creative.id, creative.name, items.get(creative.line_item_id)) for creative in catalog.creatives]
            arms = [
                {
                    "name": arm.name,
                    "share": float(arm.share),
                    "control": arm.control,
                    "bid": float(arm.bid),
                    "model": arm.model,
                    "only": _only(arm, ads) if arm.creatives or arm.offers else None,
                }
                for arm in spec.arms
            ]
            of = {"campaign_id": campaign.id, "advertiser_id": campaign.advertiser_id, "line_items": list(items)}
            number = experiment_id(campaign.id, spec)
            out.append({"id": number, "name": spec.name, "status": spec.status, **of, "arms": arms})
    return out


def _only(arm: Arm, ads: list[tuple[int, str, str | None]]) -> list[int]:
    """Ids of the creatives that an arm may show, of ``ads`` (id, name, offer or None where not in the experiment)."""
    return [
        number
        for number, name, offer in ads
        if offer is not None
        and (not arm.offers or offer in arm.offers)
        and (not arm.creatives or any(_is_named(name, wanted) for wanted in arm.creatives))
    ]


def _is_named(name: str, wanted: str) -> bool:
    """Whether a creative is the one that a file calls ``wanted``, or one of its sizes."""
    return name == wanted or name.startswith(f"{wanted} ")


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
