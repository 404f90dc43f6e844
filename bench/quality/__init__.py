"""`python -m bench quality [NAME …]`: what pricing, pacing and models are worth, measured on public data.

Without a name all of them run, one after the other. Each prints JSON lines and writes them with a page of tables and
plots under ``bench/out/quality``. Data sets lie in ``../shared`` or where ``--data`` says; one that isn't there is
skipped and said so.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.machine import facts
from bench.quality.page import Page

NAMES = ("ipinyou", "firstprice", "heads", "drift", "finance", "market", "kernels")
ROOT = Path(__file__).parents[2]
OUT = ROOT / "bench" / "out" / "quality"

Run = Callable[[Path, Callable[[dict[str, Any]], None], Page], bool]
"""(data directory, where JSON rows go, where tables and plots go) -> every bar held. Raises FileNotFoundError."""


def data_dir() -> Path:
    """Where the public data sets lie: the first ``shared`` beside this tree or its parents."""
    return next((up / "shared" for up in ROOT.parents if (up / "shared").is_dir()), ROOT.parent / "shared")


def run(name: str, data: Path) -> bool:
    """One of NAMES; writes its files and tells whether every bar held."""
    OUT.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    page = Page(name)
    with OUT.joinpath(f"{name}.jsonl").open("w") as file:

        def row(row: dict[str, Any]) -> None:
            line = json.dumps({"bench": name, **row})
            print(line, file=file)
            print(line, flush=True)

        row({"machine": facts()})
        try:
            held = importlib.import_module(f"bench.quality.{name}").measure(data, row, page)
        except FileNotFoundError as missing:
            print(f"{name}: skipped, {missing.filename} is not there", file=sys.stderr)
            return True
        row({"seconds": round(time.perf_counter() - began, 1), "held": held})
    path = OUT / f"{name}.html"
    path.write_text(page.render())
    print(f"{name}: {path}", file=sys.stderr)
    return bool(held)


def main(argv: list[str] | None = None) -> int:
    """Run what is named, or all; 1 where a bar was missed."""
    parser = argparse.ArgumentParser(prog="bench quality", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--data", type=Path, default=data_dir())
    args = parser.parse_args(argv)
    wrong = [name for name in args.names if name not in NAMES]
    if wrong:
        parser.error(f"no quality bench named {wrong[0]!r}; there are: {', '.join(NAMES)}")
    held = [run(name, args.data) for name in args.names or NAMES]
    return 0 if all(held) else 1
