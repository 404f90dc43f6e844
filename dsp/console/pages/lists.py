"""Lists of campaigns and line items."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from dsp.console.browse import Browse, listed
from dsp.console.models import ListQuery
from dsp.console.pages.page import Handler, Page

BASE = {"campaign": "/campaigns", "line_item": "/line-items"}
TITLE = {"campaign": "Campaigns", "line_item": "Line items"}


def listing(kind: str) -> Handler:
    """GET /campaigns, GET /line-items."""

    def run(page: Page) -> Response:
        query: Browse = page.query(Browse)
        items, total = listed(page.services, page.person, kind, query)
        catalog = page.services.catalog
        advertisers, _ = catalog.page(page.person, "advertiser", ListQuery(limit=500))
        within = catalog.get(page.person, "campaign", query.campaign_id) if query.campaign_id else None
        values: dict[str, Any] = {
            "items": items,
            "total": total,
            "query": query,
            "advertisers": advertisers,
            "within": within,
        }
        return page.show("list.html", kind=kind, title=TITLE[kind], base=BASE[kind], **values)

    return run
