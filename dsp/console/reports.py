"""Reports: the ledger's rollups by day and up to two dimensions, only of advertisers that the reader may see.

The books' database is opened for reading alone; SQLite's WAL lets that happen beside the ledger's writing.
`dsp.ledger.report` adds up; whose rows they may be is decided here. Of two dimensions of which one is part of the other
(a line item of its campaign) the books are asked for the finer one; the other is the catalog's to say.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from dsp.base.config import Config
from dsp.catalog import tables
from dsp.console.access import REPORT, Identity
from dsp.console.errors import ApiError, invalid
from dsp.console.models import Report, ReportQuery, ReportRow, ReportSpec
from dsp.ledger.report import Question, ask, page
from dsp.ledger.schema import MEASURES

_EPOCH = date(1970, 1, 1)
DAYS = 30  # of a report that says no start
MOST_DAYS = 800
_AT_ONCE = 10_000  # ids in a statement
_FINER = ("creative", "line_item", "campaign", "advertiser")
_ABOVE: dict[str, Any] = {
    "creative": tables.creative.c.line_item_id,
    "line_item": tables.line_item.c.campaign_id,
    "campaign": tables.campaign.c.advertiser_id,
}


def open_books(config: Config) -> Engine:
    """The ledger's database, for reading."""
    if config.ledger.database:
        return create_engine(make_url(config.ledger.database).set(drivername="postgresql+psycopg"))
    path = Path(config.path("ledger.db")).resolve()
    return create_engine(f"sqlite:///file:{path}?mode=ro&uri=true")


@dataclass(frozen=True)
class _Plan:
    """What the books are asked, and how its rows are told: ``groups`` are the report's, ``fine`` the books'."""

    groups: tuple[str, ...]
    fine: tuple[str, ...]
    question: Question | None  # None: nothing can be found


class Reports:
    """Reports over ``books``, named by ``catalog``."""

    def __init__(self, catalog: Engine, books: Engine) -> None:
        self.catalog, self.books = catalog, books

    def run(self, by: Identity, query: ReportQuery, today: date | None = None) -> Report:
        """One page of a report. Raises 403, 422, 503 (no books yet)."""
        first, last = span(query, today)
        plan = self._plan(by, query, first, last)
        try:
            rows = [] if plan.question is None else page(self.books, plan.question, query.offset, query.limit + 1)
            items = self._rows(plan, rows[: query.limit], query.compare)
        except SQLAlchemyError:
            raise ApiError(503, "books", "the ledger's books can't be read yet; start the ledger") from None
        more = query.offset + query.limit if len(rows) > query.limit else None
        return Report(_iso(first), _iso(last), items, more)

    def parts(self, by: Identity, spec: ReportSpec, today: date | None = None) -> Iterator[tuple[float, list[Any]]]:
        """The whole report, a day at a time where it is by day: (share that is done, rows). Raises like `run`."""
        first, last = span(spec, today)
        plan = self._plan(by, spec, first, last)
        if plan.question is None:
            return
        stretches = [(day, day) for day in range(first, last + 1)] if spec.daily else [(first, last)]
        for number, (a, b) in enumerate(stretches, 1):
            question = replace(plan.question, first=a, last=b)
            rows = sorted(ask(self.books, question).items())
            shift = last - first + 1
            yield number / len(stretches), self._rows(replace(plan, question=question), rows, spec.compare, shift)

    def _plan(self, by: Identity, spec: ReportSpec, first: int, last: int) -> _Plan:
        if not by.may_anywhere(REPORT):
            by.require(REPORT, 0)
        groups = spec.groups()
        nested = [name for name in _FINER if name in groups]
        fine = (*nested[:1], *(name for name in groups if name == "exchange"))
        days = ("day",) if spec.daily else ()
        mine = by.advertisers(REPORT)
        if spec.advertiser_id:
            mine = frozenset((spec.advertiser_id,)) if mine is None or spec.advertiser_id in mine else frozenset()
        only: dict[str, Sequence[int]] = {} if mine is None else {"advertiser": sorted(mine)}
        if mine is not None and "creative" in fine:  # the books don't know whose an ad is
            only = {"creative": self._creatives(mine)}
        if spec.id and groups:
            for name, ids in self._of(groups[0], spec.id, fine).items():
                only[name] = [i for i in ids if name not in only or i in set(only[name])]
        possible = all(only.values()) if only else True
        return _Plan(groups, fine, Question(first, last, (*days, *fine), only) if possible else None)

    def _of(self, name: str, ref: int, fine: tuple[str, ...]) -> dict[str, list[int]]:
        """One of a dimension as the books are asked for it: an ad's parents by their ads."""
        if "creative" not in fine or name in fine:
            return {name: [ref]}
        joined = tables.creative.join(tables.line_item).join(tables.campaign)
        with self.catalog.connect() as connection:
            at = {"line_item": tables.line_item.c.id, "campaign": tables.campaign.c.id}
            column = at.get(name, tables.campaign.c.advertiser_id)
            wanted = select(tables.creative.c.id).select_from(joined).where(column == ref)
            return {"creative": list(connection.scalars(wanted))}

    def _creatives(self, advertisers: frozenset[int]) -> list[int]:
        joined = tables.creative.join(tables.line_item).join(tables.campaign)
        mine = tables.campaign.c.advertiser_id.in_(advertisers)
        with self.catalog.connect() as connection:
            return list(connection.scalars(select(tables.creative.c.id).select_from(joined).where(mine)))

    def _rows(self, plan: _Plan, rows: Sequence[tuple[Any, list[int]]], compare: bool, shift: int = 0) -> list[Any]:
        if not rows or plan.question is None:
            return []
        by = plan.question.by
        keys = [dict(zip(by, key, strict=False)) for key, _ in rows]
        refs = self._refs(plan, keys)
        shift = shift or plan.question.last - plan.question.first + 1
        before = self._before(plan, keys, shift) if compare else {}
        made = []
        for (key, amounts), values, of in zip(rows, keys, refs, strict=True):
            (ref, name), (second, other) = (*of, (0, ""), (0, ""))[:2]
            day = _iso(values["day"]) if "day" in values else ""
            then = before.get((*(v - shift if n == "day" else v for n, v in values.items()), key[-1]))
            old = dict(zip(MEASURES, map(int, then or (0,) * len(MEASURES)), strict=True)) if compare else None
            made.append(ReportRow(day, ref, name, second, other, key[-1], *map(int, amounts), old))
        return made

    def _before(self, plan: _Plan, keys: list[dict[str, int]], shift: int) -> dict[Any, list[int]]:
        """The same rows ``shift`` days earlier, by key."""
        question = plan.question
        assert question is not None
        days = [key["day"] for key in keys if "day" in key] or [question.first, question.last]
        only = dict(question.only)
        if plan.fine:
            only[plan.fine[0]] = list({key[plan.fine[0]] for key in keys})
        if min(days) < shift:
            return {}
        return ask(self.books, replace(question, first=min(days) - shift, last=max(days) - shift, only=only))

    def _refs(self, plan: _Plan, keys: list[dict[str, int]]) -> list[list[tuple[int, str]]]:
        """Per row, (id, name) of each of the report's dimensions."""
        with self.catalog.connect() as connection:
            columns = []
            for group in plan.groups:
                if group in plan.fine:
                    refs = [key[group] for key in keys]
                else:
                    refs = self._parents(connection, plan.fine[0], group, [key[plan.fine[0]] for key in keys])
                names = _names(connection, group, refs)
                columns.append([(ref, names.get(ref, "")) for ref in refs])
        return [list(row) for row in zip(*columns, strict=True)] if columns else [[] for _ in keys]

    def _parents(self, connection: Connection, kind: str, group: str, refs: list[int]) -> list[int]:
        """Whose each is, as far up as ``group``."""
        while kind != group:
            above: dict[int, int] = {}
            table = tables.metadata.tables[kind]
            for some in _few(refs):
                wanted = select(table.c.id, _ABOVE[kind]).where(table.c.id.in_(some))
                above |= {int(row[0]): int(row[1]) for row in connection.execute(wanted)}
            refs = [above.get(ref, 0) for ref in refs]
            kind = _FINER[_FINER.index(kind) + 1]
        return refs


def _names(connection: Connection, kind: str, refs: Sequence[int]) -> dict[int, str]:
    table = tables.metadata.tables[kind]
    found: dict[int, str] = {}
    for some in _few(refs):
        wanted = select(table.c.id, table.c.name).where(table.c.id.in_(some))
        found |= {row.id: row.name for row in connection.execute(wanted)}
    return found


def _few(refs: Sequence[int]) -> Iterator[list[int]]:
    """Each once, so many that a statement takes them."""
    each = list(set(refs))
    for start in range(0, len(each), _AT_ONCE):
        yield each[start : start + _AT_ONCE]


def span(query: ReportSpec, today: date | None = None) -> tuple[int, int]:
    """First and last day, since 1970-01-01. Raises 422."""
    try:
        tomorrow = (today or datetime.now(UTC).date()) + timedelta(days=1)  # east of here it's tomorrow
        end = date.fromisoformat(query.end) if query.end else tomorrow
        start = date.fromisoformat(query.start) if query.start else end - timedelta(days=DAYS)
    except (ValueError, OverflowError):
        raise invalid("start", "not a day; write 2026-01-31") from None
    if not 0 <= (end - start).days <= MOST_DAYS or start < _EPOCH:
        raise invalid("end", f"must be 0 to {MOST_DAYS} days after the start")
    return (start - _EPOCH).days, (end - _EPOCH).days


def _iso(day: int) -> str:
    return (_EPOCH + timedelta(days=day)).isoformat()
