"""`dsp model`: which versions there are, and a new one's way into service and back."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from dsp.base.config import Config
from dsp.base.logs import logger, start_logging
from dsp.cli.edge import config_of, fail, print_json, refusing

log = logger(__name__)

app = typer.Typer(help="Model versions: list, shadow, promote, roll back.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON document.")]
Version = Annotated[int, typer.Argument(help="As `dsp model list` shows it.")]


@app.command("list")
def list_versions(context: typer.Context, as_json: Json = False) -> None:
    """Every version, what it does now, and why it may not serve where it may not."""
    from dsp.model.registry import ModelError

    config = config_of(context)
    with refusing(ModelError):
        rows = _rows(config)
    if as_json:
        print_json(rows)
        return
    if not rows:
        print("no model yet: run `dsp train` (or `dsp train --bootstrap` without logs)")
    for row in rows:
        print(f"{row['version']:6}  {row['role']:18} {row['kind']:10} {row['created']:26} {row['rows']:>10,} bids")
        for reason in row["refused"]:
            print(f"        refused: {reason}")


@app.command()
def shadow(context: typer.Context, version: Version, as_json: Json = False) -> None:
    """Let a version score beside the current one without effect; metrics dsp_shadow_* compare them."""
    from dsp.model.rollout import shadow as run

    _enter(context, version, as_json, lambda config: run(config, version), f"version {version} shadows")


@app.command()
def promote(
    context: typer.Context,
    version: Version,
    share: Annotated[float, typer.Option(help="Of the traffic, above 0; 1 makes it the current model.")] = 1.0,
    as_json: Json = False,
) -> None:
    """Let a version score a share of the traffic, or all of it."""
    from dsp.model.rollout import promote as run

    what = "all traffic" if share == 1.0 else f"{share:.0%} of the traffic"
    _enter(context, version, as_json, lambda config: run(config, version, share), f"version {version} scores {what}")


@app.command()
def follow(
    context: typer.Context,
    once: Annotated[bool, typer.Option(help="Work it out once and end.")] = False,
    every: Annotated[float, typer.Option(help="Seconds between two times.")] = 60.0,
) -> None:
    """Keep the current model's online correction up to date from the logs, until SIGTERM; alerts go to stderr."""
    from dsp.cli.edge import end_with_parent
    from dsp.control.bandit import shares
    from dsp.model.correction import now_ms, save_correction, work_out
    from dsp.model.registry import ModelError

    config = config_of(context)
    end_with_parent()
    start_logging(config.logs, "follow")
    told: set[tuple[str, str, int]] = set()
    while True:
        with refusing(ModelError):
            correction = work_out(config, now_ms(), shares)
            save_correction(config, correction)
        now = {(row.head, row.of, row.id): row for row in correction.watched if row.alert}
        for key in sorted(now.keys() - told):
            row = now[key]
            which = row.of if row.of == "all" else f"{row.of} {row.id}"
            log.warning("predictions left their band: retrain the model", head=row.head, of=which,
                        predicted=round(row.corrected), observed=row.observed)  # fmt: skip
        told = set(now)
        if once:
            return
        time.sleep(every)


@app.command()
def drift(context: typer.Context, as_json: Json = False) -> None:
    """Predicted over observed by head, line item and exchange, as the last `dsp model follow` found it."""
    from dsp.model.correction import load_correction

    correction = load_correction(config_of(context))
    if as_json:
        print_json(correction)
        return
    if not correction.watched:
        print("nothing watched yet: `dsp model follow` compares predictions with outcomes")
        return
    print(f"model version {correction.version}")
    for row in correction.watched:
        which = "all" if row.of == "all" else f"{row.of} {row.id}"
        ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
        after = "-" if not row.observed else f"{row.corrected / row.observed:.2f}"
        alert = "  ALERT" if row.alert else ""
        came = f"{row.observed:7,} of {row.outcomes:9,}"
        print(f"{row.head:8} {which:20} {came}   alone {ratio:>6}   corrected {after:>6}{alert}")


@app.command()
def compare(
    context: typer.Context,
    version: Version,
    other: Annotated[int, typer.Option("--with", help="The version to compare with; the current one without.")] = 0,
    as_json: Json = False,
) -> None:
    """What the bids of two versions won, cost and brought, with 95 % intervals of the difference."""
    from dsp.catalog.current import current_path
    from dsp.catalog.snapshot import Snapshot, SnapshotError
    from dsp.control.experiment import compare as run
    from dsp.log.decisions import read_decisions
    from dsp.log.outcomes import read_outcomes
    from dsp.model.compared import results
    from dsp.model.features import SPEC_HASH
    from dsp.model.registry import ModelError, current_dir

    config = config_of(context)
    with refusing(ModelError, SnapshotError):
        now, published = current_dir(config), current_path(config)
        if now is None or published is None:
            fail("there is no current model or no published catalog yet")
        base = other or int(now.name)
        decisions = read_decisions(config.path("log", "decisions"), None, SPEC_HASH)
        outcomes = read_outcomes(config.path("log", "outcomes"))
        a, b = results(decisions, outcomes, Snapshot.load(published), (base, version))
    compared = {name: run(a.ratios()[name], b.ratios()[name]) for name in a.ratios()}
    if as_json:
        print_json({"bids": {base: len(a.bids), version: len(b.bids)}, "compared": compared})
        return
    print(f"{'':32} {f'version {base}':>14} {f'version {version}':>14}   difference")
    print(f"{'settled bids':32} {len(a.bids):14,} {len(b.bids):14,}")
    for name, row in compared.items():
        if row.a is None or row.b is None:
            print(f"{name:32} {'-':>14} {'-':>14}   too little came to tell")
            continue
        tells = "" if row.significant else "   not significant"
        print(f"{name:32} {row.a:14.4g} {row.b:14.4g}   {row.low:+.4g} to {row.high:+.4g}{tells}")


@app.command()
def rollback(context: typer.Context, as_json: Json = False) -> None:
    """Undo the last step: a challenger leaves; without one the former version serves again."""
    from dsp.model.registry import ModelError
    from dsp.model.rollout import rollback as run

    with refusing(ModelError):
        serving = run(config_of(context))
    if as_json:
        print_json({"current": int(serving.name)})
    else:
        print(f"version {int(serving.name)} serves")


def _enter(context: typer.Context, version: int, as_json: bool, step: Any, done: str) -> None:
    """Take a step with a version, if the gates let it pass; else say why, with exit status 1."""
    from dsp.model.admission import refusals
    from dsp.model.registry import ModelError, existing_dir

    config = config_of(context)
    with refusing(ModelError):
        reasons = refusals(config, existing_dir(config, version))
        if not reasons:
            step(config)
    if as_json:
        print_json({"version": version, "refused": reasons})
    elif reasons:
        print(f"version {version} does not serve:")
        for reason in reasons:
            print(f"  {reason}")
    else:
        print(done)
    if reasons:
        raise typer.Exit(1)


def _rows(config: Config) -> list[dict[str, Any]]:
    from dsp.model.manifest import Manifest
    from dsp.model.registry import ModelError, current_dir, version_dir, versions
    from dsp.model.rollout import challenger, former

    now, other, before = current_dir(config), challenger(config), former(config)
    rows = []
    for version in versions(config):
        path = version_dir(config, version)
        role = "former" if path.name in before else ""
        if path == now:
            role = "current"
        elif other is not None and path == other.path:
            role = f"serves {other.share:.0%}" if other.share else "shadows"
        row: dict[str, Any] = {"version": version, "role": role, "kind": "?", "created": "", "rows": 0, "refused": ()}
        try:
            manifest = Manifest.load(path)
        except ModelError as error:
            rows.append({**row, "refused": (str(error),)})
            continue
        facts = {name: getattr(manifest, name) for name in ("kind", "created", "rows", "refused")}
        rows.append({**row, **facts})
    return rows
