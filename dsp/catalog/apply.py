"""Writing a checked catalog file into the tables: rows are found by name and keep their ids.

Runs inside the caller's transaction; the file has passed `dsp.catalog.check`, so nothing here can be wrong but the
database itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from sqlalchemy import Connection, Table, delete, select, update

from dsp.base.money import parse_micros
from dsp.catalog import tables, types
from dsp.catalog.check import segment_of
from dsp.catalog.check_creative import parse_size
from dsp.catalog.dynamic import expand
from dsp.catalog.layout import NO_LIMIT_MICROS
from dsp.catalog.names import CREDIT_PRODUCTS
from dsp.catalog.records import FOREVER_S
from dsp.catalog.times import parse_instant


class Writer:
    """One file's way into the database."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.offers = {row.name: row for row in connection.execute(select(tables.offer))}
        self._line_items: set[int] = set()

    def write(self, file: types.CatalogFile) -> None:
        """Insert or update everything that ``file`` names."""
        if file.currencies is not None:
            for code, rate in file.currencies.rates.items():
                self._put(tables.currency, {"code": code}, {"usd": float(rate), "date": file.currencies.date})
        for exchange in file.exchanges:
            values = msgspec.structs.asdict(exchange)
            values.pop("fee")  # it is the profile's by now
            values |= {name: _json(values[name]) for name in ("profile", "seats", "ips")}
            self._put(tables.exchange, {"id": values.pop("id")}, values)
        for name, value in file.segments.items():
            number, demographic = segment_of(value)
            self.connection.execute(delete(tables.segment).where(tables.segment.c.name == name))
            self._put(tables.segment, {"number": number}, {"name": name, "demographic": demographic})
        exchanges = {row.name: row.id for row in self.connection.execute(select(tables.exchange))}
        for deal in file.deals:
            values = {"exchange_id": exchanges[deal.exchange], "floor_micros": parse_micros(str(deal.floor))}
            self._put(tables.deal, {"id": deal.id}, {**values, "currency": deal.currency, "at": deal.at})
        for offer in file.offers:
            self._offer(offer)
        self.offers = {row.name: row for row in self.connection.execute(select(tables.offer))}
        for advertiser in file.advertisers:
            self._advertiser(advertiser)

    def archive_unnamed(self) -> None:
        """Archive every line item that this file did not name."""
        everyone = set(self.connection.scalars(select(tables.line_item.c.id)))
        for gone in everyone - self._line_items:
            table = tables.line_item
            self.connection.execute(update(table).where(table.c.id == gone).values(status="archived"))

    def _put(self, table: Table, key: dict[str, Any], values: dict[str, Any]) -> int:
        """Update the row with ``key``, or insert it; its id (0 for a table without a number as its key)."""
        where = [table.c[name] == value for name, value in key.items()]
        primary = next(iter(table.primary_key.columns))
        found = self.connection.execute(select(primary).where(*where)).scalar_one_or_none()
        if found is None:
            inserted = self.connection.execute(table.insert().values(**key, **values)).inserted_primary_key
            found = inserted[0] if inserted is not None else 0
        else:
            self.connection.execute(update(table).where(primary == found).values(**values))
        return found if isinstance(found, int) else 0

    def _offer(self, offer: types.Offer) -> None:
        values: dict[str, Any] = {"product": offer.product, "lender": offer.lender, "currency": offer.currency}
        for name in ("margin", "lgd", "ead"):
            values[name] = float(getattr(offer, name))
        for stage, amount in msgspec.structs.asdict(offer.payouts).items():
            values[f"payout_{stage}"] = float(amount)
        values["facts"] = _json(offer.facts)
        self._put(tables.offer, {"name": offer.name}, values)

    def _advertiser(self, advertiser: types.Advertiser) -> None:
        values = {name: getattr(advertiser, name) for name in ("seat", "currency", "timezone", "bundle", "language")}
        values |= {"margin_ppm": parse_micros(str(advertiser.agency_margin)), "prepaid": advertiser.prepaid}
        values |= {"frequency": _json(advertiser.frequency)}
        values |= {"product_frequency": _json(advertiser.product_frequency)}
        values |= {"domains": _json([d.lower().removeprefix("www.") for d in advertiser.domain])}
        values |= {"categories": _json(advertiser.category), **_budget(advertiser.budget)}
        advertiser_id = self._put(tables.advertiser, {"name": advertiser.name}, values)
        for campaign in advertiser.campaigns:
            c_values = {
                **_budget(campaign.budget),
                **_flight(campaign.flight, advertiser.timezone),
                "status": campaign.status,
                "frequency": _json(campaign.frequency),
                "experiments": _json(campaign.experiments),
            }
            key = {"advertiser_id": advertiser_id, "name": campaign.name}
            campaign_id = self._put(tables.campaign, key, c_values)
            for item in campaign.line_items:
                self._line_item(campaign_id, item, advertiser)

    def _line_item(self, campaign_id: int, item: types.LineItem, advertiser: types.Advertiser) -> None:
        offer = self.offers[item.offer]
        zone_name = item.timezone or advertiser.timezone
        language = item.language or advertiser.language
        values = {
            **{name: getattr(item, name) for name in ("pacing", "strategy", "allow_uncapped", "status")},
            **_budget(item.budget),
            **_flight(item.flight, zone_name),
            "offer_id": offer.id,
            "max_bid_micros": parse_micros(str(item.max_bid_cpm)),
            "timezone": zone_name,
            "language": language,
            "targeting": _json(item.targeting),
            "minute_micros": parse_micros(str(item.spend_per_minute or 0)),
            "tolerance_ppm": parse_micros(str(item.tolerance)),
            "target_micros": parse_micros(str(item.target.cost)) if item.target else 0,
            "target_stage": item.target.stage if item.target else "",
            "click_window_s": int(item.attribution.click_days * 86_400),
            "view_window_s": int(item.attribution.view_hours * 3_600),
            "deals": _json(item.deals),
            "frequency": _json(item.frequency),
            "suppress": _json(item.suppress),
            "deal_only": bool(item.deals) if item.deal_only is None else item.deal_only,
            "credit": item.special_category == "credit" or offer.product in CREDIT_PRODUCTS,
        }
        line_item_id = self._put(tables.line_item, {"campaign_id": campaign_id, "name": item.name}, values)
        self._line_items.add(line_item_id)
        table = tables.creative
        archive = update(table).where(table.c.line_item_id == line_item_id).values(status="archived")
        self.connection.execute(archive)
        for creative in item.creatives:
            for one in _each_size(creative, language):  # of a template: every size of every combination
                w, h = parse_size(one.size) if one.size else (0, 0)
                values = {"format": one.format, "w": w, "h": h, "spec": _json(one), "status": "active"}
                self._put(table, {"line_item_id": line_item_id, "name": one.name}, values)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _budget(budget: types.Budget) -> dict[str, Any]:
    return {
        f"{period}_micros": NO_LIMIT_MICROS if amount is None else parse_micros(str(amount))
        for period, amount in (("total", budget.total), ("daily", budget.daily), ("hourly", budget.hourly))
    }


def _flight(flight: types.Flight, zone_name: str) -> dict[str, Any]:
    return {
        "start_s": 0 if flight.start is None else parse_instant(flight.start, zone_name, end=False),
        "end_s": FOREVER_S if flight.end is None else parse_instant(flight.end, zone_name, end=True),
    }


def _each_size(creative: types.Creative, language: str) -> Iterator[types.Creative]:
    """``creative`` with its language filled in, once per size, "{size}" in its image and markup replaced."""
    for one in expand(creative):
        for size in one.sizes or (one.size,):
            yield msgspec.structs.replace(
                one,
                name=f"{one.name} {size}" if one.sizes else one.name,
                size=size,
                sizes=(),
                image=one.image.replace("{size}", size),
                markup=one.markup.replace("{size}", size),
                language=language,
            )
