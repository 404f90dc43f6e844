"""The pages: server-rendered HTML over the same calls as the API; one small script keeps the overview fresh.

A form that is refused comes back as it was typed, with the fields at fault marked. Every form carries the CSRF token
and, where it changes something, the ETag of what it showed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import jinja2
import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from dsp.console import history
from dsp.console.access import EDIT, Identity
from dsp.console.accounts import SESSION_S
from dsp.console.catalog import etag_of
from dsp.console.edge import COOKIE, address_of, body_of, check_csrf, check_origin, identify, set_session
from dsp.console.errors import ApiError, invalid
from dsp.console.models import AuditQuery, ListQuery, ReportQuery
from dsp.console.services import Services
from dsp.console.words import translator
from dsp.ledger.schema import MEASURES

LANGUAGE = "dsp_language"
FUNNEL = tuple((m, m.title()) for m in ("impressions", "clicks", "applied", "approved", "funded"))
_FIELDS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "campaign": (("name", "Name", "text"), ("total", "Total budget", "decimal"), ("daily", "Daily budget", "decimal"),
                 ("start", "Start (2026-01-31)", "text"), ("end", "End (2026-01-31)", "text")),
}  # fmt: skip
_FIELDS["line_item"] = (*_FIELDS["campaign"], ("max_bid_cpm", "Maximum bid, CPM", "decimal"))
_BASE = {"campaign": "/campaigns", "line_item": "/line-items"}
_HERE = Path(__file__).parent
_TYPES = {"console.css": "text/css", "console.js": "text/javascript"}


def _difference(change: Any) -> str:
    before, after = change.before or {}, change.after or {}
    keys = [k for k in after if before.get(k) != after[k]] if isinstance(after, dict) and before else []
    return "\n".join(f"{k}: {json.dumps(before.get(k))} → {json.dumps(after[k])}"[:400] for k in keys)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(_HERE / "templates"), autoescape=True)
    environment.filters["money"] = lambda micros: f"{micros / 1e6:,.2f}"
    environment.filters["when"] = lambda s: datetime.fromtimestamp(s, UTC).strftime("%Y-%m-%d %H:%M:%S")
    environment.filters["difference"] = _difference
    return environment


class Page:
    """One request of a person: `form` is what was posted, `by` who it is (None: nobody yet)."""

    def __init__(self, services: Services, request: Request, body: bytes) -> None:
        self.services, self.request = services, request
        try:
            self.form = dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=100))
        except (UnicodeDecodeError, ValueError):
            raise ApiError(400, "form", "that is not a form of ours") from None
        self.by = identify(services, request)
        lang = request.query_params.get("lang") or request.cookies.get(LANGUAGE, "")
        preferred = "zh" if request.headers.get("accept-language", "").lower().startswith("zh") else "en"
        self.lang = lang if lang in ("en", "zh") else preferred

    @property
    def person(self) -> Identity:
        """Who it is; only where a route asks for somebody."""
        assert self.by is not None
        return self.by

    @property
    def ref(self) -> int:
        """The id in the path."""
        return int(self.request.path_params.get("id", 0))

    def query(self, kind: type[Any]) -> Any:
        """The query string as a type. Raises 400."""
        given = {k: v for k, v in self.request.query_params.items() if k != "lang"}
        try:
            return msgspec.convert(given, kind, strict=False)
        except msgspec.ValidationError as error:
            raise ApiError(400, "query", str(error)) from None

    def show(self, template: str, status: int = 200, **values: Any) -> Response:
        """A page."""
        shared = {"by": self.by, "lang": self.lang, "path": self.request.url.path, "_": translator(self.lang)}
        text = _TEMPLATES.get_template(template).render({"problem": None, "form": {}, **shared, **values})
        response = HTMLResponse(text, status)
        if "lang" in self.request.query_params:
            response.set_cookie(LANGUAGE, self.lang, httponly=True, samesite="lax", max_age=365 * 86_400)
        return response


_TEMPLATES = _environment()
Handler = Callable[[Page], Response]


def _see(path: str) -> Response:
    return RedirectResponse(path, 303)


def _signed_in(page: Page, secret: str) -> Response:
    response = _see("/")
    set_session(response, secret, page.request, SESSION_S)
    return response


def sign_in_page(page: Page) -> Response:
    """GET /sign-in."""
    return page.show("sign_in.html")


def sign_in(page: Page) -> Response:
    """POST /sign-in."""
    check_origin(page.request)
    email, password, code = (page.form.get(name, "") for name in ("email", "password", "code"))
    try:
        secret = page.services.accounts.sign_in(email, password, code, address_of(page.request))
    except ApiError as error:
        form = {"email": email}
        return page.show("sign_in.html", error.status, problem=error.problem, form=form)
    return _signed_in(page, secret)


def enter_page(page: Page) -> Response:
    """GET /enter: a link changes nothing until its button is pressed, so that previews don't use it up."""
    token = page.request.query_params.get("token", "")
    return page.show("enter.html", token=token, purpose=page.services.accounts.link_purpose(token))


def enter(page: Page) -> Response:
    """POST /enter."""
    check_origin(page.request)
    token, email = page.form.get("token", ""), page.form.get("email", "")
    try:
        secret = page.services.accounts.use_link(token, email, page.form.get("password", ""))
    except ApiError as error:
        purpose = page.services.accounts.link_purpose(token)
        values = {"token": token, "purpose": purpose, "form": {"email": email}}
        return page.show("enter.html", error.status, problem=error.problem, **values)
    return _signed_in(page, secret)


def sign_out(page: Page) -> Response:
    """POST /sign-out."""
    page.services.accounts.sign_out(page.person)
    response = _see("/sign-in")
    response.delete_cookie(COOKIE)
    return response


def overview(page: Page) -> Response:
    """GET /."""
    rows: dict[int, Any] = {}
    totals: list[Any] = []
    try:
        report = page.services.reports.run(page.person, ReportQuery(by="campaign", limit=5000))
        rows = {getattr(row, "id"): _builtin(row) for row in report.items}  # noqa: B009
        totals = [_builtin(r) for r in page.services.reports.run(page.person, ReportQuery(by="")).items]
    except ApiError as error:
        if error.status not in (403, 503):
            raise
    campaigns, _ = page.services.catalog.page(page.person, "campaign", ListQuery(limit=500))
    most = sorted(campaigns, key=lambda c: -rows.get(c["id"], {"spend_micros": 0})["spend_micros"])[:100]
    return page.show("overview.html", totals=totals, rows=[(c, rows.get(c["id"])) for c in most], funnel=FUNNEL)


def _builtin(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__struct_fields__}


def listing(kind: str) -> Handler:
    """GET /campaigns, GET /line-items."""

    def run(page: Page) -> Response:
        query = page.query(ListQuery)
        items, more = page.services.catalog.page(page.person, kind, query)
        title = "Campaigns" if kind == "campaign" else "Line items"
        return page.show("list.html", kind=kind, title=title, base=_BASE[kind], items=items, more=more, query=query)

    return run


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
    values: dict[str, Any] = {"kind": kind, "one": one, "base": _BASE[kind], "fields": _FIELDS[kind], "changes": []}
    values["form"] = page.form if error is not None else _as_form(one)
    values["etag"] = etag_of(one) if one else ""
    values["may"] = by.may(EDIT, one["advertiser_id"]) if one else by.may_anywhere(EDIT)
    values["references"] = catalog.references(by)
    values["advertisers"] = catalog.page(by, "advertiser", ListQuery(limit=500))[0] if one is None else []
    if one is not None:
        values["changes"] = history.changes(catalog, by, AuditQuery(kind=kind, ref=one["id"], limit=20))[0]
    if kind == "campaign" and one is not None:
        query = ListQuery(campaign_id=one["id"], limit=500)
        values["children"] = catalog.page(by, "line_item", query)[0]
    problem = error.problem if error else None
    wrong = {f.field.split(".")[-1] for f in problem.fields} if problem else set()
    return page.show("edit.html", error.status if error else 200, problem=problem, wrong=wrong, **values)


def _as_form(one: dict[str, Any] | None) -> dict[str, str]:
    if one is None:
        return {"targeting": "{}", "creatives": "[]", "pacing": "even"}
    form = {"name": one["name"], "total": one["budget"].get("total"), "daily": one["budget"].get("daily")}
    form |= {"start": one["flight"].get("start"), "end": one["flight"].get("end")}
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
            return _edit(page, kind, one, error)
        return _see(f"{_BASE[kind]}/{page.ref}")

    return run


def make(kind: str) -> Handler:
    """POST of a new one. A campaign starts as a draft: paused, until someone resumes it."""

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
        return _see(f"{_BASE[kind]}/{made['id']}")

    return run


def status(kind: str, value: str, action: str) -> Handler:
    """POST of pause and resume."""

    def run(page: Page) -> Response:
        page.services.catalog.change(page.person, kind, page.ref, {"status": value}, "*", action)
        return _see(f"{_BASE[kind]}/{page.ref}")

    return run


def changes(page: Page) -> Response:
    """GET /changes."""
    found, more = history.changes(page.services.catalog, page.person, page.query(AuditQuery))
    return page.show("changes.html", changes=found, more=more)


def undo(page: Page) -> Response:
    """POST /changes/ID/undo."""
    history.undo(page.services.catalog, page.person, page.ref)
    return _see("/changes")


def reports(page: Page) -> Response:
    """GET /reports."""
    query = page.query(ReportQuery)
    report = page.services.reports.run(page.person, query)
    by_day = page.services.reports.run(
        page.person, ReportQuery(by="", daily=True, start=report.start, end=report.end, limit=5000)
    )
    link = {"by": query.by, "daily": str(query.daily).lower(), "start": report.start, "end": report.end}
    shown = {"start": report.start, "end": report.end, "next": report.next, "items": [*map(_builtin, report.items)]}
    values: dict[str, Any] = {"link": urlencode(link), "measures": MEASURES, "plots": _plots(by_day.items)}
    return page.show("reports.html", query=query, report=shown, **values)


def _plots(rows: list[Any]) -> list[tuple[str, str, int]]:
    """Per currency: its name, the points of a line in a box of 600 x 100, and the most of a day."""
    series: dict[str, list[int]] = {}
    for row in rows:
        series.setdefault(row.currency, []).append(row.spend_micros)
    found = []
    for currency, values in series.items():
        most, step = max(*values, 1), 600 / max(1, len(values) - 1)
        points = " ".join(f"{i * step:.1f},{98 - 96 * v / most:.1f}" for i, v in enumerate(values))
        found.append((currency, points, most))
    return found


def routes(services: Services) -> list[Route]:
    """All pages."""

    def page(path: str, handler: Handler, method: str = "GET", public: bool = False) -> Route:
        def answer(request: Request, body: bytes) -> Response:
            one = Page(services, request, body)
            try:
                if one.by is None and not public:
                    return _see("/sign-in")
                if one.by is not None and not public:
                    check_csrf(request, one.by, one.form.get("csrf", ""))
                return handler(one)
            except ApiError as error:
                return one.show("message.html", error.status, problem=error.problem)

        async def endpoint(request: Request) -> Response:
            return await run_in_threadpool(answer, request, await body_of(request))

        return Route(path, endpoint, methods=[method])

    found = [
        page("/sign-in", sign_in_page, public=True),
        page("/sign-in", sign_in, "POST", public=True),
        page("/enter", enter_page, public=True),
        page("/enter", enter, "POST", public=True),
        page("/sign-out", sign_out, "POST"),
        page("/", overview),
        page("/changes", changes),
        page("/changes/{id:int}/undo", undo, "POST"),
        page("/reports", reports),
        page("/campaigns/new", blank("campaign")),
        page("/campaigns/new", make("campaign"), "POST"),
        page("/campaigns/{id:int}/new-line-item", blank("line_item")),
        page("/campaigns/{id:int}/new-line-item", make("line_item"), "POST"),
    ]
    for kind, base in _BASE.items():
        found += [
            page(base, listing(kind)),
            page(base + "/{id:int}", editor(kind)),
            page(base + "/{id:int}", save(kind), "POST"),
            page(base + "/{id:int}/pause", status(kind, "paused", "pause"), "POST"),
            page(base + "/{id:int}/resume", status(kind, "active", "resume"), "POST"),
        ]
    for name, media_type in _TYPES.items():
        found.append(Route(f"/static/{name}", _static(name, media_type), methods=["GET"]))
    return found


def _static(name: str, media_type: str) -> Callable[[Request], Any]:
    body = (_HERE / "static" / name).read_bytes()

    async def endpoint(_: Request) -> Response:
        return Response(body, media_type=media_type, headers={"cache-control": "max-age=300"})

    return endpoint
