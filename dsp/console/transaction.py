"""Transactions of the console's database: one at a time for changes, and whatever runs inside one is part of it.

A change, its row of the audit log and the answer kept for its idempotency key are one commit, because `changing` inside
`changing` is the same transaction.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TypeVar

from sqlalchemy import Connection, Engine, update

from dsp.console import tables

T = TypeVar("T")

_HELD: ContextVar[tuple[Engine, Connection] | None] = ContextVar("transaction", default=None)


@contextlib.contextmanager
def changing(engine: Engine) -> Iterator[Connection]:
    """A transaction that holds the console's lock from its start: what is read in it is still so at its end."""
    held = _HELD.get()
    if held is not None and held[0] is engine:
        yield held[1]
        return
    with engine.begin() as connection:
        connection.execute(update(tables.lock).values(n=tables.lock.c.n + 1))
        token = _HELD.set((engine, connection))
        try:
            yield connection
        finally:
            _HELD.reset(token)


@contextlib.contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A connection to read with: that of the change under way, where there is one, so that it sees what it wrote."""
    held = _HELD.get()
    if held is not None and held[0] is engine:
        yield held[1]
        return
    with engine.connect() as connection:
        yield connection


class _UndoneError(Exception):
    """Ends a trial."""


def undone(engine: Engine, run: Callable[[Connection], T]) -> T:
    """What ``run`` finds in a transaction whose changes are all taken back: what would become of a change, exactly."""
    assert _HELD.get() is None, "a trial inside a change would take that back, too"
    found: list[T] = []
    with contextlib.suppress(_UndoneError), changing(engine) as connection:
        found.append(run(connection))
        raise _UndoneError
    return found[0]
