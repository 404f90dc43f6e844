"""`dsp demo`: the whole system alive for a minute."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dsp.cli.console import sign_in_link
from dsp.cli.edge import config_of, refusing


def demo(
    context: typer.Context,
    seconds: Annotated[float, typer.Option(min=1.0, help="How long the market trades.")] = 60.0,
    rate: Annotated[float, typer.Option(min=1.0, help="Bid requests a second.")] = 500.0,
    people: Annotated[int, typer.Option(min=100, help="How many people live in the market.")] = 100_000,
    learn: Annotated[int, typer.Option(min=1000, help="Simulated auctions to learn from first.")] = 60_000,
    catalog: Annotated[Path | None, typer.Option(help="A catalog file instead of the example.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document at the end, nothing else.")] = False,
) -> None:
    """Load the example, learn, start the roles, trade with a synthetic market, reconcile to the micro."""
    config = config_of(context)
    from dsp.catalog.source import CatalogError
    from dsp.market.demo import run_demo

    with refusing(CatalogError):
        status = run_demo(
            config,
            seconds,
            rate,
            catalog_file=catalog,
            people=people,
            learn_requests=learn,
            as_json=as_json,
            entrance=None if as_json else lambda running: sign_in_link(running, demo=True),
        )
    raise typer.Exit(status)
