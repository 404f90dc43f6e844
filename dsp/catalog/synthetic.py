"""Random catalogs of any size, realistic in their mix of targeting, for benchmarks and tests.

The words (places, devices, segment numbers, exchanges) are those of the example catalog and of the synthetic market, so
market traffic meets the rules: of 5,000 line items some tens to a few hundred want a given request. Everything comes
from one seed and goes through the same compiler as a real catalog.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from typing import Any

from dsp.catalog.compile import Arrays, compile_catalog
from dsp.catalog.layout import PRODUCTS
from dsp.catalog.names import CREDIT_PRODUCTS
from dsp.catalog.records import (
    Advertiser,
    Campaign,
    Catalog,
    Creative,
    Currency,
    Deal,
    Exchange,
    LineItem,
    Offer,
    Segment,
)
from dsp.catalog.types import AllowBlock, Image, IncludeExclude, Native, Targeting
from dsp.catalog.types import Creative as Spec

COUNTRIES = ("USA", "GBR", "DEU", "CHN")
_COUNTRY_SHARE = (0.46, 0.16, 0.16, 0.22)
REGIONS = {
    "USA": ("CA", "NY", "TX", "FL", "IL", "WA", "GA", "PA", "OH", "MA", "AZ", "CO", "NC", "MI"),
    "GBR": ("ENG", "SCT", "WLS"),
    "DEU": ("BE", "BY", "HH", "NW", "HE", "BW", "SN"),
    "CHN": ("GD", "BJ", "SH", "ZJ", "SC", "HB", "SN"),
}
CITIES = (
    "USA/CA/Los Angeles",
    "USA/NY/New York",
    "GBR/ENG/London",
    "DEU/BE/Berlin",
    "CHN/SH/Shanghai",
    "USA/TX/Austin",
)
_LANGUAGE = {"USA": "en", "GBR": "en", "DEU": "de", "CHN": "zh"}
_ZONE = {"USA": "America/New_York", "GBR": "Europe/London", "DEU": "Europe/Berlin", "CHN": "Asia/Shanghai"}
SEGMENT_NUMBERS = (*range(101, 106), *range(111, 116), *range(121, 126), *range(131, 139), *range(141, 147))
_SEGMENTS = tuple(f"segment-{number}" for number in SEGMENT_NUMBERS)
CATEGORIES = (
    "IAB13", "IAB3", "IAB12", "IAB15", "IAB17", "IAB19", "IAB1", "IAB9", "IAB22", "IAB20", "IAB10", "IAB2", "IAB21",
    "IAB13-4", "IAB3-1", "IAB17-12", "IAB19-6", "IAB9-30",
)  # fmt: skip
SIZES = ("300x250", "320x50", "728x90", "300x600", "160x600", "970x250", "320x100", "320x480", "336x280", "300x50")
_SIZE_SHARE = (0.3, 0.2, 0.12, 0.09, 0.07, 0.05, 0.06, 0.05, 0.03, 0.03)
_DAYPARTS: tuple[dict[str, Any], ...] = (
    {"mon-fri": "8-20"},
    {"daily": "7-23"},
    {"weekdays": ["7-10", "17-23"], "weekend": "9-23"},
    {"daily": "17-24"},
)
_MICROS = 1_000_000
_DOMAINS = 400
_PUBLISHERS = 160


def synthetic_catalog(n_line_items: int, seed: int, *, creatives: float | None = None) -> Catalog:
    """A catalog of ``n_line_items``; ``creatives`` per line item on average (3, or 1.5 above 20,000 line items)."""
    rng = Random(f"{seed}/{n_line_items}")
    mean = creatives if creatives is not None else 3.0 if n_line_items <= 20_000 else 1.5
    n_advertisers = min(800, max(5, n_line_items // 25))
    n_campaigns = max(n_advertisers, n_line_items // 6)
    offers = _offers(rng)
    countries = rng.choices(COUNTRIES, _COUNTRY_SHARE, k=n_advertisers)
    advertisers = [_advertiser(i, country) for i, country in enumerate(countries)]
    campaigns = [Campaign(i + 1, advertisers[i % n_advertisers].id, f"campaign {i + 1}") for i in range(n_campaigns)]
    home = [countries[i % n_advertisers] for i in range(n_campaigns)]
    deals = [Deal(f"deal-{i}", 1 + i % 3, int(2.5 * _MICROS), "USD", 1) for i in range(60)]
    specs = _Specs(rng)
    line_items: list[LineItem] = []
    ads: list[Creative] = []
    for i in range(n_line_items):
        campaign, country = campaigns[i % n_campaigns], home[i % n_campaigns]
        item = _line_item(rng, _Draw(rng), i + 1, campaign, rng.choice(offers), country, deals)
        line_items.append(item)
        for spec in specs.draw(mean, country):
            w, h = (int(part) for part in spec.size.split("x")) if spec.size else (0, 0)
            ads.append(Creative(len(ads) + 1, item.id, spec.name, spec.format, w, h, spec))
    return Catalog(
        revision=1,
        currencies=[Currency("USD", 1.0), Currency("EUR", 1.08), Currency("GBP", 1.27), Currency("CNY", 0.139)],
        exchanges=_exchanges(),
        segments=[Segment(number, f"segment-{number}") for number in SEGMENT_NUMBERS],
        deals=deals,
        offers=offers,
        advertisers=advertisers,
        campaigns=campaigns,
        line_items=line_items,
        creatives=ads,
    )


def synthetic_snapshot(
    n_line_items: int, seed: int, *, version: int = 1, public_url: str = "https://dsp.example", now_s: float = 1.75e9
) -> tuple[Arrays, dict[str, Any]]:
    """`synthetic_catalog`, compiled: arrays and meta, ready for `Snapshot` or `write_snapshot`."""
    return compile_catalog(synthetic_catalog(n_line_items, seed), version, public_url, now_s)


def _exchanges() -> list[Exchange]:
    return [
        Exchange(i + 1, name, f"{name}-demo-token", 0, 10, 200, currency, 60, auction, "burl", "")
        for i, (name, currency, auction) in enumerate(
            (("alpha", "USD", "first"), ("beta", "EUR", "second"), ("gamma", "CNY", "first"))
        )
    ]


def _advertiser(i: int, country: str) -> Advertiser:
    category = ("IAB13", "IAB13-2", "IAB13-4", "IAB13-6", "IAB13-7")[i % 5]
    return Advertiser(
        i + 1,
        f"advertiser {i + 1}",
        f"seat-{i + 1}",
        (f"bank-{i + 1}.example",),
        (category,),
        "USD",
        _ZONE[country],
        f"com.bank{i + 1}.app" if i % 4 == 0 else "",
        _LANGUAGE[country],
    )


def _offers(rng: Random) -> list[Offer]:
    """Twenty offers, sized for the market's brisk world (see the example catalog)."""
    margin = {"loan": 22.0, "credit_card": 17.0, "insurance": 5.0, "wealth": 11.0, "deposit": 4.0}
    exposure = {"loan": 600.0, "credit_card": 300.0}
    offers = []
    for i in range(20):
        product = PRODUCTS[i % len(PRODUCTS)]
        scale = math.exp(rng.gauss(0, 0.25))
        ead = exposure.get(product, 0.0) * scale
        lgd = 0.5 if ead else 0.0
        apply = 0.05 if i % 2 else 0.0
        name = f"{product} {i + 1}"
        offers.append(
            Offer(
                i + 1,
                name,
                product,
                f"lender {i % 7 + 1}",
                "USD",
                margin[product] * scale,
                lgd,
                ead,
                0.0,
                apply,
                0.0,
                0.0,
            )
        )
    return offers


class _Draw:
    """Uniform numbers by the name of what they decide."""

    geo: float
    devices: float
    os: float
    browsers: float
    connections: float
    languages: float
    channels: float
    sites: float
    publishers: float
    categories: float
    daypart: float
    exchanges: float
    segments: float
    not_segments: float
    age: float
    income: float
    deals: float
    uncapped: float
    bid: float

    def __init__(self, rng: Random) -> None:
        for name in self.__annotations__:
            setattr(self, name, rng.random())


def _line_item(
    rng: Random, u: _Draw, number: int, campaign: Campaign, offer: Offer, country: str, deals: list[Deal]
) -> LineItem:
    credit = offer.product in CREDIT_PRODUCTS
    own = tuple(deal.id for deal in rng.sample(deals, 1 + int(u.deals * 20))) if u.deals < 0.07 else ()
    return LineItem(
        id=number,
        campaign_id=campaign.id,
        offer_id=offer.id,
        name=f"line item {number}",
        max_bid_micros=int(400 + 1400 * u.bid**2) * (_MICROS // 100),  # 4 to 18 CPM
        timezone=_ZONE[country],
        language=_LANGUAGE[country],
        total_micros=1_000_000 * _MICROS,
        daily_micros=100_000 * _MICROS,
        targeting=_targeting(rng, u, country, credit),
        deals=own,
        deal_only=u.deals < 0.04,
        allow_uncapped=u.uncapped < 0.85,
        credit=credit,
    )


def _targeting(rng: Random, u: _Draw, country: str, credit: bool) -> Targeting:
    """Each dimension is restricted on its own, with the shares that campaigns of this kind have."""

    def some(names: Sequence[str], most: int) -> tuple[str, ...]:
        return tuple(dict.fromkeys(rng.choices(names, k=1 + int(rng.random() * most))))

    geo: tuple[str, ...] = (country,)
    if u.geo < 0.05:
        geo = ()
    elif u.geo < 0.35:
        geo = tuple(f"{country}/{region}" for region in some(REGIONS[country], 4))
    elif u.geo < 0.42:
        geo = some(CITIES, 2)
    segments = _SEGMENTS
    included = some(segments, 2) if u.segments < 0.42 else ()
    excluded = tuple(s for s in some(segments, 2) if s not in included) if u.not_segments < 0.15 else ()
    sites = AllowBlock()
    if u.sites < 0.25:
        names = tuple(f"site-{k}.example" for k in rng.sample(range(_DOMAINS), 25))
        sites = AllowBlock(allow=names) if u.sites < 0.07 else AllowBlock(block=names)
    publishers = AllowBlock()
    if u.publishers < 0.08:
        owners = tuple(f"pub-{k:04d}" for k in rng.sample(range(_PUBLISHERS), 12))
        publishers = AllowBlock(allow=owners) if u.publishers < 0.02 else AllowBlock(block=owners)
    categories = IncludeExclude()
    if u.categories < 0.4:
        wanted = some(CATEGORIES, 4)
        categories = IncludeExclude(include=wanted) if u.categories < 0.28 else IncludeExclude(exclude=wanted)
    return Targeting(
        geo=IncludeExclude(geo),
        devices=some(("mobile", "phone", "desktop", "tablet"), 2) if u.devices < 0.35 else (),
        os=some(("ios", "android", "windows", "macos"), 2) if u.os < 0.25 else (),
        browsers=some(("chrome", "safari", "firefox", "edge", "app"), 3) if u.browsers < 0.08 else (),
        connections=("wifi",) if u.connections < 0.04 else ("wifi", "4g", "5g") if u.connections < 0.1 else (),
        languages=(_LANGUAGE[country],) if u.languages < 0.15 else (),
        channels=("site",) if u.channels < 0.2 else ("app",) if u.channels < 0.4 else (),
        sites=sites,
        publishers=publishers,
        categories=categories,
        daypart=_DAYPARTS[int(u.daypart * 4 / 0.25)] if u.daypart < 0.25 else {},
        exchanges=some(("alpha", "beta", "gamma"), 2) if u.exchanges < 0.15 else (),
        segments=IncludeExclude(included, excluded),
        age=some(("18-24", "25-34", "35-44", "45-54", "55-64", "65+"), 4) if u.age < 0.08 and not credit else (),
        income=tuple(range(1 + int(u.income * 50), 7)) if u.income < 0.08 else (),
    )


class _Specs:
    """A stock of ads; line items share them, only ids and tokens differ."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._stock: dict[tuple[str, str, str], Spec] = {}

    def draw(self, mean: float, country: str) -> list[Spec]:
        """About ``mean`` ads, in different formats and sizes."""
        rng = self._rng
        count = 1 + sum(rng.random() < (mean - 1) / 6 for _ in range(6))
        kinds = [("banner", size) for size in rng.choices(SIZES, _SIZE_SHARE, k=count)]
        if rng.random() < 0.22:
            kinds[-1] = ("native", "")
        if rng.random() < 0.18:
            kinds[0] = ("video", "")
        return [self._spec(kind, size, country) for kind, size in dict.fromkeys(kinds)]

    def _spec(self, kind: str, size: str, country: str) -> Spec:
        key = (kind, size, country)
        if key not in self._stock:
            self._stock[key] = self._make(kind, size, country)
        return self._stock[key]

    @staticmethod
    def _make(kind: str, size: str, country: str) -> Spec:
        landing = f"https://bank.example/{country.lower()}/offer"
        name = f"{kind} {size}".strip()
        if kind == "banner":
            return Spec(
                name, "banner", landing, size, headline="See your rate in two minutes",
                text="It does not touch your credit score.", cta="Check my rate", disclosure="Terms apply.",
            )  # fmt: skip
        if kind == "video":
            media = "https://cdn.bank.example/offer-15s.mp4"
            return Spec(name, "video", landing, headline="See your rate", media=media, duration_s=15, protocol=3)
        native = Native(
            "See your rate in two minutes", "It does not touch your credit score.", "Check my rate", "A bank",
            Image("https://cdn.bank.example/icon.png", 128, 128), Image("https://cdn.bank.example/main.jpg", 1200, 627),
        )  # fmt: skip
        return Spec(name, "native", landing, native=native)
