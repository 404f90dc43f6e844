"""A line item's targeting as rules of the bitmap index (`dsp.catalog.layout`): which values it accepts or refuses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from dsp.catalog.index import IndexBuilder
from dsp.catalog.layout import (
    DIM_ACAT,
    DIM_AGE,
    DIM_BADV,
    DIM_BAPP,
    DIM_BCAT,
    DIM_BROWSER,
    DIM_BSEAT,
    DIM_CATEGORY,
    DIM_CHANNEL,
    DIM_CONNECTION,
    DIM_DAYPART,
    DIM_DEAL,
    DIM_DEVICETYPE,
    DIM_EXCHANGE,
    DIM_GEO,
    DIM_INCOME,
    DIM_LANGUAGE,
    DIM_MEDIA,
    DIM_NOT_CATEGORY,
    DIM_NOT_GEO,
    DIM_NOT_PUBLISHER,
    DIM_NOT_SEGMENT,
    DIM_NOT_SITE,
    DIM_OS,
    DIM_PUBLISHER,
    DIM_SEGMENT,
    DIM_SITE,
    DIM_SIZE,
    DIM_WLANG,
    DIM_WSEAT,
)
from dsp.catalog.names import AGE_BANDS, CHANNELS, CONNECTIONS, DEVICES
from dsp.catalog.records import Advertiser, Catalog, Creative, LineItem
from dsp.catalog.times import parse_daypart, utc_half_hours
from dsp.openrtb.columns import BANNER, NATIVE, VIDEO
from dsp.openrtb.hashing import hash_combine, hash_text

FLEXIBLE = (0 << 16 | 0) + 1
MEDIA = {"banner": BANNER, "video": VIDEO, "native": NATIVE}


class Hashes(dict[str, int]):
    """`hash_text`, remembered."""

    def __missing__(self, text: str) -> int:
        value = self[text] = hash_text(text)
        return value


def bare_domain(domain: str) -> str:
    """A domain as it is compared: lower case, without "www."."""
    return domain.lower().removeprefix("www.")


def parent_domains(domain: str) -> Iterator[str]:
    """The domain and each domain it is under: a.b.example, b.example, example."""
    while domain:
        yield domain
        domain = domain.partition(".")[2]


def covering(category: str) -> tuple[str, ...]:
    """The categories that cover a category: itself and its tier 1 ("IAB13-4": also "IAB13")."""
    tier1 = category.partition("-")[0]
    return (category,) if tier1 == category else (category, tier1)


class Rules:
    """Puts line items into an index."""

    def __init__(self, catalog: Catalog, builder: IndexBuilder, now_s: float) -> None:
        self.builder = builder
        self.now_s = now_s
        self.hashes = Hashes()
        self.zones: set[str] = set()  # time zones that dayparts were computed with
        self._exchange = {x.name: i + 1 for i, x in enumerate(catalog.exchanges)}
        exchange_of_id = {x.id: i + 1 for i, x in enumerate(catalog.exchanges)}
        self._deal_exchange = {d.id: exchange_of_id[d.exchange_id] for d in catalog.deals}
        self._segment = {s.name: s.number + 1 for s in catalog.segments}
        self._places: dict[str, int] = {}
        self._dayparts: dict[tuple[bytes, str], tuple[int, ...]] = {}
        self._advertisers: dict[int, _AdvertiserValues] = {}

    def add(self, i: int, item: LineItem, advertiser: Advertiser, creatives: list[Creative]) -> None:
        """Add line item ``item``, index ``i``."""
        self._targeting(i, item)
        accept, refuse, h = self.builder.accept, self.builder.refuse, self.hashes
        accept(DIM_DEAL, [h[deal] for deal in item.deals], i)
        if item.deal_only and not item.targeting.exchanges:
            accept(DIM_EXCHANGE, {self._deal_exchange[deal] for deal in item.deals if deal in self._deal_exchange}, i)
        values = self._advertisers.get(advertiser.id)
        if values is None:
            values = self._advertisers[advertiser.id] = _AdvertiserValues(advertiser, h)
        accept(DIM_ACAT, values.acat, i)
        refuse(DIM_BCAT, values.bcat, i)
        refuse(DIM_BADV, values.badv, i)
        refuse(DIM_BAPP, values.bapp, i)
        accept(DIM_WSEAT, values.seat, i)
        refuse(DIM_BSEAT, values.seat, i)
        accept(DIM_WLANG, (h[item.language],), i)
        accept(DIM_MEDIA, {MEDIA[c.format] + 1 for c in creatives}, i)
        sizes = {(c.w << 16 | c.h) + 1 for c in creatives if c.format == "banner"}
        if FLEXIBLE not in sizes:  # a flexible banner takes every size, so it is no rule
            accept(DIM_SIZE, sizes, i)

    def add_condition(self, i: int, item: LineItem) -> None:
        """Add what ``item`` targets, and nothing else of it, as index ``i``."""
        self._targeting(i, item)

    def _targeting(self, i: int, item: LineItem) -> None:
        t, h = item.targeting, self.hashes
        refuse = self.builder.refuse
        if t.geo.include:
            self._accept(DIM_GEO, map(self._place, t.geo.include), i)
        refuse(DIM_NOT_GEO, map(self._place, t.geo.exclude), i)
        self._accept_if(DIM_DEVICETYPE, {n + 1 for name in t.devices for n in DEVICES[name]}, i)
        self._accept_if(DIM_OS, [h[name] for name in t.os], i)
        self._accept_if(DIM_BROWSER, [h[name] for name in t.browsers], i)
        self._accept_if(DIM_CONNECTION, {n + 1 for name in t.connections for n in CONNECTIONS[name]}, i)
        self._accept_if(DIM_LANGUAGE, [h[name] for name in t.languages], i)
        self._accept_if(DIM_CHANNEL, [CHANNELS[name] + 1 for name in t.channels], i)
        self._accept_if(DIM_SITE, [h[bare_domain(d)] for d in t.sites.allow] + [h[b] for b in t.apps.allow], i)
        refuse(DIM_NOT_SITE, [h[bare_domain(d)] for d in t.sites.block] + [h[b] for b in t.apps.block], i)
        self._accept_if(DIM_PUBLISHER, [h[p] for p in t.publishers.allow], i)
        refuse(DIM_NOT_PUBLISHER, [h[p] for p in t.publishers.block], i)
        self._accept_if(DIM_CATEGORY, [h[c] for c in t.categories.include], i)
        refuse(DIM_NOT_CATEGORY, [h[c] for c in t.categories.exclude], i)
        if t.exchanges:
            self._accept(DIM_EXCHANGE, [self._exchange[x] for x in t.exchanges if x in self._exchange], i)
        self._accept_if(DIM_SEGMENT, [self._segment[s] for s in t.segments.include], i)
        refuse(DIM_NOT_SEGMENT, [self._segment[s] for s in t.segments.exclude], i)
        self._accept_if(DIM_AGE, [AGE_BANDS[band] + 1 for band in t.age], i)
        self._accept_if(DIM_INCOME, [band + 1 for band in t.income], i)
        if t.daypart:
            self._accept(DIM_DAYPART, self._half_hours(item), i)

    def _accept(self, dim: int, values: Iterable[int], i: int) -> None:
        self.builder.accept(dim, values, i)

    def _accept_if(self, dim: int, values: list[int] | set[int], i: int) -> None:
        if values:
            self.builder.accept(dim, values, i)

    def _place(self, place: str) -> int:
        """ "USA/CA/Los Angeles" as the combined hash."""
        found = self._places.get(place)
        if found is None:
            parts = place.split("/", 2)
            found = self.hashes[parts[0]]
            for part in parts[1:]:
                found = int(hash_combine(found, self.hashes[part]))
            self._places[place] = found
        return found

    def _half_hours(self, item: LineItem) -> tuple[int, ...]:
        self.zones.add(item.timezone)
        key = (msgspec.json.encode(item.targeting.daypart), item.timezone)
        if key not in self._dayparts:
            local = parse_daypart(item.targeting.daypart)
            self._dayparts[key] = tuple(u + 1 for u in utc_half_hours(local, item.timezone, self.now_s))
        return self._dayparts[key]


class _AdvertiserValues:
    """What requests may say for or against an advertiser's ads, as hashes."""

    def __init__(self, advertiser: Advertiser, h: Hashes) -> None:
        covers = [covering(c) for c in advertiser.categories]
        self.bcat = {h[c] for cover in covers for c in cover}
        # `acat` lists what is allowed: a value admits us only if it covers every category the bid declares.
        every = set(covers[0]).intersection(*covers[1:]) if covers else set()
        self.acat = [h[c] for c in every]
        domains = {parent for d in advertiser.domains for parent in parent_domains(bare_domain(d))}
        self.badv = [h[prefix + d] for d in domains for prefix in ("", "www.")]
        self.bapp = [h[advertiser.bundle]] if advertiser.bundle else []
        self.seat = (h[advertiser.seat],)
