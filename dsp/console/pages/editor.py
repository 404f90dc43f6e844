"""One campaign or line item: made, shown, changed, paused, resumed."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import Response

from dsp.console import history, review
from dsp.console.access import EDIT
from dsp.console.browse import Browse, listed
from dsp.console.bulk import duplicate
from dsp.console.catalog import etag_of
from dsp.console.errors import ApiError, invalid
from dsp.console.models import AuditQuery, ListQuery
from dsp.console.pages.launch import standing
from dsp.console.pages.lists import BASE
from dsp.console.pages.page import Handler, Page, see, wrong_fields

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


def _edit(page: Page, kind: str, one: dict[str, Any] | None, error: ApiError | None = None) -> Response:
    catalog, by = page.services.catalog, page.person
    values: dict[str, Any] = {"kind": kind, "one": one, "base": BASE[kind], "fields": FIELDS[kind], "changes": []}
    values["form"] = page.form if error is not None else _as_form(one)
    values["etag"] = etag_of(one) if one else ""
    values["may"] = by.may(EDIT, one["advertiser_id"]) if one else by.may_anywhere(EDIT)
    values["references"] = catalog.references(by)
    values["advertisers"] = catalog.page(by, "advertiser", ListQuery(limit=500))[0] if one is None else []
    if kind == "line_item":
        values["parent"] = catalog.get(by, "campaign", one["campaign_id"] if one else page.ref)
    if one is not None:
        values["changes"] = history.changes(catalog, by, AuditQuery(kind=kind, ref=one["id"], limit=20))[0]
    if kind == "campaign" and one is not None:
        children, n = listed(page.services, by, "line_item", Browse(campaign_id=one["id"], limit=50, sort="newest"))
        values |= {"children": children, "children_more": n > len(children)}
    if one is not None:
        values |= standing(page, kind, one, values.get("children", ()))
    problem = error.problem if error else None
    wrong = wrong_fields(error) if error else {}
    return page.show("edit.html", error.status if error else 200, problem=problem, wrong=wrong, **values)


def _as_form(one: dict[str, Any] | None) -> dict[str, str]:
    if one is None:
        return {"targeting": "{}", "creatives": "[]", "pacing": "even"}
    form = {"name": one["name"], "total": one["budget"].get("total"), "daily": one["budget"].get("daily")}
    form |= {name: (one["flight"].get(name) or "")[:16] for name in ("start", "end")}  # to the minute, as typed
    if "offer" in one:
        form |= {name: one[name] for name in ("offer", "pacing", "max_bid_cpm")}
        form |= {n: json.dumps(one[n], indent=2, ensure_ascii=False) for n in ("targeting", "creatives")}
    return {name: "" if value is None else str(value) for name, value in form.items()}


def _from_form(kind: str, form: dict[str, str], before: dict[str, Any] | None) -> dict[str, Any]:
    """What the form says, in the API's words. Raises 422."""
    old = before or {"budget": {}, "flight": {}}
    given = {name: form.get(name, "").strip() or None for name in ("total", "daily", "start", "end")}
    body: dict[str, Any] = {"name": form.get("name", "").strip()}
    body["budget"] = {**old["budget"], "total": given["total"], "daily": given["daily"]}
    body["flight"] = {"start": given["start"], "end": given["end"]}
    if kind == "line_item":
        body |= {name: form.get(name, "") for name in ("offer", "pacing", "max_bid_cpm")}
        for name in ("targeting", "creatives"):
            try:
                body[name] = json.loads(form.get(name, ""))
            except ValueError as error:
                raise invalid(name, f"is not JSON: {error}") from None
    return body


def save(kind: str) -> Handler:
    """POST of one."""

    def run(page: Page) -> Response:
        one = page.services.catalog.get(page.person, kind, page.ref)
        try:
            body = _from_form(kind, page.form, one)
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
            body = _from_form(kind, page.form, None) | {"status": "paused"}
            if kind == "campaign":
                number = page.form.get("advertiser_id", "")
                body["advertiser_id"] = int(number) if number.isascii() and number.isdecimal() else 0
            else:
                body["campaign_id"] = page.ref
            made = page.services.catalog.create(page.person, kind, body)
        except ApiError as error:
            if error.status == 403:
                raise
            return _edit(page, kind, None, error)
        return see(f"{BASE[kind]}/{made['id']}", "made")

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
