"""Why a line item does not spend: what holds it back by itself, where recent requests end, and the remedy for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import Response

from dsp.catalog.records import Catalog
from dsp.catalog.store import read_catalog
from dsp.console import browse
from dsp.console.affordable import affordable
from dsp.console.browse import NOTHING, Row
from dsp.console.errors import ApiError
from dsp.console.pages import plot, show
from dsp.console.pages.page import Page
from dsp.console.reach import reach_of
from dsp.ledger.accounts import ADVERTISER, CAMPAIGN, LINE_ITEM
from dsp.ledger.schema import STOPS
from dsp.openrtb import codes

_WIDEN = "Widen the targeting; below is what each part of it keeps out."
_ELSEWHERE = "Nothing to do here: no ad of ours could run."
REMEDIES = {
    codes.NBR_NO_ELIGIBLE: _WIDEN,
    codes.NBR_CONSENT: "It targets what may not be known of these people; drop segments, or accept the smaller reach.",
    codes.NBR_BLOCKED: "The publisher blocks the category, domain or attribute of the ads; use ads without them.",
    codes.NBR_FORMAT: "Add creatives in the formats and sizes that are asked for, all URLs https.",
    codes.NBR_NO_DEAL: "It buys deals only and none of them is offered; add deals, or let it bid in the open auction.",
    codes.NBR_NO_CURRENCY: "The exchange takes no currency that has a rate; add the rate.",
    codes.NBR_BELOW_FLOOR: "Raise the maximum bid or the value of the offer, or leave out dear publishers.",
    codes.NBR_NOT_INTERESTED: "Too little is expected of these requests; raise the offer's value if it is too low.",
    codes.NBR_NO_BUDGET: "Raise the budget.",
}
_NAMES = {codes.NBR_TEXT[codes.NBR_NO_ELIGIBLE]: "its targeting does not want it"}
_MARGIN = 0.99  # of a budget: with less left than this, a bid may not fit


@dataclass(frozen=True)
class Check:
    """Something that must hold before it can spend."""

    good: bool
    text: str
    remedy: str = ""
    where: str = ""


def why(page: Page) -> Response:
    """GET /line-items/ID/why."""
    one = page.services.catalog.get(page.person, "line_item", page.ref)
    with page.services.catalog.engine.connect() as connection:
        row = browse.read(connection, "line_item", [page.ref])[page.ref]
        campaign = browse.read(connection, "campaign", [row.campaign_id])[row.campaign_id]
    day = browse.today()
    recent = browse.figures(page.services, page.person, "line_item", day - 6, day + 1, [page.ref])
    now = browse.figures(page.services, page.person, "line_item", day, day, [page.ref])
    row = browse.with_figures(row, recent, now)
    return page.show("why.html", one=one, row=row, checks=_checks(page, one, row, campaign))


def _checks(page: Page, one: dict[str, Any], row: Row, campaign: Row) -> list[Check]:
    now_s, day = page.services.catalog.clock(), browse.today()
    here, above = f"/line-items/{row.id}", f"/campaigns/{campaign.id}"
    found = [
        Check(row.status == "active", "the line item is active", "Resume it.", here),
        Check(campaign.status == "active", "its campaign is active", "Resume the campaign.", above),
        Check(row.start_s <= now_s < row.end_s, "now is within its flight", "Change start or end.", here),
        Check(
            campaign.start_s <= now_s < campaign.end_s,
            "now is within the campaign's flight",
            "Change start or end.",
            above,
        ),
        Check(bool(one["creatives"]), "it has creatives", "Add a creative.", here),
        Check(
            not _stopped(page, row),
            "no brake has stopped it",
            "See the alerts; `dsp ledger resume` lets it go on.",
            "/",
        ),
    ]
    for of, kind, words, where in (
        (row, "line_item", "it has", here),
        (campaign, "campaign", "its campaign has", above),
    ):
        spent = browse.figures(page.services, page.person, kind, 0, day + 1, [of.id]).get(of.id, NOTHING)[
            "spend_micros"
        ]
        today = browse.figures(page.services, page.person, kind, day, day, [of.id]).get(of.id, NOTHING)["spend_micros"]
        if of.total is not None:
            found.append(Check(spent < of.total * _MARGIN, f"{words} budget left", "Raise the total budget.", where))
        if of.daily is not None:
            found.append(
                Check(today < of.daily * _MARGIN, f"{words} budget left today", "Raise the daily budget.", where)
            )
    return found


def _stopped(page: Page, row: Row) -> bool:
    accounts = {(LINE_ITEM, row.id), (CAMPAIGN, row.campaign_id), (ADVERTISER, row.advertiser_id), (0, 0)}
    try:
        with page.services.reports.books.connect() as connection:
            return any((s.kind, s.ref) in accounts for s in connection.execute(select(STOPS.c.kind, STOPS.c.ref)))
    except SQLAlchemyError:
        return False


def reach(page: Page) -> Response:
    """GET /line-items/ID/reach: the part of a page that a script puts in place, as it takes a moment."""
    one = page.services.catalog.get(page.person, "line_item", page.ref)
    with page.services.catalog.engine.connect() as connection:
        catalog = read_catalog(connection, page.ref)
    return foreseen(page, catalog, one)


def foreseen(page: Page, catalog: Catalog, one: dict[str, Any]) -> Response:
    """The same of a line item of ``catalog``, which may be another than what is stored."""
    try:
        found = reach_of(page.services.config, catalog, one["id"])
    except ApiError as error:
        return page.show("reach.html", problem=error.problem, found=None)
    _ = page.words
    n = max(1, found.requests)
    steps = [
        (_("Requests"), found.requests), (_("Its targeting wants"), found.wanted), (_("It would bid on"), found.bids),
    ]  # fmt: skip
    picture = plot.bars([(name, k, f"{show.compact(found.daily * k / n)} · {show.share(k / n)}") for name, k in steps],
                        _("What recent traffic would bring, a day"))  # fmt: skip
    codes_of = {text: code for code, text in codes.NBR_TEXT.items()}
    rows = [
        (_NAMES.get(text, text), k / n, REMEDIES.get(codes_of.get(text, -1), _ELSEWHERE)) for text, k in found.stages
    ]
    dims = [(name, k / n) for name, k in found.left_out]
    budgets = affordable(catalog, one["id"], found)
    return page.show("reach.html", found=found, picture=picture, rows=rows, dims=dims, budgets=budgets)
