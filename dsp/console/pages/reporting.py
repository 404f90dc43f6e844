"""Reports: measures by day and dimension, with a plot, as a table and as CSV."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from starlette.responses import Response

from dsp.console.models import ReportQuery
from dsp.console.pages import plot, show
from dsp.console.pages.page import Page
from dsp.ledger.schema import MEASURES


def reports(page: Page) -> Response:
    """GET /reports."""
    query = page.query(ReportQuery)
    report = page.services.reports.run(page.person, query)
    by_day = page.services.reports.run(
        page.person, ReportQuery(by="", daily=True, start=report.start, end=report.end, limit=5000)
    )
    link = {"by": query.by, "daily": str(query.daily).lower(), "start": report.start, "end": report.end}
    shown = {"start": report.start, "end": report.end, "next": report.next, "items": [*map(_builtin, report.items)]}
    values: dict[str, Any] = {"export": urlencode(link), "measures": MEASURES, "plots": _plots(page, by_day.items)}
    return page.show("reports.html", query=query, report=shown, **values)


def _builtin(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__struct_fields__}


def _plots(page: Page, rows: list[Any]) -> list[tuple[str, Any]]:
    """Spend by day of each currency."""
    series: dict[str, list[Any]] = {}
    for row in rows:
        series.setdefault(row.currency, []).append(row)
    title = page.words("Spend by day")
    return [
        (
            currency,
            plot.lines([r.day[5:] for r in days], [(page.words("Spend"), [r.spend_micros / 1e6 for r in days], "now")],
                       show.compact, f"{title}, {currency}"),
        )
        for currency, days in series.items()
    ]  # fmt: skip
