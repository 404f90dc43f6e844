"""The sites and apps of the synthetic market: who publishes what, in which country, how good, in which formats.

A few hundred, made from a seed out of word lists; domains end in ``.example`` (RFC 2606), so nothing here names a real
publisher. The static part of a request's site or app object is built once per property.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dsp.market.people import AFFINITIES
from dsp.market.places import COUNTRIES

Json = dict[str, Any]

# name words, IAB 1.0 categories, affinity, base quality, floor in USD CPM, weight
TOPICS: tuple[tuple[tuple[str, ...], tuple[str, ...], str, float, float, float], ...] = (
    (
        ("ledger", "capital", "moneywise", "finpost", "savvy"),
        ("IAB13", "IAB13-4", "IAB13-7"),
        "finance",
        0.80,
        1.6,
        1.3,
    ),
    (("rates", "lender", "creditguide"), ("IAB13-2", "IAB13-3"), "finance", 0.70, 1.8, 0.7),
    (("business", "venture", "market"), ("IAB3", "IAB3-1", "IAB3-9"), "finance", 0.75, 1.2, 0.8),
    (("daily", "herald", "courier", "tribune"), ("IAB12", "IAB12-2", "IAB11"), "news", 0.65, 0.8, 2.4),
    (("weather", "forecast"), ("IAB15", "IAB15-10"), "news", 0.55, 0.5, 1.4),
    (("goal", "stadium", "pitch"), ("IAB17", "IAB17-12"), "sports", 0.50, 0.6, 1.6),
    (("gadget", "byte", "circuit"), ("IAB19", "IAB19-6", "IAB19-18"), "technology", 0.60, 0.8, 1.3),
    (("stream", "cinema", "celebrity"), ("IAB1", "IAB1-5", "IAB1-7"), "entertainment", 0.40, 0.5, 2.0),
    (("puzzle", "arcade", "quest", "saga"), ("IAB9", "IAB9-30"), "entertainment", 0.30, 0.4, 2.6),
    (("bargain", "basket", "outlet"), ("IAB22", "IAB22-2"), "shopping", 0.55, 0.7, 1.3),
    (("voyage", "trail", "jetset"), ("IAB20", "IAB20-27"), "travel", 0.65, 0.9, 0.9),
    (("garden", "nest", "kitchen"), ("IAB10", "IAB10-5", "IAB8"), "home", 0.55, 0.6, 1.2),
    (("motor", "torque"), ("IAB2", "IAB2-4"), "home", 0.60, 1.0, 0.8),
    (("homes", "realty"), ("IAB21", "IAB21-3"), "home", 0.70, 1.3, 0.6),
)
_SECOND = ("hub", "world", "today", "online", "now", "insider", "plus", "base", "central", "post")
_COUNTRY_TLD = {"USA": "", "GBR": "-uk", "DEU": "-de", "CHN": "-cn"}

SITES_PER_COUNTRY = 55
APPS_PER_COUNTRY = 32


@dataclass(frozen=True)
class Site:
    """One site or app."""

    index: int
    is_app: bool
    country: int  # COUNTRIES index
    name: str
    domain: str  # of the site, or of the app's maker
    bundle_ios: str
    bundle_android: str
    categories: tuple[str, ...]
    affinity: int  # AFFINITIES index
    quality: float  # 0..1: how attentive its visitors are
    floor_usd: float  # typical CPM floor
    video: float  # share of its slots that are video, and native
    native: float
    publisher: Json
    static: Json  # the request's site or app object but for page, content and bundle
    weight: float


def make_sites(seed: int) -> tuple[Site, ...]:
    """Every property of the market, the same for the same seed."""
    rng = np.random.default_rng([seed, 0x517E])
    sites: list[Site] = []
    for country in range(len(COUNTRIES)):
        for k in range(SITES_PER_COUNTRY + APPS_PER_COUNTRY):
            sites.append(_make(rng, len(sites), country, k >= SITES_PER_COUNTRY))
    return tuple(sites)


def _make(rng: np.random.Generator, index: int, country: int, is_app: bool) -> Site:
    words, categories, affinity, quality, floor, weight = TOPICS[int(rng.integers(len(TOPICS)))]
    first, second = str(rng.choice(words)), str(rng.choice(_SECOND))
    code = COUNTRIES[country].code
    slug = f"{first}{second}{_COUNTRY_TLD[code]}-{index:03d}"
    name = f"{first.title()} {second.title()}"
    domain = f"{slug}.example"
    owner = int(rng.integers(40)) + 100 * country  # publishers own several properties
    publisher: Json = {
        "id": f"pub-{owner:04d}",
        "name": f"{('Northgate', 'Harbour', 'Meridian', 'Silverline', 'Redwood')[owner % 5]} Media {owner}",
        "domain": f"media{owner}.example",
    }
    static: Json = {
        "id": f"{'a' if is_app else 's'}{20_000 + index}",
        "name": name,
        "domain": domain,
        "cattax": 1,
        "cat": list(categories),
        "sectioncat": [categories[-1]],
        "privacypolicy": 1,
        "publisher": publisher,
        "keywords": ",".join((first, second, affinity, code.lower())),
    }
    if is_app:
        static |= {"ver": f"{rng.integers(1, 9)}.{rng.integers(0, 20)}.{rng.integers(0, 9)}", "paid": 0}
    return Site(
        index=index,
        is_app=is_app,
        country=country,
        name=name,
        domain=domain,
        bundle_ios=str(1_000_000_000 + int(rng.integers(600_000_000))),
        bundle_android=f"com.{first}.{second}{index}",
        categories=categories,
        affinity=AFFINITIES.index(affinity),
        quality=float(np.clip(quality + rng.normal(0, 0.12), 0.05, 0.98)),
        floor_usd=float(floor * np.exp(rng.normal(0, 0.3))),
        video=float(rng.choice([0.0, 0.05, 0.15, 0.35], p=[0.4, 0.3, 0.2, 0.1])),
        native=float(rng.choice([0.0, 0.1, 0.3], p=[0.4, 0.3, 0.3])) + (0.1 if is_app else 0.0),
        publisher=publisher,
        static=static,
        weight=float(weight * rng.pareto(1.3) + 0.1),
    )
