"""What a certification sends: requests that must be answered properly, changed ones, and bodies that are none.

Data, and functions that make them from a base request; nothing here sends anything.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from typing import Any

Json = dict[str, Any]

BASE: Json = {
    "id": "certify",
    "at": 1,
    "test": 1,  # real answers that cost nothing
    "tmax": 200,
    "cur": ["USD"],
    "imp": [{"id": "1", "bidfloor": 0.01, "secure": 1, "banner": {"format": [{"w": 300, "h": 250}, {"w": 320, "h": 50},
             {"w": 728, "h": 90}], "topframe": 1}}],
    "site": {"id": "s1", "domain": "news.example", "page": "https://news.example/money", "cat": ["IAB13"],
             "publisher": {"id": "p1", "name": "News"}},
    "device": {
        "ua": "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0 Safari",
        "ip": "203.0.113.7", "os": "Windows", "devicetype": 2, "connectiontype": 2, "language": "en",
        "geo": {"country": "USA", "region": "CA", "city": "Los Angeles"},
    },
    "source": {"tid": "t1", "schain": {"complete": 1, "ver": "1.0",
               "nodes": [{"asi": "ssp.example", "sid": "p1", "hp": 1}]}},
}  # fmt: skip


def changed(base: Json, number: int, change: Mapping[str, Any], imp: Mapping[str, Any] | None = None) -> Json:
    """``base`` with an id of its own and members replaced (None: removed), also of its first imp."""
    request = copy.deepcopy(base)
    request["id"] = f"certify-{number}"
    for target, members in ((request, change), (request["imp"][0], imp or {})):
        for name, value in members.items():
            if value is None:
                target.pop(name, None)
            else:
                target[name] = value
    return request


def several(base: Json, count: int) -> Json:
    """``base`` with its imp ``count`` times."""
    return {**base, "imp": [{**base["imp"][0], "id": str(k + 1)} for k in range(count)]}


# name, what it shows, members of the request, members of its imp: a bidder must live with it and may bid
HARMLESS: tuple[tuple[str, str, Json, Json], ...] = (
    ("unknown-members", "members that OpenRTB doesn't know are passed over",
     {"x": {"y": [1, {"z": None}]}, "ext": {"any": ["thing"]}}, {"ext": {"data": {}}, "new": 1}),
    ("unknown-values", "values that no list knows are passed over", {"at": 3, "allimps": 7}, {"instl": 9}),
    ("nulls", "null is absent", {"bcat": None, "user": None, "app": None}, {"pmp": None}),
    ("no-device", "a request without device and site is one", {"device": None, "site": None}, {}),
    ("coppa", "COPPA", {"regs": {"coppa": 1}}, {}),
    ("gdpr", "GDPR without consent", {"regs": {"gdpr": 1, "ext": {"gdpr": 1}}}, {}),
    ("us-privacy", "opted out in the US", {"regs": {"us_privacy": "1YYN", "ext": {"us_privacy": "1YYN"}}}, {}),
    ("long-texts", "a page address of 8 kB", {"site": {"page": "https://news.example/" + "x" * 8000}}, {}),
    ("unicode", "texts in every script", {"site": {"name": "新闻 – اخبار 😀\u0000", "domain": "news.example"}}, {}),
)  # fmt: skip


def refusable(base: Json, bid: Json, seat: str) -> Iterator[tuple[str, str, Json, Json]]:
    """(name, what it shows, request's members, imp's members) that forbid ``bid``, an answer to ``base``."""
    price = float(bid.get("price", 1))
    if bid.get("adomain"):
        yield "badv", "blocked advertisers", {"badv": list(bid["adomain"])}, {}
    if bid.get("cat"):
        yield "bcat", "blocked categories", {"bcat": list(bid["cat"])}, {}
        yield "bcat-parent", "blocked parents of categories", {"bcat": [c.partition("-")[0] for c in bid["cat"]]}, {}
    if bid.get("bundle"):
        yield "bapp", "blocked apps", {"bapp": [bid["bundle"]]}, {}
    if seat:
        yield "bseat", "blocked seats", {"bseat": [seat]}, {}
    yield "wseat", "seats that are allowed", {"wseat": ["certifier-nobody"]}, {}
    yield "floor", "a floor above the bid", {}, {"bidfloor": round(price * 1.01 + 0.01, 2)}
    yield "floor-high", "a floor above every bid", {}, {"bidfloor": 99_999.0}
    yield "currency", "a currency that nobody trades in", {"cur": ["XTS"]}, {}
    yield "private", "a private auction without deals", {}, {"pmp": {"private_auction": 1, "deals": []}}
    yield "size", "a size that nobody has", {}, {"banner": {"format": [{"w": 3, "h": 7}]}}
    others = {"banner": None, "video": None, "native": None}
    yield "medium", "audio alone", {}, {**others, "audio": {"mimes": ["audio/mp4"]}}
    yield (
        "battr",
        "blocked attributes",
        {},
        {"banner": {**base["imp"][0].get("banner", {}), "battr": list(range(1, 18))}},
    )


def malformed(base: Json) -> Iterator[tuple[str, bytes, dict[str, str]]]:
    """(name, body, further headers): bodies that must not be bid on, nor end in a server's error."""
    good = json.dumps(base).encode()

    def with_(**members: Any) -> bytes:
        return json.dumps({**base, **members}).encode()

    imp = base["imp"][0]
    yield "empty", b"", {}
    yield "truncated", good[: len(good) // 2], {}
    yield "not-json", b"<xml/>", {}
    yield "no-object", b"[1, 2, 3]", {}
    yield "two-documents", good + good, {}
    yield "trailing-comma", good[:-1] + b",}", {}
    yield "single-quotes", good.replace(b'"', b"'"), {}
    yield "bad-utf8", good.replace(b"news.example", b"news\xff\xfe.example"), {}
    yield "deep", b'{"id":"d","imp":' + b"[" * 20_000 + b"]" * 20_000 + b"}", {}
    yield "no-id", json.dumps({k: v for k, v in base.items() if k != "id"}).encode(), {}
    yield "no-imp", with_(imp=[]), {}
    yield "imp-is-text", with_(imp="1"), {}
    yield "imp-without-id", with_(imp=[{k: v for k, v in imp.items() if k != "id"}]), {}
    yield "same-imp-ids", with_(imp=[imp, imp]), {}
    yield "nan-floor", json.dumps({**base, "imp": [{**imp, "bidfloor": float("nan")}]}).encode(), {}
    yield "huge-floor", good.replace(b'"bidfloor": 0.01', b'"bidfloor": 1e400'), {}
    yield "four-megabytes", with_(user={"id": "x" * (4 << 20)}), {}
    yield "claims-gzip", good, {"content-encoding": "gzip"}
    yield "claims-xml", good, {"content-type": "application/xml"}
