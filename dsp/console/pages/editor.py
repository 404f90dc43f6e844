"""One campaign or line item: made, shown, changed, paused, resumed; tried out as it is typed.

A form is tried by making its change in a transaction that is taken back: what is said while one types is what saving
would say, and the forecast is of exactly what would be live.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from markupsafe import Markup
from sqlalchemy import Connection
from starlette.responses import JSONResponse, Response

from dsp.catalog.store import read_catalog
from dsp.console import creatives, history, review
from dsp.console.access import EDIT
from dsp.console.browse import Browse, listed
from dsp.console.bulk import duplicate
from dsp.console.catalog import etag_of
from dsp.console.errors import ApiError
from dsp.console.models import AuditQuery, ListQuery
from dsp.console.pages import show, targeting
from dsp.console.pages.launch import standing
from dsp.console.pages.lists import BASE
from dsp.console.pages.page import Handler, Page, see
from dsp.console.pages.why import foreseen
from dsp.console.transaction import undone
from dsp.console.words import problem_in, refusal

T = TypeVar("T")

_DECIMAL = 'inputmode="decimal"'
_Field = tuple[str, str, str, str, str]  # name, label, type, hint, further attributes
FIELDS: dict[str, tuple[_Field, ...]] = {
    "campaign": (
        ("name", "Name", "text", "", 'required maxlength="200"'),
        ("total", "Total budget", "text", "All that it may ever spend. Empty: no limit here.", _DECIMAL),
        ("daily", "Daily budget", "text", "What it may spend in a day. Empty: no limit here.", _DECIMAL),
        ("start", "Start", "datetime-local", "In the advertiser's time zone. Empty: at once.", ""),
        ("end", "End", "datetime-local", "In the advertiser's time zone. Empty: when the budget is spent.", ""),
    ),
}
FIELDS["line_item"] = (
    *FIELDS["campaign"],
    (
        "max_bid_cpm",
        "Maximum bid, CPM",
        "text",
        "The most for a thousand impressions, whatever the model says.",
        _DECIMAL,
    ),
)


def editor(kind: str) -> Handler:
    """GET of one."""

    def run(page: Page) -> Response:
        return _edit(page, kind, page.services.catalog.get(page.person, kind, page.ref))

    return run


def blank(kind: str) -> Handler:
    """GET of a new one."""

    def run(page: Page) -> Response:
        return _edit(page, kind, None)

    return run


def _edit(
    page: Page, kind: str, one: dict[str, Any] | None, error: ApiError | None = None, forecast: str | None = None
) -> Response:
    """The page of one; refused, or with a ``forecast`` (HTML), the form is as it was posted."""
    catalog, by = page.services.catalog, page.person
    values: dict[str, Any] = {"kind": kind, "one": one, "base": BASE[kind], "fields": FIELDS[kind], "changes": []}
    typed = error is not None or forecast is not None
    values |= {"form": page.form if typed else _as_form(one), "forecast": forecast and Markup(forecast)}
    values["etag"] = page.form.get("etag", "") if forecast is not None else etag_of(one) if one else ""
    values["may"] = by.may(EDIT, one["advertiser_id"]) if one else by.may_anywhere(EDIT)
    references = values["references"] = catalog.references(by)
    values["advertisers"] = catalog.page(by, "advertiser", ListQuery(limit=500))[0] if one is None else []
    if kind == "line_item":
        values["parent"] = catalog.get(by, "campaign", one["campaign_id"] if one else page.ref)
        values["groups"] = targeting.groups(page.fields if typed else targeting.shown(one or {}), references)
        values["address"] = f"{BASE[kind]}/{one['id']}" if one else f"/campaigns/{page.ref}/new-line-item"
        values["ads"] = creatives.page(catalog, by, ListQuery(line_item_id=one["id"], limit=50))[0] if one else []
    if one is not None:
        values["changes"] = history.changes(catalog, by, AuditQuery(kind=kind, ref=one["id"], limit=20))[0]
    if kind == "campaign" and one is not None:
        children, n = listed(page.services, by, "line_item", Browse(campaign_id=one["id"], limit=50, sort="newest"))
        values |= {"children": children, "children_more": n > len(children)}
    if one is not None:
        values |= standing(page, kind, one, values.get("children", ()))
    problem = error.problem if error else None
    wrong = _wrong(error) if error else {}
    return page.show("edit.html", error.status if error else 200, problem=problem, wrong=wrong, **values)


def _as_form(one: dict[str, Any] | None) -> dict[str, str]:
    if one is None:
        return {"pacing": "even", "deal_only": "yes"}
    form = {"name": one["name"], "total": one["budget"].get("total"), "daily": one["budget"].get("daily")}
    form |= {name: (one["flight"].get(name) or "")[:16] for name in ("start", "end")}  # to the minute, as typed
    if "offer" in one:
        form |= {name: one[name] for name in ("offer", "pacing", "max_bid_cpm")}
        form["deal_only"] = "yes" if one["deal_only"] or not one["deals"] else ""
    return {name: "" if value is None else str(value) for name, value in form.items()}


def _wrong(error: ApiError) -> dict[str, str]:
    """What is wrong, by the field of the form."""
    mine = targeting.wrong(error)
    others = [f for f in error.problem.fields if not targeting.named(f.field)]
    return {f.field.split(".")[-1]: f.message for f in others} | mine


def _from_form(kind: str, page: Page, before: dict[str, Any] | None) -> dict[str, Any]:
    """What the form says, in the API's words. Raises 422."""
    form = page.form
    old = before or {"budget": {}, "flight": {}}
    given = {name: form.get(name, "").strip() or None for name in ("total", "daily", "start", "end")}
    body: dict[str, Any] = {"name": form.get("name", "").strip()}
    body["budget"] = {**old["budget"], "total": given["total"], "daily": given["daily"]}
    body["flight"] = {"start": given["start"], "end": given["end"]}
    if kind == "line_item":
        body |= {name: form.get(name, "") for name in ("offer", "pacing", "max_bid_cpm")}
        if "controls" in form:  # the builder was there; what it doesn't mention is not restricted
            body |= targeting.typed(page.fields, before or {})
            body["deal_only"] = bool(body["deals"]) and form.get("deal_only") == "yes"
    return body


def save(kind: str) -> Handler:
    """POST of one."""

    def run(page: Page) -> Response:
        one = page.services.catalog.get(page.person, kind, page.ref)
        try:
            body = _from_form(kind, page, one)
            page.services.catalog.change(page.person, kind, page.ref, body, page.form.get("etag", ""))
        except ApiError as error:
            if error.status == 403:
                raise
            if error.problem.code == "approval":
                review.ask(page.services.catalog, page.person, page.ref, body)
                return see(f"{BASE[kind]}/{page.ref}", "asked")
            return _edit(page, kind, one, error)
        return see(f"{BASE[kind]}/{page.ref}", "saved")

    return run


def make(kind: str) -> Handler:
    """POST of a new one. It starts paused, until someone resumes it."""

    def run(page: Page) -> Response:
        try:
            made = _create(page, kind)
        except ApiError as error:
            if error.status == 403:
                raise
            return _edit(page, kind, None, error)
        return see(f"{BASE[kind]}/{made['id']}", "made")

    return run


def _create(page: Page, kind: str) -> dict[str, Any]:
    body = _from_form(kind, page, None) | {"status": "paused"}
    if kind == "campaign":
        number = page.form.get("advertiser_id", "")
        body["advertiser_id"] = int(number) if number.isascii() and number.isdecimal() else 0
    else:
        body |= {"campaign_id": page.ref, "creatives": []}
    return page.services.catalog.create(page.person, kind, body)


def _tried(page: Page, kind: str, new: bool, then: Callable[[Connection, dict[str, Any]], T]) -> T:
    """``then`` (connection, what it would be) of the form's change, which is taken back. Raises what saving raises."""

    def run(connection: Connection) -> T:
        if new:
            return then(connection, _create(page, kind))
        one = page.services.catalog.get(page.person, kind, page.ref)
        return then(
            connection, page.services.catalog.change(page.person, kind, page.ref, _from_form(kind, page, one), "*")
        )

    return undone(page.services.catalog.engine, run)


def check(kind: str, new: bool) -> Handler:
    """POST of a form that is being typed: what saving it would refuse, as ``{"wrong": {field: text}}``."""

    def run(page: Page) -> Response:
        try:
            _tried(page, kind, new, lambda connection, would_be: None)
        except ApiError as error:
            if error.status in (403, 404):
                raise
            wrong = _wrong(error) if error.problem.code != "approval" else {}
            if page.lang == "zh":
                wrong = {name: refusal(text) for name, text in wrong.items()}
            problem = problem_in(page.lang, error.problem, lambda name: page.words(show.field(name)))
            return JSONResponse({"wrong": wrong, "problem": problem.message})
        return JSONResponse({"wrong": {}, "problem": ""})

    return run


def forecast(new: bool) -> Handler:
    """POST of a line item's form that is being typed: what it would reach, bid and spend as it stands, not saved.

    Scripts ask for the part of the page alone; without scripts the page comes back as it was typed, with the forecast.
    """

    def run(page: Page) -> Response:
        alone = page.request.headers.get("x-part") == "forecast"
        one = None if new or alone else page.services.catalog.get(page.person, "line_item", page.ref)
        try:
            catalog, would_be = _tried(page, "line_item", new, lambda c, one: (read_catalog(c, one["id"]), one))
        except ApiError as error:
            if error.status in (403, 404):
                raise
            problem = problem_in(page.lang, error.problem, lambda name: page.words(show.field(name)))
            return (
                page.show("reach.html", problem=problem, found=None) if alone else _edit(page, "line_item", one, error)
            )
        part = foreseen(page, catalog, would_be)
        return part if alone else _edit(page, "line_item", one, forecast=bytes(part.body).decode())

    return run


def copy(kind: str) -> Handler:
    """POST of duplicate."""

    def run(page: Page) -> Response:
        made = duplicate(page.services.catalog, page.person, kind, page.ref)
        return see(f"{BASE[kind]}/{made['id']}", "made")

    return run


def status(kind: str, value: str, action: str) -> Handler:
    """POST of pause and resume."""

    def run(page: Page) -> Response:
        try:
            page.services.catalog.change(page.person, kind, page.ref, {"status": value}, "*", action)
        except ApiError as error:
            if error.problem.code != "approval":
                raise
            review.ask(page.services.catalog, page.person, page.ref, {"status": value})
            return see(f"{BASE[kind]}/{page.ref}", "asked")
        return see(f"{BASE[kind]}/{page.ref}", f"{action}d")

    return run
