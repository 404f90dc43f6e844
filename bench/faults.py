"""Disk full, database read-only, gone, hanging; ledger gone: for a minute each, under load.

`python -m bench faults [--seconds 60] [NAME ...]`. The stage is `bench.stage`'s. Each fault begins under load, lasts
``--seconds`` and ends; nobody touches the ledger or the workers meanwhile. What must hold: nothing acknowledged is
lost, the bound holds, workers without a ledger spend what they were granted and stop, and all comes back by itself.
A full disk needs the right to mount a small file system in memory (root); without it that fault is skipped.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console
from rich.progress import Progress

from bench.ledgers import MAX_BID
from bench.stage import LINES, Stage, play, wait_ready

DISK = "24m"
QUIET_S = 3.0  # before the fault
STOPPED_S = 5.0  # without a ledger: bids in the last seconds of the fault must be none


class NoMountError(Exception):
    """This process may not mount a file system."""


@contextlib.contextmanager
def small_disk() -> Iterator[Path]:
    """A file system of its own, small and in memory. Raises `NoMountError`."""
    root = Path(tempfile.mkdtemp(prefix="dsp-disk-"))
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(root)], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        root.rmdir()
        raise NoMountError("mounting a small file system needs root") from error
    try:
        yield root
    finally:
        subprocess.run(["umount", "-l", str(root)], check=False, capture_output=True)
        root.rmdir()


def fill(root: Path) -> Path:
    """Take all the space there is."""
    filler = root / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return filler


def disk_full(stage: Stage, seconds: float) -> None:
    """The disk that holds books and spool has no room."""
    filler = fill(Path(stage.config.data_dir))
    time.sleep(seconds)
    filler.unlink()


def database_gone(stage: Stage, seconds: float) -> None:
    """`kill -9` of the database, and nobody there for a while."""
    assert stage.server is not None
    stage.server.kill()
    time.sleep(seconds)
    stage.server.start()


def database_hangs(stage: Stage, seconds: float) -> None:
    """The database is there and says nothing."""
    assert stage.server is not None
    stage.server.freeze(True)
    time.sleep(seconds)
    stage.server.freeze(False)


def database_read_only(stage: Stage, seconds: float) -> None:
    """PostgreSQL refuses writes, as a standby or a full replica set does."""
    _default_read_only(stage, True)
    time.sleep(seconds)
    _default_read_only(stage, False)


def _default_read_only(stage: Stage, on: bool) -> None:
    assert stage.server is not None
    name = stage.config.ledger.database.rpartition("/")[2]
    with psycopg.connect(stage.server.url(), autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        connection.execute(
            f"ALTER DATABASE {name} SET default_transaction_read_only = {'on' if on else 'off'}".encode()
        )
        # Sessions keep what they began with: end them, as a fail-over would.
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))


def file_read_only(stage: Stage, seconds: float) -> None:
    """SQLite's file says that nobody may write it."""
    _write_version(stage.config.path("ledger.db"), 3)
    time.sleep(seconds)
    _write_version(stage.config.path("ledger.db"), 2)


def _write_version(path: Path, version: int) -> None:
    """Set byte 18 of a database: above 2 every SQLite must treat it as read-only (its file format, section 1.3.3).

    Root may write whatever modes and attributes say, and a file system in use cannot be made read-only; this holds for
    connections that are open, too. The log is emptied into the file first, so that nobody reads an older first page.
    """
    with path.open("r+b", buffering=0) as file, contextlib.closing(sqlite3.connect(path, timeout=30)) as connection:
        connection.isolation_level = None
        while version > 2:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            connection.execute("BEGIN IMMEDIATE")  # nobody writes now
            if not path.with_name(path.name + "-wal").stat().st_size:
                break
            connection.execute("ROLLBACK")
        file.seek(18)
        file.write(bytes([version]))
        os.fsync(file.fileno())


def ledger_gone(stage: Stage, seconds: float) -> None:
    """`kill -9` of the ledger, and nobody there for a while: workers spend what they hold, and stop."""
    stage.kill_ledger()
    time.sleep(max(0.0, seconds - STOPPED_S))
    before = stage.exchange.bids
    time.sleep(min(seconds, STOPPED_S))
    if seconds > STOPPED_S + stage.config.ledger.lease_s and stage.exchange.bids != before:
        raise AssertionError(f"{stage.exchange.bids - before} bids without a lease")
    stage.start_ledger()


Fault = Callable[[Stage, float], None]
FAULTS: dict[str, tuple[str, Fault]] = {
    "disk_full": ("sqlite", disk_full),
    "file_read_only": ("sqlite", file_read_only),
    "ledger_gone": ("sqlite", ledger_gone),
    "database_gone": ("postgresql", database_gone),
    "database_hangs": ("postgresql", database_hangs),
    "database_read_only": ("postgresql", database_read_only),
    "ledger_gone_postgresql": ("postgresql", ledger_gone),
}
ON_SMALL_DISK = {"disk_full"}


def run(name: str, seconds: float, seed: int) -> dict[str, Any]:
    """One fault. Raises `NoMountError` where it cannot be made."""
    backend, fault = FAULTS[name]

    def act(stage: Stage) -> dict[str, Any]:
        time.sleep(QUIET_S)
        before = stage.exchange.bids
        fault(stage, seconds)
        began = time.monotonic()
        recovered = wait_ready(stage.config)
        ready_s = time.monotonic() - began
        during = stage.exchange.bids - before
        time.sleep(QUIET_S)
        return {
            "fault": name,
            "fault_s": seconds,
            "bids_before": before,
            "bids_during": during,
            "bids_after": stage.exchange.bids - before - during,
            "recovered": recovered,
            "ready_after_s": round(ready_s, 1),
        }

    budgets = [MAX_BID * 10 * (1 + i % 12) ** 2 for i in range(LINES)]  # some are gone before the fault
    if name in ON_SMALL_DISK:
        with small_disk() as root:
            result = play(backend, seed, budgets, act, root)
    else:
        result = play(backend, seed, budgets, act)
    if not result["recovered"] or not result["bids_after"]:
        result["wrong"].append("it did not come back by itself")
    return result


def main(args: list[str]) -> int:
    """Make each fault, print, fail where something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench faults", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"{', '.join(FAULTS)}; all without a name")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="JSON lines only")
    options = parser.parse_args(args)
    fine = True
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("faults", total=len(options.names or FAULTS))
        for name in options.names or FAULTS:
            try:
                result = run(name, options.seconds, options.seed)
            except NoMountError as error:
                print(f"skipped: {name}: {error}", flush=True)
                continue
            fine = fine and not result["wrong"]
            if options.json:
                print(json.dumps(result), flush=True)
            else:
                print(f"{'WRONG' if result['wrong'] else 'right'}: " + ", ".join(f"{k} {v}" for k, v in result.items()))
            progress.advance(task)
    return int(not fine)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
