"""One operation of the REST API: who may, typed query and body in, typed answer out.

The routes and the OpenAPI document are both made from a table of these (`dsp.console.api.OPERATIONS`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from dsp.console.access import Identity
from dsp.console.catalog import etag_of
from dsp.console.models import NoQuery

if TYPE_CHECKING:
    from dsp.console.services import Services

JSON = "application/json"
ANYONE = "anyone"  # in place of an action: whoever is signed in


@dataclass(frozen=True)
class Call:
    """One request, parsed."""

    services: Services
    by: Identity
    ref: int  # the number in the path
    query: Any
    body: Any
    etag: str = ""
    key: str = ""  # the text in the path


@dataclass(frozen=True)
class Reply:
    """What to answer."""

    value: Any
    status: int = 200
    etag: str = ""
    content: bytes | None = None  # instead of JSON
    filename: str = ""
    path: Path | None = None  # of a file to send instead
    live: bool = False  # holds figures that the ETag does not cover


@dataclass(frozen=True)
class Operation:
    """One method of one path. ``{id}`` in the path is a number, ``{key}`` text."""

    method: str
    path: str
    summary: str
    run: Callable[[Call], Reply]
    answer: Any
    query: Any = NoQuery
    body: Any = None
    status: int = 200
    match: bool = False  # needs if-match
    tagged: bool = False  # takes if-match, needs none
    errors: tuple[int, ...] = field(default=())
    media: str = JSON  # of the answer
    needs: str = ""  # an action (`dsp.console.access`); empty: read for GET, write for the others


def shown(value: dict[str, Any], status: int = 200) -> Reply:
    """One thing with its ETag."""
    return Reply(value, status, etag_of(value))


def given(body: Any) -> dict[str, Any]:
    """The fields that a body has."""
    return {k: v for k, v in msgspec.structs.asdict(body).items() if v is not msgspec.UNSET}
