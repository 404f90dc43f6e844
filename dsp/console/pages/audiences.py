"""Audiences: segments with their sizes and overlaps, who is kept out of what, and how much consent is on record."""

from __future__ import annotations

from starlette.responses import Response

from dsp.console.audiences import AudienceQuery
from dsp.console.audiences import audiences as found_for
from dsp.console.pages.page import Page


def audiences(page: Page) -> Response:
    """GET /audiences."""
    query = AudienceQuery(page.request.query_params.get("q", "")[:200])
    found, sample = found_for(page.services, page.person, query.q)
    return page.show("audiences.html", query=query, found=found, sample=sample)
