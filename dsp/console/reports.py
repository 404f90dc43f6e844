"""Reports: the ledger's rollups by day and one dimension, only of advertisers that the reader may see.

The books' database is opened for reading alone; SQLite's WAL lets that happen beside the ledger's writing.
`dsp.ledger.report` adds up; whose rows they may be is decided here.
"""

from __future__ import annotations

import csv
import io
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from dsp.base.config import Config
from dsp.catalog import tables
from dsp.console.access import REPORT, Identity
from dsp.console.errors import ApiError, invalid
from dsp.console.models import Report, ReportQuery, ReportRow
from dsp.ledger.report import Question, page
from dsp.ledger.schema import MEASURES

_EPOCH = date(1970, 1, 1)
DAYS = 30  # of a report that says no start
MOST_DAYS = 800


def open_books(config: Config) -> Engine:
    """The ledger's database, for reading."""
    if config.ledger.database:
        return create_engine(make_url(config.ledger.database).set(drivername="postgresql+psycopg"))
    path = Path(config.path("ledger.db")).resolve()
    return create_engine(f"sqlite:///file:{path}?mode=ro&uri=true")


class Reports:
    """Reports over ``books``, named by ``catalog``."""

    def __init__(self, catalog: Engine, books: Engine) -> None:
        self.catalog, self.books = catalog, books

    def run(self, by: Identity, query: ReportQuery, today: date | None = None) -> Report:
        """One page of a report. Raises 403, 422, 503 (no books yet)."""
        if not by.may_anywhere(REPORT):
            by.require(REPORT, 0)
        first, last = _span(query, today or datetime.now(UTC).date())
        mine = by.advertisers(REPORT)
        try:
            rows = self._rows(query, first, last, mine)
        except SQLAlchemyError:
            raise ApiError(503, "books", "the ledger's books can't be read yet; start the ledger") from None
        more = query.offset + query.limit if len(rows) > query.limit else None
        names = self._names(query.by, {row[1] for row in rows})
        items = [
            ReportRow(_iso(day) if query.daily else "", ref, names.get(ref, ""), currency, *map(int, amounts))
            for day, ref, currency, *amounts in rows[: query.limit]
        ]
        return Report(_iso(first), _iso(last), items, more)

    def _rows(self, query: ReportQuery, first: int, last: int, mine: frozenset[int] | None) -> list[Any]:
        """Rows (day, id, currency, measures...) of a page and one more, in order, of these advertisers alone."""
        by = (*(("day",) if query.daily else ()), *((query.by,) if query.by else ()))
        only: dict[str, list[int]] = {} if mine is None else {"advertiser": sorted(mine)}
        if mine is not None and query.by == "creative":  # the books don't know whose an ad is
            only = {"creative": self._creatives(mine)}
        if query.id and query.by:
            if query.by in only and query.id not in only[query.by]:
                return []
            only[query.by] = [query.id]
        rows = []
        for key, amounts in page(self.books, Question(first, last, by, only), query.offset, query.limit + 1):
            values = dict(zip(by, key, strict=False))
            rows.append((values.get("day", 0), values.get(query.by, 0), key[-1], *amounts))
        return rows

    def _creatives(self, advertisers: frozenset[int]) -> list[int]:
        joined = tables.creative.join(tables.line_item).join(tables.campaign)
        mine = tables.campaign.c.advertiser_id.in_(advertisers)
        with self.catalog.connect() as connection:
            return list(connection.scalars(select(tables.creative.c.id).select_from(joined).where(mine)))

    def _names(self, by: str, refs: set[int]) -> dict[int, str]:
        if not by or not refs:
            return {}
        table = tables.metadata.tables[by]
        with self.catalog.connect() as connection:
            wanted = select(table.c.id, table.c.name).where(table.c.id.in_(refs))
            return {row.id: row.name for row in connection.execute(wanted)}


def as_csv(report: Report) -> str:
    """The report as CSV: amounts as decimals, text that a spreadsheet would run made inert."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(("day", "id", "name", "currency", *(m.removesuffix("_micros") for m in MEASURES)))
    for row in report.items:
        amounts = (getattr(row, m) / 1e6 if m.endswith("_micros") else getattr(row, m) for m in MEASURES)
        name = getattr(row, "name")  # noqa: B009 - the type is made at import
        safe = "'" + name if name[:1] in "=+-@\t\r" and name else name
        writer.writerow((getattr(row, "day"), getattr(row, "id"), safe, getattr(row, "currency"), *amounts))  # noqa: B009
    return out.getvalue()


def _span(query: ReportQuery, today: date) -> tuple[int, int]:
    try:
        end = date.fromisoformat(query.end) if query.end else today + timedelta(days=1)  # east of here it's tomorrow
        start = date.fromisoformat(query.start) if query.start else end - timedelta(days=DAYS)
    except (ValueError, OverflowError):
        raise invalid("start", "not a day; write 2026-01-31") from None
    if not 0 <= (end - start).days <= MOST_DAYS or start < _EPOCH:
        raise invalid("end", f"must be 0 to {MOST_DAYS} days after the start")
    return (start - _EPOCH).days, (end - _EPOCH).days


def _iso(day: int) -> str:
    return (_EPOCH + timedelta(days=day)).isoformat()
