"""What a front needs of an engine; `dsp.bidder.engine.Engine` is one, an echo for measuring fronts is another."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from dsp.base.logs import logger
from dsp.bidder.answer import Answer, Numbers

log = logger(__name__)


class Decider(Protocol):
    """One thread's engine. See `dsp.bidder.engine.Engine` for the meaning of each method."""

    def decide(
        self,
        bodies: Sequence[bytes],
        formats: Numbers,
        exchanges: Numbers,
        arrived_ns: Numbers | None = None,
        nbr_bodies: bool = False,
    ) -> list[Answer]:
        """Answers in the order of the requests."""

    def exchange_of(self, name: str) -> int:
        """Index of an exchange by its URL name, -1 unknown."""

    def exchange_of_token(self, token: bytes | str) -> int:
        """Index of an exchange by its authorization metadata, -1 unknown."""

    def exchange_token(self, index: int) -> str:
        """The bearer token an exchange must send, "" for none."""

    def exchange_callers(self, index: int) -> tuple[str, Sequence[str]]:
        """The header that names an exchange's certificate ("name: value", "" for none) and its networks."""

    def poll(self) -> None:
        """Swap in a new snapshot or model, between batches."""

    def warm(self) -> None:
        """Compile and touch everything, before the first request."""

    def rehearsing(self) -> AbstractContextManager[Sequence[str]]:
        """Meanwhile requests do all the work and leave no trace; gives the names of the exchanges there are."""
        ...

    def close(self) -> None:
        """Release what it holds."""


def poll(engine: Decider) -> None:
    """`Decider.poll`; what can't be loaded is reported, and the engine goes on with what it has."""
    try:
        engine.poll()
    except Exception:
        log.exception("could not load a new snapshot or model; going on with the old one")
