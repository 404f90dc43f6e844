"""Index rows against a brute-force matcher that reads the catalog's own words, on random catalogs and requests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import numpy as np
import pytest

from dsp.catalog import layout as ly
from dsp.catalog.compile import compile_catalog
from dsp.catalog.index import find_row
from dsp.catalog.names import AGE_BANDS, CHANNELS, CONNECTIONS, DEVICES
from dsp.catalog.records import Advertiser, Catalog, Creative, LineItem
from dsp.catalog.snapshot import Snapshot
from dsp.catalog.synthetic import CATEGORIES, CITIES, REGIONS, SEGMENT_NUMBERS, synthetic_catalog
from dsp.catalog.times import zone
from dsp.openrtb.columns import BANNER, NATIVE, VIDEO
from dsp.openrtb.hashing import hash_combine, hash_text

NOW_S = datetime(2026, 7, 15, 12, tzinfo=UTC).timestamp()
Request = dict[str, Any]


def random_request(rng: Random, catalog: Catalog) -> Request:
    country = rng.choice(("USA", "GBR", "DEU", "CHN", "FRA"))
    region = rng.choice((*REGIONS.get(country, ()), "", "ZZ"))
    cities = [c.split("/")[2] for c in CITIES if c.startswith(f"{country}/{region}/")]
    a = rng.choice(catalog.advertisers)
    return {
        "country": country,
        "region": region,
        "city": rng.choice((*cities, "Elsewhere", "")) if region else "",
        "devicetype": rng.randrange(9),
        "os": rng.choice(("iOS", "Android", "windows", "macos", "linux", "")),
        "browser": rng.choice(("chrome", "safari", "app", "")),
        "connection": rng.randrange(8),
        "language": rng.choice(("en", "de", "zh", "fr", "")),
        "channel": rng.randrange(4),
        "site": rng.choice((f"site-{rng.randrange(400)}.example", "Other.example", "")),
        "publisher": f"pub-{rng.randrange(160):04d}",
        "cats": rng.sample((*CATEGORIES, "IAB13-9", "IAB25-1"), rng.randrange(3)),
        "half_hour": rng.randrange(336),
        "exchange": rng.randrange(3),
        "segments": rng.sample(SEGMENT_NUMBERS, rng.randrange(8)) if rng.random() < 0.8 else None,  # None: no profile
        "age": rng.randrange(7),
        "income": rng.randrange(7),
        "acat": rng.choice((None, None, ["IAB13"], ["IAB13-2", "IAB1"], ["IAB7"])),
        "bcat": rng.choice(([], ["IAB25", "IAB7-39"], ["IAB13-4"], ["IAB13"], ["iab13-2"])),
        "badv": rng.choice(([], ["other.example"], [a.domains[0].upper()], ["www." + a.domains[0]], ["example"])),
        "bapp": rng.choice(([], [a.bundle or "x"], ["com.other"])),
        "wseat": rng.choice((None, None, [a.seat, "seat-2"], ["nobody"])),
        "bseat": rng.choice(([], [a.seat])),
        "wlang": rng.choice((None, None, ["EN"], ["de", "zh"], ["fr"])),
        "deal": rng.choice((*(d.id for d in catalog.deals), "unknown")),
        "size": rng.choice(((300, 250), (320, 50), (728, 90), (1, 1))),
        "media": rng.choice((BANNER, VIDEO, NATIVE)),
    }


def geo_matches(places: tuple[str, ...], q: Request) -> bool:
    here = [q["country"], f"{q['country']}/{q['region']}", f"{q['country']}/{q['region']}/{q['city']}"]
    if not q["region"]:
        here = here[:1]
    elif not q["city"]:
        here = here[:2]
    return any(p.lower() == h.lower() for p in places for h in here)


def in_daypart(item: LineItem, half_hour: int) -> bool:
    """Whether the beginning of a UTC half hour of the week lies in the line item's local daypart."""
    offset = datetime.fromtimestamp(NOW_S, zone(item.timezone)).utcoffset()
    local = datetime(2026, 1, 5, tzinfo=UTC) + timedelta(minutes=30 * half_hour) + offset
    groups = {"mon-fri": range(5), "weekdays": range(5), "weekend": (5, 6), "daily": range(7)}
    for days, spans in item.targeting.daypart.items():
        for span in [spans] if isinstance(spans, str) else spans:
            start, end = (int(h) for h in span.split("-"))
            if local.weekday() in groups[days] and start * 60 <= local.hour * 60 + local.minute < end * 60:
                return True
    return False


def covers(listed: list[str], category: str) -> bool:
    return any(category.lower() == c.lower() or category.lower().startswith(c.lower() + "-") for c in listed)


def under(domain: str, blocked: str) -> bool:
    blocked = blocked.lower().removeprefix("www.")
    return domain == blocked or domain.endswith("." + blocked)


def wants(item: LineItem, advertiser: Advertiser, ads: list[Creative], catalog: Catalog, q: Request) -> dict[str, bool]:
    """Each rule of the line item and whether the request meets it, straight from the file's words."""
    t = item.targeting
    segments = {f"segment-{n}" for n in q["segments"] or ()}
    exchange = catalog.exchanges[q["exchange"]].name
    deal_exchanges = {d.exchange_id for d in catalog.deals if d.id in item.deals}
    known = q["segments"] is not None

    def one(names, value) -> bool:
        return not names or value.lower() in [n.lower() for n in names]

    def numbers(table, names, value) -> bool:
        return not names or (value > 0 and any(value in table[name] for name in names))

    return {
        "geo": not t.geo.include or geo_matches(t.geo.include, q),
        "not_geo": not geo_matches(t.geo.exclude, q),
        "devicetype": numbers(DEVICES, t.devices, q["devicetype"]),
        "os": one(t.os, q["os"]),
        "browser": one(t.browsers, q["browser"]),
        "connection": numbers(CONNECTIONS, t.connections, q["connection"]),
        "language": one(t.languages, q["language"]),
        "channel": not t.channels or q["channel"] in [CHANNELS[c] for c in t.channels],
        "site": one(t.sites.allow + t.apps.allow, q["site"]),
        "not_site": not q["site"] or q["site"].lower() not in t.sites.block + t.apps.block,
        "publisher": one(t.publishers.allow, q["publisher"]),
        "not_publisher": q["publisher"] not in t.publishers.block,
        "category": not t.categories.include or any(covers(list(t.categories.include), c) for c in q["cats"]),
        "not_category": not any(covers(list(t.categories.exclude), c) for c in q["cats"]),
        "daypart": not t.daypart or in_daypart(item, q["half_hour"]),
        "exchange": exchange in t.exchanges
        if t.exchanges
        else not item.deal_only or catalog.exchanges[q["exchange"]].id in deal_exchanges,
        "segment": not t.segments.include or bool(segments & set(t.segments.include)),
        "not_segment": not segments & set(t.segments.exclude),
        "age": not t.age or (known and q["age"] in [AGE_BANDS[b] for b in t.age]),
        "income": not t.income or (known and q["income"] in t.income),
        "acat": q["acat"] is None or all(covers(q["acat"], c) for c in advertiser.categories),
        "bcat": not any(covers(q["bcat"], c) for c in advertiser.categories),
        "badv": not any(under(d, b) for d in advertiser.domains for b in q["badv"]),
        "bapp": not advertiser.bundle or advertiser.bundle not in q["bapp"],
        "wseat": q["wseat"] is None or advertiser.seat in q["wseat"],
        "bseat": advertiser.seat not in q["bseat"],
        "wlang": q["wlang"] is None or item.language in [x.lower() for x in q["wlang"]],
        "deal": q["deal"] in item.deals,
        "size": any(c.format == "banner" and (c.w, c.h) in (q["size"], (0, 0)) for c in ads),
        "media": any({"banner": BANNER, "video": VIDEO, "native": NATIVE}[c.format] == q["media"] for c in ads),
    }


def looked_up(s: Snapshot, q: Request) -> dict[str, np.ndarray]:
    """The same rules from the index, as the engine reads it: boolean arrays over line items."""
    n = len(s.li_i)

    def row(number: int) -> np.ndarray:
        return np.unpackbits(s.rows[number].view(np.uint8), bitorder="little")[:n].astype(bool)

    def inclusive(dim: int, values: list[int]) -> np.ndarray:
        found = [r for v in values if (r := find_row(s.dim_keys, s.dim_rows, dim, v)) >= 0]
        return np.logical_or.reduce([row(r) for r in found or [int(s.dim_any[dim])]])

    def exclusive(dim: int, values: list[int]) -> np.ndarray:
        found = [r for v in values if (r := find_row(s.dim_keys, s.dim_rows, dim, v)) >= 0]
        return ~np.logical_or.reduce([row(r) for r in found] or [np.zeros(n, bool)])

    def listed(dim: int, names: list[str] | None) -> np.ndarray:
        return np.ones(n, bool) if names is None else inclusive(dim, [hash_text(x) for x in names])

    country = hash_text(q["country"])
    region = hash_combine(country, hash_text(q["region"]))
    geo = [country, region, hash_combine(region, hash_text(q["city"]))]
    cats = [hash_text(x) for c in q["cats"] for x in (c, c.split("-")[0])]
    segments = [number + 1 for number in q["segments"] or ()]
    known = q["segments"] is not None
    h = hash_text
    return {
        "geo": inclusive(ly.DIM_GEO, geo),
        "not_geo": exclusive(ly.DIM_NOT_GEO, geo),
        "devicetype": inclusive(ly.DIM_DEVICETYPE, [q["devicetype"] + 1 if q["devicetype"] else 0]),
        "os": inclusive(ly.DIM_OS, [h(q["os"])]),
        "browser": inclusive(ly.DIM_BROWSER, [h(q["browser"])]),
        "connection": inclusive(ly.DIM_CONNECTION, [q["connection"] + 1 if q["connection"] else 0]),
        "language": inclusive(ly.DIM_LANGUAGE, [h(q["language"])]),
        "channel": inclusive(ly.DIM_CHANNEL, [q["channel"] + 1]),
        "site": inclusive(ly.DIM_SITE, [h(q["site"])]),
        "not_site": exclusive(ly.DIM_NOT_SITE, [h(q["site"])]),
        "publisher": inclusive(ly.DIM_PUBLISHER, [h(q["publisher"])]),
        "not_publisher": exclusive(ly.DIM_NOT_PUBLISHER, [h(q["publisher"])]),
        "category": inclusive(ly.DIM_CATEGORY, cats),
        "not_category": exclusive(ly.DIM_NOT_CATEGORY, cats),
        "daypart": inclusive(ly.DIM_DAYPART, [q["half_hour"] + 1]),
        "exchange": inclusive(ly.DIM_EXCHANGE, [q["exchange"] + 1]),
        "segment": inclusive(ly.DIM_SEGMENT, segments),
        "not_segment": exclusive(ly.DIM_NOT_SEGMENT, segments),
        "age": inclusive(ly.DIM_AGE, [q["age"] + 1] if known else []),
        "income": inclusive(ly.DIM_INCOME, [q["income"] + 1] if known else []),
        "acat": listed(ly.DIM_ACAT, q["acat"]),
        "bcat": exclusive(ly.DIM_BCAT, [h(c) for c in q["bcat"]]),
        "badv": exclusive(ly.DIM_BADV, [h(d) for d in q["badv"]]),
        "bapp": exclusive(ly.DIM_BAPP, [h(b) for b in q["bapp"]]),
        "wseat": listed(ly.DIM_WSEAT, q["wseat"]),
        "bseat": exclusive(ly.DIM_BSEAT, [h(x) for x in q["bseat"]]),
        "wlang": listed(ly.DIM_WLANG, q["wlang"]),
        "deal": inclusive(ly.DIM_DEAL, [h(q["deal"])]),
        "size": inclusive(ly.DIM_SIZE, [(q["size"][0] << 16 | q["size"][1]) + 1]),
        "media": inclusive(ly.DIM_MEDIA, [q["media"] + 1]),
    }


@pytest.mark.parametrize("seed", range(4))
def test_the_index_agrees_with_a_brute_force_matcher(seed):
    print("seed", seed)
    rng = Random(seed)
    catalog = synthetic_catalog(rng.choice((63, 64, 65, 200)), seed)
    arrays, meta = compile_catalog(catalog, 1, "https://dsp.example", NOW_S)
    snapshot = Snapshot(arrays, meta, 1)
    advertisers = {a.id: a for a in catalog.advertisers}
    owner = {c.id: advertisers[c.advertiser_id] for c in catalog.campaigns}
    ads: dict[int, list[Creative]] = {}
    for creative in catalog.creatives:
        ads.setdefault(creative.line_item_id, []).append(creative)
    for _ in range(60):
        q = random_request(rng, catalog)
        found = looked_up(snapshot, q)
        for i, item in enumerate(catalog.line_items):
            expected = wants(item, owner[item.campaign_id], ads[item.id], catalog, q)
            got = {name: bool(found[name][i]) for name in expected}
            assert got == expected, (q, item)
    assert set(found) == set(expected)


def test_each_rule_is_exercised():
    """The random catalogs above have every rule, or the test above would prove less than it says."""
    arrays, _ = compile_catalog(synthetic_catalog(200, 1), 1, "https://dsp.example", NOW_S)
    unused = {ly.DIM_NOT_GEO}  # tested below
    assert {d for d in range(ly.N_DIMS) if not arrays["dim_used"][d]} <= unused


def test_a_flexible_banner_accepts_every_size():
    catalog = synthetic_catalog(3, 1, creatives=1)
    for creative in catalog.creatives:
        creative.format, creative.w, creative.h = "banner", 300, 250
    catalog.creatives[1].w = catalog.creatives[1].h = 0
    arrays, _ = compile_catalog(catalog, 1, "https://dsp.example", NOW_S)
    flexible = catalog.creatives[1].line_item_id - 1
    assert arrays["rows"][arrays["dim_any"][ly.DIM_SIZE]][0] == 1 << flexible
    size = find_row(arrays["dim_keys"], arrays["dim_rows"], ly.DIM_SIZE, (300 << 16 | 250) + 1)
    assert int(arrays["rows"][size][0]) >> flexible & 1


def test_an_excluded_place_covers_what_is_inside_it():
    from dsp.catalog.types import IncludeExclude, Targeting

    catalog = synthetic_catalog(2, 1)
    catalog.line_items[0].targeting = Targeting(geo=IncludeExclude(("USA",), ("USA/NY", "USA/CA/Los Angeles")))
    arrays, meta = compile_catalog(catalog, 1, "https://dsp.example", NOW_S)
    snapshot = Snapshot(arrays, meta, 1)
    q = random_request(Random(1), catalog)
    for place, refused in (("NY/Buffalo", True), ("CA/Los Angeles", True), ("CA/Fresno", False), ("/", False)):
        q |= {"country": "USA", "region": place.split("/")[0], "city": place.split("/")[1]}
        assert looked_up(snapshot, q)["not_geo"][0] == (not refused)
        assert looked_up(snapshot, q)["geo"][0]


@pytest.mark.parametrize(("seed", "low", "high"), [(1, 30, 500)])
def test_market_like_requests_match_some_of_five_thousand(seed, low, high):
    """The benchmark's premise: a request of the market meets tens to a few hundred of 5,000 line items."""
    print("seed", seed)
    rng = Random(seed)
    catalog = synthetic_catalog(5000, seed, creatives=1.0)
    arrays, meta = compile_catalog(catalog, 1, "https://dsp.example", NOW_S)
    snapshot = Snapshot(arrays, meta, 1)
    counts = []
    for _ in range(30):
        q = random_request(rng, catalog)
        country = rng.choices(("USA", "GBR", "DEU", "CHN"), (0.46, 0.16, 0.16, 0.22))[0]
        q |= {"country": country, "region": rng.choice(REGIONS[country]), "city": "Elsewhere"}
        q |= {"devicetype": rng.choice((2, 4, 4)), "channel": rng.choice((1, 2)), "connection": rng.choice((2, 6))}
        q |= {"segments": rng.sample(SEGMENT_NUMBERS, 5), "age": 3, "income": 3, "half_hour": 80, "os": "android"}
        q |= {"cats": ["IAB12"], "language": {"DEU": "de", "CHN": "zh"}.get(country, "en"), "browser": "chrome"}
        found = looked_up(snapshot, q)
        skip = {"acat", "bcat", "badv", "bapp", "wseat", "bseat", "wlang", "deal", "size", "media"}
        counts.append(int(np.logical_and.reduce([v for k, v in found.items() if k not in skip]).sum()))
    print("matched", sorted(counts))
    assert low <= np.median(counts) <= high, sorted(counts)
