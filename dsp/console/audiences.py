"""Audiences: segments with their sizes and overlaps, who is kept out of what, and how much consent is on record.

People are estimated from a sample of the audience store (`dsp.audience.survey`); nothing here tells a person.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct
from sqlalchemy import select

from dsp.audience import survey
from dsp.catalog import tables
from dsp.console import library
from dsp.console.access import READ, Identity
from dsp.console.models import LibraryQuery
from dsp.console.operation import Call, Operation, Reply
from dsp.console.services import Services

_MOST = 500
_LINES = 100  # line items that keep people out, by name
_OVERLAPS = 12  # the largest segments, each with each
_NAMES = msgspec.json.Decoder(tuple[str, ...]).decode


class AudienceQuery(Struct, forbid_unknown_fields=True):
    """Segments whose name contains ``q``."""

    q: Annotated[str, Meta(max_length=200)] = ""


class Sized(Struct):
    """A segment; ``people`` carry it, as estimated."""

    number: int
    name: str
    demographic: str
    people: float


class Overlap(Struct):
    """``share`` of the smaller of two segments that is in the other, too."""

    first: str
    second: str
    people: float
    share: float


class Suppressing(Struct):
    """A line item that keeps people in some stages of the life cycle out."""

    id: int
    name: str
    stages: tuple[str, ...]


class Consent(Struct):
    """How many of ``looked_at`` profiles have which consent on record."""

    looked_at: int
    profiling: int
    financial: int
    expired: int
    unknown: int


class Audiences(Struct):
    """The largest first; ``people`` in all."""

    people: int
    segments: list[Sized]
    overlaps: list[Overlap]
    suppressed: list[Suppressing]
    consent: Consent


def audiences(services: Services, by: Identity, q: str = "") -> tuple[Audiences, survey.Sample]:
    """Of segments, those that ``by`` may use; and the sample behind the estimates."""
    found = library.page(services.catalog, by, "segment", LibraryQuery(q=q, limit=_MOST))
    sample = survey.look(services.config)
    segments = [
        Sized(
            one["number"], one["name"], one["demographic"],
            sample.estimate(sample.segments.get(one["number"], 0)),
        )
        for one in found["items"]
    ]  # fmt: skip
    segments.sort(key=lambda one: -one.people)
    consent = Consent(sample.n, sample.profiling, sample.financial, sample.expired, sample.unknown)
    return Audiences(sample.people, segments, _overlaps(sample, segments), _suppressed(services, by), consent), sample


def _overlaps(sample: survey.Sample, segments: list[Sized]) -> list[Overlap]:
    largest = {one.number: one.name for one in segments[:_OVERLAPS]}
    found = []
    for (a, b), n in sample.pairs.items():
        if a in largest and b in largest:
            share = n / max(min(sample.segments[a], sample.segments[b]), 1)
            found.append(Overlap(largest[a], largest[b], sample.estimate(n), share))
    return sorted(found, key=lambda one: -one.share)[: 2 * _OVERLAPS]


def _suppressed(services: Services, by: Identity) -> list[Suppressing]:
    li, mine = tables.line_item.c, by.advertisers(READ)
    wanted = select(li.id, li.name, li.suppress).select_from(tables.line_item.join(tables.campaign))
    wanted = wanted.where(li.suppress != "[]", li.status != "archived").order_by(li.name).limit(_LINES)
    if mine is not None:
        wanted = wanted.where(tables.campaign.c.advertiser_id.in_(mine))
    with services.catalog.engine.connect() as connection:
        return [Suppressing(row.id, row.name, _NAMES(row.suppress)) for row in connection.execute(wanted)]


def _read(call: Call) -> Reply:
    return Reply(audiences(call.services, call.by, call.query.q)[0])


OPERATIONS = (
    Operation("GET", "/audiences", "Segments with sizes and overlaps, suppression, consent on record", _read, Audiences,
              AudienceQuery),
)  # fmt: skip
