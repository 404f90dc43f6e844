"""OpenRTB 2.6 as JSON types, the fields we use: for those who build or read messages outside the hot path.

The market builds requests with these, the console shows responses, tests read both. Flags are 0/1 integers as in JSON.
``None`` is "not said" and is not written. Unknown members are ignored when reading. Decode with ``REQUEST`` and
``RESPONSE`` (made once), write with ``encode``.
"""

from __future__ import annotations

from typing import Any

import msgspec

Ext = dict[str, Any]


class Struct(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What all types share: members left at their default are not written."""


class Format(Struct):
    """A size a banner may have."""

    w: int | None = None
    h: int | None = None
    wratio: int | None = None
    hratio: int | None = None
    wmin: int | None = None


class Banner(Struct):
    """A banner is wanted."""

    format: list[Format] = []
    w: int | None = None
    h: int | None = None
    btype: list[int] = []
    battr: list[int] = []
    pos: int | None = None
    mimes: list[str] = []
    api: list[int] = []
    ext: Ext | None = None


class DurFloor(Struct):
    """A floor for a range of durations."""

    mindur: int | None = None
    maxdur: int | None = None
    bidfloor: float | None = None


class Video(Struct):
    """A video is wanted."""

    mimes: list[str] = []
    minduration: int | None = None
    maxduration: int | None = None
    startdelay: int | None = None
    maxseq: int | None = None
    poddur: int | None = None
    protocols: list[int] = []
    w: int | None = None
    h: int | None = None
    podid: str | None = None
    rqddurs: list[int] = []
    placement: int | None = None
    plcmt: int | None = None
    linearity: int | None = None
    skip: int | None = None
    mincpmpersec: float | None = None
    battr: list[int] = []
    maxextended: int | None = None
    playbackmethod: list[int] = []
    delivery: list[int] = []
    pos: int | None = None
    api: list[int] = []
    durfloors: list[DurFloor] = []
    ext: Ext | None = None


class Native(Struct):
    """A native ad is wanted; ``request`` is the Native 1.2 request as JSON in a string."""

    request: str | None = None
    ver: str | None = None
    api: list[int] = []
    battr: list[int] = []
    ext: Ext | None = None


class Deal(Struct):
    """A deal an imp may be sold under."""

    id: str
    bidfloor: float | None = None
    bidfloorcur: str | None = None
    at: int | None = None
    wseat: list[str] = []
    wadomain: list[str] = []
    durfloors: list[DurFloor] = []
    ext: Ext | None = None


class Pmp(Struct):
    """The private marketplace of an imp."""

    private_auction: int | None = None
    deals: list[Deal] = []


class Imp(Struct):
    """One impression on offer."""

    id: str
    banner: Banner | None = None
    video: Video | None = None
    audio: Ext | None = None
    native: Native | None = None
    pmp: Pmp | None = None
    displaymanager: str | None = None
    instl: int | None = None
    tagid: str | None = None
    bidfloor: float | None = None
    bidfloorcur: str | None = None
    secure: int | None = None
    rwdd: int | None = None
    exp: int | None = None
    ext: Ext | None = None


class Publisher(Struct):
    """Who owns a site or app."""

    id: str | None = None
    name: str | None = None
    cat: list[str] = []
    domain: str | None = None


class Content(Struct):
    """What the page or app shows."""

    id: str | None = None
    title: str | None = None
    cat: list[str] = []
    language: str | None = None
    langb: str | None = None
    keywords: str | None = None


class Site(Struct):
    """The page."""

    id: str | None = None
    name: str | None = None
    domain: str | None = None
    cat: list[str] = []
    sectioncat: list[str] = []
    pagecat: list[str] = []
    page: str | None = None
    ref: str | None = None
    mobile: int | None = None
    publisher: Publisher | None = None
    content: Content | None = None
    keywords: str | None = None
    ext: Ext | None = None


class App(Struct):
    """The app."""

    id: str | None = None
    name: str | None = None
    bundle: str | None = None
    domain: str | None = None
    storeurl: str | None = None
    cat: list[str] = []
    sectioncat: list[str] = []
    pagecat: list[str] = []
    ver: str | None = None
    publisher: Publisher | None = None
    content: Content | None = None
    ext: Ext | None = None


class Dooh(Struct):
    """The screen out of home."""

    id: str | None = None
    name: str | None = None
    venuetype: list[str] = []
    publisher: Publisher | None = None
    domain: str | None = None
    content: Content | None = None


class Geo(Struct):
    """A place."""

    lat: float | None = None
    lon: float | None = None
    type: int | None = None
    country: str | None = None
    region: str | None = None
    metro: str | None = None
    city: str | None = None
    zip: str | None = None
    utcoffset: int | None = None


class Device(Struct):
    """The device."""

    geo: Geo | None = None
    dnt: int | None = None
    lmt: int | None = None
    ua: str | None = None
    ip: str | None = None
    ipv6: str | None = None
    devicetype: int | None = None
    make: str | None = None
    model: str | None = None
    os: str | None = None
    osv: str | None = None
    w: int | None = None
    h: int | None = None
    js: int | None = None
    language: str | None = None
    langb: str | None = None
    carrier: str | None = None
    connectiontype: int | None = None
    ifa: str | None = None
    didsha1: str | None = None
    didmd5: str | None = None
    dpidsha1: str | None = None
    dpidmd5: str | None = None
    ext: Ext | None = None


class Uid(Struct):
    """An id of the person within a source."""

    id: str
    atype: int | None = None


class Eid(Struct):
    """Ids of the person from one source."""

    source: str
    uids: list[Uid] = []


class User(Struct):
    """The person."""

    id: str | None = None
    buyeruid: str | None = None
    yob: int | None = None
    gender: str | None = None
    keywords: str | None = None
    geo: Geo | None = None
    consent: str | None = None
    eids: list[Eid] = []
    ext: Ext | None = None


class Regs(Struct):
    """What the law says of this request."""

    coppa: int | None = None
    gdpr: int | None = None
    us_privacy: str | None = None
    gpp: str | None = None
    gpp_sid: list[int] = []
    ext: Ext | None = None


class SupplyChainNode(Struct):
    """Who sold on."""

    asi: str
    sid: str
    hp: int | None = None
    rid: str | None = None
    name: str | None = None
    domain: str | None = None


class SupplyChain(Struct):
    """Everyone who is paid."""

    complete: int
    nodes: list[SupplyChainNode] = []
    ver: str = "1.0"


class Source(Struct):
    """Where the request came from."""

    fd: int | None = None
    tid: str | None = None
    schain: SupplyChain | None = None
    ext: Ext | None = None


class BidRequest(Struct):
    """One auction."""

    id: str
    imp: list[Imp]
    site: Site | None = None
    app: App | None = None
    dooh: Dooh | None = None
    device: Device | None = None
    user: User | None = None
    test: int | None = None
    at: int | None = None
    tmax: int | None = None
    wseat: list[str] = []
    bseat: list[str] = []
    allimps: int | None = None
    cur: list[str] = []
    wlang: list[str] = []
    acat: list[str] = []
    bcat: list[str] = []
    cattax: int | None = None
    badv: list[str] = []
    bapp: list[str] = []
    source: Source | None = None
    regs: Regs | None = None
    ext: Ext | None = None


class Bid(Struct):
    """A bid for one imp; ``price`` is CPM in the response's currency."""

    id: str
    impid: str
    price: float
    nurl: str | None = None
    burl: str | None = None
    lurl: str | None = None
    adm: str | None = None
    adid: str | None = None
    adomain: list[str] = []
    bundle: str | None = None
    iurl: str | None = None
    cid: str | None = None
    crid: str | None = None
    cattax: int | None = None
    cat: list[str] = []
    attr: list[int] = []
    apis: list[int] = []
    api: int | None = None
    protocol: int | None = None
    language: str | None = None
    dealid: str | None = None
    w: int | None = None
    h: int | None = None
    wratio: int | None = None
    hratio: int | None = None
    exp: int | None = None
    dur: int | None = None
    mtype: int | None = None
    slotinpod: int | None = None
    ext: Ext | None = None


class SeatBid(Struct):
    """The bids of one seat."""

    bid: list[Bid]
    seat: str | None = None
    group: int | None = None


class BidResponse(Struct):
    """The answer to one auction."""

    id: str
    seatbid: list[SeatBid] = []
    bidid: str | None = None
    cur: str | None = None
    customdata: str | None = None
    nbr: int | None = None
    ext: Ext | None = None


REQUEST = msgspec.json.Decoder(BidRequest)
RESPONSE = msgspec.json.Decoder(BidResponse)
encode = msgspec.json.Encoder().encode
