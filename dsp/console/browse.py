"""Lists of campaigns and line items as pages show them: any page of them, in any order, with what they have spent.

What is listed is the catalog's, what it spent is the books'; both are read once per list and joined by id, so that a
page of 10,000 line items sorted by spend costs two statements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from sqlalchemy import Connection, Select, func, select
from sqlalchemy.exc import SQLAlchemyError

from dsp.catalog import tables
from dsp.catalog.layout import NO_LIMIT_MICROS
from dsp.console import drafts
from dsp.console.access import READ, REPORT, Identity
from dsp.console.catalog import TABLES
from dsp.console.services import Services
from dsp.ledger.report import Question, ask
from dsp.ledger.schema import MEASURES

_MOST = 2**53
_ADVERTISER, _CAMPAIGN, _LINE = tables.advertiser.c, tables.campaign.c, tables.line_item.c
_FEW = 1_000  # so many ids are named to the books; of more, all are asked for
DAYS = 7  # that a list's figures cover, today included
Sort = Literal[
    "name", "status", "daily", "total", "spend", "today", "impressions", "funded", "cost", "return", "newest"
]


class Browse(msgspec.Struct, forbid_unknown_fields=True):
    """What a list shows. ``sort`` by a column; by spend and what it brought: of the last `DAYS` days."""

    q: Annotated[str, msgspec.Meta(max_length=200)] = ""
    status: Literal["", "active", "paused", "draft", "archived"] = ""
    advertiser_id: Annotated[int, msgspec.Meta(ge=0, le=_MOST)] = 0
    campaign_id: Annotated[int, msgspec.Meta(ge=0, le=_MOST)] = 0
    sort: Sort = "spend"
    desc: bool = True
    offset: Annotated[int, msgspec.Meta(ge=0, le=10**7)] = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=200)] = 50


@dataclass(frozen=True)
class Figures:
    """MEASURES by name, of one thing in one currency."""

    amounts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(MEASURES, 0))

    def __getitem__(self, name: str) -> int:
        return self.amounts[name]

    @property
    def cost(self) -> float | None:
        """Micros for each funded customer."""
        return self["spend_micros"] / self["funded"] if self["funded"] else None

    @property
    def worth(self) -> float | None:
        """Risk-adjusted value for each unit spent."""
        return self["worth_micros"] / self["spend_micros"] if self["spend_micros"] > 0 else None


NOTHING = Figures()


@dataclass(frozen=True)
class Row:
    """One of a list. Budgets in micros, None: no limit."""

    id: int
    name: str
    status: str
    advertiser_id: int
    advertiser: str
    currency: str
    timezone: str
    campaign_id: int
    campaign: str
    total: int | None
    daily: int | None
    max_bid: int
    target: int
    target_stage: str
    start_s: int
    end_s: int
    recent: Figures = NOTHING
    today: Figures = NOTHING


def today() -> int:
    """Days since 1970-01-01, UTC."""
    return int(datetime.now(UTC).timestamp() // 86_400)


def figures(
    services: Services, by: Identity, kind: str, first: int, last: int, ids: Sequence[int] | None = None
) -> dict[int, Figures]:
    """What each of a kind (``ids``: only these) spent and brought from day ``first`` to ``last``; nothing where it
    can't be told.
    """
    mine = by.advertisers(REPORT)
    if mine == frozenset():
        return {}
    only: dict[str, Sequence[int]] = {} if mine is None else {"advertiser": sorted(mine)}
    if ids is not None:
        only[kind] = ids
    try:
        found = ask(services.reports.books, Question(first, last, (kind,), only))
    except SQLAlchemyError:
        return {}
    return {int(key[0]): Figures(dict(zip(MEASURES, amounts, strict=True))) for key, amounts in found.items()}


def listed(services: Services, by: Identity, kind: str, query: Browse) -> tuple[list[Row], int]:
    """A page of what ``by`` may read, and how many there are in all."""
    day = today()
    with services.catalog.engine.connect() as connection:
        wanted = _ids(by, kind, query)
        order = _sql_order(kind, query)
        if order is not None:
            total = int(connection.execute(select(func.count()).select_from(wanted.subquery())).scalar_one())
            ids = list(connection.scalars(wanted.order_by(*order).offset(query.offset).limit(query.limit)))
        else:
            every = list(connection.scalars(wanted.order_by(TABLES[kind].c.id.desc())))
            first = day if query.sort == "today" else day - DAYS + 1
            last = day if query.sort == "today" else day + 1
            of = figures(services, by, kind, first, last, every if len(every) <= _FEW else None)
            every.sort(key=lambda ref: _worth(of.get(ref, NOTHING), query.sort), reverse=query.desc)
            ids, total = every[query.offset : query.offset + query.limit], len(every)
        recent = figures(services, by, kind, day - DAYS + 1, day + 1, ids)
        now = figures(services, by, kind, day, day, ids)
        rows = read(connection, kind, ids)
    return [with_figures(rows[ref], recent, now) for ref in ids if ref in rows], total


def with_figures(row: Row, recent: dict[int, Figures], now: dict[int, Figures]) -> Row:
    """The row with what it spent and brought."""
    return Row(**{**vars(row), "recent": recent.get(row.id, NOTHING), "today": now.get(row.id, NOTHING)})


def _worth(of: Figures, sort: str) -> float:
    if sort in ("cost", "return"):
        return (of.cost if sort == "cost" else of.worth) or 0.0
    return of[{"spend": "spend_micros", "today": "spend_micros"}.get(sort, sort)]


def _sql_order(kind: str, query: Browse) -> list[Any] | None:
    c = TABLES[kind].c
    columns = {"name": c.name, "status": c.status, "daily": c.daily_micros, "total": c.total_micros, "newest": c.id}
    if query.sort not in columns:
        return None
    column = columns[query.sort]
    return [column.desc() if query.desc else column, c.id]


def _ids(by: Identity, kind: str, query: Browse) -> Select[Any]:
    c = TABLES[kind].c
    wanted = select(c.id)
    owner: Any = _CAMPAIGN.advertiser_id
    if kind == "line_item":
        wanted = wanted.join(tables.campaign, _CAMPAIGN.id == c.campaign_id)
        if query.campaign_id:
            wanted = wanted.where(c.campaign_id == query.campaign_id)
    mine = by.advertisers(READ)
    if mine is not None:
        wanted = wanted.where(owner.in_(mine))
    if query.advertiser_id:
        wanted = wanted.where(owner == query.advertiser_id)
    if query.q:
        wanted = wanted.where(c.name.icontains(query.q, autoescape=True))
    if query.status in (drafts.DRAFT, "paused"):  # a draft is paused for the catalog, not for a person
        made = drafts.never_live(kind)
        return wanted.where(c.status == "paused", c.id.in_(made) if query.status == drafts.DRAFT else c.id.not_in(made))
    return wanted.where(c.status == query.status if query.status else c.status != "archived")


def read(connection: Connection, kind: str, ids: Sequence[int] | None) -> dict[int, Row]:
    """Rows by id, without figures; ``ids`` None: all of them."""
    c = TABLES[kind].c
    own = (c.id, c.name, c.status, c.total_micros, c.daily_micros, c.start_s, c.end_s)
    above = (_ADVERTISER.id.label("advertiser_id"), _ADVERTISER.name.label("advertiser"), _ADVERTISER.currency)
    if kind == "line_item":
        mine = (_LINE.max_bid_micros, _LINE.target_micros, _LINE.target_stage, _LINE.timezone)
        wanted = select(*own, *above, *mine, _CAMPAIGN.id.label("campaign_id"), _CAMPAIGN.name.label("campaign"))
        wanted = wanted.join(tables.campaign, _CAMPAIGN.id == c.campaign_id)
    else:
        wanted = select(*own, *above, _ADVERTISER.timezone)
    wanted = wanted.join(tables.advertiser, _ADVERTISER.id == _CAMPAIGN.advertiser_id)
    if ids is not None:
        wanted = wanted.where(c.id.in_(ids))
    return {r.id: _row(r, kind) for r in connection.execute(wanted)}


def _row(r: Any, kind: str) -> Row:
    line = kind == "line_item"
    return Row(
        r.id, r.name, r.status, r.advertiser_id, r.advertiser, r.currency, r.timezone,
        r.campaign_id if line else r.id, r.campaign if line else r.name,
        limit(r.total_micros), limit(r.daily_micros), r.max_bid_micros if line else 0,
        r.target_micros if line else 0, r.target_stage if line else "", r.start_s, r.end_s,
    )  # fmt: skip


def limit(micros: int) -> int | None:
    """A budget of the catalog; None: no limit."""
    return None if micros >= NO_LIMIT_MICROS else micros
