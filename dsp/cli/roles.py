"""`dsp bidder`: the role in this process, as containers run it; `dsp ledger` is `dsp.cli.ledger`."""

from __future__ import annotations

import typer

from dsp.cli.edge import config_of, end_with_parent, refusing


def bidder(context: typer.Context) -> None:
    """Run the bidder: HTTP and gRPC workers, /metrics. SIGTERM drains, SIGHUP restarts workers one by one."""
    config = config_of(context)
    end_with_parent()
    from dsp.ingress.supervisor import run_bidder

    with refusing():
        raise typer.Exit(run_bidder(config))
