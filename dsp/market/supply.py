"""Bid requests of the synthetic market: a stateless stream, request ``i`` depends on (seed, people, i) alone.

`RequestFactory.scene(i)` is one ad opportunity as the market knows it: who looks at which property on which exchange,
and the OpenRTB 2.6 request that says so; `request`, `body` and `body_pb` give just the request. Who comes is
Zipf-distributed over people, where they go over properties; what the request reveals follows the person's privacy
choice. Draws are made a block of 256 requests at a time, so that random numbers cost NumPy's price, not Python's.

Dictionaries share their static parts (device, site, schain): treat what you get as read-only.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from dsp.market.consent import tcf_string, usnat_string
from dsp.market.devices import DEVICES
from dsp.market.imps import Slot, make_imp
from dsp.market.people import ALLOWED, LIMITED, REFUSED, People, mix64
from dsp.market.places import COUNTRIES, PLACE_COUNTRY, PLACES
from dsp.market.sites import Site, make_sites
from dsp.market.venues import EXAMPLE_VENUES, Venue
from dsp.market.worthless import kind_of, turn
from dsp.model.context import OSES
from dsp.openrtb.convert import json_to_pb

Json = dict[str, Any]
Draw = Callable[[], float]

BLOCK = 256
DRAWS = 96  # uniform numbers one request may use
ZIPF = 1.05  # exponent of activity over people
ZIPF_SHIFT = 100.0  # the most active person is not a robot: ranks are shifted by this

_BCAT = (
    "IAB7-39", "IAB7-44", "IAB8-5", "IAB8-18", "IAB9-9", "IAB14-1", "IAB14-2", "IAB14-3", "IAB23", "IAB24",
    "IAB25", "IAB25-1", "IAB25-2", "IAB25-3", "IAB25-4", "IAB25-5", "IAB25-7", "IAB26", "IAB26-1", "IAB26-2",
    "IAB26-3", "IAB26-4", "IAB17-18", "IAB7-3", "IAB11-4", "IAB19-3", "IAB6-7",
)  # fmt: skip
_BADV = tuple(f"{word}{kind}.example" for kind in ("bet", "win", "casino", "diet", "vpn", "dating", "crypto")
              for word in ("lucky", "mega", "star", "royal", "prime", "quick", "gold", "turbo"))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scene:
    """One ad opportunity and its bid request."""

    index: int
    person: int
    venue: int  # index into the factory's venues
    site: Site
    slots: tuple[Slot, ...]  # one per imp, in order
    joinable: bool  # the person is on record, identified in the request, and allows it
    body: Json


class RequestFactory:
    """Makes the requests of one market; cheap to keep, not thread-safe (it caches one block of draws)."""

    def __init__(
        self,
        people: People,
        seed: int,
        venues: Sequence[Venue] = EXAMPLE_VENUES,
        *,
        vendor_id: int = 1500,
        blocked_advertisers: Sequence[str] = (),
        finance_blocked: float = 0.04,
        worthless: float = 0.0,
    ) -> None:
        """``vendor_id`` is our TCF id; some requests block one of ``blocked_advertisers`` (domains).

        ``worthless`` is the share of supply that nobody here can use (`dsp.market.worthless`).
        """
        self.people = people
        self.seed = seed
        self.venues = tuple(venues)
        self.sites = make_sites(seed)
        self._consent = _consent_strings(vendor_id)
        self._blocked = tuple(blocked_advertisers)
        self._finance_blocked = finance_blocked
        self._worthless = worthless
        self._json = msgspec.json.Encoder()
        self._block = -1
        self._rows: list[list[float]] = []
        self._people_rows: list[tuple[Any, ...]] = []
        self._ifas: list[str] = []
        self._buyeruids: list[list[str]] = []  # by venue
        self._pools = [_Pool(self.sites, country) for country in range(len(COUNTRIES))]
        self._venues_of = [
            _cumulative([v.weight if not v.countries or c.code in v.countries else 0.0 for v in self.venues])
            for c in COUNTRIES
        ]

    def request(self, i: int) -> Json:
        """Request ``i`` as an OpenRTB dictionary (read-only)."""
        return self.scene(i).body

    def body(self, i: int) -> bytes:
        """Request ``i`` as JSON."""
        return self._json.encode(self.scene(i).body)

    def body_pb(self, i: int) -> bytes:
        """Request ``i`` as protobuf."""
        return encode_pb(self.scene(i).body)

    def scene(self, i: int) -> Scene:
        """Opportunity ``i`` (from 0)."""
        block, k = divmod(i, BLOCK)
        if block != self._block:
            self._load(block)
        return self._build(i, k, iter(self._rows[k]).__next__)

    def _load(self, block: int) -> None:
        """Draw a block: uniforms, and the people who come with what requests say of them."""
        rng = np.random.default_rng([self.seed, 0x5C3E, block])
        u = rng.random((BLOCK, DRAWS + 1))
        people = self.people
        rank = np.minimum(_zipf_rank(u[:, DRAWS], people.n), people.n - 1)
        who = np.array([people.person_of_rank(int(r)) for r in rank])
        self._rows = u[:, :DRAWS].tolist()
        columns = (
            who, people.place[who], people.device[who], people.privacy[who], people.known[who],
            people.language[who], people.age[who], people.gender[who],
        )  # fmt: skip
        self._people_rows = list(zip(*(column.tolist() for column in columns), strict=True))
        self._ifas = people.ifas(who)
        self._buyeruids = [people.buyeruids(who, venue.name) for venue in self.venues]
        self._block = block

    def _build(self, i: int, k: int, draw: Draw) -> Scene:
        person, place_index, device_index, privacy, known, language_index, age, gender = self._people_rows[k]
        device = DEVICES[device_index]
        country_index = PLACE_COUNTRY[place_index]
        country = COUNTRIES[country_index]
        in_app = device.has_apps and draw() < 0.55
        site = self._pools[country_index].pick(in_app, draw())
        v = _pick(self._venues_of[country_index], draw())
        venue = self.venues[v]
        language = country.languages[language_index]
        request_id = mix64(self.seed << 40 ^ i)
        identified = privacy != LIMITED and (in_app or draw() < 0.985)
        slots, imps = [], []
        for number in range(_imp_count(draw())):
            slot, imp = make_imp(number, site, venue, country.code, in_app, draw)
            slots.append(slot)
            imps.append(imp)
        body: Json = {
            "id": f"{request_id:016x}-{i:x}",
            "imp": imps,
            "app" if in_app else "site": _property(site, in_app, device.os, language, request_id, draw),
            "device": self._device(person, device_index, place_index, in_app, privacy, language, draw),
            "user": self._user(person, venue.name, privacy, identified, country_index, age, gender, draw),
            "at": venue.at,
            "tmax": venue.tmax_ms,
            "cur": [venue.currency],
            "bcat": self._bcat(draw()),
            "badv": self._badv(draw(), draw()),
            "source": _source(site, venue, request_id),
            "regs": self._regs(country_index, privacy, draw()),
        }
        if in_app:
            body["device"]["ifa"] = self._ifas[k] if identified else "00000000-0000-0000-0000-000000000000"
        if identified and (not in_app or request_id & 16):
            body["user"]["buyeruid"] = self._buyeruids[v][k]
        if draw() < 0.1:
            body["wlang"] = sorted({"en", language})
        joinable = bool(known and identified and privacy == ALLOWED)
        sold = tuple(slots)
        kind = kind_of(request_id, self._worthless) if self._worthless else ""
        if kind:
            body, sold = turn(kind, request_id, body, sold)
        return Scene(i, person, v, site, sold, joinable, body)

    def _device(
        self, person: int, device_index: int, place_index: int, in_app: bool, privacy: int, language: str, draw: Draw
    ) -> Json:
        device, place = DEVICES[device_index], PLACES[place_index]
        country = COUNTRIES[PLACE_COUNTRY[place_index]]
        h = mix64(person)
        mobile = device.devicetype == 4 and draw() < 0.45
        out: Json = dict(device.app if in_app else device.web)
        if draw() < 0.4:
            out.pop("sua", None)  # not every exchange passes client hints on
        out["ip"] = f"{country.ip_prefixes[h % 3]}.{h >> 8 & 255}.{h >> 16 & 0xFE}"  # truncated: last bit cut
        out["language"] = language
        out["dnt"] = 0
        out["lmt"] = int(privacy == LIMITED)
        out["connectiontype"] = (6 if h & 1 else 7) if mobile else 2
        out["carrier"] = country.carriers[h % 3]
        out["geo"] = {
            "lat": round(place.lat + (h % 1000 - 500) / 5000, 4),
            "lon": round(place.lon + (h // 1000 % 1000 - 500) / 5000, 4),
            "type": 2, "accuracy": 5000, "country": place.country, "region": place.region, "city": place.city,
            "zip": place.zip, "utcoffset": place.utcoffset,
        }  # fmt: skip
        return out

    def _user(
        self, person: int, venue: str, privacy: int, identified: bool, country_index: int, age: int, gender: int,
        draw: Draw,
    ) -> Json:  # fmt: skip
        h = mix64(person ^ 0x05E7)
        out: Json = {}
        if identified:
            out["id"] = f"{venue[:2]}-{h:016x}"
        if privacy == ALLOWED and identified:
            if draw() < 0.5:
                out["eids"] = _eids(h)
            if h % 10 < 3:
                out["yob"], out["gender"] = 2025 - age, "FM"[gender - 1]
        if draw() < 0.3:
            out["data"] = [{
                "id": "ctx-1", "name": "contextual.example",
                "segment": [{"id": str(h >> s & 0x3FF), "name": f"topic-{h >> s & 31}"} for s in (0, 12, 24)],
            }]  # fmt: skip
        if COUNTRIES[country_index].gdpr:
            strings = self._consent[privacy == REFUSED]
            out["consent"] = strings[int(draw() * len(strings))]
        return out

    def _regs(self, country_index: int, privacy: int, u: float) -> Json:
        country, refused = COUNTRIES[country_index], privacy == REFUSED
        if country.gdpr:
            return {"coppa": 0, "gdpr": 1}
        out: Json = {"coppa": 0, "gdpr": 0}
        if country.code == "USA":
            out["us_privacy"] = "1YYN" if refused else "1YNN"
            if u < 0.5:
                out["gpp"], out["gpp_sid"] = _GPP_REFUSED if refused else _GPP_ALLOWED, [7]
        elif country.code == "CHN":
            out["ext"] = {"pipl": int(not refused)}
        return out

    def _bcat(self, u: float) -> list[str]:
        out = list(_BCAT[: 4 + int(u * (len(_BCAT) - 4))])
        if u < self._finance_blocked:
            out.append("IAB13" if u < self._finance_blocked / 2 else "IAB13-7")
        return out

    def _badv(self, u: float, v: float) -> list[str]:
        start = int(u * len(_BADV))
        out = list((_BADV + _BADV)[start : start + 2 + int(v * 10)])
        if self._blocked and v < 0.08:
            out.append(self._blocked[int(v / 0.08 * len(self._blocked))])
        return out


def encode_pb(body: Json) -> bytes:
    """A request as protobuf. PIPL consent, an extension of ours, is field 500 of `Regs.Ext`."""
    message = json_to_pb(body)
    pipl = body["regs"].get("ext", {}).get("pipl")
    if pipl is not None:
        message.regs.ext.MergeFromString(_PIPL_TAG + bytes((pipl,)))
    return message.SerializeToString()


_PIPL_TAG = b"\xa0\x1f"  # field 500, varint
_GPP_REFUSED = usnat_string(opted_out=True)
_GPP_ALLOWED = usnat_string(opted_out=False)


class _Pool:
    """The sites and the apps of one country, to be picked by weight."""

    def __init__(self, sites: Sequence[Site], country: int) -> None:
        self._members = [[s for s in sites if s.country == country and s.is_app is app] for app in (False, True)]
        self._cumulative = [_cumulative([s.weight for s in members]) for members in self._members]

    def pick(self, in_app: bool, u: float) -> Site:
        return self._members[in_app][_pick(self._cumulative[in_app], u)]


def _cumulative(weights: Sequence[float]) -> list[float]:
    total = np.cumsum(weights)
    return (total / total[-1]).tolist() if total[-1] > 0 else [1.0] * len(weights)


def _pick(cumulative: list[float], u: float) -> int:
    return min(bisect_right(cumulative, u), len(cumulative) - 1)


def _zipf_rank(u: npt.NDArray[np.float64], n: int) -> npt.NDArray[np.int64]:
    """Ranks 0..n-1 with density proportional to (rank + ZIPF_SHIFT) ** -ZIPF, by inverting its integral at ``u``."""
    power = 1 - ZIPF
    low, high = ZIPF_SHIFT**power, (n + ZIPF_SHIFT) ** power
    rank = (low + u * (high - low)) ** (1 / power) - ZIPF_SHIFT
    return np.clip(rank, 0, n - 1).astype(np.int64)


def _imp_count(u: float) -> int:
    return 1 if u < 0.8 else 2 if u < 0.95 else 3


def _property(site: Site, in_app: bool, os: int, language: str, request_id: int, draw: Draw) -> Json:
    """The request's site or app object: the static part, and the page or bundle of this visit."""
    out: Json = dict(site.static)
    article = request_id % 9973
    if in_app:
        ios = os == OSES.index("ios")
        out["bundle"] = site.bundle_ios if ios else site.bundle_android
        out["storeurl"] = (
            f"https://apps.apple.com/app/id{site.bundle_ios}"
            if ios
            else f"https://play.google.com/store/apps/details?id={site.bundle_android}"
        )
    else:
        out["page"] = f"https://www.{site.domain}/{site.categories[0].lower()}/{article}/what-changes-this-year.html"
        if draw() < 0.5:
            out["ref"] = f"https://www.search.example/?q={site.name.replace(' ', '+')}"
    if draw() < 0.35:
        out["content"] = {
            "id": f"c{article}", "title": f"{site.name}: story {article}", "language": language, "cattax": 1,
            "cat": [site.categories[int(draw() * len(site.categories))]], "context": 3 if in_app else 5,
            "url": f"https://www.{site.domain}/c/{article}", "keywords": site.static["keywords"],
        }  # fmt: skip
    return out


def _source(site: Site, venue: Venue, request_id: int) -> Json:
    publisher = site.publisher
    nodes = [{"asi": publisher["domain"], "sid": publisher["id"], "hp": 1, "domain": publisher["domain"]}]
    if request_id & 3 == 0:  # a reseller in between
        nodes.append({"asi": "reseller.example", "sid": "rs-77", "hp": 1, "rid": f"{request_id:x}"})
    nodes.append({"asi": f"{venue.name}.example", "sid": str(1000 + site.index), "hp": 1})
    return {
        "fd": 1,
        "tid": f"{mix64(request_id):016x}",
        "schain": {"complete": 1, "ver": "1.0", "nodes": nodes},
    }


def _eids(h: int) -> list[Json]:
    return [
        {"source": "uid.example", "uids": [{"id": f"{mix64(h):016x}{h:016x}", "atype": 3}]},
        {"source": "pairs.example", "uids": [{"id": f"P-{mix64(h ^ 7):016x}", "atype": 1}]},
    ]


def _consent_strings(vendor_id: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(granting, refusing) TCF strings: by bit field and by ranges; refusing the vendor, a purpose, or everything."""
    crowd = [1, 2, 10, 12, 13, 16, 21, 25, 28, 32, 50, 52, 68, 69, 76, 91, 126, 278, 404, 469, 755, 793]
    granted = (
        tcf_string([*crowd, vendor_id], ranges=True),
        tcf_string(range(1, max(vendor_id, 1200) + 1), ranges=True, country="GB"),
        tcf_string([*crowd, vendor_id], ranges=False),
    )
    refused = (
        tcf_string([], ()),
        tcf_string([v for v in crowd if v != vendor_id], ranges=True),
        tcf_string([*crowd, vendor_id], (2, 7, 9, 10), ranges=True),  # not even storage, nor profiles
    )
    return granted, refused
