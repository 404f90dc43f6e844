"""`dsp audience`: load people, count them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dsp.cli.edge import config_of, print_json, refusing

app = typer.Typer(help="The audience store.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON document.")]


@app.command()
def load(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="CSV with a header, or Parquet.")],
    as_json: Json = False,
) -> None:
    """Load people. Rows that can't be used are skipped and listed in a reject file, by number and reason."""
    config = config_of(context)
    from dsp.audience.load import load_profiles
    from dsp.audience.store import StoreError
    from dsp.openrtb.hashing import hash_text

    with refusing(StoreError):
        report = load_profiles(config, file, hash_text=hash_text)
    if as_json:
        rejects = str(report.rejects) if report.rejects else None
        print_json({"loaded": report.loaded, "rejected": report.rejected, "rejects": rejects})
    else:
        print(f"{report.loaded:,} people loaded, {report.rejected:,} rows rejected")
        if report.rejects:
            print(f"why: {report.rejects}")


@app.command()
def stats(context: typer.Context, as_json: Json = False) -> None:
    """Count the profiles."""
    config = config_of(context)
    from dsp.audience.lmdb_store import LmdbProfileStore, profiles_path
    from dsp.audience.store import StoreError

    with refusing(StoreError):
        store = LmdbProfileStore(profiles_path(config.root))
        people = store.people()
        store.close()
    if as_json:
        print_json({"people": people})
    else:
        print(f"{people:,} people")
