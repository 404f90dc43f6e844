"""`dsp doctor`: is everything there that a running system needs, and what to do where it isn't."""

from __future__ import annotations

import ctypes
import http.client
import os
import resource
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from dsp.base.config import Config
from dsp.cli.edge import config_of, print_json

SOMAXCONN = Path("/proc/sys/net/core/somaxconn")
BACKLOG = 1024  # connections that may wait to be accepted: the fronts ask for so many
UNSYNCED = 5  # adjtimex: nothing keeps the clock
FILES = 4096  # descriptors: connections of the fronts, and some
ROOM_BYTES = 1 << 30

Finding = tuple[str, bool, str]  # what was looked at, whether it is well, what was found or is to be done


def doctor(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False
) -> None:
    """Check keys, catalog, model, stores, clocks, limits, disk; say what to mend; status 1 if something is wrong."""
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
    yield _audience(config)
    yield _ledger(config)
    yield from _clock(config, time.time(), _clock_state())
    if config.root.exists():
        free = shutil.disk_usage(config.root).free
        yield "disk", free > ROOM_BYTES, f"{free / 2**30:.1f} GB free under {config.root}; at least 1 GB is needed"
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    yield "open files", files >= FILES, f"limit {files:,}; at least {FILES:,} are needed (ulimit -n)"
    yield _backlog(SOMAXCONN)
    yield _cores(config, len(os.sched_getaffinity(0)))


def _audience(config: Config) -> Finding:
    from dsp.audience.stats import count
    from dsp.audience.store import StoreError

    if config.audience.store == "aerospike":
        from dsp.audience.aerospike_store import connect

        try:
            connect(config.audience.aerospike_hosts).close()
        except StoreError as error:
            return "audience", False, f"{error}; bids are contextual until it answers: look at the cluster"
        return "audience", True, f"Aerospike answers at {', '.join(config.audience.aerospike_hosts)}"
    try:
        counts = count(config)
    except StoreError as error:
        return "audience", False, f"{error}: load it again with `dsp audience load FILE`"
    if not counts.people:
        return "audience", True, "nobody is known: bids are contextual; `dsp audience load FILE` brings people"
    return "audience", True, f"{counts.people:,} people"


def _clock(config: Config, now_s: float, state: int) -> Iterator[Finding]:
    yield (
        "clock",
        state != UNSYNCED,
        "kept by NTP" if state != UNSYNCED else "nothing keeps it: run chrony (or another NTP client) on this host",
    )
    newest_s = max((path.stat().st_mtime for path in config.path("snapshots").glob("*")), default=0.0)
    ahead_s = newest_s - now_s
    well = ahead_s <= config.ledger.skew_s
    says = f"the newest snapshot is {ahead_s:.0f} s in the future: set the clocks of this host and the publisher's"
    yield "clocks agree", well, "nothing published is in the future" if well else says


def _clock_state() -> int:
    """What `adjtimex` says of the kernel's clock; -1 where it can't be asked."""
    try:
        return int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512)))  # modes = 0: only read
    except (OSError, AttributeError):
        return -1


def _backlog(path: Path) -> Finding:
    try:
        most = int(path.read_text())
    except (OSError, ValueError):
        return "backlog", True, "this system doesn't say how many connections may wait"
    mend = "sysctl -w net.core.somaxconn=4096, or the pod's securityContext.sysctls"
    return (
        "backlog",
        most >= BACKLOG,
        f"somaxconn {most:,}; at least {BACKLOG:,} are needed" + ("" if most >= BACKLOG else f" ({mend})"),
    )


def _cores(config: Config, cores: int) -> Finding:
    workers = config.bidder.http_workers + config.bidder.grpc_workers
    workers += config.rta.workers + config.artf.workers
    says = f"{workers} workers on {cores} cores"
    if workers <= cores:
        return "cores", True, says
    return "cores", False, f"{says}: each wants one of its own; lower one of the workers settings"


def _catalog(config: Config) -> Finding:
    from dsp.catalog.current import current_path
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
