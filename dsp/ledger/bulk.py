"""Many notices in one body. Pure.

``POST /notices``: one notice a line, written as the path and query it would have alone (``/b/TOKEN?p=1.25``), or, with
content type ``application/json``, an array of such texts. Each line is accepted or refused for itself; the answer names
the refused. Repeating a body is harmless.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from dsp.base.token import Signer
from dsp.ledger.notices import RefusedError, is_progress, parse_query, read_notice
from dsp.ledger.prices import Prices
from dsp.ledger.ticket import Notice

BODY_MAX_BYTES = 8 << 20
LINES_MAX = 10_000
REFUSALS_TOLD = 100
_array = msgspec.json.Decoder(list[str]).decode


class Refusal(NamedTuple):
    """A line that is not booked."""

    line: int  # from 1
    status: int
    reason: str


class Answer(msgspec.Struct):
    """What became of a body. Duplicates were booked before; tests have no effect; spooled ones are kept on disk."""

    booked: int = 0
    duplicates: int = 0
    spooled: int = 0
    tests: int = 0
    refused: int = 0
    refusals: list[Refusal] = []  # the first ones


def split_body(body: bytes, content_type: str) -> list[str]:
    """The lines of a body. Raises `RefusedError`."""
    try:
        if content_type.partition(";")[0].strip() == "application/json":
            lines = _array(body)
        else:
            lines = [line for line in body.decode("ascii").splitlines() if line.strip()]
    except (UnicodeDecodeError, msgspec.MsgspecError) as error:
        raise RefusedError(400, "body", f"lines of /b/TOKEN?p=1.25, or a JSON array of them: {error}") from None
    if len(lines) > LINES_MAX:
        raise RefusedError(413, "lines", f"{len(lines)} notices in one body, at most {LINES_MAX}")
    return lines


def read_line(
    signer: Signer, line: str, time_ms: int, rates: Mapping[str, float], prices: Prices | None = None
) -> Notice:
    """The notice in a line. Raises `RefusedError`."""
    path, _, query = line.strip().partition("?")
    route, _, token = path.lstrip("/").partition("/")
    parameters = parse_query(query)
    notice = read_notice(signer, route, token, parameters, time_ms, rates, prices)
    if is_progress(notice, parameters):
        raise RefusedError(400, "progress", "how a video goes on is told one by one, and not booked")
    return notice
