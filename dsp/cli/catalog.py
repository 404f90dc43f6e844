"""`dsp catalog`: apply a campaign file, look at what is there, publish."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dsp.cli.edge import config_of, print_json, refusing

app = typer.Typer(help="Advertisers, campaigns, line items, creatives.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON document.")]


@app.command()
def apply(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="YAML catalog file.")],
    prune: Annotated[bool, typer.Option(help="Archive line items that the file does not name.")] = False,
    as_json: Json = False,
) -> None:
    """Save a catalog file and publish it. A wrong file changes nothing; its problems are told by line and field."""
    config = config_of(context)
    from dsp.catalog.publish import catalog_path, publish
    from dsp.catalog.source import CatalogError
    from dsp.catalog.store import apply_file, open_catalog

    with refusing(CatalogError):
        engine = open_catalog(catalog_path(config))
        try:
            revision = apply_file(engine, file, prune=prune)
        finally:
            engine.dispose()
        snapshot = publish(config)
    if as_json:
        print_json({"revision": revision, "snapshot": str(snapshot)})
    else:
        print(f"revision {revision}, published as {snapshot}")


@app.command()
def show(context: typer.Context, as_json: Json = False) -> None:
    """List the line items."""
    config = config_of(context)
    from dsp.catalog.publish import catalog_path
    from dsp.catalog.store import load_catalog, open_catalog

    engine = open_catalog(catalog_path(config))
    try:
        catalog = load_catalog(engine)
    finally:
        engine.dispose()
    if as_json:
        print_json(catalog)
        return
    from rich import print as show_rich
    from rich.table import Table

    campaigns = {campaign.id: campaign for campaign in catalog.campaigns}
    advertisers = {advertiser.id: advertiser.name for advertiser in catalog.advertisers}
    table = Table("id", "advertiser", "campaign", "line item", "strategy", "max bid CPM", "creatives")
    for item in catalog.line_items:
        campaign = campaigns[item.campaign_id]
        creatives = sum(1 for creative in catalog.creatives if creative.line_item_id == item.id)
        row = (advertisers[campaign.advertiser_id], campaign.name, item.name, item.strategy)
        table.add_row(str(item.id), *row, f"{item.max_bid_micros / 1e6:.2f}", str(creatives))
    show_rich(table)


@app.command()
def publish(context: typer.Context, as_json: Json = False) -> None:
    """Compile the catalog into a snapshot that bidders swap in."""
    config = config_of(context)
    from dsp.catalog.publish import publish as publish_catalog

    with refusing():
        path = publish_catalog(config)
    if as_json:
        print_json({"snapshot": str(path)})
    else:
        print(path)
