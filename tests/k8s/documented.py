"""What there is to document, found in the program itself: nothing can be added without being seen here."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import typer

import dsp
from dsp.base import console_metrics
from dsp.base.config import Config
from dsp.base.metrics import DEFINITIONS
from dsp.cli.main import app

DSP = Path(dsp.__file__).parent
HISTOGRAM = ("_bucket", "_sum", "_count")
ROUTE = re.compile(r"^/[A-Za-z][A-Za-z0-9_./{}:-]*$")
SERVERS = ("ingress", "ledger")  # the console has tables of its routes, from which the page is made


def ledger_metrics() -> set[str]:
    """Names in the calls of the ledger's status module."""
    tree = ast.parse((DSP / "ledger" / "status.py").read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    names = {f"dsp_ledger_{ast.literal_eval(node.args[0])}" for node in calls if node.func.id == "metric"}  # type: ignore[attr-defined]
    assert len(names) > 15
    return names


def metric_names() -> set[str]:
    """Every series name that /metrics can have."""
    known = ledger_metrics()
    for name, kind, _, _ in console_metrics.described():
        known |= {name + suffix for suffix in HISTOGRAM} if kind.startswith("histogram") else {name}
    for d in DEFINITIONS:
        known |= {d.name + suffix for suffix in HISTOGRAM} if d.kind in ("seconds", "sizes") else {d.name}
    return known


def settings(struct: type[msgspec.Struct] = Config, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(dotted name, class.field) of every setting."""
    for field in msgspec.structs.fields(struct):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from settings(field.type, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", f"{struct.__name__}.{field.name}"


def commands() -> Iterator[tuple[str, str]]:
    """(``dsp …``, first line of its help) of every command."""

    def walk(command: object, name: str) -> Iterator[tuple[str, str]]:
        children = getattr(command, "commands", {})
        if not children:
            yield name, str(getattr(command, "help", "") or "").strip().split("\n")[0]
        for child, what in sorted(children.items()):
            yield from walk(what, f"{name} {child}")

    return walk(typer.main.get_command(app), "dsp")


def routes() -> set[str]:
    """Every string of the servers' sources that is compared with, or registered as, a path."""
    found: set[str] = set()
    for package in SERVERS:
        for file in sorted((DSP / package).glob("*.py")) if (DSP / package).is_dir() else []:
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Compare | ast.Call):
                    for part in ast.walk(node):
                        if isinstance(part, ast.Constant) and isinstance(part.value, str) and ROUTE.match(part.value):
                            found.add(part.value)
    return found
