"""Bid templates, filled as the engine fills them: valid JSON, valid protobuf, well-formed markup."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from dsp.base.token import TOKEN_TEXT_BYTES
from dsp.catalog import layout as ly
from dsp.catalog.compile import compile_catalog
from dsp.catalog.markup import Urls, banner_html, is_secure
from dsp.catalog.names import VAST_VERSIONS
from dsp.catalog.records import Creative
from dsp.catalog.snapshot import Snapshot
from dsp.catalog.synthetic import synthetic_catalog
from dsp.catalog.types import Creative as Spec
from dsp.catalog.types import Image, Native

TOKEN = b"T" * TOKEN_TEXT_BYTES
PUBLIC = "https://dsp.example"
LANDING = "https://bank.example/a?b=1&c=50%25"
NASTY = 'Save 100% "now" <b>&\' {x} 存款 \\'

SPECS = [
    Spec("box", "banner", LANDING, "300x250", headline=NASTY, text=NASTY, cta=NASTY, disclosure=NASTY),
    Spec("strip", "banner", LANDING, "320x50", headline=NASTY, cta="Go", attr=(1, 17), api=(5,)),
    Spec("picture", "banner", LANDING, "728x90", image="https://cdn.example/a.png?x=1&y=2", headline=NASTY),
    Spec("flexible", "banner", LANDING, "flex", headline=NASTY),
    Spec("own", "banner", LANDING, "970x250", markup='<script src="https://x.example/y.js?c=${CLICK_URL}"></script>'),
    Spec("pixel", "banner", LANDING, "300x50", markup='<a href="${CLICK_URL}">50%</a><img alt="" src="${PIXEL_URL}">'),
    *(
        Spec(f"video {p}", "video", LANDING, "1280x720" if p == 7 else "", headline=NASTY,
             media="https://cdn.example/v.mp4?a=1&b=]]>", duration_s=3725, protocol=p, skippable=p == 3)
        for p in VAST_VERSIONS
    ),
    Spec("native", "native", LANDING, native=Native(
        NASTY, "desc", "cta", "sponsor", Image("https://cdn.example/i.png", 80, 80),
        Image("https://cdn.example/m.jpg", 1200, 627), {"3": "4.5"},
    )),
    Spec("bare native", "native", LANDING, native=Native("Title")),
]  # fmt: skip


def compiled(public: str = PUBLIC) -> tuple[Snapshot, list[Spec]]:
    catalog = synthetic_catalog(1, 1)
    catalog.advertisers[0].domains = ("bank.example", "bank.de")
    catalog.advertisers[0].bundle = "com.bank"
    catalog.creatives = []
    for i, spec in enumerate(SPECS):
        w, h = map(int, spec.size.split("x")) if "x" in spec.size.removesuffix("flex") else (0, 0)
        catalog.creatives.append(Creative(100 + i, 1, spec.name, spec.format, w, h, spec))
    return Snapshot(*compile_catalog(catalog, 1, public, 1.75e9), version=1), SPECS


SNAPSHOT, _ = compiled()
EACH = pytest.mark.parametrize("c", range(len(SPECS)), ids=[s.name for s in SPECS])


def filled(c: int, extra: bytes = b"") -> dict:
    tokens = (TOKEN,) * int(SNAPSHOT.tpl_tokens[c, 0])
    return json.loads(SNAPSHOT.template_json(c) % ((b"bid-1", b'im\\"p', b"1.25", extra, *tokens)))


def filled_pb(c: int) -> bytes:
    return SNAPSHOT.template_pb(c) % ((TOKEN,) * int(SNAPSHOT.tpl_tokens[c, 1]))


@EACH
def test_the_json_template_is_a_bid(c):
    bid = filled(c, b',"dealid":"d","w":300,"exp":60')
    assert bid["id"] == "bid-1"
    assert bid["impid"] == 'im"p'
    assert bid["price"] == 1.25
    assert (bid["dealid"], bid["w"], bid["exp"]) == ("d", 300, 60)
    token = TOKEN.decode()
    assert bid["nurl"] == f"{PUBLIC}/n/{token}?p=${{AUCTION_PRICE}}&c=${{AUCTION_CURRENCY}}"
    assert bid["burl"] == f"{PUBLIC}/b/{token}?p=${{AUCTION_PRICE}}&c=${{AUCTION_CURRENCY}}"
    assert bid["lurl"].startswith(f"{PUBLIC}/l/{token}?r=${{AUCTION_LOSS}}&m=${{AUCTION_MIN_TO_WIN}}&p=")
    assert bid["adomain"] == ["bank.example", "bank.de"]
    assert bid["bundle"] == "com.bank"
    assert bid["crid"] == str(100 + c)
    assert bid["cid"] == "1"
    assert bid["mtype"] == {"banner": 1, "video": 2, "native": 4}[SPECS[c].format]
    assert ly.TOKEN_SLOT not in json.dumps(bid)
    assert ("adm" in bid) == (SPECS[c].format != "native")


@EACH
def test_the_protobuf_template_says_the_same(c):
    pb2 = pytest.importorskip("dsp.pb.com.iabtechlab.openrtb.v2.openrtb_pb2")
    bid = pb2.BidResponse.Bid()
    raw = filled_pb(c)
    assert bid.ParseFromString(raw) == len(raw)
    expected = filled(c)
    for name in ("nurl", "burl", "lurl", "adm", "bundle", "cid", "crid", "language", "iurl"):
        assert getattr(bid, name) == expected.get(name, ""), name
    for name in ("adomain", "cat", "attr", "apis"):
        assert list(getattr(bid, name)) == expected.get(name, []), name
    assert bid.mtype == expected["mtype"]
    assert bid.protocol == expected.get("protocol", 0)
    assert bid.dur == (SPECS[c].duration_s if SPECS[c].format == "video" else 0)
    present = {field.name for field, _ in bid.ListFields()}
    assert not present & {"id", "impid", "price", "dealid", "exp", "w", "h", "ext"}
    assert "adm_native" not in present


def test_the_length_of_a_template_does_not_depend_on_the_token():
    for c in range(len(SPECS)):
        assert len(filled_pb(c)) == len(
            SNAPSHOT.template_pb(c) % ((b"x" * TOKEN_TEXT_BYTES,) * SNAPSHOT.tpl_tokens[c, 1])
        )


class _Tags(HTMLParser):
    """Fails where tags do not nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("c", [i for i, s in enumerate(SPECS) if s.format == "banner"])
def test_a_banner_is_html_that_links_to_the_click_and_loads_the_pixel(c):
    adm = filled(c)["adm"]
    tags = _Tags()
    tags.feed(adm)
    tags.close()
    assert tags.open == []
    token = TOKEN.decode()
    assert f"{PUBLIC}/c/{token}" in adm
    pixels = [a for t, a in tags.seen if t == "img" and a["src"] == f"{PUBLIC}/i/{token}"]
    assert len(pixels) == 1
    assert all("alt" in a for t, a in tags.seen if t == "img")
    if not SPECS[c].markup and not SPECS[c].image:
        assert NASTY in tags.text
    if SPECS[c].size != "flex" and not SPECS[c].markup:
        w, h = SPECS[c].size.split("x")
        assert f"width:{w}px" in adm
        assert f"height:{h}px" in adm


@pytest.mark.parametrize("c", [i for i, s in enumerate(SPECS) if s.format == "video"])
def test_a_video_is_well_formed_vast_of_its_protocol(c):
    adm = filled(c)["adm"]
    assert adm.startswith("<?xml")
    root = ElementTree.fromstring(re.sub(r' xmlns="[^"]+"', "", adm).encode())
    assert root.tag == "VAST"
    assert root.get("version") == VAST_VERSIONS[SPECS[c].protocol]
    inline = root.find("Ad/InLine")
    assert inline is not None
    assert inline.findtext("AdTitle") == NASTY
    linear = inline.find("Creatives/Creative/Linear")
    assert linear is not None
    assert linear.findtext("Duration") == "01:02:05"
    media = linear.find("MediaFiles/MediaFile")
    assert media is not None
    assert media.text == SPECS[c].media
    assert media.get("type") == "video/mp4"
    assert (media.get("width"), media.get("height")) == (("1280", "720") if SPECS[c].size else ("640", "360"))
    token = TOKEN.decode()
    assert inline.findtext("Impression") == f"{PUBLIC}/i/{token}"
    assert linear.findtext("VideoClicks/ClickThrough") == f"{PUBLIC}/c/{token}"
    events = [e.get("event") for e in linear.findall("TrackingEvents/Tracking")]
    assert events == ["start", "firstQuartile", "midpoint", "thirdQuartile", "complete"]
    assert (inline.find("Creatives/Creative/UniversalAdId") is not None) == (SPECS[c].protocol >= 7)
    assert (linear.get("skipoffset") is not None) == SPECS[c].skippable
    assert (16 in filled(c).get("attr", [])) == SPECS[c].skippable == bool(SNAPSHOT.cr_i[c, ly.CR_SKIPPABLE])


def test_native_parts_carry_the_slot_and_the_texts():
    rich, bare = len(SPECS) - 2, len(SPECS) - 1
    parts = SNAPSHOT.native(rich)
    assert parts["title"] == NASTY
    assert parts["icon"] == {"url": "https://cdn.example/i.png", "w": 80, "h": 80}
    assert parts["image"]["w"] == 1200
    assert parts["data"] == {"1": "sponsor", "2": "desc", "12": "cta", "3": "4.5"}
    assert parts["click"] == f"{PUBLIC}/c/{ly.TOKEN_SLOT}"
    assert parts["imptrackers"] == [f"{PUBLIC}/i/{ly.TOKEN_SLOT}"]
    assert SNAPSHOT.native(bare)["data"] == {}
    assert "icon" not in SNAPSHOT.native(bare)
    assert SNAPSHOT.native(0) == {}
    row = SNAPSHOT.cr_i[rich]
    assert row[ly.CR_TITLE_LEN] == len(NASTY)
    assert row[ly.CR_DATA] == 1 << 1 | 1 << 2 | 1 << 12 | 1 << 3
    assert (row[ly.CR_ICON_W], row[ly.CR_IMAGE_H]) == (80, 627)


def test_creative_columns():
    row = SNAPSHOT.cr_i[1]
    assert row[ly.CR_ATTR] == 1 << 1 | 1 << 17
    assert row[ly.CR_API] == 1 << 5
    assert (row[ly.CR_W], row[ly.CR_H]) == (320, 50)
    assert row[ly.CR_BTYPE] == 1 << 2
    assert SNAPSHOT.cr_i[4, ly.CR_BTYPE] == 1 << 3  # a script in the markup
    assert SNAPSHOT.cr_i[3, ly.CR_W] == SNAPSHOT.cr_i[3, ly.CR_H] == 0
    assert SNAPSHOT.cr_i[:, ly.CR_SECURE].all()


def test_one_http_url_makes_an_ad_insecure():
    plain, _ = compiled("http://127.0.0.1:8090")
    assert not plain.cr_i[:, ly.CR_SECURE].any()
    fine = Spec("x", "banner", LANDING, "300x250", headline="h")
    assert is_secure(fine, PUBLIC)
    for wrong in (
        Spec("x", "banner", "HTTP://bank.example", "300x250", headline="h"),
        Spec("x", "banner", LANDING, "300x250", image="http://cdn.example/x.png"),
        Spec("x", "banner", LANDING, "300x250", markup="<img src='http://cdn.example/x.png'>"),
        Spec("x", "banner", LANDING, "300x250", headline="h", secure=False),
        Spec("x", "native", LANDING, native=Native("t", icon=Image("http://cdn.example/x.png", 1, 1))),
    ):
        assert not is_secure(wrong, PUBLIC)
    assert is_secure(Spec("x", "banner", LANDING, "1x1", markup='<svg xmlns="http://www.w3.org/2000/svg"/>'), PUBLIC)


def test_markup_without_our_macros_still_gets_the_pixel():
    html = banner_html(Spec("x", "banner", LANDING, "1x1", markup="<b>hi</b>"), 1, 1, Urls(PUBLIC))
    assert html.startswith("<b>hi</b><img")
