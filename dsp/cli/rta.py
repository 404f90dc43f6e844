"""`dsp rta`: what each strategy of a media platform was asked, answered, cost and brought."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dsp.cli.edge import config_of, fail, print_json, refusing
from dsp.cli.report import EPOCH, Names, show, write_csv

if TYPE_CHECKING:
    from dsp.base.config import PlatformConfig
    from dsp.bidder.rta_tally import Day, StrategySums

_TABLE = ("wanted", "accepted", "answer", "said", "pcvr", "spend", "applied", "approved", "funded", "cost_per_funded",
          "risk_adjusted_value")  # fmt: skip
_RESULTS = ("spend", "clicks", *("registered", "applied", "approved", "funded"), "cost_per_applied", "cost_per_funded",
            "risk_adjusted_value", "return_on_spend")  # fmt: skip


def rta(
    context: typer.Context,
    platform: Annotated[str, typer.Argument(help="Its exchange, as in rta.platforms; all without it.")] = "",
    first: Annotated[str, typer.Option("--from", help="First day, 2026-01-31 (the platform's days).")] = "",
    last: Annotated[str, typer.Option("--to", help="Last day, included; today when not given.")] = "",
    days: Annotated[int, typer.Option(help="So many days until the last, where no first is given.")] = 7,
    daily: Annotated[bool, typer.Option("--daily", help="A row per day and strategy.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Comma-separated, all columns.")] = False,
) -> None:
    """Requests wanted and accepted by strategy, the mean answer, cost as imported, applications, funded, their value.

    What was answered is this machine's workers'; cost and results are the ledger's, of the platform's exchange. "said"
    is the mean weight, or price of a click or an application in hundredths of the platform's currency; "pcvr" the
    applications expected of a click on those accepted.
    """
    config = config_of(context)
    from dsp.bidder.rta_tally import read_days
    from dsp.ledger.reader import open_reader
    from dsp.ledger.report import Question, ask

    chosen = [each for each in config.rta.platforms if platform in ("", each.exchange)]
    if not chosen:
        fail(f"rta.platforms has no exchange {platform!r}" if platform else "rta.platforms is empty")
    with refusing(ValueError):
        ahead = timedelta(minutes=max(each.utc_offset_min for each in chosen))
        end = date.fromisoformat(last) if last else (datetime.now(UTC) + ahead).date()
        start = date.fromisoformat(first) if first else end - timedelta(days=days - 1)
    if end < start:
        fail("the last day is before the first")
    names = Names(config)
    asked = read_days(config.path("rta"), start, end)
    by = ("day", "line_item")
    rows: list[dict[str, Any]] = []
    for each in chosen:
        question = Question(
            (start - EPOCH).days, (end - EPOCH).days, by, {"exchange": [names.id("exchange", each.exchange)]}
        )
        with open_reader(config) as engine:
            booked = ask(engine, question, names.segments, names.zones)
        results: dict[tuple[date, int], tuple[str, list[int]]] = {}
        for (day, line_item, currency), amounts in booked.items():
            results[EPOCH + timedelta(days=day), line_item] = currency, amounts
        rows += _rows(each, asked, results, names, daily)
    if as_json:
        print_json({"from": start.isoformat(), "to": end.isoformat(), "rows": rows})
    elif as_csv:
        write_csv(rows)
    elif rows:
        show(rows, f"{start} to {end}", _TABLE)
    else:
        print(f"nobody asked and nothing was booked from {start} to {end}")


def _rows(
    platform: PlatformConfig,
    asked: dict[date, Day],
    results: dict[tuple[date, int], tuple[str, list[int]]],
    names: Names,
    daily: bool,
) -> list[dict[str, Any]]:
    """A row per strategy, or per day and strategy, of one platform."""
    from dsp.bidder.rta_tally import T_WIDTH

    configured = {each.line_item: each for each in platform.strategies}
    said: dict[tuple[date, int], tuple[str, StrategySums]] = {}
    for day, platforms in asked.items():
        for name, counted in platforms.get(platform.exchange, {}).items():
            said[day, counted.line_item] = name, counted
    groups: dict[tuple[str, int], list[tuple[date, int]]] = {}
    for key in sorted({*said, *results}):
        groups.setdefault((key[0].isoformat() if daily else "", key[1]), []).append(key)
    rows = []
    for (day_text, line_item), keys in groups.items():
        here = [said[key] for key in keys if key in said]
        money = [results[key] for key in keys if key in results]
        given = configured.get(line_item)
        name = here[-1][0] if here else given.id if given else str(line_item)
        sums = (
            [sum(column) for column in zip(*(each.sums for _, each in here), strict=True)] if here else [0.0] * T_WIDTH
        )
        totals = [sum(column) for column in zip(*(amounts for _, amounts in money), strict=True)]
        rows.append(
            {
                **({"day": day_text} if daily else {}), "platform": platform.exchange, "strategy": name,
                **names.labels(("line_item",), (line_item, money[0][0] if money else "")),
                **_answers(sums, given.answer if given else "weight"), **_brought(totals),
            }
        )  # fmt: skip
    return rows


def _answers(sums: list[float], answer: str) -> dict[str, Any]:
    from dsp.bidder.rta_tally import T_ACCEPTED, T_CPA, T_CPC, T_PCVR, T_WANTED, T_WEIGHT

    accepted = sums[T_ACCEPTED]
    column = {"weight": T_WEIGHT, "cpc": T_CPC, "cpa": T_CPA}[answer]
    return {
        "wanted": int(sums[T_WANTED]),
        "accepted": int(accepted),
        "answer": answer,
        "said": round(sums[column] / accepted, 4) if accepted else None,
        "pcvr": round(sums[T_PCVR] / accepted, 6) if accepted else None,
    }


def _brought(totals: list[int]) -> dict[str, Any]:
    from dsp.ledger.report import derived
    from dsp.ledger.schema import MEASURES

    found = derived(totals or [0] * len(MEASURES))
    return {name: found[name] for name in _RESULTS}
