"""What changed, by whom; and back again."""

from __future__ import annotations

from starlette.responses import Response

from dsp.console import history
from dsp.console.models import AuditQuery
from dsp.console.pages.page import Page, see


def changes(page: Page) -> Response:
    """GET /changes."""
    found, more = history.changes(page.services.catalog, page.person, page.query(AuditQuery))
    return page.show("changes.html", changes=found, more=more)


def undo(page: Page) -> Response:
    """POST /changes/ID/undo."""
    history.undo(page.services.catalog, page.person, page.ref)
    return see("/changes", "undone")
