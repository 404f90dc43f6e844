"""Reading the audit log, and undoing: a change is undone by setting its fields back to what they were."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from sqlalchemy import select

from dsp.console import library, tables
from dsp.console.access import READ, Identity
from dsp.console.catalog import TABLES, Catalog
from dsp.console.errors import ApiError, not_found
from dsp.console.models import AuditQuery, Change
from dsp.console.transaction import reading

_FIXED = ("id", "advertiser_id", "campaign_id")


def changes(catalog: Catalog, by: Identity, query: AuditQuery) -> tuple[list[Change], int | None]:
    """What happened to what ``by`` may read, newest first; accounts' rows only for who sees everything."""
    a = tables.audit.c
    wanted = select(tables.audit).order_by(a.id.desc()).limit(query.limit + 1)
    mine = by.advertisers(READ)
    if mine is not None:
        wanted = wanted.where(a.advertiser_id.in_(mine - {0}))
    elif not by.may("admin", 0):
        wanted = wanted.where(a.kind.in_((*TABLES, *library.TABLES, "creative")))
    for column, value in ((a.kind, query.kind), (a.ref, query.ref)):
        if value:
            wanted = wanted.where(column == value)
    if query.before:
        wanted = wanted.where(a.id < query.before)
    with reading(catalog.engine) as connection:
        rows = connection.execute(wanted).all()
    more = rows[query.limit - 1].id if len(rows) > query.limit else None
    return [_change(row) for row in rows[: query.limit]], more


def undo(catalog: Catalog, by: Identity, change_id: int) -> dict[str, Any]:
    """Set the fields that a change touched back. Raises 404, 409 where one was changed again since."""
    with reading(catalog.engine) as connection:
        row = connection.execute(select(tables.audit).where(tables.audit.c.id == change_id)).first()
    if row is None or row.kind not in (*TABLES, *library.TABLES) or not by.may(READ, row.advertiser_id):
        raise not_found("change")
    change = _change(row)
    if not change.before:
        raise ApiError(409, "no_undo", "that is not a change that can be undone")
    in_library = row.kind in library.TABLES
    key = change.after[library.KEY[row.kind]] if in_library else row.ref
    shown = library.get(catalog, by, row.kind, key) if in_library else catalog.get(by, row.kind, key)
    now = json.loads(msgspec.json.encode(shown))  # as the log has it: lists, no tuples
    fields = [k for k, v in change.before.items() if k not in _FIXED and change.after.get(k) != v]
    if any(now.get(k) != change.after.get(k) for k in fields):
        raise ApiError(409, "changed_since", "it was changed again since; change it by hand")
    old = {k: change.before[k] for k in fields if k != "token_set"}
    if in_library:
        return library.change(catalog, by, row.kind, key, old, "*", "undo")
    return catalog.change(by, row.kind, row.ref, old, "*", "undo")


def _change(row: Any) -> Change:
    before, after = (json.loads(text) if text else None for text in (row.before, row.after))
    return Change(row.id, row.time_s, row.who, row.via, row.action, row.kind, row.ref, before, after)
