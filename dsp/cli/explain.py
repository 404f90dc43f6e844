"""`dsp explain`: why a bid request is answered as it is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from dsp.cli.edge import config_of, fail, print_json, refusing


def explain(
    context: typer.Context,
    request: Annotated[Path, typer.Argument(help="A bid request as JSON; - reads standard input.")],
    exchange: Annotated[str, typer.Option(help="Name of the exchange it comes from; the first one without.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Show every candidate of a request: scores, value, multiplier, shaded bid, and why it lost.

    Decided by the engine itself with the published catalog, the current model and the audience store, as if every line
    item had money left and pacing were at 1; nothing is spent, sent or logged.
    """
    config = config_of(context)
    from msgspec.structs import replace

    from dsp.base.metrics import Metrics
    from dsp.bidder.engine import Engine, NotReadyError
    from dsp.bidder.explain import explain as run
    from dsp.bidder.slices import Slices
    from dsp.catalog.current import current_path
    from dsp.catalog.snapshot import Snapshot, SnapshotError
    from dsp.model.registry import ModelError
    from dsp.openrtb.columns import FMT_JSON

    with refusing(SnapshotError, ModelError, NotReadyError):
        body = sys.stdin.buffer.read() if str(request) == "-" else request.read_bytes()
        published = current_path(config)
        if published is None:
            fail("nothing is published: run `dsp catalog apply FILE` first")
        quiet = replace(config, bidder=replace(config.bidder, log_decisions=False))
        ids = Snapshot.load(published).li_i[:, 0].copy()
        engine = Engine.open(quiet, slices=Slices.fixed(ids), metrics=Metrics.memory("explain"))
        try:
            at = engine.exchange_of(exchange) if exchange else 0
            if at < 0:
                fail(f"no exchange named {exchange!r}; there are: {', '.join(engine.plan.exchange_names)}")
            result = run(engine, body, FMT_JSON, at)
        finally:
            engine.close()
    if as_json:
        print_json(result)
    else:
        _print(result)


def _print(result: dict[str, Any]) -> None:
    why = f": {result['why']} (nbr {result['nbr']})" if "why" in result else ""
    print(f"{result['answer']}{why}")
    for row in result.get("candidates", []):
        print(f"\nimp {row['imp']}  line item {row['line_item']} {row['name']}  ({row['media']}, {row['auction']})")
        print(f"  offer    {row['offer']} of {row['lender']}")
        scores = "  ".join(f"{head} {score:.4g}" for head, score in row["scores"].items())
        print(f"  scores   {scores}   (model {row['model']})")
        if row["corrected"] != row["scores"]:
            scores = "  ".join(f"{head} {score:.4g}" for head, score in row["corrected"].items())
            print(f"  online   {scores}   (corrected by what came of late)")
        parts = ", ".join(f"{what} {amount:+.4g}" for what, amount in row["expected"].items() if amount)
        print(f"  value    {row['value']:.6g} {row['currency']} per impression" + (f": {parts}" if parts else ""))
        print(f"  worth    {row['worth_usd']:.4g} USD per thousand at multiplier {row['multiplier']:.3g}")
        price = row["price_to_win_usd"]
        dear = "not known, it is dearer than any yet" if price is None else f"{price:.4g} USD wins every other one"
        print(f"  price    {dear}")
        print(f"  bid      {row['bid']:.4g} {row['bid_currency']} (floor {row['floor_usd']:.4g} USD)", end="")
        print(f", wins {row['win_chance']:.1%} of auctions like this" if row["bid"] > 0 else "")
        print(f"  result   {row['result']}")
    for row in result.get("others", []):
        print(f"\nline item {row['line_item']} {row['name']}: {row['result']}")
