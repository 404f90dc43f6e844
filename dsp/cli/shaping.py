"""`dsp shaping`: what traffic shaping refused on this machine, what that saved and lost."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from dsp.cli.edge import config_of, fail, print_json, refusing


def shaping(
    context: typer.Context,
    cells: Annotated[int, typer.Option(help="How many of the refused kinds of traffic to list.", min=0)] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Show requests refused, money saved and lost, by exchange, and the traffic to ask an exchange not to send.

    From the counters of this machine's bidder workers. Lost is what the explored share brought, for all it stands for;
    in mode `watch` nothing is refused: explored is what would be, and lost what it brought.
    """
    config = config_of(context)
    from dsp.bidder.plan import Plan
    from dsp.bidder.shaped import shaping_report
    from dsp.catalog.current import current_path
    from dsp.catalog.snapshot import Snapshot, SnapshotError

    with refusing(SnapshotError):
        published = current_path(config)
        if published is None:
            fail("nothing is published: run `dsp catalog apply FILE` first")
        report = shaping_report(config, Plan(Snapshot.load(published)), time.time_ns(), cells)
    if as_json:
        print_json(report)
    else:
        _print(report)


def _print(report: dict[str, Any]) -> None:
    said = {"none": "off: set shaping.mode to watch or refuse", "watch": "watching: nothing is refused"}
    print(f"traffic shaping is {said.get(report['mode'], 'on')}")
    print(f"processed where a million such requests bring {report['least_usd_per_million']:.4g} USD and more\n")
    print(
        f"{'exchange':<16}{'requests':>14}{'refused':>14}{'explored':>12}{'surplus':>12}{'lost':>12}{'saved':>12} USD"
    )
    for name, row in [*report["exchanges"].items(), ("all", report["total"])]:
        print(
            f"{name:<16}{row['requests']:>14,.0f}{row['refused']:>14,.0f}{row['explored']:>12,.0f}"
            f"{row['surplus_usd']:>12.4f}{row['lost_usd']:>12.4f}{row['saved_usd']:>12.6f}"
        )
    if report["refused_cells"]:
        print(
            f"\n{'refused: exchange':<20}{'publisher':<24}{'format':<24}{'geo':<6}{'requests':>12}{'USD/million':>14}"
        )
    for row in report["refused_cells"]:
        print(
            f"{row['exchange']:<20}{row['publisher'] or '(not sampled)':<24}{row['format']:<24}{row['geo']:<6}"
            f"{row['requests']:>12,.0f}{row['worth_usd_per_million']:>14.4g}"
        )
