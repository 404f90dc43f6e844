"""`dsp experiment`: what runs, and what it shows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from dsp.base.config import Config
from dsp.cli.edge import config_of, fail, print_json, refusing

if TYPE_CHECKING:
    from dsp.catalog.snapshot import Snapshot
    from dsp.console.trials import Results
    from dsp.model.trial import Arm, Conversions

app = typer.Typer(help="Experiments: people split into arms, and what came of it.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON document.")]
DAY_MS = 86_400_000


@app.command("list")
def list_(context: typer.Context, as_json: Json = False) -> None:
    """Experiments of the published catalog with their arms and people."""
    rows = [_facts(row) for row in _published(config_of(context)).meta.get("experiments", ())]
    if as_json:
        print_json({"experiments": rows})
        return
    for row in rows:
        print(f"{row['name']}  (id {row['id']}, {row['status']}, {row['line_items']} line items)")
        for arm in row["arms"]:
            print(f"  {arm['name']:24} {arm['share']:7.1%}  {arm['does']}")
    if not rows:
        print("no experiments: give a campaign some, under `experiments:`")


@app.command()
def report(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name or id of the experiment.")],
    conversions: Annotated[
        Path | None,
        typer.Option(
            help="All conversions, of people who saw no ad too: CSV or Parquet with identifiers, stage, time."
        ),
    ] = None,
    days: Annotated[int, typer.Option(help="How far back; 0: all there is.")] = 0,
    as_json: Json = False,
) -> None:
    """Per arm: people, spend, clicks, applications, funded, value; and the lift over the first or the held-out arm.

    Intervals are 95 %. What a held-out person did is only known from --conversions (stage: applied, approved, funded or
    defaulted; time: unix seconds or ISO), which then counts for every arm.
    """
    from dsp.audience.access import AccessError
    from dsp.audience.store import StoreError
    from dsp.console.trials import results_of
    from dsp.model.correction import now_ms

    config = config_of(context)
    snapshot = _published(config)
    experiment = _named(snapshot, name)
    with refusing(StoreError, AccessError):
        came = None if conversions is None else _conversions(config, conversions, int(experiment["id"]))
        since = now_ms() - days * DAY_MS if days else None
        arms, results = results_of(config, snapshot, experiment, since, came)
    if as_json:
        facts = {"experiment": experiment["name"], "id": experiment["id"], "status": experiment["status"]}
        print_json({**facts, **msgspec.to_builtins(results)})
        return
    _show(arms, results)


def _show(arms: list[Arm], results: Results) -> None:
    base = next(arm for arm in arms if arm.name == results.base)
    heads = ("people", "bids", "ghost_bids", "spent_usd", "clicks", "applications", "funded", "value_usd")
    print(f"{'':24}" + "".join(f"{head.replace('_', ' '):>14}" for head in heads))
    for arm in arms:
        totals = arm.totals()
        cells = ("-" if totals[head] is None else f"{totals[head]:,.6g}" for head in heads)
        print(f"{arm.name:24}" + "".join(f"{cell:>14}" for cell in cells))
    if any(arm.erased for arm in arms):
        print(f"{sum(arm.erased for arm in arms):,} bids of people who were erased since are left out")
    for name, metrics in results.compared.items():
        if not metrics:
            continue
        print(f"\n{name} against {base.name}:")
        for metric, row in metrics.items():
            if row.difference_interval[0] is None:
                print(f"  {metric:44} too little came to tell")
                continue
            low, high = row.lift_interval
            lift = "" if low is None else f"   lift {row.lift:+.1%} ({low:+.1%} to {high:+.1%})"
            tells = "" if row.significant else "   not significant"
            print(f"  {metric:44} {row.base:.4g} -> {row.arm:.4g}{lift}{tells}")
    if any(arm.control and not arm.told for arm in arms):
        print("what held-out people did is not known here: give their conversions with --conversions FILE")


def _published(config: Config) -> Snapshot:
    from dsp.catalog.current import current_path
    from dsp.catalog.snapshot import Snapshot, SnapshotError

    published = current_path(config)
    if published is None:
        fail("there is no published catalog yet")
    with refusing(SnapshotError):
        return Snapshot.load(published)


def _named(snapshot: Snapshot, name: str) -> dict[str, Any]:
    found = [row for row in snapshot.meta.get("experiments", ()) if name in (row["name"], str(row["id"]))]
    if len(found) != 1:
        fail(f"{'no' if not found else 'more than one'} experiment is called {name!r}; see `dsp experiment list`")
    return dict(found[0])


def _facts(row: dict[str, Any]) -> dict[str, Any]:
    arms = []
    for arm in row["arms"]:
        does = ["is shown nothing"] if arm["control"] else []
        does += [f"bids {arm['bid']:g} times"] if arm["bid"] != 1 else []
        does += [f"{len(arm['only'])} ads only"] if arm["only"] is not None else []
        does += ["scored by the shadowing model"] if arm["model"] != "current" else []
        arms.append({"name": arm["name"], "share": arm["share"], "does": ", ".join(does) or "as usual"})
    out = {key: row[key] for key in ("id", "name", "status", "campaign_id", "advertiser_id")}
    return {**out, "line_items": len(row["line_items"]), "arms": arms}


def _conversions(config: Config, file: Path, experiment: int) -> Conversions:
    """A list of conversions with each person as the experiment knows them."""
    import numpy as np

    from dsp.audience.access import allow
    from dsp.audience.subjects import read_table, subjects_of
    from dsp.bidder.arms import units_of
    from dsp.model.trial import Conversions, stages_of, times_of
    from dsp.openrtb.hashing import hash_text

    columns, n = read_table(file)
    for column in ("stage", "time"):
        if column not in columns:
            fail(f"{file}: column {column} is missing")
    allow(config, "read", people=n)
    try:
        heads, times = stages_of(columns["stage"].to_pylist()), times_of(columns["time"].to_pylist())
    except ValueError as error:
        fail(f"{file}: {error}")
    rows, subjects = subjects_of(config, columns, n, hash_text)
    return Conversions(units_of(subjects, experiment)[0], times[rows], np.asarray(heads)[rows])
