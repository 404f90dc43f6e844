"""Exchanges: what they send, what was bought there, what is owed and disputed; and the first steps of a new system."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import Response

from dsp.audience.lmdb_store import profiles_path
from dsp.base.config import BidderConfig
from dsp.base.metrics import OUTCOMES
from dsp.base.scrape import Scrape, fetch
from dsp.bidder.sample import Sampled, read_sample
from dsp.catalog import tables
from dsp.console import browse, library
from dsp.console.access import ALL, READ
from dsp.console.browse import NOTHING, Figures
from dsp.console.bulking import reconciled
from dsp.console.pages.page import Page
from dsp.console.words import refusal
from dsp.ledger.accounts import DISPUTE, PAYABLE
from dsp.ledger.reconcile import BillError, Outcome
from dsp.ledger.schema import BALANCES

_DAYS = 7
_SAMPLE = 1800
_SCRAPE_S = 0.5
_SCRAPED_S = 2.0
_SCRAPED: dict[tuple[str, int], tuple[float, dict[str, dict[str, float]]]] = {}  # by address: when, what
_SHOWN = 200  # differences of a bill


@dataclass(frozen=True)
class Market:
    """One exchange. ``daily``: requests a day, by the sample; ``owed`` and ``disputed``: currency -> micros."""

    name: str
    auction: str
    currency: str
    qps: int
    daily: float
    seen_ms: int
    recent: Figures
    owed: dict[str, int]
    disputed: dict[str, int]
    id: int = 0
    outcomes: dict[str, float] | None = None  # of requests since the bidders started, by what became of them

    def share(self, *names: str) -> float | None:
        """The part of its requests that became one of these."""
        total = sum(self.outcomes.values()) if self.outcomes else 0.0
        return sum(self.outcomes.get(name, 0.0) for name in names) / total if self.outcomes and total else None


def exchanges(page: Page) -> Response:
    """GET /exchanges: figures of what the reader may see; what is owed only to who sees everything."""
    by, day = page.person, browse.today()
    recent = browse.figures(page.services, by, "exchange", day - _DAYS + 1, day + 1)
    sample = read_sample(page.services.config.path("log", "requests"), _SAMPLE)
    daily, seen = _traffic(sample)
    everything, outcomes = by.may(READ, ALL), _outcomes(page.services.config.bidder)
    owed = _balances(page, PAYABLE) if everything else {}
    disputed = _balances(page, DISPUTE) if everything else {}
    with page.services.catalog.engine.connect() as connection:
        rows = connection.execute(select(tables.exchange).order_by(tables.exchange.c.name)).all()
    found = [
        Market(x.name, x.auction, x.currency, x.qps, daily[x.name], seen.get(x.name, 0), recent.get(x.id, NOTHING),
               owed.get(x.id, {}), disputed.get(x.id, {}), x.id, outcomes.get(x.name))
        for x in rows
    ]  # fmt: skip
    return page.show("exchanges.html", exchanges=found, everything=everything, answered=bool(outcomes))


def _traffic(sample: list[Sampled]) -> tuple[Counter[str], dict[str, int]]:
    """Requests a day and the last one's time in unix milliseconds, by exchange."""
    daily: Counter[str] = Counter()
    seen: dict[str, int] = {}
    if not sample:
        return daily, seen
    span_ms = max(1000, sample[0].time_ms - sample[-1].time_ms)
    for one in sample:
        daily[one.exchange] += one.stands_for * 86_400_000 // span_ms
        seen.setdefault(one.exchange, one.time_ms)
    return daily, seen


def _outcomes(bidder: BidderConfig) -> dict[str, dict[str, float]]:
    """What became of requests, by exchange, as the bidders count; nothing where they don't answer here.

    An answer is shown for _SCRAPED_S: what bidders say costs them time, and many may be looking.
    """
    at = bidder.http_host, bidder.metrics_port
    now_s, (heard_s, found) = time.monotonic(), _SCRAPED.get(at, (-_SCRAPED_S, {}))
    if now_s - heard_s < _SCRAPED_S:
        return found
    name = "dsp_bid_requests_total"
    try:
        scrape = Scrape(fetch(*at, f"/metrics?name[]={name}", timeout_s=_SCRAPE_S))
    except (OSError, ValueError):
        return {}
    found = {
        exchange: {o: scrape.sum(name, exchange=exchange, outcome=o) for o in OUTCOMES}
        for exchange in scrape.by(name, "exchange")
    }
    _SCRAPED[at] = now_s, found
    return found


def bill(page: Page) -> Response:
    """GET /exchanges/ID/bill: where a bill is pasted."""
    return _compared(page)


def compare(page: Page) -> Response:
    """POST /exchanges/ID/bill: what it charges against what the books say."""
    text = page.form.get("bill", "")
    try:
        outcome = reconciled(page.services, page.ref, text)
    except BillError as error:
        return _compared(page, text, refused=str(error))
    return _compared(page, text, outcome)


def _compared(page: Page, text: str = "", outcome: Outcome | None = None, refused: str = "") -> Response:
    page.person.require(READ, ALL)
    one = library.get(page.services.catalog, page.person, "exchange", page.ref)
    differences = (outcome.differences if outcome else [])[:_SHOWN]
    if page.lang == "zh":
        refused = refusal(refused)
    values: dict[str, Any] = {"one": one, "text": text, "outcome": outcome, "differences": differences}
    return page.show("bill.html", 422 if refused else 200, refused=refused, **values)


def _balances(page: Page, kind: int) -> dict[int, dict[str, int]]:
    c = BALANCES.c
    query = select(c.ref, c.currency, func.sum(c.debit_micros), func.sum(c.credit_micros)).where(c.kind == kind)
    found: dict[int, dict[str, int]] = {}
    try:
        with page.services.reports.books.connect() as connection:
            for ref, currency, debit, credit in connection.execute(query.group_by(c.ref, c.currency)):
                found.setdefault(int(ref), {})[currency] = abs(int(debit) - int(credit))
    except SQLAlchemyError:
        return {}
    return found


def guide(page: Page) -> Response:
    """GET /guide: what a new system still needs, in order."""
    config = page.services.config
    with page.services.catalog.engine.connect() as connection:

        def there(table: Any, *where: Any) -> bool:
            return connection.execute(select(table).where(*where).limit(1)).first() is not None

        steps = [
            ("Add an exchange", "In a catalog file or over the API: its name, token and auction.", "/exchanges",
             there(tables.exchange)),
            ("See its traffic", "Point its requests at this system's bidder.", "/exchanges",
             bool(read_sample(config.path("log", "requests"), 1))),
            ("Load people", "`dsp audience load FILE` takes CSV and Parquet. Without, bids are by context alone.",
             "/guide", profiles_path(config.root).exists()),
            ("Train a model", "`dsp train --bootstrap` writes one to begin with.", "/guide",
             config.path("models").exists()),
            ("Make a campaign", "With a budget, and a line item with an ad.", "/campaigns/new",
             there(tables.line_item, tables.line_item.c.status != "archived")),
            ("Go live", "Resume the campaign and its line items; the overview shows spend within seconds.",
             "/campaigns", there(tables.campaign, tables.campaign.c.status == "active")),
        ]  # fmt: skip
    now = next((i for i, step in enumerate(steps) if not step[3]), len(steps))
    return page.show("guide.html", steps=steps, now=now)
