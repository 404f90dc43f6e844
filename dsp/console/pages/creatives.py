"""Ads: the list, each as it looks in its format and size, where it is approved, and new banners from a picture."""

from __future__ import annotations

from html import escape
from itertools import islice
from typing import Any

import msgspec
from sqlalchemy import select
from starlette.responses import FileResponse, HTMLResponse, Response

from dsp.catalog import tables, types
from dsp.catalog.dynamic import combinations, expand
from dsp.catalog.markup import Urls, banner_html, native_data
from dsp.catalog.profile import Profile
from dsp.console import creatives, images
from dsp.console.access import EDIT
from dsp.console.errors import ApiError
from dsp.console.models import ListQuery
from dsp.console.pages.page import Page, see, wrong_fields

FORM = (  # name, words, hint
    ("name", "Name", ""), ("landing", "Landing page", "https, where a click leads."),
    ("size", "Size", "As 300x250, or flex."), ("image", "Picture", "Its https address; an upload fills it in."),
    ("headline", "Headline", ""), ("text", "Text", ""), ("cta", "Button", ""),
    ("disclosure", "Small print", "What financial advertising must carry."),
)  # fmt: skip
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
    looks = [(number, look.size or "300x250") for number, look in enumerate(_looks(spec))]
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
    title = escape(spec.name)
    body = f'<!doctype html><html lang="{escape(spec.language or "en")}"><head><title>{title}</title></head>'
    body += f'<body style="margin:0">{_html(look)}</body></html>'
    return HTMLResponse(body, headers={"content-security-policy": _POLICY, "x-frame-options": "SAMEORIGIN"})


def blank(page: Page) -> Response:
    """GET /line-items/ID/new-creative."""
    return _form(page, {"size": "300x250"})


def make(page: Page) -> Response:
    """POST /line-items/ID/new-creative."""
    given = {name: page.form.get(name, "").strip() for name, _, _ in FORM}
    try:
        fields = {"format": "banner", **{name: value for name, value in given.items() if value}}
        made = creatives.create(
            page.services.catalog,
            page.person,
            page.ref,
            msgspec.convert({"name": "", "landing": "", **fields}, types.Creative),
        )
    except ApiError as error:
        if error.status in (403, 404):
            raise
        return _form(page, given, error)
    return see(f"/creatives/{made['id']}", "saved")


def _form(page: Page, form: dict[str, str], error: ApiError | None = None) -> Response:
    line_item = page.services.catalog.get(page.person, "line_item", page.ref)
    page.person.require(EDIT, line_item["advertiser_id"])
    wrong = wrong_fields(error) if error else {}
    values: dict[str, Any] = {"wrong": wrong, "problem": error.problem if error else None}
    status = error.status if error else 200
    return page.show("new_creative.html", status, line_item=line_item, form=form, fields=FORM, **values)


def picture(page: Page) -> Response:
    """GET /images/NAME, to everybody."""
    path, kind = images.find(page.services.config, str(page.request.path_params["name"]))
    return FileResponse(path, media_type=kind, headers={"cache-control": "public, max-age=31536000, immutable"})


def _looks(spec: types.Creative) -> list[types.Creative]:
    """The ads that it can be: itself, or the first of a template's."""
    found = list(islice(expand(spec), _SHOWN)) if spec.dynamic is not None else [spec]
    return found or [spec]


def _html(spec: types.Creative) -> str:
    if spec.format == "video":
        return f'<video controls width="100%" src="{escape(spec.media)}"></video>'
    if spec.native is not None:
        native, data = spec.native, native_data(spec)
        picture = native.image or native.icon
        image = f'<img src="{escape(picture.url)}" alt="" style="width:100%">' if picture else ""
        texts = "".join(f"<p>{escape(text)}</p>" for text in data.values())
        return f'<div style="font:14px sans-serif;padding:8px">{image}<b>{escape(native.title)}</b>{texts}</div>'
    w, _, h = spec.size.partition("x")
    size = (int(w), int(h)) if w.isdecimal() and h.isdecimal() else (0, 0)
    return banner_html(spec, *size, Urls("https://preview.invalid")).replace("https://preview.invalid/i/", "data:,")


def _needing(page: Page) -> list[str]:
    """Exchanges that want an ad approved before it bids."""
    with page.services.catalog.engine.connect() as connection:
        rows = connection.execute(select(tables.exchange.c.name, tables.exchange.c.profile))
        return sorted(row.name for row in rows if _PROFILE(row.profile).approval == "before")


def _states(spec: types.Creative, needed: list[str]) -> list[tuple[str, bool]]:
    """(exchange, whether it has approved the ad), of those that want it."""
    return [(name, name in spec.approved) for name in needed]
