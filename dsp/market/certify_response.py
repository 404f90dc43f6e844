"""What an exchange checks of one answer: protocol, identity, price, blocks, format, URLs and macros (OpenRTB 2.6).

Pure functions over a request and the response to it, as JSON values. They know nothing of this bidder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

Json = dict[str, Any]
MACROS = {
    "AUCTION_ID", "AUCTION_BID_ID", "AUCTION_IMP_ID", "AUCTION_SEAT_ID", "AUCTION_AD_ID", "AUCTION_PRICE",
    "AUCTION_CURRENCY", "AUCTION_MBR", "AUCTION_LOSS", "AUCTION_MIN_TO_WIN", "AUCTION_MULTIPLIER", "AUCTION_IMP_TS",
}  # fmt: skip
NOTICE_URLS = ("nurl", "burl", "lurl")
_MACRO = re.compile(r"\$\{([^}]*)\}")
_HTTP = re.compile(r"http://(?!(?:www\.)?w3\.org)", re.IGNORECASE)
_MTYPE = {1: "banner", 2: "video", 3: "audio", 4: "native"}


def bids_of(response: Json) -> list[Json]:
    """All bids of a response."""
    return [bid for seat in response.get("seatbid") or [] for bid in seat.get("bid") or []]


def judge(request: Json, response: Any) -> list[str]:
    """What is wrong with ``response``, a parsed body, as the answer to ``request``."""
    if not isinstance(response, dict):
        return ["the body is no JSON object"]
    if response.get("seatbid") in (None, []):
        nbr = response.get("nbr", 0)
        return [] if isinstance(nbr, int) else [f"nbr is {nbr!r}, not a number"]
    problems = [] if response.get("id") == request["id"] else [f"id is {response.get('id')!r}, not the request's"]
    allowed = request.get("cur") or ["USD"]
    if response.get("cur", "USD") not in allowed:
        problems.append(f"cur is {response.get('cur')!r}, not one of {allowed}")
    imps = {imp["id"]: imp for imp in request["imp"]}
    taken: set[str] = set()
    for seat in response["seatbid"]:
        if not seat.get("bid"):
            problems.append("a seatbid without a bid")
        problems += _seat(request, seat.get("seat"))
        for bid in seat.get("bid") or []:
            imp = imps.get(bid.get("impid"))
            if imp is None:
                problems.append(f"impid {bid.get('impid')!r} is none of the request's")
                continue
            if imp["id"] in taken:
                problems.append(f"two bids on imp {imp['id']!r}")
            taken.add(imp["id"])
            problems += [f"bid on {imp['id']!r}: {text}" for text in _bid(request, imp, bid)]
    return problems


def _seat(request: Json, seat: Any) -> Iterator[str]:
    if request.get("wseat") and seat not in request["wseat"]:
        yield f"seat {seat!r} is not in wseat"
    if seat in (request.get("bseat") or []):
        yield f"seat {seat!r} is in bseat"


def _bid(request: Json, imp: Json, bid: Json) -> Iterator[str]:
    if not isinstance(bid.get("id"), str) or not bid["id"]:
        yield "no id"
    yield from _price(imp, bid)
    for member, why in (("adomain", "advertisers can't be blocked"), ("crid", "creatives can't be reviewed")):
        if not bid.get(member):
            yield f"no {member}: {why} without it"
    yield from _blocked(request, bid)
    yield from _format(imp, bid)
    yield from _texts(imp, bid)


def _price(imp: Json, bid: Json) -> Iterator[str]:
    price = bid.get("price")
    if isinstance(price, bool) or not isinstance(price, int | float) or not 0 < price < 1e6:
        yield f"price {price!r} is not a price"
        return
    deals = {deal["id"]: deal for deal in imp.get("pmp", {}).get("deals", [])}
    named = bid.get("dealid")
    if named is not None and named not in deals:
        yield f"dealid {named!r} is none of the imp's"
    elif named is None and imp.get("pmp", {}).get("private_auction") == 1:
        yield "an open bid in a private auction"
    floor = deals[named].get("bidfloor", 0) if named in deals else imp.get("bidfloor", 0)
    if price < floor:
        yield f"price {price} is below the floor {floor}"


def _blocked(request: Json, bid: Json) -> Iterator[str]:
    badv = set(request.get("badv") or [])
    for domain in bid.get("adomain") or []:
        parts = domain.lower().removeprefix("www.").split(".")
        if badv & {".".join(parts[k:]) for k in range(len(parts) - 1)}:
            yield f"adomain {domain} is in badv"
    for category in bid.get("cat") or []:
        if {category, category.partition("-")[0]} & set(request.get("bcat") or []):
            yield f"category {category} is in bcat"
    if bid.get("bundle") and bid["bundle"] in (request.get("bapp") or []):
        yield f"bundle {bid['bundle']} is in bapp"


def _format(imp: Json, bid: Json) -> Iterator[str]:
    offered = {name for name in ("banner", "video", "audio", "native") if name in imp}
    medium = _MTYPE.get(bid.get("mtype", 0)) or (next(iter(offered)) if len(offered) == 1 else None)
    if medium is None:
        yield "no mtype where several formats are offered"
    elif medium not in offered:
        yield f"mtype says {medium}, the imp offers {', '.join(sorted(offered))}"
    elif medium == "banner":
        banner = imp["banner"]
        sizes = [(f.get("w"), f.get("h")) for f in banner.get("format") or []]
        if banner.get("w") and banner.get("h"):
            sizes.append((banner["w"], banner["h"]))
        if sizes and (bid.get("w") or bid.get("h")) and (bid.get("w"), bid.get("h")) not in sizes:
            yield f"size {bid.get('w')}x{bid.get('h')} is not offered"
        if set(bid.get("attr") or []) & set(banner.get("battr") or []):
            yield "an attribute that battr names"
    elif medium == "video" and bid.get("dur"):
        video = imp["video"]
        if not video.get("minduration", 0) <= bid["dur"] <= video.get("maxduration", bid["dur"]):
            yield f"a video of {bid['dur']} s"


def _texts(imp: Json, bid: Json) -> Iterator[str]:
    if not bid.get("adm") and not bid.get("nurl"):
        yield "neither adm nor a nurl that could bring it"
    for member in (*NOTICE_URLS, "adm"):
        text = bid.get(member) or ""
        for macro in _MACRO.findall(text):
            name = macro.partition(":")[0]
            if name.startswith("AUCTION") and name not in MACROS:
                yield f"{member} has the macro {macro!r}, which nobody fills"
        if member != "adm" and text and not re.match(r"https?://[^/\s]+/\S*$", text):
            yield f"{member} is not a URL"
        if imp.get("secure") == 1 and _HTTP.search(text):
            yield f"{member} has http:// where secure is 1"


def filled(text: str, values: Mapping[str, str]) -> str:
    """``text`` with its macros replaced; unknown ones become empty, as exchanges do."""
    return _MACRO.sub(lambda found: values.get(found[1].partition(":")[0], ""), text)
