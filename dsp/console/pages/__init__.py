"""The pages: server-rendered HTML over the same calls as the API; one small script keeps the overview fresh."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dsp.console.edge import MOST_ID, body_of, check_csrf
from dsp.console.errors import ApiError
from dsp.console.pages import (
    audiences,
    creatives,
    editor,
    entry,
    experiments,
    history,
    lists,
    market,
    overview,
    people,
    reporting,
    reviewing,
    why,
)
from dsp.console.pages.page import HERE, Handler, Page, see
from dsp.console.services import Services

_TYPES = {"console.css": "text/css", "console.js": "text/javascript"}
_PUBLIC: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/sign-in", entry.sign_in_page),
    ("POST", "/sign-in", entry.sign_in),
    ("GET", "/enter", entry.enter_page),
    ("POST", "/enter", entry.enter),
    ("GET", "/images/{name}", creatives.picture),
)
_PAGES: tuple[tuple[str, str, Handler], ...] = (
    ("POST", "/sign-out", entry.sign_out),
    ("GET", "/", overview.overview),
    ("GET", "/changes", history.changes),
    ("POST", "/changes/{id:int}/undo", history.undo),
    ("GET", "/creatives", creatives.listing),
    ("GET", "/creatives/{id:int}", creatives.one),
    ("GET", "/creatives/{id:int}/preview", creatives.preview),
    ("GET", "/line-items/{id:int}/new-creative", creatives.blank),
    ("POST", "/line-items/{id:int}/new-creative", creatives.make),
    ("POST", "/line-items/{id:int}/try-creative", creatives.try_out),
    ("GET", "/audiences", audiences.audiences),
    ("GET", "/experiments", experiments.listing),
    ("GET", "/experiments/{id:int}", experiments.one),
    ("GET", "/experiments/{id:int}/results", experiments.results),
    ("POST", "/experiments/{id:int}/end", experiments.end),
    ("GET", "/reports", reporting.reports),
    ("POST", "/reports/save", reporting.keep),
    ("GET", "/reports/saved/{id:int}", reporting.open_saved),
    ("POST", "/reports/saved/{id:int}/remove", reporting.remove),
    ("POST", "/reports/jobs", reporting.write),
    ("GET", "/reports/jobs/{id:int}", reporting.job),
    ("GET", "/reports/jobs/{id:int}/file", reporting.file),
    ("GET", "/line-items/{id:int}/why", why.why),
    ("GET", "/line-items/{id:int}/reach", why.reach),
    ("GET", "/exchanges", market.exchanges),
    ("GET", "/exchanges/{id:int}/bill", market.bill),
    ("POST", "/exchanges/{id:int}/bill", market.compare),
    ("GET", "/guide", market.guide),
    ("GET", "/review", reviewing.reviews),
    ("POST", "/review/{id:int}/approve", reviewing.decide(True)),
    ("POST", "/review/{id:int}/return", reviewing.decide(False)),
    ("GET", "/users", people.users),
    ("POST", "/users", people.add_user),
    ("GET", "/keys", people.keys),
    ("POST", "/keys", people.add_key),
    ("POST", "/keys/{id:int}/revoke", people.revoke_key),
    ("GET", "/security", people.security),
    ("POST", "/security", people.confirm_totp),
    ("GET", "/campaigns/new", editor.blank("campaign")),
    ("POST", "/campaigns/new", editor.make("campaign")),
    ("GET", "/campaigns/{id:int}/new-line-item", editor.blank("line_item")),
    ("POST", "/campaigns/{id:int}/new-line-item", editor.make("line_item")),
    ("POST", "/campaigns/{id:int}/new-line-item/check", editor.check("line_item", new=True)),
    ("POST", "/campaigns/{id:int}/new-line-item/forecast", editor.forecast(new=True)),
    ("POST", "/campaigns/new/check", editor.check("campaign", new=True)),
    ("POST", "/line-items/{id:int}/forecast", editor.forecast(new=False)),
)


def routes(services: Services) -> list[Route]:
    """All pages."""
    found = [_route(services, *one, public=True) for one in _PUBLIC]
    found += [_route(services, *one) for one in _PAGES]
    for kind, base in lists.BASE.items():
        for method, path, handler in (
            ("GET", base, lists.listing(kind)),
            ("POST", base + "/bulk", lists.bulk(kind)),
            ("POST", base + "/{id:int}/duplicate", editor.copy(kind)),
            ("GET", base + "/{id:int}", editor.editor(kind)),
            ("POST", base + "/{id:int}", editor.save(kind)),
            ("POST", base + "/{id:int}/check", editor.check(kind, new=False)),
            ("POST", base + "/{id:int}/pause", editor.status(kind, "paused", "pause")),
            ("POST", base + "/{id:int}/resume", editor.status(kind, "active", "resume")),
        ):
            found.append(_route(services, method, path, handler))
    for name, media_type in _TYPES.items():
        found.append(Route(f"/static/{name}", _static(name, media_type), methods=["GET"]))
    return found


def refused(services: Services, request: Request, error: ApiError) -> Response:
    """The page that says what went wrong."""
    return Page(services, request, b"").show("message.html", error.status, problem=error.problem)


def _route(services: Services, method: str, path: str, handler: Handler, public: bool = False) -> Route:
    def answer(request: Request, body: bytes) -> Response:
        page = Page(services, request, body)
        try:
            if page.by is None and not public:
                return see("/sign-in")
            if page.by is not None and not public:
                check_csrf(request, page.by, page.form.get("csrf", ""))
            if page.ref > MOST_ID:
                raise ApiError(404, "not_found", "ids are not that large")
            return handler(page)
        except ApiError as error:
            return page.show("message.html", error.status, problem=error.problem)

    async def endpoint(request: Request) -> Response:
        return await run_in_threadpool(answer, request, await body_of(request))

    return Route(path, endpoint, methods=[method])


def _static(name: str, media_type: str) -> Callable[[Request], Any]:
    body = (HERE / "static" / name).read_bytes()

    async def endpoint(_: Request) -> Response:
        return Response(body, media_type=media_type, headers={"cache-control": "max-age=300"})

    return endpoint
