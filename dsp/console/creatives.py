"""Ads, one by one. Each is part of its line item: a change of one is a change of that, checked and kept as such."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, select

from dsp.catalog import tables, types
from dsp.console import images, models
from dsp.console.access import READ, Identity
from dsp.console.catalog import Catalog, Shown, etag_of
from dsp.console.convert import creative_of
from dsp.console.errors import ApiError, FieldError, invalid, not_found
from dsp.console.models import ListQuery
from dsp.console.operation import Call, Operation, Reply, shown
from dsp.console.transaction import changing, reading

_JOINED = tables.creative.join(tables.line_item).join(tables.campaign)
_COLUMNS = (tables.creative, tables.campaign.c.advertiser_id)


def page(catalog: Catalog, by: Identity, query: ListQuery) -> tuple[list[Shown], int | None]:
    """Ads, archived ones too where ``query.status`` asks for them; the id to go on after."""
    c, li, ca = tables.creative.c, tables.line_item.c, tables.campaign.c
    wanted = select(*_COLUMNS).select_from(_JOINED).where(c.id > query.after)
    wanted = wanted.where(c.status == (query.status or "active"))
    mine = by.advertisers(READ)
    if mine is not None:
        wanted = wanted.where(ca.advertiser_id.in_(mine))
    for column, value in (
        *((ca.advertiser_id, query.advertiser_id), (ca.id, query.campaign_id), (li.id, query.line_item_id)),
    ):
        if value:
            wanted = wanted.where(column == value)
    if query.q:
        wanted = wanted.where(c.name.icontains(query.q, autoescape=True))
    with reading(catalog.engine) as connection:
        rows = connection.execute(wanted.order_by(c.id).limit(query.limit + 1)).all()
    more = rows[query.limit - 1].id if len(rows) > query.limit else None
    return [_shown(row) for row in rows[: query.limit]], more


def get(catalog: Catalog, by: Identity, ref: int) -> Shown:
    """One of them. Raises 404."""
    with reading(catalog.engine) as connection:
        return _get(connection, by, tables.creative.c.id == ref)


def _get(connection: Connection, by: Identity, where: Any) -> Shown:
    row = connection.execute(select(*_COLUMNS).select_from(_JOINED).where(where)).first()
    if row is None or not by.may(READ, row.advertiser_id):
        raise not_found("creative")
    return _shown(row)


def _shown(row: Any) -> Shown:
    names = ("id", "line_item_id", "advertiser_id", "status")
    return {**{n: getattr(row, n) for n in names}, "spec": creative_of(row)}


def create(catalog: Catalog, by: Identity, line_item: int, spec: types.Creative) -> Shown:
    """Add one. Raises 403, 404 (line item), 409 (its name is taken, or the line item archived), 422."""
    c = tables.creative.c
    with changing(catalog.engine) as connection:
        have = catalog.get(by, "line_item", line_item)["creatives"]
        if any(one["name"] == spec.name for one in have):
            taken = f"the name {spec.name!r} is taken; choose another"
            raise ApiError(409, "exists", taken, [FieldError("spec.name", taken)])
        _write(catalog, by, line_item, [*have, msgspec.to_builtins(spec)], len(have))
        made = f"{spec.name} {spec.sizes[0]}" if spec.sizes else spec.name
        return _get(connection, by, (c.line_item_id == line_item) & (c.name == made))


def change(catalog: Catalog, by: Identity, ref: int, spec: types.Creative | None, etag: str) -> Shown:
    """Put ``spec`` in its place, or (None) archive it. Raises 403, 404, 409, 412, 422."""
    with changing(catalog.engine):
        before = get(catalog, by, ref)
        if etag not in ("*", etag_of(before)):
            raise ApiError(412, "stale", "someone changed it since you read it; read it again, then change it")
        if before["status"] == "archived":
            raise ApiError(409, "archived", "it is archived and can't be changed; make a new one")
        name = before["spec"].name
        if spec is not None and (spec.name != name or spec.sizes):
            raise invalid("spec.name", "an ad keeps its name and has one size; make a new one")
        have = catalog.get(by, "line_item", before["line_item_id"])["creatives"]
        new = msgspec.to_builtins(spec)
        whole = [new if one["name"] == name else one for one in have]
        at = next(i for i, one in enumerate(have) if one["name"] == name)
        _write(catalog, by, before["line_item_id"], [one for one in whole if one is not None], at)
        return get(catalog, by, ref)


def _write(catalog: Catalog, by: Identity, line_item: int, ads: list[Any], at: int) -> None:
    """Change the line item's ads; a refusal of ad ``at`` speaks of ``spec``."""
    try:
        catalog.change(by, "line_item", line_item, {"creatives": ads}, "*")
    except ApiError as error:
        for field in error.problem.fields:
            field.field = field.field.replace(f"creatives.{at}", "spec", 1)
        raise


def _listed(call: Call) -> Reply:
    items, more = page(call.services.catalog, call.by, call.query)
    return Reply({"items": items, "next": more})


def _made(call: Call) -> Reply:
    return shown(create(call.services.catalog, call.by, call.body.line_item_id, call.body.spec), 201)


def _got(call: Call) -> Reply:
    return shown(get(call.services.catalog, call.by, call.ref))


def _changed(call: Call) -> Reply:
    return shown(change(call.services.catalog, call.by, call.ref, call.body.spec, call.etag))


def _archived(call: Call) -> Reply:
    return shown(change(call.services.catalog, call.by, call.ref, None, call.etag))


def _picture(call: Call) -> Reply:
    return Reply(images.keep(call.services.config, call.body.data), 201)


OPERATIONS = (
    Operation("POST", "/images", "Upload a picture for ads", _picture, models.Image, body=models.NewImage, status=201,
              errors=(413, 422)),
    Operation("GET", "/creatives", "List creatives", _listed, models.CreativePage, models.ListQuery),
    Operation("POST", "/creatives", "Add a creative to a line item", _made, models.Creative, body=models.NewCreative,
              status=201, errors=(404, 409, 422)),
    Operation("GET", "/creatives/{id}", "Read a creative", _got, models.Creative, errors=(404,)),
    Operation("PATCH", "/creatives/{id}", "Write a creative anew", _changed, models.Creative,
              body=models.ChangeCreative, match=True, errors=(404, 409, 412, 422, 428)),
    Operation("POST", "/creatives/{id}/archive", "Archive a creative for good", _archived, models.Creative,
              match=True, errors=(404, 409, 412, 422, 428)),
)  # fmt: skip
