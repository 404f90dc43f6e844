"""Writes ``k8s/REFERENCE.md``: every setting, command, route, metric and alert, from where each is defined.

`make reference` runs it. Tests fail when something has no words of its own, or when the page is not up to date.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import typer
import yaml

import dsp
from dsp.base import console_metrics
from dsp.base.config import Config
from dsp.base.metrics import DEFINITIONS, Capacity
from dsp.cli.main import app
from dsp.console import pages
from dsp.console.api import OPERATIONS, PREFIX
from dsp.console.services import Services

HERE = Path(__file__).parent
PAGE = HERE / "REFERENCE.md"
SOURCE = Path(dsp.__file__).parent
KINDS = {"gauge_sum": "gauge", "gauge_max": "gauge", "seconds": "histogram, seconds", "sizes": "histogram"}

ROUTES = (
    ("bidder, 8080", "POST /bid/{exchange}", "A BidRequest, JSON or protobuf; 200 with a bid, 204 without"),
    ("bidder, 8080", "GET /healthz, /readyz", "Whether this worker answers; whether it takes new traffic"),
    ("bidder, 8081", "gRPC dsp.v1.Bidder/Bid", "The same in protobuf; the exchange is who its token says"),
    ("bidder, 8081", "gRPC grpc.health.v1.Health, reflection", "As gRPC defines them"),
    ("bidder, 8082", "GET /metrics, /healthz, /readyz", "All workers added up; the role alive; every worker serves"),
    ("bidder, 8082", "GET /health/live, /health/ready", "The last two by the names that ARTF gives them"),
    (
        "ledger, 8090",
        "GET or POST /n/ /b/ /l/ /c/ /i/ /p/ and a token",
        "Win, billing, loss, click, our pixel, conversion",
    ),
    ("ledger, 8090", "POST /notices", "Up to 10,000 notices, one a line"),
    ("ledger, 8090", "GET /match/{exchange}", "Identity sync in a browser: their id and ours, where consent allows it"),
    ("ledger, 8090", "GET, POST /m/{partner}", "A measurement partner's postback, by its template in ledger.partners"),
    ("ledger, 8090", "GET /totals", "Everything booked, by account"),
    ("ledger, 8090", "GET /metrics, /healthz, /readyz", "Metrics; alive; the books are open"),
    ("ledger, 8090", "POST /sync", "A worker's sync, signed; not for the outside"),
    ("ledger, 8090", "POST /control", "`dsp ledger` orders, signed; not for the outside"),
    ("rta, 8083", "POST /rta/{exchange}", "A media platform asks whether to take a person; protobuf in and out"),
    ("rta, 8083", "GET /healthz, /readyz", "This worker answers; it takes new traffic"),
    (
        "artf, 8084",
        "gRPC com.iabtechlab.bidstream.mutation.services.v1.RTBExtensionPoint/GetMutations",
        "A host of the Agentic RTB Framework asks for changes to a bid request or response",
    ),
    ("artf, 8084", "gRPC grpc.health.v1.Health, reflection", "As gRPC defines them"),
    ("console, 8070", "GET /healthz", "It answers"),
    ("console, 8071", "GET /metrics", "Its metrics; not for the outside"),
    ("console, 8070", "GET /api/v1/openapi.json", "The API's description, for machines"),
    ("ledger, 8091", "gRPC dsp.v1.Ledger/Sync", "A worker's sync, signed; not for the outside"),
)


def settings() -> Iterator[tuple[str, str, str]]:
    """(name, default, what it is) in the order of the configuration's source, whose comments say what each is."""
    words = _comments((SOURCE / "base" / "config.py").read_text())

    def walk(struct: type[msgspec.Struct], prefix: str) -> Iterator[tuple[str, str, str]]:
        for field in msgspec.structs.fields(struct):
            if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
                yield from walk(field.type, f"{prefix}{field.name}.")
                continue
            default = field.default if field.default is not msgspec.NODEFAULT else ""
            shown = list(default) if isinstance(default, tuple) else default
            text = msgspec.json.encode(shown).decode()
            yield f"{prefix}{field.name}", text, words.get((struct.__name__, field.name), "")

    yield from walk(Config, "")


def console_routes() -> Iterator[tuple[str, str, str]]:
    """(role, route, what) of the console's API and pages."""
    for operation in OPERATIONS:
        yield "console, 8070", f"{operation.method} {PREFIX}{operation.path}", operation.summary
    by_path: dict[str, list[str]] = {}
    for route in pages.routes(cast(Services, None)):  # it is used when a page is asked for, not before
        by_path.setdefault(route.path.replace(":int", ""), []).extend(sorted((route.methods or set()) - {"HEAD"}))
    for path, methods in by_path.items():
        yield "console, 8070", f"{', '.join(methods)} {path}", "a file of the pages" if "/static/" in path else "page"


def _comments(source: str) -> dict[tuple[str, str], str]:
    """The comment at the end of each field's line, by class and field."""
    found, lines = {}, source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ClassDef):
            continue
        for field in node.body:
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                _, _, text = lines[(field.end_lineno or 1) - 1].partition("  # ")
                found[node.name, field.target.id] = text.replace("``", "`")
    return found


def metrics() -> Iterator[tuple[str, str, str, str]]:
    """(name, kind, labels, help) of the bidder's metrics, then of the ledger's and the console's."""
    for d in DEFINITIONS:
        labels = ", ".join(
            name if isinstance(values, Capacity) or len(values) > 12 else f"{name}: {' '.join(values)}"
            for name, values in d.labels
        )
        yield d.name, KINDS.get(d.kind, d.kind), labels, d.help
    for node in ast.walk(ast.parse((SOURCE / "ledger" / "status.py").read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "metric":
            name, kind, text = (ast.literal_eval(argument) for argument in node.args[:3])
            labels = ", ".join(sorted(set(re.findall(r"(\w+)=\"", ast.unparse(node.args[3])))))
            yield f"dsp_ledger_{name}", kind, labels, text
    for name, kind, names, text in console_metrics.described():
        yield name, kind, ", ".join(names), text


def commands() -> Iterator[tuple[str, str]]:
    """(command, first sentence of its help)."""

    def walk(command: Any, name: str) -> Iterator[tuple[str, str]]:
        children: dict[str, Any] = getattr(command, "commands", {})
        if not children:
            yield name, str(command.help or "").strip().split("\n", maxsplit=1)[0]
        for child, what in children.items():
            yield from walk(what, f"{name} {child}")

    yield from walk(typer.main.get_command(app), "dsp")


def alerts() -> Iterator[tuple[str, str, str, str]]:
    """(name, severity, summary, runbook)."""
    rules = yaml.safe_load((HERE / "monitoring" / "alerts.yaml").read_text())["spec"]["groups"]
    for group in rules:
        for rule in group["rules"]:
            says = rule["annotations"]
            yield rule["alert"], rule["labels"]["severity"], says["summary"], says["runbook"]


def table(title: str, head: tuple[str, ...], rows: Iterator[tuple[str, ...]] | tuple[tuple[str, ...], ...]) -> str:
    """A section with a table; the first column is code."""
    lines = [f"## {title}", "", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for first, *rest in rows:
        cells = [f"`{first}`" if first else "", *(cell.replace("|", "\\|") for cell in rest)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """The whole page."""
    parts = [
        "# Reference\n\nWritten by `make reference` from the program itself.\n",
        table(
            "Settings", ("setting", "default", "what"), ((n, f"`{d}`" if d else "needed", w) for n, d, w in settings())
        ),
        table("Commands", ("command", "does"), commands()),
        table("Routes", ("role, port", "route", "what"), (*ROUTES, *console_routes())),
        table("Metrics", ("metric", "kind", "labels", "what"), metrics()),
        table("Alerts", ("alert", "severity", "fires when", "do first"), alerts()),
    ]
    return "\n".join(parts)


def main() -> None:
    """Write the page."""
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
