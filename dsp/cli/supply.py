"""`dsp supply`: which supply lists are in use on this machine, and what they kept us from buying."""

from __future__ import annotations

from typing import Annotated

import typer

from dsp.cli.edge import config_of, print_json, refusing


def supply(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Check the lists below `supply/` and show requests refused by them, by exchange and reason.

    A list that can't be used is said with file and line. Counts are of this machine's bidder workers.
    """
    config = config_of(context)
    from dsp.base.metrics import SUPPLY, render
    from dsp.base.scrape import Scrape
    from dsp.bidder.supply_files import SupplyError, load_supply

    with refusing(SupplyError):
        tables = load_supply(config.path("supply"))
    lists = {
        "ip_ranges": len(tables.first) + len(tables.first6),
        "blocked_nodes": len(tables.blocked),
        "ads_txt_domains": len(tables.domains),
        "authorised_sellers": len(tables.authorised),
        "sellers_json": len(tables.listed),
        "listed_sellers": len(tables.sellers),
        "placements": len(tables.placements),
    }
    scrape = Scrape(render(config.path("run"), "bidder").decode())
    counter = "dsp_supply_refused_total"
    refused = {
        exchange: {reason: scrape.sum(counter, exchange=exchange, reason=reason) for reason in SUPPLY}
        for exchange, count in scrape.by(counter, "exchange").items()
        if count
    }
    if as_json:
        print_json({"lists": lists, "refused": refused})
        return
    for name, count in lists.items():
        print(f"{count:12,} {name.replace('_', ' ')}")
    for exchange, by in refused.items():
        print(f"\n{exchange}")
        for reason, requests in by.items():
            if requests:
                print(f"{requests:12,.0f} refused: {reason.replace('_', ' ')}")
