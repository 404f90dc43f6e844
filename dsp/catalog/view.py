"""The catalog with its references resolved, everything by index or id: what the parts of the compiler share."""

from __future__ import annotations

import msgspec

from dsp.catalog.dynamic import filled
from dsp.catalog.markup import Urls
from dsp.catalog.records import Advertiser, Campaign, Catalog, Creative, LineItem, Offer
from dsp.catalog.rules import Hashes
from dsp.catalog.style import STANDARD, style_of


class View:
    """Of one catalog; ``creatives[i]`` are those of line item index i, by id."""

    def __init__(self, catalog: Catalog, public_url: str, version: int, now_s: float) -> None:
        catalog.line_items.sort(key=lambda item: item.id)
        self.version, self.now_s = version, now_s
        self.urls = Urls(public_url)
        self.hashes = Hashes()
        self.advertiser_index = {a.id: i for i, a in enumerate(catalog.advertisers)}
        self.advertisers = catalog.advertisers
        self.campaigns: dict[int, Campaign] = {c.id: c for c in catalog.campaigns}
        self.offers: dict[int, Offer] = {o.id: o for o in catalog.offers}
        self.styles = list(dict.fromkeys([STANDARD, *map(style_of, catalog.exchanges)]))
        self.currencies = {c.code: i for i, c in enumerate(catalog.currencies)}
        self.seats = list(dict.fromkeys(a.seat for a in catalog.advertisers))
        index = {item.id: i for i, item in enumerate(catalog.line_items)}
        self.creatives: list[list[Creative]] = [[] for _ in catalog.line_items]
        for creative in sorted(catalog.creatives, key=lambda c: c.id):
            i = index[creative.line_item_id]
            spec = filled(creative.spec, self.offers[catalog.line_items[i].offer_id].facts)
            if spec is None:
                continue  # the offer no longer has what this ad quotes
            ready = creative if spec is creative.spec else msgspec.structs.replace(creative, spec=spec)
            self.creatives[i].append(ready)

    def advertiser_of(self, item: LineItem) -> Advertiser:
        """Who pays for a line item."""
        return self.advertisers[self.advertiser_index[self.campaigns[item.campaign_id].advertiser_id]]

    def flight(self, item: LineItem) -> tuple[int, int]:
        """The flight of a line item within its campaign's."""
        campaign = self.campaigns[item.campaign_id]
        return max(item.start_s, campaign.start_s), min(item.end_s, campaign.end_s)
