"""`dsp backup`, `dsp restore`, `dsp retain`: what is kept safe, put back, and deleted in time."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from dsp.base.config import Config
from dsp.base.logs import logger, start_logging
from dsp.base.scrape import fetch
from dsp.cli.edge import config_of, end_with_parent, fail, print_json, refusing

log = logger(__name__)
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document.")]


def backup(
    context: typer.Context,
    into: Annotated[Path, typer.Option(help="Directory of the backups; another disk is best.")] = Path("backups"),
    keep: Annotated[int, typer.Option(help="Delete all but so many; 0: keep all.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Back up books and catalog of a running system into a directory of their own, and check the copy."""
    config = config_of(context)
    from dsp.ledger.backup import BackupError, make_backup, prune_backups

    with refusing(BackupError):
        made = make_backup(config, into)
        gone = prune_backups(into, keep) if keep else []
    if as_json:
        print_json({"backup": str(made), "deleted": [str(path) for path in gone]})
    else:
        print(made, *(f"deleted {path}" for path in gone), sep="\n")


def restore(
    context: typer.Context,
    made: Annotated[Path, typer.Argument(metavar="BACKUP", help="A directory that `dsp backup` made.")],
    check: Annotated[bool, typer.Option("--check", help="Only check that it could be restored.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put books and catalog of a backup in place, after checking it; ledger and console must be stopped."""
    config = config_of(context)
    from dsp.ledger.backup import BackupError, check_backup, restore_backup

    with refusing(BackupError):
        if check:
            facts = check_backup(config, made)
            if as_json:
                print_json({"made_s": facts.made_s, "files": sorted(facts.sha256)})
            else:
                print(f"whole and sound: {', '.join(sorted(facts.sha256))}")
            return
        ledger, console = config.ledger, config.console
        for role, host, port in (
            ("ledger", ledger.worker_host or ledger.host, ledger.port),
            ("console", console.host, console.port),
        ):
            if _answers(host, port):
                fail(f"a {role} answers at {host}:{port}: stop it first, it would write into what is put back")
        aside = restore_backup(config, made)
    if as_json:
        print_json({"before": str(aside)})
    else:
        print(f"restored; what was there is in {aside}. Start the roles; `dsp catalog publish` publishes the catalog")


def _answers(host: str, port: int) -> bool:
    try:
        fetch("127.0.0.1" if host == "0.0.0.0" else host, port, "/healthz")
    except OSError as error:
        return "answers" in str(error)
    return True


def retain(
    context: typer.Context,
    dry: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    every: Annotated[float, typer.Option(help="Go on, this often, in seconds; 0: once.", min=0)] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Delete logs past their days or size, and take people out of old events, as `retention` says."""
    config = config_of(context)
    if every:
        end_with_parent()
        start_logging(config.logs, "retain")
    while True:
        with refusing():
            found = keep_in_time(config, time.time(), dry=dry)
        if every:
            log.info("kept in time", **found)
            turn = config.path("run", "retain.turn")  # by which a probe sees that it turns
            turn.parent.mkdir(parents=True, exist_ok=True)
            turn.touch()
            time.sleep(every)
            continue
        if as_json:
            print_json(found)
        else:
            for name, count in found.items():
                print(f"{count:14,} {name.replace('_', ' ')}{' due' if dry else ''}")
        return


def keep_in_time(config: Config, now_s: float, *, dry: bool = False) -> dict[str, Any]:
    """Apply every rule once; how much of each kind went (or would). Raises OSError from files and books."""
    from dsp.ledger.retain import keep_people_in_time
    from dsp.log.retain import delete_old, old_segments

    rules, found = config.retention, dict[str, Any]()
    for kind, days, gigabytes in (
        ("decisions", rules.decisions_days, rules.decisions_gb),
        ("outcomes", rules.outcomes_days, 0.0),
    ):
        directory, most = config.path("log", kind), int(gigabytes * 1e9)
        if dry:
            files = old_segments(directory, days, most, now_s)
            count, size = len(files), sum(each for _, each in files)
        else:
            count, size = delete_old(directory, days, most, now_s)
        found |= {f"{kind}_files": count, f"{kind}_bytes": size}
    found["events_without_their_person"] = keep_people_in_time(config, int(now_s * 1000), dry=dry)
    return found
