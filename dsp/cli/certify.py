"""`dsp certify`: an exchange's certification, played against any bidder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from dsp.cli.edge import fail, print_json


def certify(
    url: Annotated[str, typer.Argument(help="Where the bidder takes bid requests: http://host:8080/bid/exchange.")],
    token: Annotated[str, typer.Option(help="Bearer token to show.")] = "",
    request: Annotated[
        Path | None, typer.Option(help="A bid request (JSON) that the bidder bids on; without it a banner in the US.")
    ] = None,
    rate: Annotated[float, typer.Option(help="Requests a second while its timing is watched.", min=1, max=1000)] = 50,
    seconds: Annotated[float, typer.Option(help="How long.", min=0.1, max=600)] = 4,
    notices: Annotated[
        bool, typer.Option(help="Call the notices of a bid that it makes; it is marked as a test.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Play an exchange's certification against a bidder: protocol, malformed input, blocks, macros, notices, timing.

    Sends some hundred requests, all marked as tests. Exit status 0 if every check passed, else 1.
    """
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from dsp.cli.progress import stderr_console
    from dsp.market.certifier import Certifier, Settings, score
    from dsp.market.certify_cases import BASE

    if not url.startswith(("http://", "https://")):
        fail(f"{url} is not an http address")
    base = _request(request) if request is not None else BASE
    settings = Settings(url, token, base, rate, seconds, notices)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=stderr_console(), disable=as_json, transient=True) as bar:
        task = bar.add_task("certifying")
        checks = Certifier(settings, lambda area: bar.update(task, description=area)).run()
    share = score(checks)
    if as_json:
        print_json({"url": url, "score": share, "checks": checks})
    else:
        for check in checks:
            mark = {"passed": "pass", "failed": "FAIL", "skipped": "skip"}[check.outcome]
            print(f"{mark}  {check.area:9}  {check.name:16}  {check.about}" + (f": {check.seen}" if check.seen else ""))
        count = {kind: sum(c.outcome == kind for c in checks) for kind in ("passed", "failed", "skipped")}
        print(f"score {share:.1%}: {count['passed']} passed, {count['failed']} failed, {count['skipped']} skipped")
    if share < 1:
        raise typer.Exit(1)


def _request(file: Path) -> dict[str, Any]:
    try:
        base = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        fail(f"{file}: {error}")
    if not isinstance(base, dict) or not isinstance(base.get("id"), str) or not base.get("imp"):
        fail(f"{file}: is no bid request: it needs an id and an imp")
    return {"test": 1, **base}
