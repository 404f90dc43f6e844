"""Bid templates: everything of a `BidResponse.Bid` that is known before the request, as bytes %-formats.

JSON: arguments (bid id, imp id as JSON text without quotes, price text, extra members), then the token once per slot.
Protobuf: the token once per slot; the engine puts id, impid, price, dealid, exp, w, h before it. A native bid has no
``adm`` here: it depends on the request's assets. A literal % is doubled.
"""

from __future__ import annotations

import msgspec

from dsp.catalog.layout import TOKEN_SLOT
from dsp.catalog.markup import Urls, banner_html, vast_xml
from dsp.catalog.names import SKIPPABLE_ATTR
from dsp.catalog.records import Advertiser, Creative, LineItem
from dsp.catalog.style import STANDARD, Style
from dsp.catalog.types import Creative as Spec
from dsp.catalog.wire import int_field, ints_field, repeated_text_field, text_field

MTYPE = {"banner": 1, "video": 2, "native": 4}
_SLOT = TOKEN_SLOT.encode()

# Field numbers of BidResponse.Bid.
_NURL, _BURL, _LURL, _ADM, _ADOMAIN, _IURL, _CID, _CRID = 5, 22, 23, 6, 7, 8, 9, 10
_BUNDLE, _CAT, _ATTR, _PROTOCOL, _LANGUAGE, _APIS, _DUR, _MTYPE = 14, 15, 11, 19, 25, 31, 32, 33


class Template(msgspec.Struct, gc=False):
    """The two templates of a creative and how many tokens each takes."""

    json: bytes
    pb: bytes
    json_tokens: int
    pb_tokens: int


class _Bid(msgspec.Struct, omit_defaults=True, gc=False):
    """The static members of a bid, in the order they are written."""

    nurl: str = ""
    burl: str = ""
    lurl: str = ""
    adm: str = ""
    adomain: tuple[str, ...] = ()
    bundle: str = ""
    iurl: str = ""
    cid: str = ""
    crid: str = ""
    cat: tuple[str, ...] = ()
    attr: tuple[int, ...] = ()
    apis: tuple[int, ...] = ()
    protocol: int = 0
    mtype: int = 0
    language: str = ""


def attributes(spec: Spec) -> tuple[int, ...]:
    """The creative's OpenRTB attributes; a skippable video has 16."""
    if spec.skippable and SKIPPABLE_ATTR not in spec.attr:
        return (*spec.attr, SKIPPABLE_ATTR)
    return spec.attr


def render(creative: Creative, item: LineItem, advertiser: Advertiser, urls: Urls, style: Style = STANDARD) -> Template:
    """The templates of ``creative`` for exchanges of one style."""
    spec = creative.spec
    adm = ""
    if creative.format == "banner":
        adm = banner_html(spec, creative.w, creative.h, urls)
    elif creative.format == "video":
        adm = vast_xml(spec, creative.id, creative.w, creative.h, advertiser.name, urls)
    bid = _Bid(
        style.url("win", urls.win),
        style.url("billing", urls.billing),
        style.url("loss", urls.loss),
        adm,
        advertiser.domains,
        advertiser.bundle,
        spec.image,
        str(item.campaign_id),
        str(creative.id),
        advertiser.categories,
        attributes(spec),
        spec.api,
        spec.protocol if creative.format == "video" else 0,
        MTYPE[creative.format],
        item.language,
    )
    members = msgspec.json.encode(bid)
    more = style.members(crid=bid.crid, cid=bid.cid, seat=advertiser.seat)
    if more:
        members = members[:-1] + b"," + more[1:]
    packed = _protobuf(bid, spec.duration_s if creative.format == "video" else 0)
    return Template(
        b'{"id":"%b","impid":"%b","price":%b%b,' + _format(members[1:]),
        _format(packed),
        members.count(_SLOT),
        packed.count(_SLOT),
    )


def _format(raw: bytes) -> bytes:
    return raw.replace(b"%", b"%%").replace(_SLOT, b"%b")


def _protobuf(bid: _Bid, duration_s: int) -> bytes:
    out = b""
    for number, url in ((_NURL, bid.nurl), (_BURL, bid.burl), (_LURL, bid.lurl)):
        if url:
            out += repeated_text_field(number, url)
    if bid.adm:
        out += text_field(_ADM, bid.adm)
    for domain in bid.adomain:
        out += repeated_text_field(_ADOMAIN, domain)
    if bid.bundle:
        out += repeated_text_field(_BUNDLE, bid.bundle)
    if bid.iurl:
        out += repeated_text_field(_IURL, bid.iurl)
    out += repeated_text_field(_CID, bid.cid) + text_field(_CRID, bid.crid)
    for category in bid.cat:
        out += repeated_text_field(_CAT, category)
    out += ints_field(_ATTR, bid.attr) + ints_field(_APIS, bid.apis)
    if bid.protocol:
        out += int_field(_PROTOCOL, bid.protocol)
    if duration_s:
        out += int_field(_DUR, duration_s)
    return out + int_field(_MTYPE, bid.mtype) + repeated_text_field(_LANGUAGE, bid.language)
