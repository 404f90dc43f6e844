"""The first page: spend against plan, the funnel, what a customer costs, what needs a person. It keeps itself fresh."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import Response

from dsp.catalog import tables
from dsp.catalog.records import FOREVER_S
from dsp.console import browse
from dsp.console.access import READ, REPORT
from dsp.console.browse import NOTHING, Figures, Row
from dsp.console.pages import plot, show
from dsp.console.pages.page import FUNNEL, Page
from dsp.ledger.accounts import ADVERTISER, LINE_ITEM
from dsp.ledger.report import Question, ask
from dsp.ledger.schema import MEASURES, STOPS

_EPOCH = date(1970, 1, 1)
_LISTED = 25  # campaigns below the plots
_ALERTS = 8
_EARLY = 0.15  # of a day: before that nothing is said about pace


class Span(msgspec.Struct):
    """How many days the page looks back over."""

    days: Literal["7", "30", "90"] = "30"


@dataclass(frozen=True)
class Plan:
    """Today of one campaign. ``day``: what it should spend today; ``pace``: spent over what the clock would have."""

    row: Row
    day: int | None
    pace: float | None
    target: float | None  # mean cost per funded customer that its line items aim at, micros
    part: float | None  # of its whole budget


@dataclass
class Money:
    """One currency of the page."""

    currency: str
    total: Figures
    before: Figures  # the same number of days earlier
    days: dict[int, Figures] = field(default_factory=dict)
    planned_day: int = 0
    spent_day: int = 0
    due: float = 0.0  # of today's plan by now
    target: float | None = None
    plot: Any = None
    funnel: Any = None


def overview(page: Page) -> Response:
    """GET /."""
    days = int(page.query(Span).days)
    last = browse.today()
    first = last - days + 1
    plans = _plans(page, first, last)
    moneys = _moneys(page, first, last, plans)
    for one in moneys.values():
        _draw(page, one, first, last)
    plans.sort(key=lambda p: (-p.row.recent["spend_micros"], p.row.status != "active"))
    running = sum(p.row.status == "active" for p in plans)
    return page.show(
        "overview.html", days=days, moneys=list(moneys.values()), plans=plans[:_LISTED], more=len(plans) > _LISTED,
        alerts=_alerts(page, plans)[:_ALERTS], running=running, campaigns=len(plans), empty=not plans,
        now=datetime.now(UTC).strftime("%H:%M:%S"),
    )  # fmt: skip


def _plans(page: Page, first: int, last: int) -> list[Plan]:
    by, mine = page.person, page.person.advertisers(READ)
    with page.services.catalog.engine.connect() as connection:
        rows = browse.read(connection, "campaign", None)
        c = tables.line_item.c
        wanted = select(c.campaign_id, func.avg(c.target_micros)).where(c.target_stage == "funded")
        wanted = wanted.where(c.status == "active").group_by(c.campaign_id)
        targets = {r[0]: float(r[1]) for r in connection.execute(wanted)}
    recent = browse.figures(page.services, by, "campaign", first, last + 1)
    today = browse.figures(page.services, by, "campaign", last, last)
    ever = browse.figures(page.services, by, "campaign", 0, last + 1)
    now_s = page.services.catalog.clock()
    found = []
    for row in rows.values():
        if row.status == "archived" or (mine is not None and row.advertiser_id not in mine):
            continue
        one = browse.with_figures(row, recent, today)
        day = _day_plan(row, now_s)
        due = _day_part(row, now_s)
        pace = one.today["spend_micros"] / (day * due) if day and row.status == "active" and due > _EARLY else None
        part = ever.get(row.id, NOTHING)["spend_micros"] / row.total if row.total else None
        found.append(Plan(one, day, pace, targets.get(row.id), part))
    return found


def _day_plan(row: Row, now_s: float) -> int | None:
    """What today should cost: the daily budget, or the total spread evenly over the flight."""
    if not row.start_s <= now_s < row.end_s or row.status != "active":
        return None
    if row.daily is not None:
        return row.daily
    if row.total is None or row.end_s >= FOREVER_S:
        return None
    return int(row.total / max(1.0, (row.end_s - max(row.start_s, 0)) / 86_400)) if row.start_s > 0 else None


def _day_part(row: Row, now_s: float) -> float:
    """How much of the day is over, where the advertiser is."""
    then = datetime.fromtimestamp(now_s, ZoneInfo(row.timezone or "UTC"))
    return (then.hour * 3600 + then.minute * 60 + then.second) / 86_400


def _moneys(page: Page, first: int, last: int, plans: list[Plan]) -> dict[str, Money]:
    """What was spent and planned, by currency."""
    length = last - first + 1
    by_day = _days(page, first - length, last + 1)
    moneys: dict[str, Money] = {}
    for currency, days in by_day.items():
        now = _sum(of for day, of in days.items() if day >= first)
        before = _sum(of for day, of in days.items() if day < first)
        moneys[currency] = Money(currency, now, before, days)
    for plan in plans:
        if plan.day is None and plan.row.today is NOTHING:
            continue
        one = moneys.setdefault(plan.row.currency, Money(plan.row.currency, NOTHING, NOTHING))
        one.planned_day += plan.day or 0
        if plan.day:
            one.spent_day += plan.row.today["spend_micros"]
            one.due += plan.day * _day_part(plan.row, page.services.catalog.clock())
    for currency, one in moneys.items():
        aims = [p for p in plans if p.target and p.row.currency == currency and p.row.status == "active"]
        weights = [max(1, p.row.recent["spend_micros"]) for p in aims]
        if aims:
            one.target = sum(w * (p.target or 0) for w, p in zip(weights, aims, strict=True)) / sum(weights)
    return dict(sorted(moneys.items(), key=lambda item: -item[1].total["impressions"]))


def _days(page: Page, first: int, last: int) -> dict[str, dict[int, Figures]]:
    """By currency and day, of what may be reported on."""
    mine = page.person.advertisers(REPORT)
    if mine == frozenset():
        return {}
    only: dict[str, list[int]] = {} if mine is None else {"advertiser": sorted(mine)}
    try:
        found = ask(page.services.reports.books, Question(max(first, 0), last, ("day",), only))
    except SQLAlchemyError:
        return {}
    out: dict[str, dict[int, Figures]] = {}
    for (day, currency), amounts in found.items():
        out.setdefault(currency, {})[day] = Figures(dict(zip(MEASURES, amounts, strict=True)))
    return out


def _sum(parts: Any) -> Figures:
    amounts = dict.fromkeys(MEASURES, 0)
    for part in parts:
        for name in MEASURES:
            amounts[name] += part[name]
    return Figures(amounts)


def _draw(page: Page, one: Money, first: int, last: int) -> None:
    days = range(first, last + 1)
    labels = [(_EPOCH + timedelta(days=day)).strftime("%m-%d") for day in days]
    spend = [one.days.get(day, NOTHING)["spend_micros"] / 1e6 for day in days]
    worth = [one.days.get(day, NOTHING)["worth_micros"] / 1e6 for day in days]
    _ = page.words
    series = [(_("Spend"), spend, "now"), (_("Risk-adjusted value"), worth, "then")]
    one.plot = plot.lines(labels, series, show.compact, f"{_('Spend and value by day')}, {one.currency}")
    rows, before = [], 0
    for name, text in FUNNEL:
        n = one.total[name]
        part = f" · {show.share(n / before, 2 if n / before < 0.1 else 1)}" if before else ""
        rows.append((_(text), float(n), show.count(n) + part))
        before = n
    one.funnel = plot.bars(rows, _("Funnel"), 1, log=True)


def _alerts(page: Page, plans: list[Plan]) -> list[tuple[str, str, str, str]]:
    """What needs a person, the worst first: (kind, words, what of, address)."""
    _, found = page.words, _stops(page, {p.row.advertiser_id for p in plans})
    now_s = page.services.catalog.clock()
    for plan in plans:
        row, where = plan.row, f"/campaigns/{plan.row.id}"
        if row.status != "active":
            continue
        if plan.target and row.recent["funded"] >= 10 and (row.recent.cost or 0) > 1.2 * plan.target:
            cost = show.money(row.recent.cost, row.currency)
            text = _("a funded customer costs {cost}, more than the target").replace("{cost}", cost)
            found.append(("warn", text, row.name, where))
        if plan.part is not None and plan.part >= 0.95:
            found.append(("warn", _("its budget is nearly spent"), row.name, where))
        elif row.end_s - now_s < 3 * 86_400:
            found.append(
                ("warn", _("it ends within three days" if row.end_s > now_s else "it has ended"), row.name, where)
            )
        elif plan.pace is not None and plan.pace == 0:
            found.append(("warn", _("it has not spent today; see why"), row.name, f"/line-items?campaign_id={row.id}"))
        elif plan.pace is not None and plan.pace < 0.7:
            part = show.share(plan.pace, 0)
            found.append(
                ("warn", _("it spent only {part} of what was due by now").replace("{part}", part), row.name, where)
            )
    return found


def _stops(page: Page, mine: set[int]) -> list[tuple[str, str, str, str]]:
    """What a brake or a person has stopped."""
    try:
        with page.services.reports.books.connect() as connection:
            stops = connection.execute(select(STOPS).order_by(STOPS.c.time_ms.desc()).limit(100)).all()
    except SQLAlchemyError:
        return []
    with page.services.catalog.engine.connect() as connection:
        lines = browse.read(connection, "line_item", [s.ref for s in stops if s.kind == LINE_ITEM])
    found = []
    for stop in stops:
        text = f"{page.words('stopped')}: {stop.detail or stop.reason}"
        if stop.kind == 0:
            found.append(("bad", text, page.words("All bidding"), "/changes"))
        elif stop.kind == LINE_ITEM and stop.ref in lines and lines[stop.ref].advertiser_id in mine:
            found.append(("bad", text, lines[stop.ref].name, f"/line-items/{stop.ref}/why"))
        elif stop.kind == ADVERTISER and stop.ref in mine:
            found.append(("bad", text, page.words("All of an advertiser"), f"/campaigns?advertiser_id={stop.ref}"))
    return found
