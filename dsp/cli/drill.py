"""`dsp drill`: pressure and faults on a running system, and a page that says whether it held."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from dsp.base.config import Config
from dsp.cli.edge import config_of, print_json, refusing, write_config

OWNER = "drill@localhost"


def drill(
    context: typer.Context,
    own: Annotated[bool, typer.Option(help="Start a system for it, under DATA_DIR/drill, and end it.")] = False,
    rate: Annotated[float, typer.Option(min=1.0, help="Bid requests a second, normally.")] = 120.0,
    times: Annotated[float, typer.Option(min=1.0, help="The peak, as a multiple of that.")] = 3.0,
    fault: Annotated[list[str] | None, typer.Option(help="One or more of the faults; all without it.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where the page goes; DATA_DIR/drill.html without it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document at the end, nothing else.")] = False,
) -> None:
    """Put a running `dsp serve` under pressure, inflict faults, reconcile the books; status 1 where it did not hold.

    It spends the system's budgets and kills its processes: for a system whose money is play money.
    """
    from dsp.market.drill import DrillError, Plan, hold_drill
    from dsp.market.drill_faults import FAULTS
    from dsp.market.drill_page import render
    from dsp.market.roles import RoleError

    def say(text: str) -> None:
        if not as_json:
            print(text, file=sys.stderr, flush=True)

    with refusing(DrillError, RoleError, ValueError), ExitStack() as stack:
        names = tuple(fault or FAULTS)
        if unknown := [name for name in names if name not in FAULTS]:
            raise ValueError(f"no fault named {unknown[0]}; there are {', '.join(FAULTS)}")
        config = config_of(context)
        page = out or config.path("drill.html")
        if own:
            say("starting a system of its own (the first start compiles)")
            config = stack.enter_context(_own_system(config))
        key = stack.enter_context(_console_key(config))
        outcome = hold_drill(config, Plan(rate, times, faults=names), key, say)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(render(outcome))
    if as_json:
        objectives = [each._asdict() for each in outcome.objectives]
        print_json({"ok": outcome.ok, "objectives": objectives, "faults": [asdict(each) for each in outcome.faults],
                    "figures": outcome.figures, "page": str(page)})  # fmt: skip
    else:
        for each in outcome.objectives:
            print(f"{'held  ' if each.ok else 'MISSED'} {each.what}: {each.measured} (bar {each.bar})")
        print(f"{'passed' if outcome.ok else 'FAILED'}; page: {page}")
    raise typer.Exit(0 if outcome.ok else 1)


@contextmanager
def _own_system(base: Config) -> Iterator[Config]:
    """`dsp serve` on free ports with the example, two HTTP workers and one gRPC worker, from an empty directory."""
    import shutil

    from dsp.market.roles import Roles, free_ports

    http, grpc, metrics, ledger, syncs, console, console_metrics = free_ports(7)
    bidder = msgspec.structs.replace(
        base.bidder, http_port=http, grpc_port=grpc, metrics_port=metrics, http_workers=2, grpc_workers=1
    )
    config = msgspec.structs.replace(
        base,
        data_dir=str(base.path("drill")),
        bidder=bidder,
        ledger=msgspec.structs.replace(
            base.ledger, port=ledger, grpc_port=syncs, public_url=f"http://127.0.0.1:{ledger}"
        ),
        console=msgspec.structs.replace(base.console, port=console, metrics_port=console_metrics),
    )
    shutil.rmtree(config.root, ignore_errors=True)
    file = write_config(config, config.path("drill.yaml"))
    with Roles(file, config.path("run")) as roles:
        role = roles.start("serve", ["serve"])
        for url in (
            f"http://{config.ledger.host}:{ledger}/readyz",
            f"http://{bidder.http_host}:{metrics}/readyz",
            f"http://{config.console.host}:{console}/healthz",
        ):
            roles.wait_ready(role, url, 240.0)
        yield config


@contextmanager
def _console_key(config: Config) -> Iterator[str]:
    """A key to read the console with, of its first owner, taken back at the end."""
    from dsp.catalog.publish import catalog_path
    from dsp.catalog.store import open_catalog
    from dsp.console.accounts import Accounts

    engine = open_catalog(catalog_path(config))
    try:
        accounts = Accounts(engine)
        if not accounts.has_users():
            accounts.add_owner(OWNER)
        owner = accounts.first_owner()
        if owner is None:
            yield ""  # everybody's rights are limited: no console traffic
            return
        key_id, secret = accounts.add_key(owner, "drill", ["read"])
        try:
            yield secret
        finally:
            accounts.revoke_key(owner, key_id)
    finally:
        engine.dispose()
