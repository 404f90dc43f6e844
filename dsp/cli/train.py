"""`dsp train`: a new model from the logs."""

from __future__ import annotations

from typing import Annotated

import typer

from dsp.cli.edge import config_of, fail, print_json, refusing


def train(
    context: typer.Context,
    bootstrap: Annotated[bool, typer.Option(help="Write the prior model where there is none; needs no logs.")] = False,
    shadow: Annotated[bool, typer.Option(help="Let it shadow the current model; `dsp model promote` goes on.")] = False,
    seed: Annotated[int | None, typer.Option(help="Instead of the config's seed.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Learn from the logs and write a model; bidders swap it in unless it fails a quality gate (exit status 1)."""
    config = config_of(context)
    from dsp.catalog.current import current_path
    from dsp.catalog.snapshot import Snapshot, SnapshotError
    from dsp.control.wincurve import fit_win_curve
    from dsp.control.winscale import fit_win_scale
    from dsp.model.admission import refusals
    from dsp.model.bootstrap import bootstrap_model
    from dsp.model.manifest import Manifest
    from dsp.model.registry import ModelError, current_dir
    from dsp.model.rollout import challenger
    from dsp.model.train import train as run

    with refusing(ModelError, SnapshotError):
        if bootstrap:
            path = bootstrap_model(config)
        else:
            published = current_path(config)
            if published is None:
                fail("nothing is published: run `dsp catalog apply FILE` first")
            snapshot = Snapshot.load(published)
            path = run(
                config,
                seed=seed,
                snapshot=snapshot,
                fit_win_curve=fit_win_curve,
                fit_win_scale=fit_win_scale,
                shadow=shadow,
                progress=not as_json,
            )
        manifest, other = Manifest.load(path), challenger(config)
        serves = path == current_dir(config) or (other is not None and path == other.path)
        refused = [] if serves else refusals(config, path)
    if as_json:
        print_json(
            {"path": str(path), **{f: getattr(manifest, f) for f in ("version", "name", "metrics")}, "refused": refused}
        )
    else:
        print(f"{manifest.name}: {path}")
        for head, m in manifest.metrics.items():
            auc = "-" if m.auc is None else f"{m.auc:.3f}"
            print(f"  {head:8} {m.positives:8,} of {m.rows:10,}   AUC {auc}")
        for reason in refused:
            print(f"  refused: {reason}")
    if refused:
        raise typer.Exit(1)
