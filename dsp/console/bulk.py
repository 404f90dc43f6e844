"""One change to many campaigns or line items, and copies of them: all of it happens, or nothing does."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from sqlalchemy import select

from dsp.catalog import tables
from dsp.console.access import Identity
from dsp.console.catalog import Catalog
from dsp.console.errors import ApiError, FieldError, invalid
from dsp.console.transaction import changing

MOST = 500
_STATUS = {"pause": "paused", "resume": "active"}
_IDS = ("id", "advertiser_id", "campaign_id", "status")


def change_all(catalog: Catalog, by: Identity, kind: str, refs: Sequence[int], action: str, budget: str = "") -> int:
    """Pause, resume, or set the ``daily`` or ``total`` budget ("500", "+10%", "-20%") of all; how many.

    Raises what `Catalog.change` raises; the refusal names the one at fault. Nothing is changed then.
    """
    if not refs:
        raise ApiError(422, "invalid", "tick at least one of them")
    if action not in (*_STATUS, "daily", "total"):
        raise invalid("action", "is empty")
    with changing(catalog.engine):
        for ref in list(dict.fromkeys(refs))[:MOST]:
            one = catalog.get(by, kind, ref)
            try:
                if action in _STATUS:
                    changes: dict[str, Any] = {"status": _STATUS[action]}
                else:
                    changes = {"budget": {**one["budget"], action: changed(one["budget"].get(action), budget)}}
                catalog.change(by, kind, ref, changes, "*", action if action in _STATUS else "change")
            except ApiError as error:
                fields = [FieldError(one["name"], f.message) for f in error.problem.fields]
                fields = fields or [FieldError(one["name"], error.problem.message)]
                message = f"{one['name']}: {error.problem.message}"
                raise ApiError(error.status, error.problem.code, message, fields) from None
    return len(set(refs))


def changed(old: Any, text: str) -> str | None:
    """A budget after "500" (set), "+10%" or "-20%" (of what it was, to the cent), "" (no limit here)."""
    text = text.strip().replace(",", "").replace("％", "%")
    if not text:
        return None
    try:
        if not text.endswith("%"):
            return str(Decimal(text))
        if old is None:
            raise invalid("budget", "no budget here, in the campaign or the advertiser; write {total: ...}")
        share = 1 + Decimal(text[:-1]) / 100
        return str((Decimal(str(old)) * share).quantize(Decimal("0.01")))
    except InvalidOperation:
        raise invalid("budget", "a share to change by; write +10% or -20%") from None


def duplicate(catalog: Catalog, by: Identity, kind: str, ref: int) -> dict[str, Any]:
    """A paused copy, of a campaign with its line items; "(2)" after its name."""
    with changing(catalog.engine):
        one = catalog.get(by, kind, ref)
        parent = {"campaign": "advertiser_id", "line_item": "campaign_id"}[kind]
        made = catalog.create(by, kind, {**_spec(one), "name": _free(catalog, kind, one, parent), parent: one[parent]})
        if kind == "campaign":
            with catalog.engine.connect() as connection:
                c = tables.line_item.c
                query = select(c.id).where(c.campaign_id == ref, c.status != "archived").order_by(c.id)
                children = [int(i) for i in connection.scalars(query)]
            for child in children:
                spec = _spec(catalog.get(by, "line_item", child))
                catalog.create(by, "line_item", {**spec, "campaign_id": made["id"]})
        return made


def _spec(one: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in one.items() if k not in _IDS} | {"status": "paused"}


def _free(catalog: Catalog, kind: str, one: dict[str, Any], parent: str) -> str:
    """A name that nothing beside it has."""
    table = tables.metadata.tables[kind]
    with catalog.engine.connect() as connection:
        names = set(connection.scalars(select(table.c.name).where(table.c[parent] == one[parent])))
    return next(name for n in range(2, len(names) + 3) if (name := f"{one['name'][:190]} ({n})") not in names)
