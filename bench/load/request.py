"""One request that the generator may send: a body, where it goes and what it says of itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

METHOD = "/dsp.v1.Bidder/Bid"


@dataclass(frozen=True)
class Request:
    """``path``: HTTP's, or gRPC's method. ``headers`` (lower-case names) come on top of what the front always sends."""

    body: bytes
    path: str
    headers: tuple[tuple[str, str], ...] = ()


def to_one_path(bodies: Iterable[bytes], path: str) -> list[Request]:
    """All bodies to the same path, without further headers."""
    return [Request(body, path) for body in bodies]
