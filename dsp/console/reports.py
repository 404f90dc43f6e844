"""Reports: the ledger's rollups by day and one dimension, only of advertisers that the reader may see.

The books' database is opened for reading alone; SQLite's WAL lets that happen beside the ledger's writing. A span of
days is read as whole stretches of eight days plus the days at its ends, so 90 days cost some 20 rows a line item.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, and_, create_engine, func, literal, or_, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from dsp.base.config import Config
from dsp.catalog import tables
from dsp.console.access import REPORT, Identity
from dsp.console.errors import ApiError, invalid
from dsp.console.models import Report, ReportQuery, ReportRow
from dsp.ledger.accounts import ADVERTISER, CAMPAIGN, LINE_ITEM
from dsp.ledger.rollups import ALL, CREATIVE, EXCHANGE, STRETCH
from dsp.ledger.schema import MEASURES, ROLLUP_DAYS, ROLLUP_HOURS

_KINDS = {
    "": ALL, "advertiser": ADVERTISER, "campaign": CAMPAIGN, "line_item": LINE_ITEM,
    "exchange": EXCHANGE, "creative": CREATIVE,
}  # fmt: skip
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
            rows = list(self._rows(query, first, last, mine))
        except SQLAlchemyError:
            raise ApiError(503, "books", "the ledger's books can't be read yet; start the ledger") from None
        more = query.offset + query.limit if len(rows) > query.limit else None
        names = self._names(query.by, {row[1] for row in rows})
        items = [
            ReportRow(_iso(day) if query.daily else "", ref, names.get(ref, ""), currency, *map(int, amounts))
            for day, ref, currency, *amounts in rows[: query.limit]
        ]
        return Report(_iso(first), _iso(last), items, more)

    def _rows(self, query: ReportQuery, first: int, last: int, mine: frozenset[int] | None) -> Iterator[Any]:
        c = ROLLUP_DAYS.c
        refs = [query.id] if query.id and query.by else None
        if mine is not None:
            allowed = self._allowed(query.by, mine)
            if allowed is None:
                yield from self._by_hours(query, first, last, mine)
                return
            refs = sorted(allowed & set(refs) if refs is not None else allowed)
        sums = [func.sum(c[name]).label(name) for name in MEASURES]
        day = c.day if query.daily else literal(0).label("day")
        wanted = select(day, c.ref, c.currency, *sums).where(c.kind == _KINDS[query.by])
        wanted = wanted.where(_days(first, last) if not query.daily else and_(c.grain == 1, c.day.between(first, last)))
        if refs is not None:
            wanted = wanted.where(c.ref.in_(refs))
        group = (c.day, c.ref, c.currency) if query.daily else (c.ref, c.currency)
        wanted = wanted.group_by(*group).order_by(*group).limit(query.limit + 1).offset(query.offset)
        with self.books.connect() as connection:
            yield from connection.execute(wanted)

    def _allowed(self, by: str, mine: frozenset[int]) -> set[int] | None:
        """The refs of a dimension that belong to these advertisers; None where rows are shared with others'."""
        ca, li, cr = tables.campaign, tables.line_item, tables.creative
        queries = {
            "campaign": select(ca.c.id),
            "line_item": select(li.c.id).select_from(li.join(ca)),
            "creative": select(cr.c.id).select_from(cr.join(li).join(ca)),
        }
        if by == "advertiser":
            return set(mine)
        if by not in queries:
            return None
        with self.catalog.connect() as connection:
            return set(connection.scalars(queries[by].where(ca.c.advertiser_id.in_(mine))))

    def _by_hours(self, query: ReportQuery, first: int, last: int, mine: frozenset[int]) -> Iterator[Any]:
        """Exchange, or all: from the hours (UTC days) of the line items that are the reader's."""
        c = ROLLUP_HOURS.c
        lines = sorted(self._allowed("line_item", mine) or ())
        day = (c.hour / 24 if query.daily else literal(0)).label("day")
        if query.daily:
            day = ((c.hour - c.hour % 24) / 24).label("day")
        ref = (c.exchange if query.by == "exchange" else literal(0)).label("ref")
        wanted = select(day, ref, c.currency, *(func.sum(c[n]).label(n) for n in MEASURES))
        wanted = wanted.where(c.line_item.in_(lines), c.hour.between(first * 24, last * 24 + 23))
        if query.id and query.by:
            wanted = wanted.where(c.exchange == query.id)
        wanted = wanted.group_by(day, ref, c.currency).order_by(day, ref, c.currency)
        with self.books.connect() as connection:
            for row in connection.execute(wanted.limit(query.limit + 1).offset(query.offset)):
                yield (int(row[0]), *row[1:])

    def _names(self, by: str, refs: set[int]) -> dict[int, str]:
        if not by:
            return {}
        table = tables.metadata.tables[by]
        with self.catalog.connect() as connection:
            return {r.id: r.name for r in connection.execute(select(table.c.id, table.c.name)) if r.id in refs}


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


def _days(first: int, last: int) -> Any:
    """The condition for the rows that add up to these days, each once."""
    c = ROLLUP_DAYS.c
    begin, end = -(-first // STRETCH) * STRETCH, (last + 1) // STRETCH * STRETCH
    if begin >= end:
        return and_(c.grain == 1, c.day.between(first, last))
    ends = or_(c.day.between(first, begin - 1), c.day.between(end, last))
    return or_(and_(c.grain == STRETCH, c.day.between(begin, end - 1)), and_(c.grain == 1, ends))


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
