"""Audiences: segments with their sizes and overlaps, who is kept out of what, and how much consent is on record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import select
from starlette.responses import Response

from dsp.audience import survey
from dsp.catalog import tables
from dsp.console import library
from dsp.console.access import READ
from dsp.console.models import LibraryQuery
from dsp.console.pages.page import Page

_MOST = 500
_LINES = 100  # line items that keep people out, by name
_OVERLAPS = 12  # the largest segments, each with each
_NAMES = msgspec.json.Decoder(tuple[str, ...]).decode


@dataclass(frozen=True)
class Overlap:
    """``share`` of the smaller of two segments that is in the other, too."""

    first: str
    second: str
    people: float
    share: float


def audiences(page: Page) -> Response:
    """GET /audiences: of segments, those that the reader may use."""
    query = LibraryQuery(q=page.request.query_params.get("q", "")[:200], limit=_MOST)
    found = library.page(page.services.catalog, page.person, "segment", query)
    sample = survey.look(page.services.config)
    segments = [{**one, "people": sample.estimate(sample.segments.get(one["number"], 0))} for one in found["items"]]
    segments.sort(key=lambda one: -one["people"])
    values: dict[str, Any] = {"segments": segments, "sample": sample, "overlaps": _overlaps(sample, segments)}
    return page.show("audiences.html", query=query, suppressed=_suppressed(page), **values)


def _overlaps(sample: survey.Sample, segments: list[dict[str, Any]]) -> list[Overlap]:
    largest = {one["number"]: one["name"] for one in segments[:_OVERLAPS]}
    found = []
    for (a, b), n in sample.pairs.items():
        if a in largest and b in largest:
            share = n / max(min(sample.segments[a], sample.segments[b]), 1)
            found.append(Overlap(largest[a], largest[b], sample.estimate(n), share))
    return sorted(found, key=lambda one: -one.share)[: 2 * _OVERLAPS]


def _suppressed(page: Page) -> list[tuple[int, str, tuple[str, ...]]]:
    """Line items that keep some people out: (id, name, of whom)."""
    li, mine = tables.line_item.c, page.person.advertisers(READ)
    wanted = select(li.id, li.name, li.suppress).select_from(tables.line_item.join(tables.campaign))
    wanted = wanted.where(li.suppress != "[]", li.status != "archived").order_by(li.name).limit(_LINES)
    if mine is not None:
        wanted = wanted.where(tables.campaign.c.advertiser_id.in_(mine))
    with page.services.catalog.engine.connect() as connection:
        return [(row.id, row.name, _NAMES(row.suppress)) for row in connection.execute(wanted)]
