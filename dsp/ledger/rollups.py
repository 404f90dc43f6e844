"""Rollups: what reports read. Every notice is added to hour and day of its bid, once, whatever crashes.

A charge touches four rows here, more than the money itself does, and most charges of a second touch the same ones: they
gather in memory and are written once a second, with the number of the last entry that is in (`ROLLED`). Entries after
it are gathered again at start-up (`recover`). What is rarer than charges goes out with its own transaction.

The time of the bid, not of the notice: a day's cost and what it brought stand in one row, and a loan funded weeks later
ripens the day that bought it. Conversions count for the bid they are credited to (`dsp.ledger.attribution`).

``rollup_hours`` has the detail: UTC hour x line item x exchange x creative. ``rollup_days`` has local days of the
advertiser, added up for each line item, campaign, advertiser, exchange, creative and all, for each of the first four on
each exchange (`pair`), and the same once more for
stretches of 4 and of 16 days: a report over 90 days reads some 13 rows for each line item instead of 90.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, func, select

from dsp.ledger.accounts import ADVERTISER, CAMPAIGN, LINE_ITEM, Line
from dsp.ledger.rows import ref
from dsp.ledger.schema import (
    ATTRIBUTION_NONE,
    ATTRIBUTION_VIEW,
    ENTRIES,
    ENTRY_CHARGE,
    ENTRY_MARGIN,
    EVENTS,
    MEASURES,
    ROLLED,
)
from dsp.log.outcomes import APPLIED, APPROVED, CLICK, DEFAULTED, FUNDED, REGISTERED

if TYPE_CHECKING:
    from dsp.ledger.journal import Journal

(M_IMPRESSIONS, M_SPEND, M_MEDIA, M_CLICKS) = range(4)
_AT = {CLICK: M_CLICKS, REGISTERED: 4, APPLIED: 5, APPROVED: 6, FUNDED: 7, DEFAULTED: 8}
M_VIEWS, M_VALUE, M_WORTH = 9, 10, 11
ALL, EXCHANGE, CREATIVE = 0, 20, 21  # kinds of DAYS beside those of accounts
PAIRED = {LINE_ITEM: 30, CAMPAIGN: 31, ADVERTISER: 32, CREATIVE: 33}  # kinds of DAYS: of each on each exchange
EXCHANGE_IDS = 1 << 16  # more than the largest id
GRAINS = (1, 4, 16)  # days to a row
EVERY_NS = 1_000_000_000  # charges are added this often
_EPOCH = datetime(1970, 1, 1).toordinal()


Amounts = list[int]
Key = tuple[int, int, int, int]  # line item, hour, exchange, creative
_DayKey = tuple[int, int, int, str]  # kind, day, whose, currency


def pair(of: int, exchange: int) -> int:
    """The ``ref`` of a kind of `PAIRED`."""
    return of * EXCHANGE_IDS + exchange


class Rollups:
    """What is to be added to the tables; `tick` says when charges are due, `write` adds."""

    def __init__(self) -> None:
        self._new: dict[Key, Amounts] = {}  # for the transaction at hand
        self._charges: dict[Key, Amounts] = {}  # for one in a while
        self._lines: dict[int, Line] = {}
        self._next_ns = 0
        self.due = False  # charges go with the next transaction

    def tick(self, mono_ns: int) -> None:
        """Let time pass."""
        if mono_ns >= self._next_ns:
            self._next_ns = mono_ns + EVERY_NS
            self.due = True

    @property
    def waiting(self) -> bool:
        """Whether charges wait to be written."""
        return bool(self._charges)

    def charged(self, line: Line, bid_ms: int, exchange: int, creative: int, media: int, margin: int) -> None:
        """One impression was posted."""
        amounts = self._at(line, bid_ms, exchange, creative, self._charges)
        amounts[M_IMPRESSIONS] += 1
        amounts[M_SPEND] += media + margin
        amounts[M_MEDIA] += media

    def happened(
        self, line: Line, kind: int, bid_ms: int, exchange: int, creative: int, how: int, value: int, n: int = 1
    ) -> None:
        """A click, or a conversion with its credit (ATTRIBUTION_*); ``n`` -1 takes it back."""
        if how == ATTRIBUTION_NONE and kind != CLICK:
            return
        amounts = self._at(line, bid_ms, exchange, creative, self._new)
        amounts[_AT[kind]] += n
        amounts[M_VIEWS] += n * (how == ATTRIBUTION_VIEW)
        amounts[M_VALUE] += n * value * (kind == FUNDED)
        if line.plan is not None:
            amounts[M_WORTH] += n * line.plan.worth_micros.get(kind, 0)

    def adjusted(self, line: Line, time_ms: int, exchange: int, spend: int, media: int) -> None:
        """Money given back or taken by hand (negative: given back)."""
        amounts = self._at(line, time_ms, exchange, 0, self._new)
        amounts[M_SPEND] += spend
        amounts[M_MEDIA] += media

    def recover(self, connection: Connection, line_of: Callable[[int], Line]) -> None:
        """Gather the charges that an earlier life has booked and not added."""
        e, v = ENTRIES.c, EVENTS.c
        of_bid = select(v.creative).where(v.bid_id == e.bid_id).limit(1).scalar_subquery()
        at = select(v.bid_ms).where(v.bid_id == e.bid_id).limit(1).scalar_subquery()
        since = select(func.coalesce(func.max(ROLLED.c.entry), 0)).scalar_subquery()
        query = select(e.kind, e.line_item, e.exchange, e.micros, of_bid.label("creative"), at.label("bid_ms"))
        query = query.where(e.id > since, e.kind.in_((ENTRY_CHARGE, ENTRY_MARGIN)))
        for row in connection.execute(query):
            media = row.micros if row.kind == ENTRY_CHARGE else 0
            amounts = self._at(line_of(row.line_item), row.bid_ms, row.exchange, row.creative, self._charges)
            amounts[M_IMPRESSIONS] += row.kind == ENTRY_CHARGE
            amounts[M_SPEND] += row.micros
            amounts[M_MEDIA] += media

    def write(self, journal: Journal) -> None:
        """Add what is due in the open transaction."""
        if self.due and self._charges:
            for key, amounts in self._charges.items():
                _add(self._new, key, list(enumerate(amounts)))
            self._charges.clear()
            journal.put_rolled()
        self.due = False
        if self._new:
            journal.add_rollups(list(self._hours()), list(self._days()))
            self._new.clear()
        if not self._charges:
            self._lines.clear()

    def _at(self, line: Line, bid_ms: int, exchange: int, creative: int, into: dict[Key, Amounts]) -> Amounts:
        self._lines[line.id] = line
        key = (line.id, bid_ms // 3_600_000, exchange, creative)
        amounts = into.get(key)
        if amounts is None:
            amounts = into[key] = [0] * len(MEASURES)
        return amounts

    def _hours(self) -> Iterator[tuple[Any, ...]]:
        """Rows of HOURS."""
        for key, amounts in self._new.items():
            yield (*key, self._lines[key[0]].currency, *amounts)

    def _days(self) -> Iterator[tuple[Any, ...]]:
        """Rows of DAYS."""
        by_day: dict[_DayKey, Amounts] = {}
        for (item, hour, exchange, creative), amounts in self._new.items():
            line = self._lines[item]
            day = local_day(line.plan.timezone if line.plan is not None else "UTC", hour)
            some = [(i, amount) for i, amount in enumerate(amounts) if amount]
            for kind, of in ((LINE_ITEM, item), (EXCHANGE, exchange), (CREATIVE, creative)):
                _add(by_day, (kind, day, of, line.currency), some)
                if kind != EXCHANGE:
                    _add(by_day, (PAIRED[kind], day, pair(of, exchange), line.currency), some)
        for (kind, day, of, currency), amounts in list(by_day.items()):
            if kind == LINE_ITEM:
                line, some = self._lines[of], list(enumerate(amounts))
                for above in (CAMPAIGN, ADVERTISER):
                    _add(by_day, (above, day, ref(line, above), currency), some)
                _add(by_day, (ALL, day, 0, currency), some)
            elif kind == PAIRED[LINE_ITEM]:
                line, exchange, some = self._lines[of // EXCHANGE_IDS], of % EXCHANGE_IDS, list(enumerate(amounts))
                for above in (CAMPAIGN, ADVERTISER):
                    _add(by_day, (PAIRED[above], day, pair(ref(line, above), exchange), currency), some)
        yield from ((kind, 1, day, of, currency, *x) for (kind, day, of, currency), x in by_day.items())
        for grain in GRAINS[1:]:
            stretches: dict[_DayKey, Amounts] = {}
            for (kind, day, of, currency), amounts in by_day.items():
                _add(stretches, (kind, day - day % grain, of, currency), list(enumerate(amounts)))
            yield from ((kind, grain, day, of, currency, *x) for (kind, day, of, currency), x in stretches.items())


def _add(into: dict[Any, Amounts], key: Any, some: list[tuple[int, int]]) -> None:
    total = into.get(key)
    if total is None:
        total = into[key] = [0] * len(MEASURES)
    for i, amount in some:
        total[i] += amount


@lru_cache(maxsize=1 << 14)
def local_day(zone: str, hour: int) -> int:
    """The day (days since 1970-01-01) that a unix hour begins in, in a time zone."""
    return datetime.fromtimestamp(hour * 3600, ZoneInfo(zone)).toordinal() - _EPOCH
