"""Supply that nobody here can use: what most of an exchange's full stream is to a buyer with a few campaigns.

A share of the market's requests is turned into one of KINDS. Publisher, format or geo tells which, each of them some;
the last kind sits among good traffic and can't be told at all. Draws come from the request's own number, so that the
rest of the stream is the same as without.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dsp.market.imps import Slot
from dsp.market.people import mix64
from dsp.openrtb.columns import BANNER

Json = dict[str, Any]

ABROAD = ("IND", "BRA", "IDN", "VNM", "TUR", "PHL", "NGA", "PAK", "EGY", "MEX")  # nobody buys there
ODD_SIZES = ((88, 31), (120, 20), (234, 60), (980, 30))
KINDS: tuple[tuple[str, float], ...] = (
    ("abroad", 0.30),  # a country without a campaign, on anybody's pages
    ("odd size", 0.20),  # a slot without a creative
    ("dear", 0.25),  # publishers whose floors nobody pays
    ("family", 0.20),  # publishers that let no finance in
    ("not ours", 0.05),  # private auctions of other buyers' deals, on good pages
)
PUBLISHERS = 60  # of the dear, and as many families
FINANCE = ("IAB13", *(f"IAB13-{k}" for k in range(1, 13)))


def kind_of(number: int, share: float) -> str:
    """What a request (its 64-bit number) turns into; "" for those that stay."""
    h = mix64(number ^ 0x0FF1CE)
    if (h >> 11) / 2**53 >= share:
        return ""
    u = (mix64(h) >> 11) / 2**53
    for kind, part in KINDS:
        if u < part:
            return kind
        u -= part
    return KINDS[-1][0]


def turn(kind: str, number: int, body: Mapping[str, Any], slots: tuple[Slot, ...]) -> tuple[Json, tuple[Slot, ...]]:
    """The request and its slots as this kind of supply has them; ``body`` is left alone."""
    h, body = mix64(number ^ 0xBAD), dict(body)
    if kind == "abroad":
        body["device"] = device = dict(body["device"])
        kept = {k: v for k, v in device["geo"].items() if k in ("type", "accuracy", "utcoffset")}
        device["geo"] = kept | {"country": ABROAD[h % len(ABROAD)]}
        body["regs"] = {"coppa": 0, "gdpr": 0}
        body["user"] = {k: v for k, v in body["user"].items() if k != "consent"}
        return body, slots
    if kind == "odd size":
        w, h_px = ODD_SIZES[h % len(ODD_SIZES)]
        imp = {k: v for k, v in body["imp"][0].items() if k not in ("video", "native", "pmp")}
        imp["banner"] = {"w": w, "h": h_px, "format": [{"w": w, "h": h_px}], "pos": 1}
        body["imp"] = [imp]
        return body, (slots[0]._replace(media=BANNER, w=w, h=h_px, deals=(), private=False),)
    if kind == "not ours":
        deal = {"id": f"others-{h % 40}", "bidfloor": 1.0, "bidfloorcur": "USD", "at": 1}
        body["imp"] = [{**imp, "pmp": {"private_auction": 1, "deals": [deal]}} for imp in body["imp"]]
        return body, tuple(slot._replace(deals=(), private=True) for slot in slots)
    place = "app" if "app" in body else "site"
    owner = h % PUBLISHERS
    name = f"{kind}-{owner:02d}"
    body[place] = body[place] | {"publisher": {"id": name, "name": name, "domain": f"{name}.example"}}
    if kind == "family":
        body["bcat"] = [*body["bcat"], *FINANCE]
        return body, slots
    times = 40.0 + owner
    body["imp"] = [
        {k: v for k, v in imp.items() if k != "pmp"} | {"bidfloor": round(imp["bidfloor"] * times + 40.0, 2)}
        for imp in body["imp"]
    ]
    floors = [slot.floor * times + 40.0 for slot in slots]
    return body, tuple(
        slot._replace(floor=floor, deals=(), private=False) for slot, floor in zip(slots, floors, strict=True)
    )
