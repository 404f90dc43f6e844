"""A small world around hand-made ads, without catalog, engine or ledger."""

from __future__ import annotations

from typing import Any

import numpy as np

from dsp.catalog.layout import LIV_EAD, LIV_LGD, LIV_MARGIN, LIV_WIDTH
from dsp.market.auction import Rivals
from dsp.market.people import People
from dsp.market.supply import RequestFactory, Scene
from dsp.market.truth import Truth
from dsp.market.venues import Deal, Venue
from dsp.market.world import Ad, World
from dsp.openrtb.columns import BANNER, VIDEO

VENUES = (
    Venue("alpha", at=1, deals=(Deal("d-1", 3.0), Deal("d-2", 5.0, at=3))),
    Venue("beta", at=2, currency="EUR", usd=1.08, billed_on_win=True),
)
ADS = {
    "11": Ad(11, 0, 1, 0, BANNER, 75_000.0, 6000.0, 1.0),
    "12": Ad(12, 1, 2, 2, VIDEO, 230_400.0, 0.0, 1.27),
}


def make_world(seed: int = 1) -> World:
    people = People.generate(2000, seed)
    offers = np.zeros((2, LIV_WIDTH))
    offers[:, LIV_MARGIN], offers[0, LIV_LGD], offers[0, LIV_EAD] = (20.0, 8.0), 0.5, 6000.0
    factory = RequestFactory(people, seed, VENUES)
    return World(people, factory, Rivals(people, seed), Truth(people, seed), ADS, offers, seed)


def bid_for(scene: Scene, k: int, price: float, crid: str = "11", **members: Any) -> dict[str, Any]:
    imp, number = scene.slots[k].id, f"{scene.index:08x}{k:08x}"
    base = "https://notices.example"
    size = scene.body["imp"][k].get("banner", {}).get("format", [{"w": 300, "h": 250}])[0]
    return {
        "id": number, "impid": imp, "price": price, "crid": crid, "cid": "1", "adm": "<a href='https://x.example'>",
        "adomain": ["bank.example"], "mtype": 1, **size,
        "nurl": f"{base}/n/T{number}?p=${{AUCTION_PRICE}}&c=${{AUCTION_CURRENCY}}",
        "burl": f"{base}/b/T{number}?p=${{AUCTION_PRICE}}&c=${{AUCTION_CURRENCY}}",
        "lurl": f"{base}/l/T{number}?r=${{AUCTION_LOSS}}&m=${{AUCTION_MIN_TO_WIN}}",
        **members,
    }  # fmt: skip


def response_to(scene: Scene, currency: str, *bids: dict[str, Any]) -> dict[str, Any]:
    return {"id": scene.body["id"], "cur": currency, "seatbid": [{"seat": "s", "bid": list(bids)}]}
