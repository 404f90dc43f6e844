"""Lists of campaigns and line items."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from starlette.responses import Response

from dsp.console import drafts
from dsp.console.browse import Browse, listed
from dsp.console.bulk import change_all
from dsp.console.errors import ApiError
from dsp.console.models import ListQuery
from dsp.console.pages import show
from dsp.console.pages.page import Handler, Page, see

BASE = {"campaign": "/campaigns", "line_item": "/line-items"}
TITLE = {"campaign": "Campaigns", "line_item": "Line items"}


def listing(kind: str) -> Handler:
    """GET /campaigns, GET /line-items."""
    return lambda page: _listed(page, kind)


def _listed(page: Page, kind: str, error: ApiError | None = None) -> Response:
    query: Browse = page.query(Browse)
    items, total = listed(page.services, page.person, kind, query)
    catalog = page.services.catalog
    advertisers, _ = catalog.page(page.person, "advertiser", ListQuery(limit=500))
    within = catalog.get(page.person, "campaign", query.campaign_id) if query.campaign_id else None
    values: dict[str, Any] = {"items": items, "total": total, "query": query, "advertisers": advertisers}
    values |= {"problem": error.problem if error else None, "ticked": page.numbers("id"), "form": page.form}
    values["again"] = urlencode({k: v for k, v in page.request.query_params.items() if k not in ("lang", "done")})
    with catalog.engine.connect() as connection:
        values["states"] = drafts.states(connection, kind, ((row.id, row.status) for row in items))
    status = error.status if error else 200
    return page.show("list.html", status, kind=kind, title=TITLE[kind], base=BASE[kind], within=within, **values)


def bulk(kind: str) -> Handler:
    """POST /campaigns/bulk, POST /line-items/bulk: what was done to all that were ticked, then the list as it was."""

    def run(page: Page) -> Response:
        refs, action = page.numbers("id"), page.form.get("action", "")
        try:
            change_all(page.services.catalog, page.person, kind, refs, action, page.form.get("budget", ""))
        except ApiError as error:
            if error.status in (403, 404):
                raise
            return _listed(page, kind, error)
        query = {k: v for k, v in page.request.query_params.items() if k not in ("lang", "done")}
        return see(show.address(BASE[kind], query), {"pause": "paused", "resume": "resumed"}.get(action, "saved"))

    return run
