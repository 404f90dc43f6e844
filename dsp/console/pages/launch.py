"""Where a campaign or a line item stands (draft, in review, live, paused) and which button brings it further."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dsp.console import drafts
from dsp.console.approval import needs_second
from dsp.console.pages.page import Page

STATES = ("active", "paused", drafts.DRAFT, drafts.IN_REVIEW, "archived")


def standing(page: Page, kind: str, one: dict[str, Any], children: Iterable[Any] = ()) -> dict[str, Any]:
    """``state``; ``asks``: going live takes a second person; ``children_states`` by id, of a campaign's line items."""
    catalog, ref = page.services.catalog, one["id"]
    with catalog.engine.connect() as connection:
        return {
            "state": drafts.states(connection, kind, [(ref, one["status"])])[ref],
            "asks": kind == "campaign" and needs_second(connection, catalog.approval_above, one),
            "children_states": drafts.states(connection, "line_item", ((row.id, row.status) for row in children)),
        }
