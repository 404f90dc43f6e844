"""What a browser or player gets: the HTML of a banner, the VAST of a video, the parts of a native ad.

All of it carries `layout.TOKEN_SLOT` where the bid's signed token goes. Text is escaped here; own markup is taken as it
is, but for ${CLICK_URL} and ${PIXEL_URL}.
"""

from __future__ import annotations

import re
from html import escape
from typing import Any

import msgspec

from dsp.catalog.layout import TOKEN_SLOT
from dsp.catalog.names import DATA_CTA, DATA_DESC, DATA_SPONSORED, VAST_VERSIONS
from dsp.catalog.types import Creative, Image

_STRIP_PX = 100  # banners up to this height are laid out in a row
_PLAIN_HTTP = re.compile(r"http://(?!(?:www\.)?w3\.org)", re.IGNORECASE)
_EVENTS = ("start", "firstQuartile", "midpoint", "thirdQuartile", "complete")


class Urls(msgspec.Struct, frozen=True):
    """The URLs of one public address; each has one token in it."""

    public: str

    @property
    def win(self) -> str:
        """`bid.nurl`."""
        return f"{self.public}/n/{TOKEN_SLOT}?p=${{AUCTION_PRICE}}&c=${{AUCTION_CURRENCY}}"

    @property
    def billing(self) -> str:
        """`bid.burl`."""
        return f"{self.public}/b/{TOKEN_SLOT}?p=${{AUCTION_PRICE}}&c=${{AUCTION_CURRENCY}}"

    @property
    def loss(self) -> str:
        """`bid.lurl`."""
        return (
            f"{self.public}/l/{TOKEN_SLOT}?r=${{AUCTION_LOSS}}&m=${{AUCTION_MIN_TO_WIN}}"
            "&p=${AUCTION_PRICE}&c=${AUCTION_CURRENCY}"
        )

    @property
    def click(self) -> str:
        """Sends the browser on to the landing page."""
        return f"{self.public}/c/{TOKEN_SLOT}"

    @property
    def pixel(self) -> str:
        """Tells that the ad was rendered."""
        return f"{self.public}/i/{TOKEN_SLOT}"


def is_secure(spec: Creative, public_url: str) -> bool:
    """Whether every URL of the ad and of our notices is https."""
    urls = [public_url, spec.landing, spec.image, spec.media, spec.markup]
    if spec.native is not None:
        urls += [image.url for image in (spec.native.icon, spec.native.image) if image is not None]
    return spec.secure is not False and not any(_PLAIN_HTTP.search(url) for url in urls)


def banner_html(spec: Creative, w: int, h: int, urls: Urls) -> str:
    """The HTML of a banner of ``w`` x ``h`` pixels (0 x 0: fills what it is given), with our pixel."""
    pixel = f'<img src="{escape(urls.pixel)}" width="1" height="1" alt="" style="position:absolute;left:-9px">'
    if spec.markup:
        own = spec.markup.replace("${CLICK_URL}", escape(urls.click))
        return own.replace("${PIXEL_URL}", escape(urls.pixel)) if "${PIXEL_URL}" in own else own + pixel
    link = f'<a href="{escape(urls.click)}" target="_blank" rel="noopener sponsored"'
    width, height = (f"{w}px", f"{h}px") if w else ("100%", "100%")
    if spec.image:
        return (
            f'{link}><img src="{escape(spec.image)}" alt="{escape(spec.headline or spec.name)}" '
            f'style="display:block;border:0;width:{width};height:{height}"></a>{pixel}'
        )
    return link + _box(spec, width, height, strip=0 < h <= _STRIP_PX, wide=not w or w >= 468) + pixel


def _box(spec: Creative, width: str, height: str, *, strip: bool, wide: bool) -> str:
    """The rest of a link whose content is laid out by us: headline, text, button and small print."""
    color = spec.color
    flow = "row;align-items:center;gap:8px" if strip else "column"
    parts = [f'<b style="font-size:{15 if strip else 21}px">{escape(spec.headline)}</b>']
    if spec.text and (wide or not strip):
        parts.append(f"<span>{escape(spec.text)}</span>")
    if spec.cta:
        parts.append(
            f'<span style="align-self:center;padding:6px 12px;border-radius:4px;background:#fff;color:{color};'
            f'font-weight:700;white-space:nowrap">{escape(spec.cta)}</span>'
        )
    if spec.disclosure:
        parts.append(f'<small style="font-size:9px;opacity:.85">{escape(spec.disclosure)}</small>')
    return (
        f' aria-label="{escape(spec.headline)}" style="display:flex;flex-direction:{flow};'
        f"justify-content:space-between;box-sizing:border-box;width:{width};height:{height};padding:8px;"
        f"overflow:hidden;background:{color};color:#fff;font:14px/1.25 Arial,sans-serif;text-decoration:none"
        f'">{"".join(parts)}</a>'
    )


def vast_xml(spec: Creative, creative_id: int, w: int, h: int, advertiser: str, urls: Urls) -> str:
    """An inline linear VAST document of the version that ``spec.protocol`` names (VAST 2.0-4.2, IAB Tech Lab)."""
    version = VAST_VERSIONS[spec.protocol]
    modern = version[0] == "4"
    namespace = ' xmlns="http://www.iab.com/VAST"' if modern else ""
    title = f"<AdTitle>{escape(spec.headline or spec.name)}</AdTitle>"
    error = f"<Error>{_cdata(urls.pixel + '?e=error&code=[ERRORCODE]')}</Error>"
    impression = f"<Impression>{_cdata(urls.pixel)}</Impression>"
    serving = f"<AdServingId>{TOKEN_SLOT}</AdServingId>" if version in ("4.1", "4.2") else ""
    head = error + impression + serving + title if modern else title + error + impression
    if modern:
        head += f"<Advertiser>{escape(advertiser)}</Advertiser>"
    universal = ""
    if modern:
        value = f' idValue="{creative_id}"' if version == "4.0" else ""
        universal = f'<UniversalAdId idRegistry="unknown"{value}>{creative_id}</UniversalAdId>'
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><VAST version="{version}"{namespace}><Ad id="{creative_id}"><InLine>'
        f"<AdSystem>dsp</AdSystem>{head}"
        f'<Creatives><Creative id="{creative_id}">{universal}{_linear(spec, version, w, h, urls)}</Creative>'
        "</Creatives></InLine></Ad></VAST>"
    )


def _linear(spec: Creative, version: str, w: int, h: int, urls: Urls) -> str:
    minutes, seconds = divmod(spec.duration_s, 60)
    duration = f"<Duration>{minutes // 60:02}:{minutes % 60:02}:{seconds:02}</Duration>"
    events = "".join(f'<Tracking event="{e}">{_cdata(f"{urls.pixel}?e={e}")}</Tracking>' for e in _EVENTS)
    tracking = f"<TrackingEvents>{events}</TrackingEvents>"
    clicks = f"<VideoClicks><ClickThrough>{_cdata(urls.click)}</ClickThrough></VideoClicks>"
    files = (
        f'<MediaFiles><MediaFile delivery="progressive" type="{escape(mime_of(spec))}" width="{w or 640}" '
        f'height="{h or 360}" bitrate="{spec.bitrate_kbps}">{_cdata(spec.media)}</MediaFile></MediaFiles>'
    )
    skip = ' skipoffset="00:00:05"' if spec.skippable and version != "2.0" else ""
    body = tracking + duration + files + clicks if version[0] == "4" else duration + tracking + clicks + files
    return f"<Linear{skip}>{body}</Linear>"


def _cdata(text: str) -> str:
    return f"<![CDATA[{text.replace(']]>', ']]]]><![CDATA[>')}]]>"


def mime_of(spec: Creative) -> str:
    """The MIME type of what the ad is."""
    return spec.mime or {"banner": "text/html", "video": "video/mp4"}.get(spec.format, "")


def native_data(spec: Creative) -> dict[str, str]:
    """The data assets of a native ad: type number as text -> value."""
    native = spec.native
    if native is None:
        return {}
    own = {DATA_SPONSORED: native.sponsored, DATA_DESC: native.desc, DATA_CTA: native.cta}
    return {**{str(kind): text for kind, text in own.items() if text}, **native.data}


def native_parts(spec: Creative, urls: Urls) -> dict[str, Any]:
    """The parts of a native ad as `layout` says (native_json)."""
    native = spec.native
    if native is None:
        return {}
    parts: dict[str, Any] = {"title": native.title}
    for name, image in (("icon", native.icon), ("image", native.image)):
        if image is not None:
            parts[name] = _image(image)
    return {**parts, "data": native_data(spec), "click": urls.click, "imptrackers": [urls.pixel]}


def _image(image: Image) -> dict[str, Any]:
    return {"url": image.url, "w": image.w, "h": image.h}
