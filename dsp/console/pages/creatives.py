"""Ads: the list, each as it looks in its format and size, where it is approved, and new ones in each format."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from itertools import islice
from typing import Any

import msgspec
from sqlalchemy import select
from starlette.responses import FileResponse, HTMLResponse, Response

from dsp.catalog import tables, types
from dsp.catalog.check_creative import FLEXIBLE, parse_size
from dsp.catalog.dynamic import combinations, expand
from dsp.catalog.markup import Urls, banner_html, native_data
from dsp.catalog.names import DATA_CTA, DATA_SPONSORED, VAST_VERSIONS
from dsp.catalog.profile import Profile
from dsp.console import creatives, images
from dsp.console.access import EDIT
from dsp.console.errors import ApiError, invalid
from dsp.console.models import ListQuery
from dsp.console.pages.page import Page, see
from dsp.console.words import problem_in

_Field = tuple[str, str, str]  # the path in the ad, words, hint
_WHO: tuple[_Field, ...] = (("name", "Name", ""), ("landing", "Landing page", "https, where a click leads."))
_PICTURE = "Its https address; an upload fills it in."
FORM: dict[str, tuple[_Field, ...]] = {
    "banner": (
        *_WHO, ("size", "Size", "As 300x250, or flex."), ("image", "Picture", _PICTURE), ("headline", "Headline", ""),
        ("text", "Text", ""), ("cta", "Button", ""),
        ("disclosure", "Small print", "What financial advertising must carry."),
    ),
    "native": (
        *_WHO, ("native.title", "Title", "Places cut it after 25 characters or more."),
        ("native.desc", "Text", ""), ("native.cta", "Button", ""),
        ("native.sponsored", "Sponsored by", "Who pays for the ad."),
        ("native.image.url", "Picture", _PICTURE), ("native.image.size", "Size of the picture", "As 1200x627."),
        ("native.icon.url", "Icon", _PICTURE), ("native.icon.size", "Size of the icon", "As 128x128."),
    ),
    "video": (
        *_WHO, ("media", "Video file", "The https address of an MP4 file."),
        ("duration_s", "Length, seconds", "1 to 3600."),
        ("size", "Size", "As 1280x720; empty: what is asked for."), ("bitrate_kbps", "Bit rate, kbit/s", ""),
        ("headline", "Headline", "The player may show it as the ad's title."),
    ),
}  # fmt: skip
UPLOADS = {  # a picture's address, its size
    "banner": (("image", "size", "Upload a picture"),),
    "native": (
        ("native.image.url", "native.image.size", "Upload a picture"),
        ("native.icon.url", "native.icon.size", "Upload an icon"),
    ),
    "video": (),
}
FORMATS = {"banner": "Banner", "native": "Native ad", "video": "Video"}
_BLANK = {
    "banner": {"size": "300x250"},
    "native": {"native.image.size": "1200x627", "native.icon.size": "128x128"},
    "video": {"duration_s": "15", "bitrate_kbps": "1200", "protocol": "7"},
}
_ROOM = {"banner": (300, 250), "native": (320, 420), "video": (640, 360)}  # of an ad that fills what it is given
_FONT = "font:14px/1.4 Arial,sans-serif;color:#111"
_SHOWN = 12  # of a template's ads
_PROFILE = msgspec.json.Decoder(Profile).decode
_POLICY = (  # an ad may run nothing here and reach nothing of ours, whatever its markup says
    "sandbox; default-src 'none'; img-src https: data:; media-src https:; style-src 'unsafe-inline'; "
    "frame-ancestors 'self'"
)


def listing(page: Page) -> Response:
    """GET /creatives."""
    query: ListQuery = page.query(ListQuery)
    items, more = creatives.page(page.services.catalog, page.person, query)
    needed = _needing(page)
    rows = [{**one, "states": _states(one["spec"], needed)} for one in items]
    return page.show("creatives.html", items=rows, more=more, query=query)


def one(page: Page) -> Response:
    """GET /creatives/ID."""
    found = creatives.get(page.services.catalog, page.person, page.ref)
    spec: types.Creative = found["spec"]
    line_item = page.services.catalog.get(page.person, "line_item", found["line_item_id"])
    looks = [(number, *_room(look)) for number, look in enumerate(_looks(spec))]
    values: dict[str, Any] = {
        "states": _states(spec, _needing(page)),
        "looks": looks,
        "combinations": combinations(spec),
    }
    as_json = msgspec.json.format(msgspec.json.encode(spec)).decode()
    return page.show("creative.html", one=found, spec=spec, line_item=line_item, as_json=as_json, **values)


def preview(page: Page) -> Response:
    """GET /creatives/ID/preview: the ad alone, in a frame that can do nothing."""
    spec: types.Creative = creatives.get(page.services.catalog, page.person, page.ref)["spec"]
    number = page.request.query_params.get("look", "0")
    looks = _looks(spec)
    look = looks[min(int(number) if number.isdecimal() and len(number) < 4 else 0, len(looks) - 1)]
    return _alone(look, page)


def try_out(page: Page) -> Response:
    """POST /line-items/ID/try-creative: the ad that the form describes so far, alone, nothing kept."""
    line_item = page.services.catalog.get(page.person, "line_item", page.ref)
    page.person.require(EDIT, line_item["advertiser_id"])
    try:
        return _alone(_typed(page)[1], page)
    except ApiError as error:
        return _in_frame(f"<p>{escape(problem_in(page.lang, error.problem).message)}</p>", page.lang, "", error.status)


def _alone(look: types.Creative, page: Page) -> Response:
    return _in_frame(_html(look, page.words), look.language or "en", look.name)


def _in_frame(body: str, lang: str, title: str, status: int = 200) -> Response:
    head = f'<!doctype html><html lang="{escape(lang)}"><head><title>{escape(title)}</title></head>'
    headers = {"content-security-policy": _POLICY, "x-frame-options": "SAMEORIGIN"}
    return HTMLResponse(f'{head}<body style="margin:0;background:#fff">{body}</body></html>', status, headers)


def blank(page: Page) -> Response:
    """GET /line-items/ID/new-creative?format=FORMAT."""
    kind = _kind(page.request.query_params.get("format", ""))
    return _form(page, kind, _BLANK[kind])


def make(page: Page) -> Response:
    """POST /line-items/ID/new-creative."""
    try:
        spec = _typed(page)[1]
        made = creatives.create(page.services.catalog, page.person, page.ref, spec)
    except ApiError as error:
        if error.status in (403, 404):
            raise
        return _form(page, _kind(page.form.get("format", "")), page.form, error)
    return see(f"/creatives/{made['id']}", "saved")


def _kind(text: str) -> str:
    return text if text in FORM else "banner"


def _typed(page: Page) -> tuple[str, types.Creative]:
    """The format and the ad of the form. Raises 422."""
    kind = _kind(page.form.get("format", ""))
    given = {name: page.form.get(name, "").strip() for name, *_ in FORM[kind]}
    fields: dict[str, Any] = {name: value for name, value in given.items() if value and "." not in name}
    for name in ("duration_s", "bitrate_kbps"):
        if name in fields:
            fields[name] = _whole(name, fields[name])
    if kind == "video":
        fields["protocol"] = _whole("protocol", page.form.get("protocol", ""))
        fields["skippable"] = page.form.get("skippable") == "yes"
    if kind == "native":
        parts: dict[str, Any] = {n: given[f"native.{n}"] for n in ("title", "desc", "cta", "sponsored")}
        for name in ("image", "icon"):
            if given[f"native.{name}.url"]:
                parts[name] = _picture(f"native.{name}", given[f"native.{name}.url"], given[f"native.{name}.size"])
        fields["native"] = parts
    return kind, msgspec.convert({"name": "", "landing": "", "format": kind, **fields}, types.Creative)


def _whole(name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 7):
        raise invalid(name, "is not a whole number")
    return int(text)


def _picture(name: str, url: str, size: str) -> dict[str, Any]:
    try:
        w, h = parse_size(size)
    except ValueError as error:
        raise invalid(f"{name}.size", str(error)) from None
    return {"url": url, "w": w, "h": h}


def _form(page: Page, kind: str, form: dict[str, str], error: ApiError | None = None) -> Response:
    line_item = page.services.catalog.get(page.person, "line_item", page.ref)
    page.person.require(EDIT, line_item["advertiser_id"])
    wrong: dict[str, str] = {}
    for field in error.problem.fields if error else ():
        path = field.field.removeprefix("spec.")
        wrong[f"{path}.size" if path in ("native.image", "native.icon") else path] = field.message
    values: dict[str, Any] = {"wrong": wrong, "problem": error.problem if error else None, "format": kind}
    values |= {"fields": FORM[kind], "uploads": UPLOADS[kind], "formats": FORMATS, "room": _ROOM[kind]}
    values["versions"] = [(number, f"VAST {version}") for number, version in VAST_VERSIONS.items()]
    return page.show("new_creative.html", error.status if error else 200, line_item=line_item, form=form, **values)


def picture(page: Page) -> Response:
    """GET /images/NAME, to everybody."""
    path, kind = images.find(page.services.config, str(page.request.path_params["name"]))
    return FileResponse(path, media_type=kind, headers={"cache-control": "public, max-age=31536000, immutable"})


def _looks(spec: types.Creative) -> list[types.Creative]:
    """The ads that it can be: itself, or the first of a template's."""
    found = list(islice(expand(spec), _SHOWN)) if spec.dynamic is not None else [spec]
    return found or [spec]


def _room(spec: types.Creative) -> tuple[int, int]:
    """Pixels that its frame is given."""
    try:
        size = parse_size(spec.size) if spec.size else (0, 0)
    except ValueError:
        size = (0, 0)
    return size if size[0] and spec.format == "banner" else _ROOM[spec.format]


def _html(spec: types.Creative, words: Callable[[str], str]) -> str:
    if spec.format == "video":
        skip = f"<span>{escape(words('skippable after 5 s'))}</span>" if spec.skippable else ""
        return (
            f'<video controls playsinline src="{escape(spec.media)}" style="display:block;width:100%;height:300px;'
            f'background:#000"></video><p style="{_FONT};display:flex;gap:12px;padding:8px;margin:0">'
            f"<b>{escape(spec.headline or spec.name)}</b><span>{spec.duration_s} s</span>{skip}</p>"
        )
    if spec.native is not None:
        return _native(spec, spec.native, words)
    size = _room(spec) if spec.size != FLEXIBLE else (0, 0)
    return banner_html(spec, *size, Urls("https://preview.invalid")).replace("https://preview.invalid/i/", "data:,")


def _native(spec: types.Creative, native: types.Native, words: Callable[[str], str]) -> str:
    """As a feed lays it out: who pays, icon and title, picture, text, button, then what else there is."""
    data = native_data(spec)
    icon, image = (
        f'<img src="{escape(picture.url)}" alt="" style="{style}">' if picture else ""
        for picture, style in ((native.icon, "width:40px;height:40px;border-radius:6px"), (native.image, "width:100%"))
    )
    button = data.pop(str(DATA_CTA), "")
    texts = "".join(f'<p style="margin:8px 0">{escape(t)}</p>' for k, t in data.items() if k != str(DATA_SPONSORED))
    if button:
        texts += (
            '<span style="display:inline-block;padding:6px 14px;border-radius:4px;background:#0b3d91;color:#fff">'
            f"{escape(button)}</span>"
        )
    sponsored = f"{words('Sponsored by')} {native.sponsored}" if native.sponsored else words("Advertisement")
    return (
        f'<div style="{_FONT};padding:12px"><small style="color:#565">{escape(sponsored)}</small>'
        f'<div style="display:flex;gap:8px;align-items:center;margin:8px 0">{icon}<b>{escape(native.title)}</b></div>'
        f"{image}{texts}</div>"
    )


def _needing(page: Page) -> list[str]:
    """Exchanges that want an ad approved before it bids."""
    with page.services.catalog.engine.connect() as connection:
        rows = connection.execute(select(tables.exchange.c.name, tables.exchange.c.profile))
        return sorted(row.name for row in rows if _PROFILE(row.profile).approval == "before")


def _states(spec: types.Creative, needed: list[str]) -> list[tuple[str, bool]]:
    """(exchange, whether it has approved the ad), of those that want it."""
    return [(name, name in spec.approved) for name in needed]
