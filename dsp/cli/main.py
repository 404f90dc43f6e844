"""The `dsp` command: one small module per group of commands, all wiring."""

from __future__ import annotations

import logging
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated

import typer

from dsp.cli import (
    audience,
    books,
    campaign,
    catalog,
    certify,
    console,
    demo,
    doctor,
    drill,
    experiment,
    explain,
    keep,
    ledger,
    model,
    report,
    roles,
    rta,
    serve,
    shaping,
    supply,
    top,
    train,
)
from dsp.cli.edge import print_json, remember_config

app = typer.Typer(
    name="dsp",
    help="A real-time bidding engine that acquires customers for financial products.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("serve")(serve.serve)
app.command("demo")(demo.demo)
app.command("drill")(drill.drill)
app.command("doctor")(doctor.doctor)
app.command("top")(top.top)
app.command("backup")(keep.backup)
app.command("restore")(keep.restore)
app.command("retain")(keep.retain)
app.command("bidder")(roles.bidder)
app.command("publisher")(roles.publisher)
app.command("compile")(roles.compile_kernels)
app.command("train")(train.train)
app.command("certify")(certify.certify)
app.command("explain")(explain.explain)
app.add_typer(model.app, name="model")
app.add_typer(experiment.app, name="experiment")
app.command("report")(report.report)
app.command("rta")(rta.rta)
app.command("shaping")(shaping.shaping)
app.command("supply")(supply.supply)
ledger.app.command("explain")(books.explain)
ledger.app.command("reconcile")(books.reconcile)
ledger.app.command("costs")(books.costs)
app.add_typer(ledger.app, name="ledger")
app.add_typer(catalog.app, name="catalog")
app.add_typer(campaign.app, name="campaign")
app.add_typer(audience.app, name="audience")
app.add_typer(console.app, name="console")


@app.callback()
def start(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(help="YAML file with settings; defaults without it.")] = None,
) -> None:
    """Options that every command has."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s", level=logging.WARNING)
    remember_config(context, config)


@app.command()
def version(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Print the version."""
    number = installed_version("dsp")
    if as_json:
        print_json({"version": number})
    else:
        print(number)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
