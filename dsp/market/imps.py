"""The ad slots of a request: OpenRTB imp objects (banner, video, native, mixed, with deals), and their plain facts.

A `Slot` is what the market itself needs to know of an imp to settle its auction and to decide what a viewer does.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from dsp.market.sites import Site
from dsp.market.venues import Deal, Venue
from dsp.openrtb.columns import BANNER, NATIVE, VIDEO

Json = dict[str, Any]
Draw = Callable[[], float]

_PHONE_SIZES = ((320, 50), (300, 250), (320, 100), (320, 480), (300, 50))
_WEB_SIZES = ((300, 250), (728, 90), (300, 600), (160, 600), (970, 250), (336, 280))


class Slot(NamedTuple):
    """An imp as the market sees it."""

    id: str
    media: int  # bits of BANNER, VIDEO, NATIVE
    w: int
    h: int
    pos: int  # 1 above the fold, 3 below, 7 full screen
    instl: int
    floor: float  # CPM in the venue's currency
    deals: tuple[Deal, ...]
    private: bool  # deal bids only


def _native_request(title: int, image: tuple[int, int], data: tuple[tuple[int, int, int], ...], icon: bool) -> str:
    """A Native 1.2 request as the JSON text that `imp.native.request` holds."""
    assets: list[Json] = [
        {"id": 1, "required": 1, "title": {"len": title}},
        {
            "id": 2,
            "required": 1,
            "img": {"type": 3, "wmin": image[0], "hmin": image[1], "mimes": ["image/jpeg", "image/png"]},
        },
    ]
    if icon:
        assets.append({"id": 3, "required": 0, "img": {"type": 1, "wmin": 50, "hmin": 50}})
    assets += [{"id": 4 + k, "required": req, "data": {"type": t, "len": n}} for k, (t, n, req) in enumerate(data)]
    request = {
        "ver": "1.2", "context": 1, "contextsubtype": 11, "plcmttype": 1, "plcmtcnt": 1, "privacy": 1,
        "eventtrackers": [{"event": 1, "methods": [1, 2]}], "assets": assets,
    }  # fmt: skip
    return json.dumps(request, separators=(",", ":"))


_NATIVE = (
    _native_request(90, (300, 157), ((1, 25, 1), (2, 140, 0)), icon=True),
    _native_request(60, (600, 314), ((1, 30, 0), (2, 90, 0), (12, 15, 0)), icon=True),
    _native_request(120, (300, 157), ((1, 40, 1),), icon=False),
)


def make_imp(number: int, site: Site, venue: Venue, country: str, in_app: bool, draw: Draw) -> tuple[Slot, Json]:
    """Slot and imp object ``number`` (from 0) of a request, from uniform draws."""
    media, u = BANNER, draw()
    if u < site.video:
        media = VIDEO
    elif u < site.video + site.native:
        media = NATIVE
    mixed = draw()  # multi-format slots
    if media == BANNER and mixed < 0.16:
        media |= NATIVE if mixed < 0.1 else VIDEO
    elif media == NATIVE and mixed < 0.25:
        media |= BANNER
    sizes = _PHONE_SIZES if in_app else _WEB_SIZES
    first = int(draw() ** 1.5 * len(sizes))
    w, h = sizes[first]
    instl = int(in_app and (w, h) == (320, 480))
    pos = 7 if instl else 1 if draw() < 0.4 else 3
    floor = round(site.floor_usd / venue.usd * (0.5 + draw()) * (2.5 if media & VIDEO else 1.0), 2)
    deals = tuple(d for d in venue.deals if d.media & media and (not d.countries or country in d.countries))
    deals = tuple(d for d in deals if draw() < 0.25)[:3] if draw() < 0.4 else ()
    private = bool(deals) and draw() < 0.15
    secure = int(draw() < 0.9)
    slot_id = str(number + 1)
    imp: Json = {
        "id": slot_id,
        "tagid": f"{site.static['id']}/{'top' if pos == 1 else 'mid'}-{number + 1}",
        "secure": secure, "instl": instl, "bidfloor": floor, "bidfloorcur": venue.currency,
    }  # fmt: skip
    if media & BANNER:
        imp["banner"] = _banner(sizes, first, pos, in_app, draw())
    if media & VIDEO:
        imp["video"] = _video(in_app, pos, draw())
        if not media & BANNER:
            w, h = imp["video"]["w"], imp["video"]["h"]
    if media & NATIVE:
        imp["native"] = {"request": _NATIVE[int(draw() * len(_NATIVE))], "ver": "1.2", "battr": [1, 2, 8]}
    if deals:
        imp["pmp"] = {"private_auction": int(private), "deals": [_deal(d) for d in deals]}
    if in_app:
        imp["displaymanager"], imp["displaymanagerver"] = "sdk", "4.2"
    elif draw() < 0.5:
        imp["ext"] = {"gpid": f"/2190/{site.domain}/{imp['tagid']}"}
    return Slot(slot_id, media, w, h, pos, instl, floor, deals, private), imp


def _banner(sizes: tuple[tuple[int, int], ...], first: int, pos: int, in_app: bool, u: float) -> Json:
    w, h = sizes[first]
    formats = [{"w": w, "h": h}]
    if u < 0.5:  # the slot takes a second size
        w2, h2 = sizes[(first + 1) % len(sizes)]
        formats.append({"w": w2, "h": h2})
    return {
        "w": w, "h": h, "format": formats, "pos": pos, "topframe": 1, "battr": [1, 3, 8, 9, 10, 14],
        "btype": [4], "mimes": ["image/jpeg", "image/png", "text/html"],
        "api": [3, 5, 7] if in_app else [],
    }  # fmt: skip


def _video(in_app: bool, pos: int, u: float) -> Json:
    w, h = (360, 640) if in_app and u < 0.5 else (640, 360) if u < 0.7 else (1280, 720)
    return {
        "mimes": ["video/mp4", "video/webm"], "minduration": 5, "maxduration": 30 if u < 0.8 else 60,
        "protocols": [2, 3, 5, 6, 7, 8], "w": w, "h": h, "startdelay": 0, "plcmt": 1 if u < 0.3 else 4,
        "linearity": 1, "skip": 1, "skipmin": 16, "skipafter": 5, "minbitrate": 300, "maxbitrate": 6000,
        "playbackmethod": [1, 2], "delivery": [2], "pos": pos, "battr": [1, 8], "api": [2, 7],
    }  # fmt: skip


def _deal(deal: Deal) -> Json:
    out: Json = {"id": deal.id, "bidfloor": deal.floor, "bidfloorcur": deal.currency, "at": deal.at}
    if deal.wseat:
        out["wseat"] = list(deal.wseat)
    return out
