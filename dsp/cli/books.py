"""`dsp ledger explain`, `reconcile`, `costs`: the books checked, also against bills, and platforms' costs booked."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated

import typer

from dsp.cli.edge import config_of, fail, print_json, refusing

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document.")]
_DIFFERENT = 1  # exit status: read and compared, and not the same


def explain(
    context: typer.Context,
    line_item: Annotated[int, typer.Argument(help="Its id.")],
    since: Annotated[str, typer.Option(help="Leave out entries before this day, 2026-01-31.")] = "",
    as_json: AsJson = False,
) -> None:
    """Print every entry behind a line item's spend, and whether they add up to its balance."""
    config = config_of(context)
    from dsp.ledger.audit import balance_of
    from dsp.ledger.audit import explain as trail
    from dsp.ledger.periods import period_text
    from dsp.ledger.reader import open_reader

    with refusing(ValueError):
        start = date.fromisoformat(since) if since else date(1970, 1, 1)
        since_ms = int(datetime(start.year, start.month, start.day, tzinfo=UTC).timestamp() * 1000)
        with open_reader(config) as engine:
            balance = balance_of(engine, line_item)
            if balance is None:
                fail(f"the books have no entry of a line item {line_item}")
            steps = list(trail(engine, line_item, since_ms))
    total = steps[-1].spend_micros if steps else balance
    if as_json:
        shown = [step._asdict() | {"bid_id": f"{step.bid_id:x}"} for step in steps]
        print_json({"line_item": line_item, "balance_micros": balance, "entries_micros": total, "steps": shown})
    else:
        for step in steps:
            when = datetime.fromtimestamp(step.time_ms / 1000, UTC).isoformat(sep=" ", timespec="milliseconds")[:-6]
            bid = f"bid {step.bid_id:x} exchange {step.exchange}" if step.bid_id else step.note
            late = ", late" if step.late else ""
            print(
                f"{when}  {step.micros / 1e6:>14.6f}  {step.spend_micros / 1e6:>16.6f} {step.currency}  "
                f"{step.what}{late}; {bid}; {period_text(step.period)}"
            )
        verdict = "as its balance says" if total == balance else f"BUT ITS BALANCE SAYS {balance / 1e6:.6f}"
        print(f"line item {line_item}: {len(steps)} entries, {total / 1e6:.6f} spent, {verdict}")
    if total != balance:
        raise typer.Exit(_DIFFERENT)


def reconcile(
    context: typer.Context,
    exchange: Annotated[str, typer.Argument(help="The exchange's name in the catalog, or its id.")],
    bill: Annotated[Path, typer.Argument(metavar="FILE", help="Its bill: CSV, a row per impression or per UTC day.")],
    column: Annotated[
        list[str] | None,
        typer.Option(help="OURS=THEIRS, where the file calls bid_id, date, creative, impressions, amount, cpm else."),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="Share of an amount that is no difference: 0.01 is one percent.")
    ] = 0,
    first: Annotated[str, typer.Option("--from", help="First day billed, for bills by bid.")] = "",
    last: Annotated[str, typer.Option("--to", help="Last day billed, included.")] = "",
    most: Annotated[int, typer.Option(help="Print so many differences.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Compare an exchange's bill with the books and list the differences; exit status 1 when there are any."""
    config = config_of(context)
    from dsp.cli.report import Names
    from dsp.ledger.reader import open_reader
    from dsp.ledger.reconcile import BillError
    from dsp.ledger.reconcile import reconcile as compare

    number = Names(config).id("exchange", exchange)
    pairs = {ours: theirs for ours, _, theirs in (text.partition("=") for text in column or ())}
    if not all(pairs.values()):
        fail("--column needs OURS=THEIRS, for instance --column bid_id=AuctionBidId")
    with refusing(ValueError, BillError):
        days = (date.fromisoformat(first or last), date.fromisoformat(last or first)) if first or last else None
        with open_reader(config) as engine:
            out = compare(engine, number, bill, pairs, tolerance, days)
    if as_json:
        sums = {name: getattr(out, name) for name in ("billed", "booked", "billed_micros", "booked_micros")}
        print_json({**sums, "differences": [difference._asdict() for difference in out.differences]})
    else:
        for d in out.differences[:most]:
            print(
                f"{d.what}: {d.key}: billed {d.billed} for {d.billed_micros / 1e6:.6f}, "
                f"booked {d.booked} for {d.booked_micros / 1e6:.6f}"
            )
        if len(out.differences) > most:
            print(f"... and {len(out.differences) - most} more; --most or --json shows them")
        print(
            f"billed {out.billed:,} impressions for {out.billed_micros / 1e6:,.6f}, booked {out.booked:,} for "
            f"{out.booked_micros / 1e6:,.6f}: {len(out.differences)} differences"
        )
    if out.differences:
        raise typer.Exit(_DIFFERENT)


def costs(
    context: typer.Context,
    platform: Annotated[str, typer.Argument(help="The platform's exchange, as in rta.platforms.")],
    report: Annotated[Path, typer.Argument(metavar="FILE", help="Its cost report: CSV, a row per day and strategy.")],
    column: Annotated[
        list[str] | None, typer.Option(help="OURS=THEIRS, where the file calls date, strategy, cost else.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be booked.")] = False,
) -> None:
    """Book what a media platform bills for its own auctions as spend. The same report twice is booked once."""
    config = config_of(context)
    from dsp.catalog.current import current_path
    from dsp.catalog.snapshot import Snapshot
    from dsp.cli.ledger import order
    from dsp.ledger.costs import due, rates_of, read_costs
    from dsp.ledger.reader import open_reader
    from dsp.ledger.reconcile import BillError

    known = next((each for each in config.rta.platforms if each.exchange == platform), None)
    path = current_path(config)
    if known is None:
        fail(f"rta.platforms has no exchange {platform!r}")
    if path is None:
        fail("there is no catalog snapshot yet: run `dsp catalog publish`")
    pairs = {ours: theirs for ours, _, theirs in (text.partition("=") for text in column or ())}
    snapshot = Snapshot.load(path)
    exchange = next((int(x["id"]) for x in snapshot.meta["exchanges"] if x["name"] == platform), 0)
    with refusing(ValueError, BillError):
        rates = rates_of(snapshot, known.currency)
        names = {str(number): number for number in rates} | {item.id: item.line_item for item in known.strategies}
        with open_reader(config) as engine:
            found = due(engine, platform, exchange, known.currency, read_costs(report, pairs), names, rates)
    for each in found:
        if not dry_run:
            order(config, {"type": "adjust", "adjustment": list(each)})
        sign = "" if each.kind == "platform_cost" else "-"
        print(f"{'would book' if dry_run else 'booked'} {sign}{each.micros / 1e6:.6f} on line item {each.line_item}: "
              f"{each.key.split('/')[2]}, {each.note}")  # fmt: skip
    if not found:
        print("nothing to book: the books have all of it")
