"""What an exchange does with a bid response before the auction: read it, and check that it is one it can use.

The checks are the basic ones that any exchange makes (ids, prices, floors, currency, formats and sizes, deals); a
response that fails counts as a problem and is not settled.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from dsp.market.auction import ticks
from dsp.market.supply import Scene
from dsp.market.venues import Venue
from dsp.openrtb.columns import BANNER, FMT_JSON, NATIVE, VIDEO
from dsp.openrtb.convert import pb_to_json
from dsp.pb.com.iabtechlab.openrtb.v2 import openrtb_pb2

Json = dict[str, Any]

_MTYPES = {1: BANNER, 2: VIDEO, 4: NATIVE}
_NAMESPACE = re.compile(r'xmlns(:\w+)?="[^"]*"')  # names, not addresses
_json = msgspec.json.Decoder()


def read_response(payload: bytes, format_: int) -> Json:
    """A BidResponse as a dictionary. Raises ValueError."""
    if format_ == FMT_JSON:
        try:
            read = _json.decode(payload)
        except msgspec.DecodeError as error:
            raise ValueError(f"response is not JSON: {error}") from error
        if not isinstance(read, dict):
            raise ValueError("response is not an object")
        return read
    message = openrtb_pb2.BidResponse()
    try:
        message.ParseFromString(payload)
    except Exception as error:
        raise ValueError(f"response is not a BidResponse: {error}") from error
    return pb_to_json(message)


def problems(scene: Scene, venue: Venue, response: Json) -> list[str]:
    """What is wrong with a response to ``scene``; empty when it can go to auction."""
    found: list[str] = []
    if response.get("id") != scene.body["id"]:
        found.append("id is not the request's")
    if response.get("cur", "USD") != venue.currency:
        found.append(f"cur {response.get('cur')!r} was not offered")
    blocked = {domain.lower() for domain in scene.body["badv"]}
    for seat in response.get("seatbid", ()):
        if not seat.get("bid"):
            found.append("a seat without bids")
        for bid in seat.get("bid", ()):
            found += _bid_problems(scene, bid)
            if blocked & {domain.lower() for domain in bid.get("adomain", ())}:
                found.append("a blocked advertiser")
    return found


def _bid_problems(scene: Scene, bid: Json) -> list[str]:
    number = next((k for k, slot in enumerate(scene.slots) if slot.id == bid.get("impid")), None)
    if number is None:
        return ["impid of no imp"]
    slot, imp = scene.slots[number], scene.body["imp"][number]
    found = [f"no {name}" for name in ("id", "price", "crid", "adm", "adomain", "nurl", "burl") if not bid.get(name)]
    deal = next((deal for deal in slot.deals if deal.id == bid.get("dealid")), None)
    if "dealid" in bid and deal is None:
        found.append("a deal that was not offered")
    if slot.private and deal is None:
        found.append("an open bid in a private auction")
    floor = slot.floor if deal is None else deal.floor
    same_currency = deal is None or deal.currency == scene.body["cur"][0]
    if same_currency and ticks(bid.get("price", 0)) < ticks(floor):
        found.append("price below the floor")
    medium = _MTYPES.get(bid.get("mtype", 0), 0)
    if not medium & slot.media:
        found.append("a format that was not offered")
    elif medium == BANNER and {"w": bid.get("w"), "h": bid.get("h")} not in imp["banner"]["format"]:
        found.append("a banner size that was not offered")
    elif medium == VIDEO and not imp["video"]["minduration"] <= bid.get("dur", 0) <= imp["video"]["maxduration"]:
        found.append("a video of the wrong length")
    if imp["secure"] == 1 and "http://" in _NAMESPACE.sub("", bid.get("adm", "")):
        found.append("an insecure ad")
    return found
