"""What waits for a second person's approval."""

from __future__ import annotations

from starlette.responses import Response

from dsp.console import review
from dsp.console.pages.page import Handler, Page, see


def reviews(page: Page) -> Response:
    """GET /review."""
    found = review.waiting(page.services.catalog, page.person)
    return page.show("review.html", reviews=found, above=page.services.config.console.approval_above)


def decide(approve: bool) -> Handler:
    """POST of approve and return."""

    def run(page: Page) -> Response:
        review.decide(page.services.catalog, page.person, page.ref, approve)
        return see("/review", "approved" if approve else "returned")

    return run
