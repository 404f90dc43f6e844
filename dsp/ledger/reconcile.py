"""An exchange's bill against our books: what it charges that we did not book, what we booked that it does not charge.

The bill is a CSV file with one row per impression (a column with our bid id, as `bid.id` had it: hexadecimal), or one
row per UTC day, perhaps by creative or line item. Amounts are in the currency we bid in with this exchange. Prices that
the exchange never told us (an unfilled macro) were booked at the bid, and stand here as that.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TextIO

from sqlalchemy import ColumnElement, Connection, Engine, and_, func, select

from dsp.ledger.audit import PRICED
from dsp.ledger.schema import ENTRIES, ENTRY_CHARGE, ENTRY_DISPUTE, EVENTS, sql_id, token_id

NAMES = {  # what exchanges call the columns; --column says otherwise
    "bid_id": ("bid_id", "bidid", "auction_bid_id"),
    "date": ("date", "day", "utc_date"),
    "creative": ("creative", "creative_id", "crid"),
    "line_item": ("line_item", "line_item_id"),
    "impressions": ("impressions", "imps", "quantity"),
    "amount": ("amount", "cost", "charge", "spend"),
    "cpm": ("cpm", "price", "clearing_price"),
}
AT_ONCE = 500
_DAY_MS = 86_400_000
_ID_MAX = 16  # hexadecimal digits


class BillError(ValueError):
    """A bill that cannot be read; the text names line and column."""


class Difference(NamedTuple):
    """One row of the answer. Amounts in micros; ``what`` is "not booked", "not billed", "amount" or "billed twice"."""

    what: str
    key: str  # bid id, or the day and what else the bill is by
    billed: int  # impressions
    booked: int
    billed_micros: int
    booked_micros: int


@dataclass
class Outcome:
    """The sums, and the differences beyond the tolerance."""

    billed: int = 0
    booked: int = 0
    billed_micros: int = 0
    booked_micros: int = 0
    differences: list[Difference] = field(default_factory=list)


class _Row(NamedTuple):
    key: tuple[str, ...]
    impressions: int
    micros: int


def reconcile(
    engine: Engine,
    exchange: int,
    bill: Path,
    columns: Mapping[str, str] | None = None,
    tolerance: float = 0.0,
    days: tuple[date, date] | None = None,
) -> Outcome:
    """Compare. ``columns``: our name -> the file's; ``tolerance``: a share of the billed amount that is no difference.

    ``days``: the period billed (first, last), to find what is missing in a bill by bid; by default that of the bids in
    the bill. Raises `BillError`, OSError.
    """
    with bill.open(newline="", encoding="utf-8-sig") as file:
        named, rows = _open(file, columns or {})
        with engine.connect() as connection:
            if "bid_id" in named:
                return _by_bid(connection, exchange, rows, tolerance, days)
            return _by_day(connection, exchange, named, rows, tolerance)


# --- the file ---------------------------------------------------------------------------------------------------------


def _open(file: TextIO, columns: Mapping[str, str]) -> tuple[list[str], Iterator[_Row]]:
    reader = csv.DictReader(file)
    header = reader.fieldnames or ()
    named: dict[str, str] = {}
    lower = {name.strip().lower(): name for name in header}
    for ours, usual in NAMES.items():
        wanted = columns.get(ours)
        if wanted is not None and wanted not in header:
            raise BillError(f"the file has no column {wanted!r}; it has {', '.join(header)}")
        found = wanted or next((lower[name] for name in usual if name in lower), None)
        if found is not None:
            named[ours] = found
    if "bid_id" not in named and "date" not in named:
        raise BillError("the bill needs a column bid_id or date; name it with --column bid_id=NAME")
    if "amount" not in named and "cpm" not in named:
        raise BillError("the bill needs a column amount or cpm; name it with --column amount=NAME")
    keys = ["bid_id"] if "bid_id" in named else ["date", *(n for n in ("creative", "line_item") if n in named)]
    return keys, _rows(reader, named, keys)


def _rows(reader: csv.DictReader[str], named: Mapping[str, str], keys: Sequence[str]) -> Iterator[_Row]:
    for row in reader:
        line = reader.line_num
        impressions = _whole(row.get(named.get("impressions", ""), "1") or "1", "impressions", line)
        if "amount" in named:
            micros = micros_of(row[named["amount"]], named["amount"], line)
        else:
            micros = math.floor(micros_of(row[named["cpm"]], named["cpm"], line) * impressions / 1000 + 0.5)
        yield _Row(tuple(_key(name, row[named[name]], line) for name in keys), impressions, micros)


def _key(name: str, text: str | None, line: int) -> str:
    text = (text or "").strip()
    if name == "bid_id":
        if not text or len(text) > _ID_MAX or any(c not in "0123456789abcdefABCDEF" for c in text):
            raise BillError(f"line {line}: {text[:40]!r} is not a bid id of ours (up to 16 hexadecimal digits)")
        return text.lower().lstrip("0") or "0"
    if name == "date":
        try:
            return date.fromisoformat(text[:10]).isoformat()
        except ValueError:
            raise BillError(f"line {line}: {text[:40]!r} is not a date like 2026-01-31") from None
    return str(_whole(text, name, line))


def _whole(text: str, name: str, line: int) -> int:
    if not text.strip().isdigit():
        raise BillError(f"line {line}: {name} {text[:40]!r} is not a whole number")
    return int(text)


def micros_of(text: str | None, name: str, line: int) -> int:
    """An amount in micros. Raises `BillError` with line and column."""
    try:
        value = float((text or "").replace(",", ""))
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or abs(value) > 1e12:
        raise BillError(f"line {line}: {name} {(text or '')[:40]!r} is not an amount")
    return math.floor(value * 1e6 + 0.5)


# --- our side ---------------------------------------------------------------------------------------------------------

_N, _V = ENTRIES.c, EVENTS.c


class _Impression(NamedTuple):
    """One that we have booked; ``micros`` in the bid's currency."""

    bid_id: str
    micros: int
    bid_ms: int
    creative: int
    line_item: int


def _impressions(connection: Connection, exchange: int, where: ColumnElement[bool]) -> Iterator[_Impression]:
    """A bid may have two entries (what was posted, what is disputed) and two notices: the highest price was told."""
    priced = ENTRIES.outerjoin(EVENTS, and_(_V.bid_id == _N.bid_id, PRICED))
    query = (
        select(
            *(_N.bid_id, _N.line_item, func.max(_V.price_micros), func.max(_V.bid_ms), func.max(_V.creative)),
            *(func.max(_N.micros), func.max(_N.time_ms)),
        )
        .select_from(priced)
        .where(_N.exchange == exchange, _N.kind.in_((ENTRY_CHARGE, ENTRY_DISPUTE)), where)
        .group_by(_N.bid_id, _N.line_item)
    )
    for bid_id, line_item, cpm, bid_ms, creative, micros, time_ms in connection.execute(query):
        paid = math.floor(cpm / 1000 + 0.5) if cpm is not None and cpm >= 0 else micros
        yield _Impression(f"{token_id(bid_id):x}", paid, bid_ms or time_ms, creative or 0, line_item)


def _during(connection: Connection, exchange: int, low_ms: int, high_ms: int) -> Iterator[_Impression]:
    """Impressions by the time of their bid, ``high_ms`` excluded; they were booked within a week of it."""
    window = _N.time_ms.between(low_ms - 1000, high_ms + 8 * _DAY_MS)
    return (one for one in _impressions(connection, exchange, window) if low_ms <= one.bid_ms < high_ms)


def _by_bid(
    connection: Connection,
    exchange: int,
    rows: Iterator[_Row],
    tolerance: float,
    days: tuple[date, date] | None,
) -> Outcome:
    out, seen = Outcome(), set[str]()
    low, high = 1 << 62, 0  # the period billed
    while part := list(islice(rows, AT_ONCE)):
        ids = _N.bid_id.in_([sql_id(int(row.key[0], 16)) for row in part])
        booked = {one.bid_id: one for one in _impressions(connection, exchange, ids)}
        for (bid,), n, micros in part:
            out.billed += n
            out.billed_micros += micros
            ours = booked.get(bid)
            if bid in seen:
                out.differences.append(Difference("billed twice", bid, n, 0, micros, 0))
            elif ours is None:
                out.differences.append(Difference("not booked", bid, n, 0, micros, 0))
            elif abs(micros - ours.micros) > tolerance * max(micros, ours.micros):
                out.differences.append(Difference("amount", bid, n, 1, micros, ours.micros))
            if ours is not None:
                low, high = min(low, ours.bid_ms), max(high, ours.bid_ms + 1)
            seen.add(bid)
    if days is not None:
        low, high = _midnight(days[0]), _midnight(days[1]) + _DAY_MS
    for one in _during(connection, exchange, low, high) if low < high else ():
        out.booked += 1
        out.booked_micros += one.micros
        if one.bid_id not in seen:
            out.differences.append(Difference("not billed", one.bid_id, 0, 1, 0, one.micros))
    return out


def _by_day(
    connection: Connection, exchange: int, keys: Sequence[str], rows: Iterator[_Row], tolerance: float
) -> Outcome:
    billed: dict[tuple[str, ...], list[int]] = {}
    for key, n, micros in rows:
        total = billed.setdefault(key, [0, 0])
        total[0] += n
        total[1] += micros
    days = sorted(date.fromisoformat(key[0]) for key in billed)
    booked = _booked_by_day(connection, exchange, keys, days[0], days[-1]) if days else {}
    out = Outcome()
    for key in sorted(billed.keys() | booked.keys()):
        (n, micros), (had, ours) = billed.get(key, [0, 0]), booked.get(key, [0, 0])
        out.billed, out.billed_micros = out.billed + n, out.billed_micros + micros
        out.booked, out.booked_micros = out.booked + had, out.booked_micros + ours
        what = "not booked" if not had else "not billed" if not n else "amount"
        if abs(micros - ours) > tolerance * max(micros, ours) or what != "amount":
            out.differences.append(Difference(what, " ".join(key), n, had, micros, ours))
    return out


def _booked_by_day(
    connection: Connection, exchange: int, keys: Sequence[str], first: date, last: date
) -> dict[tuple[str, ...], list[int]]:
    booked: dict[tuple[str, ...], list[int]] = {}
    for one in _during(connection, exchange, _midnight(first), _midnight(last) + _DAY_MS):
        day = datetime.fromtimestamp(one.bid_ms / 1000, UTC).date().isoformat()
        values = {"date": day, "creative": str(one.creative), "line_item": str(one.line_item)}
        total = booked.setdefault(tuple(values[name] for name in keys), [0, 0])
        total[0] += 1
        total[1] += one.micros
    return booked


def _midnight(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)
