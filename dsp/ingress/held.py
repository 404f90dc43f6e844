"""Refusals that wait their turn: what keeps the cost of an overload from growing with the overload.

Whoever is refused asks for the next thing at once, and a refusal costs a third of an answer; answered at once, refusals
alone would fill the core. So after each batch at most a sixteenth as many are sent as were decided. A request that
isn't refused yet holds its caller's stream or connection, so that most of the excess waits at the caller, where it
costs nothing, or is given up there. Where batches are small nothing waits: then they go as fast as decisions do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")

PART = 16  # one refusal per so many decisions


class Held(Generic[T]):
    """A bounded queue of refusals, oldest first; ``refuse`` sends one and says whether anybody was still there."""

    def __init__(self, refuse: Callable[[T], bool], most: int) -> None:
        self._refuse, self._most = refuse, most
        self._waiting: deque[T] = deque()
        self._decided = 0  # since the last refusal

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, each: Iterable[T]) -> None:
        """Refuse these later; at once what exceeds the bound, oldest first."""
        self._waiting.extend(each)
        while len(self._waiting) > self._most:
            self._refuse(self._waiting.popleft())

    def decided(self, n: int) -> None:
        """A batch of ``n`` is done: send its share, or ``n`` where that is small. Who has gone is not counted."""
        left, self._decided = divmod(self._decided + n, PART) if n >= PART else (n, 0)
        while self._waiting and left:
            left -= self._refuse(self._waiting.popleft())

    def let_go(self) -> None:
        """Send all."""
        while self._waiting:
            self._refuse(self._waiting.popleft())
