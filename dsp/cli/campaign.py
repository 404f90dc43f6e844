"""`dsp campaign`: what marketers do with campaigns, from a terminal, through the console's API like everybody else.

The key is taken from DSP_API_KEY (make one in the console, or by ``POST /api/v1/keys``), so that it is in no list of
processes. A campaign or line item is meant by its id or, where only one has it, its name.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dsp.cli.console import console_address
from dsp.cli.edge import config_of, fail, print_json, refusing

if TYPE_CHECKING:
    from dsp.cli.api_client import ApiClient

app = typer.Typer(help="Campaigns over the console's API. Needs an API key in DSP_API_KEY.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document.")]
Which = Annotated[list[str], typer.Argument(help="Ids or names.")]
LineItem = Annotated[bool, typer.Option("--line-item", help="Line items are meant, not campaigns.")]


@app.callback()
def campaign(
    context: typer.Context,
    url: Annotated[str, typer.Option(help="The console; the one of the settings without it.")] = "",
) -> None:
    """Options that every command has."""
    context.meta["url"] = url or console_address(config_of(context))


def _client(context: typer.Context) -> ApiClient:
    from dsp.cli.api_client import ApiClient

    key = os.environ.get("DSP_API_KEY", "")
    if not key:
        fail("there is no API key: make one in the console (or POST /api/v1/keys) and set DSP_API_KEY to it")
    return ApiClient(context.meta["url"], key)


def _refusing() -> Any:
    from dsp.cli.api_client import RefusedError

    return refusing(RefusedError)


@app.command("list")
def list_(
    context: typer.Context,
    q: Annotated[str, typer.Option(help="Only names that have this in them.")] = "",
    status: Annotated[str, typer.Option(help="active, paused or archived; all but archived ones without it.")] = "",
    as_json: AsJson = False,
) -> None:
    """List campaigns."""
    with _refusing(), _client(context) as api:
        items = list(api.every("/campaigns", q=q, status=status))
    if as_json:
        print_json(items)
    else:
        _table(("id", "name", "status", "total", "daily", "start", "end"), map(_row, items))


@app.command()
def show(
    context: typer.Context, which: Annotated[str, typer.Argument(help="Id or name.")], as_json: AsJson = False
) -> None:
    """Show a campaign, its line items and what was changed last."""
    with _refusing(), _client(context) as api:
        one = api.find("/campaigns", which)
        items = list(api.every("/line-items", campaign_id=one["id"]))
        changes = api.get("/changes", kind="campaign", ref=one["id"], limit=5)["items"]
    if as_json:
        print_json({**one, "line_items": items, "changes": changes})
        return
    _table(("id", "name", "status", "total", "daily", "start", "end"), [_row(one)])
    print("\nline items")
    _table(("id", "name", "status", "total", "daily", "start", "end"), map(_row, items))
    print("\nchanges")
    _table(("when", "who", "what"), ([_when(c["time_s"]), c["who"], c["action"]] for c in changes))


@app.command()
def apply(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="YAML, in the words of a catalog file.")],
    as_json: AsJson = False,
) -> None:
    """Make or change everything that a file names. What it does not name stays; applying it again changes nothing."""
    from rich.console import Console
    from rich.progress import track

    from dsp.catalog.source import CatalogError, read_source
    from dsp.catalog.types import CatalogFile
    from dsp.cli.apply_api import applying, count

    with refusing(CatalogError):
        source = read_source(file, CatalogFile)
    with _refusing(), _client(context) as api:
        bar = Console(stderr=True)
        done = list(track(applying(api, source.value), "applying", count(source.value), console=bar, disable=as_json))
    if as_json:
        print_json(done)
    else:
        _table(("kind", "id", "name", "what"), ([r["kind"], r["id"], r["name"], r["action"]] for r in done))


@app.command()
def pause(context: typer.Context, which: Which, line_item: LineItem = False, as_json: AsJson = False) -> None:
    """Stop bidding for campaigns; bidders obey within two seconds."""
    _each(context, which, line_item, "pause", as_json)


@app.command()
def resume(context: typer.Context, which: Which, line_item: LineItem = False, as_json: AsJson = False) -> None:
    """Let campaigns bid again."""
    _each(context, which, line_item, "resume", as_json)


@app.command()
def review(context: typer.Context, which: Which, as_json: AsJson = False) -> None:
    """Ask a second person to let campaigns go live, where `console.approval_above` wants one."""
    with _refusing(), _client(context) as api:
        refs = [api.find("/campaigns", text)["id"] for text in which]
        done = [{"campaign": ref, **api.post(f"/campaigns/{ref}/review", {"status": "active"})} for ref in refs]
    if as_json:
        print_json(done)
    else:
        _table(("campaign", "review"), ((row["campaign"], row["id"]) for row in done))


def _each(context: typer.Context, which: list[str], line_item: bool, action: str, as_json: bool) -> None:
    path = "/line-items" if line_item else "/campaigns"
    with _refusing(), _client(context) as api:
        refs = [api.find(path, text)["id"] for text in which]  # all of them are there, before the first is changed
        done = [api.post(f"{path}/{ref}/{action}") for ref in refs]
    if as_json:
        print_json(done)
    else:
        _table(("id", "name", "status", "total", "daily", "start", "end"), map(_row, done))


@app.command()
def budget(
    context: typer.Context,
    which: Annotated[str, typer.Argument(help="Id or name.")],
    total: Annotated[str | None, typer.Option(help="For the whole flight; none: no limit.")] = None,
    daily: Annotated[str | None, typer.Option(help="For each day; none: no limit.")] = None,
    hourly: Annotated[str | None, typer.Option(help="For each hour; none: no limit.")] = None,
    line_item: LineItem = False,
    as_json: AsJson = False,
) -> None:
    """Show a budget or, with amounts, change it; what is not said stays. Bidders obey within two seconds."""
    path = "/line-items" if line_item else "/campaigns"
    given = {k: v for k, v in (("total", total), ("daily", daily), ("hourly", hourly)) if v is not None}
    new = {name: None if text == "none" else text for name, text in given.items()}
    with _refusing(), _client(context) as api:
        one = api.find(path, which)
        if new:
            one = api.patch(f"{path}/{one['id']}", {"budget": {**one["budget"], **new}})
    if as_json:
        print_json(one["budget"])
    else:
        _table(
            ("total", "daily", "hourly"), [[one["budget"].get(n) or "no limit" for n in ("total", "daily", "hourly")]]
        )


@app.command()
def report(
    context: typer.Context,
    which: Annotated[str, typer.Argument(help="Id or name of one campaign; all without it.")] = "",
    by: Annotated[str, typer.Option(help="advertiser, campaign, line_item, exchange or creative.")] = "campaign",
    daily: Annotated[bool, typer.Option("--daily", help="A row for each day.")] = False,
    first: Annotated[str, typer.Option("--from", help="First day, 2026-01-31.")] = "",
    last: Annotated[str, typer.Option("--to", help="Last day, included.")] = "",
    as_json: AsJson = False,
) -> None:
    """What was bought, what it cost and what it brought."""
    with _refusing(), _client(context) as api:
        query: dict[str, Any] = {"by": by, "daily": str(daily).lower(), "start": first, "end": last}
        if which:
            query |= {"by": "campaign", "id": api.find("/campaigns", which)["id"]}
        items = list(api.rows("/reports", **query))
    if as_json:
        print_json(items)
        return
    names = ("day", "id", "name", "currency", "impressions", "spend", "clicks", "applied", "approved", "funded")
    rows = ([r["spend_micros"] / 1e6 if n == "spend" else r[n] for n in names] for r in items)
    _table(names, rows)


def _row(one: dict[str, Any]) -> list[Any]:
    budget, flight = one["budget"], one["flight"]
    dates = [(flight.get(n) or "")[:16] for n in ("start", "end")]
    return [one["id"], one["name"], one["status"], budget.get("total") or "-", budget.get("daily") or "-", *dates]


def _when(time_s: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(time_s, UTC).isoformat(" ", timespec="seconds")


def _table(names: tuple[str, ...], rows: Any) -> None:
    """Columns as wide as they need."""
    lines = [list(names), *([_text(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _text(value: Any) -> str:
    return f"{value:,.2f}" if isinstance(value, float) else str(value)
