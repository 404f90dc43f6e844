"""What media platforms bill that run auction and billing themselves (RTA): their cost reports, booked as spend.

A report is a CSV file with one row per day and strategy, or finer: rows of one day and strategy are added up. Platforms
send a day's report again with other sums, so a report is compared with what was booked for its day and strategy before:
more is booked as a further cost, less is taken back, the same changes nothing. The latest sum is known by its note, in
the platform's currency: another rate of exchange is no reason to book anything.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Engine, select

from dsp.catalog.layout import LI_CURRENCY, LI_ID
from dsp.catalog.snapshot import Snapshot
from dsp.ledger.adjust import KINDS, Adjustment
from dsp.ledger.periods import EPOCH_DAY
from dsp.ledger.reconcile import BillError, micros_of
from dsp.ledger.schema import ADJUSTMENTS

NAMES = {  # what platforms call the columns; --column says otherwise
    "date": ("date", "day", "report_date"),
    "strategy": ("strategy", "strategy_id", "out_target_id", "target_id", "line_item"),
    "cost": ("cost", "amount", "spend"),
}
_COST = list(KINDS).index("platform_cost") + 1


class Cost(NamedTuple):
    """One day's cost of a strategy, micros of the platform's currency."""

    day: date
    strategy: str
    micros: int


def read_costs(report: Path, columns: Mapping[str, str] | None = None) -> list[Cost]:
    """The report's sums by day and strategy. ``columns``: our name -> the file's. Raises `BillError`, OSError."""
    sums: dict[tuple[date, str], int] = {}
    with report.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        lower = {name.strip().lower(): name for name in reader.fieldnames or ()}
        named = {}
        for ours, usual in NAMES.items():
            theirs = (columns or {}).get(ours) or next((lower[name] for name in usual if name in lower), "")
            if theirs not in lower.values():
                raise BillError(f"the report needs a column {ours}; name it with --column {ours}=NAME")
            named[ours] = theirs
        for row in reader:
            line, text = reader.line_num, (row[named["date"]] or "").strip()
            try:
                day = date.fromisoformat(text)
            except ValueError:
                raise BillError(f"line {line}: {text[:40]!r} is not a date like 2026-01-31") from None
            micros = micros_of(row[named["cost"]], named["cost"], line)
            if micros < 0:
                raise BillError(f"line {line}: {named['cost']} is below 0")
            key = day, (row[named["strategy"]] or "").strip()
            sums[key] = sums.get(key, 0) + micros
    return [Cost(day, strategy, micros) for (day, strategy), micros in sorted(sums.items())]


def rates_of(snapshot: Snapshot, currency: str) -> dict[int, float]:
    """By line item: units of its account's currency for one of ``currency``. Raises `BillError` without a rate."""
    codes = [str(code) for code in snapshot.meta["currencies"]]
    if currency not in codes:
        raise BillError(f"no rate for {currency}; add it to the catalog's currencies")
    usd = float(snapshot.cur_usd[codes.index(currency)])
    per_account = (usd / snapshot.cur_usd[snapshot.li_i[:, LI_CURRENCY]]).tolist()
    return dict(zip(snapshot.li_i[:, LI_ID].tolist(), per_account, strict=True))


def due(
    engine: Engine,
    platform: str,
    exchange: int,
    currency: str,
    costs: list[Cost],
    line_items: Mapping[str, int],
    rates: Mapping[int, float],
) -> list[Adjustment]:
    """What is still to be booked of a report. ``line_items``: by strategy; ``rates``: as of `rates_of`. Raises
    `BillError` for a strategy that is nobody's.
    """
    out = []
    a = ADJUSTMENTS.c
    for cost in costs:
        line_item = line_items.get(cost.strategy, 0)
        if line_item not in rates:
            raise BillError(f"{cost.day}: no strategy of {platform} is named {cost.strategy!r}; see rta.platforms")
        key, note = f"cost/{platform}/{cost.day}/{cost.strategy}/", f"{cost.micros / 1e6:.6f} {currency} reported"
        query = select(a.kind, a.micros, a.note).where(a.key.startswith(key, autoescape=True)).order_by(a.id)
        with engine.connect() as connection:
            before = list(connection.execute(query))
        if (before[-1].note if before else f"{0:.6f} {currency} reported") == note:
            continue
        booked = sum(row.micros if row.kind == _COST else -row.micros for row in before)
        more = round(cost.micros * rates[line_item]) - booked
        if more:
            kind, period = "platform_cost" if more > 0 else "clawback", cost.day.toordinal() - EPOCH_DAY
            number = f"{key}{len(before) + 1}"
            out.append(
                Adjustment(number, kind, abs(more), line_item=line_item, exchange=exchange, period=period, note=note)
            )
    return out
