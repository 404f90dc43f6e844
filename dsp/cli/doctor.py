"""`dsp doctor`: is everything there that a running system needs, and what to do where it isn't."""

from __future__ import annotations

import http.client
import resource
import shutil
from collections.abc import Iterator
from typing import Annotated

import typer

from dsp.base.config import Config
from dsp.cli.edge import config_of, print_json

FILES = 4096  # descriptors: connections of the fronts, and some
ROOM_BYTES = 1 << 30

Finding = tuple[str, bool, str]  # what was looked at, whether it is well, what was found or is to be done


def doctor(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False
) -> None:
    """Check keys, catalog, model, ledger, disk and limits, and say what to mend; status 1 where something is wrong."""
    findings = list(examine(config_of(context)))
    if as_json:
        print_json([{"what": what, "ok": ok, "says": says} for what, ok, says in findings])
    else:
        for what, ok, says in findings:
            print(f"{'well ' if ok else 'WRONG'} {what}: {says}")
    if not all(ok for _, ok, _ in findings):
        raise typer.Exit(1)


def examine(config: Config) -> Iterator[Finding]:
    """Every finding, one after the other; nothing is made or changed."""
    for name in ("pepper.json", "signing.json"):
        path = config.path("secrets", name)
        if not path.exists():
            yield f"key {name}", False, f"{path} is missing: `dsp serve` makes one; restore yours if people were loaded"
        else:
            private = path.stat().st_mode & 0o007 == 0
            yield f"key {name}", private, "there" if private else f"others may read it: chmod 600 {path}"
    yield _catalog(config)
    yield _model(config)
    yield _ledger(config)
    if config.root.exists():
        free = shutil.disk_usage(config.root).free
        yield "disk", free > ROOM_BYTES, f"{free / 2**30:.1f} GB free under {config.root}; at least 1 GB is needed"
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    yield "open files", files >= FILES, f"limit {files:,}; at least {FILES:,} are needed (ulimit -n)"


def _catalog(config: Config) -> Finding:
    from dsp.catalog.publish import current_path
    from dsp.catalog.snapshot import Snapshot, SnapshotError

    path = current_path(config)
    if path is None:
        return "catalog", False, "nothing is published: run `dsp catalog apply FILE`"
    try:
        snapshot = Snapshot.load(path)
    except (SnapshotError, OSError) as error:
        return "catalog", False, f"{error}; run `dsp catalog publish`"
    return "catalog", True, f"snapshot {snapshot.version}, {len(snapshot.li_i):,} line items"


def _model(config: Config) -> Finding:
    from dsp.model.registry import ModelError, current_dir
    from dsp.model.score import Scorer

    try:
        path = current_dir(config)
        if path is None:
            return "model", False, "there is none: run `dsp train` (or `dsp train --bootstrap` without logs)"
        return "model", True, f"version {Scorer.load(path).version}"
    except (ModelError, OSError) as error:
        return "model", False, str(error)


def _ledger(config: Config) -> Finding:
    host = config.ledger.worker_host or config.ledger.host
    connection = http.client.HTTPConnection(host, config.ledger.port, timeout=3)
    try:
        connection.request("GET", "/readyz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return (
            "ledger",
            False,
            f"none answers at {host}:{config.ledger.port} ({error}): run `dsp ledger` or `dsp serve`",
        )
    finally:
        connection.close()
    return "ledger", status == 200, "ready" if status == 200 else "its books are not open: look at the database"
