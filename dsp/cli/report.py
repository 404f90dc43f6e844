"""`dsp report`: what was bought, what it cost, what it brought."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dsp.base.config import Config
from dsp.cli.edge import config_of, fail, print_json, refusing

if TYPE_CHECKING:
    from dsp.catalog.records import Catalog

EPOCH = date(1970, 1, 1)
_TABLE = ("impressions", "spend", "clicks", "applied", "approved", "funded", "cost_per_funded", "risk_adjusted_value")
Ids = Annotated[list[str] | None, typer.Option(help="Only these: ids or names; may be repeated.")]


def report(
    context: typer.Context,
    by: Annotated[
        str, typer.Option(help="hour or day, advertiser, campaign, line_item, exchange, creative, segment; with commas")
    ] = "day",
    first: Annotated[str, typer.Option("--from", help="First day, 2026-01-31 (the advertiser's days).")] = "",
    last: Annotated[str, typer.Option("--to", help="Last day, included; today when not given.")] = "",
    days: Annotated[int, typer.Option(help="So many days until the last, where no first is given.")] = 7,
    advertiser: Ids = None,
    campaign: Ids = None,
    line_item: Ids = None,
    exchange: Ids = None,
    creative: Ids = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Comma-separated, all columns.")] = False,
) -> None:
    """Impressions, spend, clicks, applications, approvals, funded, cost of each, risk-adjusted value.

    Everything stands on the day of the bid it goes back to: recent days still ripen. Segments are those that a line
    item targets; an impression counts for each of them.
    """
    config = config_of(context)
    from dsp.ledger.reader import open_reader
    from dsp.ledger.report import Question, QuestionError, ask, derived

    with refusing(ValueError):
        end = date.fromisoformat(last) if last else datetime.now(UTC).date()
        start = date.fromisoformat(first) if first else end - timedelta(days=days - 1)
    names = Names(config)
    given = {"advertiser": advertiser, "campaign": campaign, "line_item": line_item}
    given |= {"exchange": exchange, "creative": creative}
    only = {kind: [names.id(kind, text) for text in texts] for kind, texts in given.items() if texts}
    groups = tuple(name.strip() for name in by.split(",") if name.strip())
    question = Question((start - EPOCH).days, (end - EPOCH).days, groups, only)
    with refusing(QuestionError), open_reader(config) as engine:
        found = ask(engine, question, names.segments, names.zones)
    rows = [{**names.labels(groups, key), **derived(amounts)} for key, amounts in sorted(found.items(), key=_order)]
    if as_json:
        print_json({"from": start.isoformat(), "to": end.isoformat(), "by": groups, "rows": rows})
    elif as_csv:
        write_csv(rows)
    else:
        show(rows, f"{start} to {end}", _TABLE)


def _order(item: tuple[Any, Any]) -> list[str]:
    return [f"{part:020d}" if isinstance(part, int) else str(part) for part in item[0]]


class Names:
    """What the catalog calls things; without a catalog, ids are all there is."""

    def __init__(self, config: Config) -> None:
        catalog = _catalog(config)
        self._names: dict[str, dict[int, str]] = {}
        self.segments: dict[int, tuple[str, ...]] = {}
        self.zones: dict[int, str] = {}
        if catalog is None:
            return
        for kind, records in (
            *(("advertiser", catalog.advertisers), ("campaign", catalog.campaigns), ("line_item", catalog.line_items)),
            *(("exchange", catalog.exchanges), ("creative", catalog.creatives)),
        ):
            self._names[kind] = {record.id: record.name for record in records}
        owners = {campaign.id: campaign.advertiser_id for campaign in catalog.campaigns}
        zones = {advertiser.id: advertiser.timezone for advertiser in catalog.advertisers}
        for item in catalog.line_items:
            self.zones[item.id] = zones[owners[item.campaign_id]]
            self.segments[item.id] = tuple(item.targeting.segments.include)

    def id(self, kind: str, text: str) -> int:
        """What an option names."""
        if text.isdigit():
            return int(text)
        found = [number for number, name in self._names.get(kind, {}).items() if name == text]
        if len(found) != 1:
            fail(f"{'no' if not found else 'more than one'} {kind.replace('_', ' ')} is called {text!r}; give its id")
        return found[0]

    def labels(self, by: tuple[str, ...], key: tuple[Any, ...]) -> dict[str, Any]:
        """The first columns of a row."""
        out: dict[str, Any] = {}
        for name, value in zip(by, key, strict=False):
            if name == "day":
                out["day"] = (EPOCH + timedelta(days=value)).isoformat()
            elif name == "hour":
                out["hour"] = datetime.fromtimestamp(value * 3600, UTC).isoformat(timespec="minutes")
            elif name == "segment":
                out["segment"] = value
            else:
                out[f"{name}_id"], out[name] = value, self._names.get(name, {}).get(value, "")
        out["currency"] = key[-1]
        return out


def _catalog(config: Config) -> Catalog | None:
    from dsp.catalog.publish import catalog_path
    from dsp.catalog.store import load_catalog, open_catalog

    if not catalog_path(config).exists():
        return None
    engine = open_catalog(catalog_path(config))
    try:
        return load_catalog(engine)
    finally:
        engine.dispose()


def write_csv(rows: list[dict[str, Any]]) -> None:
    """All columns, to stdout."""
    if not rows:
        return
    writer = csv.DictWriter(sys.stdout, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)


def show(rows: list[dict[str, Any]], title: str, columns: Sequence[str]) -> None:
    """What a row is of, up to its currency, then ``columns``; as wide as they need: a number that a narrow window cuts
    off is worse than a long line.
    """
    if not rows:
        print(f"nothing was bought from {title}")
        return
    labels = [name for name in rows[0] if not name.endswith("_id")]
    labels = labels[: labels.index("currency") + 1]
    lines = [[name.replace("_", " ") for name in (*labels, *columns)]]
    for row in rows:
        texts = [str(row[name] or row.get(f"{name}_id", "")) for name in labels]
        lines.append([*texts, *(_text(row[name]) for name in columns)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print(title)
    for line in lines:
        cells = [
            c.ljust(w) if i < len(labels) else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.4f}" if 0 < abs(value) < 0.1 else f"{value:,.2f}"
    return f"{value:,}"
