"""`dsp console`: the role itself, a link to sign in with, and the audit log's check."""

from __future__ import annotations

from typing import Annotated

import typer

from dsp.base.config import Config
from dsp.base.logs import start_logging
from dsp.cli.edge import config_of, end_with_parent, fail, print_json, refusing

app = typer.Typer(help="Run the console; or, with a command, get into it.", invoke_without_command=True)
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document.")]


@app.callback()
def console(context: typer.Context) -> None:
    """Run the console: REST API and pages."""
    if context.invoked_subcommand is not None:
        return
    config = config_of(context)
    end_with_parent()
    from dsp.console.server import run_console

    start_logging(config.logs, "console")
    with refusing():
        run_console(config)


@app.command()
def link(
    context: typer.Context,
    email: Annotated[str, typer.Option(help="Whom it signs in; else the first owner, or whoever becomes it.")] = "",
    as_json: AsJson = False,
) -> None:
    """Print a link that signs in once, within a day. On a new system it makes the first owner."""
    from dsp.console.errors import ApiError

    with refusing(ApiError):
        url = sign_in_link(config_of(context), email)
    if as_json:
        print_json({"url": url})
    else:
        print(url)


@app.command()
def audit(context: typer.Context, as_json: AsJson = False) -> None:
    """Check that no row of the audit log was changed or taken out."""
    from dsp.console.audit import verify
    from dsp.console.services import open_services

    try:
        rows = verify(open_services(config_of(context)).catalog.engine)
    except ValueError as error:
        fail(str(error))
    if as_json:
        print_json({"rows": rows})
    else:
        print(f"{rows} rows, each follows from the one before")


def console_address(config: Config) -> str:
    """The console's URL on this machine."""
    return f"http://{config.console.host}:{config.console.port}"


def sign_in_link(config: Config, email: str = "", *, demo: bool = False) -> str:
    """A one-time link. ``demo``: an owner without a password is made first, so that it leads straight in."""
    from dsp.catalog.publish import catalog_path
    from dsp.catalog.store import open_catalog
    from dsp.console.accounts import Accounts

    engine = open_catalog(catalog_path(config))
    try:
        accounts = Accounts(engine)
        if demo and not accounts.has_users():
            accounts.add_owner("owner@demo.example")
        return f"{console_address(config)}/enter?token={accounts.make_link(email)}"
    finally:
        engine.dispose()
