"""Whose doing a conversion is: the last click, else the view, within the windows of the line item; or nobody's.

A conversion comes with the token of the ad it followed. A person may have clicked on something else of the same
advertiser since: where the tokens say who it was (consent), the last click of that person counts, wherever it was. A
conversion without a click is credited to its own ad as a view; outside all windows it stays on record, uncredited.

Notices come in any order. A click that is heard of after its conversion changes the credit then (`claims`), so the same
notices give the same credits whichever came first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, or_, select, update

from dsp.ledger.accounts import ADVERTISER, Line
from dsp.ledger.rows import person_of, ref
from dsp.ledger.schema import ATTRIBUTION_CLICK, ATTRIBUTION_NONE, ATTRIBUTION_VIEW, EVENTS, sql_id
from dsp.ledger.ticket import Notice
from dsp.log.outcomes import CLICK, DEFAULTED, REGISTERED

_DAY_S = 86_400
DEFAULT_CLICK_S, DEFAULT_VIEW_S = 30 * _DAY_S, _DAY_S
_LONGEST_MS = 90 * _DAY_S * 1000


class Credit(NamedTuple):
    """The bid that gets a conversion; ``how`` is ATTRIBUTION_*, and with ATTRIBUTION_NONE the bid is nobody's."""

    how: int
    bid_id: int  # as SQL holds it
    bid_ms: int
    line_item: int
    exchange: int
    creative: int


class Conversion(NamedTuple):
    """What decides about the credit of one conversion."""

    bid_id: int
    kind: int
    time_ms: int
    bid_ms: int
    line_item: int
    exchange: int
    creative: int
    person: int | None
    value_micros: int = 0


def is_conversion(kind: int) -> bool:
    """Whether an outcome is one that is credited."""
    return REGISTERED <= kind <= DEFAULTED


def conversion_of(notice: Notice) -> Conversion:
    """A notice as attribution sees it."""
    t = notice.ticket
    return Conversion(
        *(sql_id(t.bid_id), notice.kind, notice.time_ms, t.time_s * 1000, t.line_item, t.exchange, t.creative),
        *(person_of(t), notice.value_micros),
    )


def credits(connection: Connection, lines: Mapping[int, Line], found: Sequence[Conversion]) -> list[Credit]:
    """The credit of each conversion, by the clicks that are on record in the open transaction."""
    clicks = _clicks(connection, found)
    return [_credit(conversion, clicks, lines) for conversion in found]


def claims(connection: Connection, lines: Mapping[int, Line], clicks: Sequence[Notice]) -> list[tuple[Any, Credit]]:
    """Conversions on record whose credit changes by new clicks: (its event row, its new credit). Updates the rows."""
    bids = [sql_id(click.ticket.bid_id) for click in clicks]
    persons = [p for click in clicks if (p := person_of(click.ticket)) is not None]
    e = EVENTS.c
    whose = or_(e.bid_id.in_(bids), e.person.in_(persons)) if persons else e.bid_id.in_(bids)
    rows = list(connection.execute(EVENTS.select().where(whose, e.kind.between(REGISTERED, DEFAULTED))))
    if not rows:
        return []
    found = [
        Conversion(*(r.bid_id, r.kind, r.time_ms, r.bid_ms, r.line_item, r.exchange, r.creative), r.person)
        for r in rows
    ]
    changed = []
    for row, credit in zip(rows, credits(connection, lines, found), strict=True):
        if (row.attribution, row.credited) != (credit.how, _credited(credit)):
            values = {"attribution": credit.how, "credited": _credited(credit)}
            connection.execute(update(EVENTS).where(e.bid_id == row.bid_id, e.kind == row.kind).values(values))
            changed.append((row, credit))
    return changed


def credited_row(row: tuple[Any, ...], credit: Credit, external_id: str) -> tuple[Any, ...]:
    """An EVENTS row with its credit (the last three columns)."""
    return (*row[:-3], credit.how, _credited(credit), external_id or None)


def bid_of(connection: Connection, bid_id: int) -> Any:
    """Some event row of a bid: line item, exchange, creative and bid time are the same in all of them."""
    return connection.execute(EVENTS.select().where(EVENTS.c.bid_id == bid_id).limit(1)).one_or_none()


def _credited(credit: Credit) -> int | None:
    return credit.bid_id if credit.how != ATTRIBUTION_NONE else None


def _clicks(connection: Connection, found: Sequence[Conversion]) -> list[Any]:
    if not found:
        return []
    e = EVENTS.c
    columns = select(e.bid_id, e.time_ms, e.bid_ms, e.line_item, e.exchange, e.creative, e.person)
    bids, persons = {c.bid_id for c in found}, {c.person for c in found if c.person is not None}
    rows = list(connection.execute(columns.where(e.kind == CLICK, e.bid_id.in_(bids))))
    if persons:
        since = min(c.time_ms for c in found) - _LONGEST_MS
        query = columns.where(e.kind == CLICK, e.person.in_(persons), e.time_ms >= since, e.bid_id.not_in(bids))
        rows += connection.execute(query)
    return rows


def _credit(it: Conversion, clicks: Sequence[Any], lines: Mapping[int, Line]) -> Credit:
    owner = _advertiser(lines, it.line_item)
    best: Any = None
    for click in clicks:
        own = click.bid_id == it.bid_id
        same = it.person is not None and click.person == it.person
        if not own and not (same and owner and _advertiser(lines, click.line_item) == owner):
            continue
        age_ms = it.time_ms - click.time_ms
        if age_ms > _windows(lines, click.line_item)[0] * 1000 or (age_ms < 0 and not own):
            continue  # a click of the same ad came before its conversion, in whatever order we hear of them
        if best is None or (click.time_ms, click.bid_id) > (best.time_ms, best.bid_id):
            best = click
    if best is not None:
        at = (best.bid_id, best.bid_ms, best.line_item, best.exchange, best.creative)
        return Credit(ATTRIBUTION_CLICK, *at)
    seen = it.time_ms - it.bid_ms <= _windows(lines, it.line_item)[1] * 1000
    how = ATTRIBUTION_VIEW if seen else ATTRIBUTION_NONE
    return Credit(how, it.bid_id, it.bid_ms, it.line_item, it.exchange, it.creative)


def _advertiser(lines: Mapping[int, Line], line_item: int) -> int:
    line = lines.get(line_item)
    return ref(line, ADVERTISER) if line is not None else 0


def _windows(lines: Mapping[int, Line], line_item: int) -> tuple[int, int]:
    """(click, view) windows in seconds."""
    line = lines.get(line_item)
    if line is None or line.plan is None:
        return DEFAULT_CLICK_S, DEFAULT_VIEW_S
    return line.plan.click_window_s, line.plan.view_window_s
