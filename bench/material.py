"""The OpenRTB material beside the repository (`../shared/openrtb`): real requests and the checker of answers."""

from __future__ import annotations

import gzip
import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "openrtb"
REQUESTS = SHARED / "requests.jsonl.gz"
Json = dict[str, Any]
Check = Callable[..., list[tuple[str, str, str]]]


@dataclass(frozen=True)
class Case:
    """One request of the corpus; ``request`` is None where its text is not a JSON object."""

    name: str
    kind: str  # ok, soft, invalid
    text: str
    request: Json | None


def load_cases(path: Path = REQUESTS) -> list[Case]:
    """The whole corpus. Raises FileNotFoundError."""
    cases = []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            try:
                request = json.loads(row["body"])
            except ValueError:
                request = None
            cases.append(Case(row["name"], row["class"], row["body"], request if isinstance(request, dict) else None))
    return cases


def load_check(path: Path = SHARED / "check_response.py") -> Check:
    """The checker, loaded from where it lies."""
    spec = importlib.util.spec_from_file_location("check_response", path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Check = module.check
    return found
