"""Drafts: campaigns and line items that were made here, are paused, and have never been live.

The catalog knows active, paused and archived; that something was never live matters to people alone, so it is kept
beside it, by whoever changes the catalog, in the same transaction. What a file brought in is no draft.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Select, and_, delete, insert, select

from dsp.console import tables

KINDS = ("campaign", "line_item")
DRAFT, IN_REVIEW = "draft", "in review"  # what a person calls the state of a paused one
_D, _R = tables.draft.c, tables.review.c


def note(connection: Connection, kind: str, before: dict[str, Any] | None, after: dict[str, Any]) -> None:
    """Keep in mind what a change made a draft, or live."""
    if kind not in KINDS or (before is not None and "active" not in (before["status"], after["status"])):
        return
    this = {"kind": kind, "ref": after["id"]}
    connection.execute(delete(tables.draft).where(and_(_D.kind == kind, _D.ref == after["id"])))
    if before is None and after["status"] == "paused":
        connection.execute(insert(tables.draft).values(**this))


def never_live(kind: str) -> Select[Any]:
    """The ids of all drafts of a kind."""
    return select(_D.ref).where(_D.kind == kind)


def states(connection: Connection, kind: str, of: Iterable[tuple[int, str]]) -> dict[int, str]:
    """What a person calls the state of each (id, status)."""
    known = dict(of)
    paused = [ref for ref, status in known.items() if status == "paused"]
    found = dict.fromkeys(connection.scalars(never_live(kind).where(_D.ref.in_(paused))), DRAFT)
    if kind == "campaign":
        found |= dict.fromkeys(_waiting(connection, paused), IN_REVIEW)
    return {**known, **found}


def _waiting(connection: Connection, campaigns: Sequence[int]) -> Iterable[int]:
    return connection.scalars(select(_R.campaign_id).where(_R.state == "waiting", _R.campaign_id.in_(campaigns)))
