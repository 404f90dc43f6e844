"""The audit log: who changed what, when, from what to what. Rows are only added, each hash covers all before it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from sqlalchemy import Connection, Engine, select

from dsp.console import tables

_FIELDS = ("time_s", "who", "via", "action", "kind", "ref", "advertiser_id", "before", "after")


def record(
    connection: Connection, time_s: float, who: str, via: str, action: str, kind: str, ref: int,
    advertiser_id: int = 0, before: Any = None, after: Any = None,
) -> None:  # fmt: skip
    """Add a row, inside `transaction.changing`. ``before`` and ``after`` are what the API shows, without secrets."""
    values = (
        *(int(time_s), who[:200], via, action, kind, ref, advertiser_id),
        *(json.dumps(v, ensure_ascii=False, sort_keys=True) if v is not None else "" for v in (before, after)),
    )
    last = select(tables.audit.c.hash).order_by(tables.audit.c.id.desc()).limit(1)
    previous = connection.execute(last).scalar() or ""
    row = dict(zip(_FIELDS, values, strict=True))
    connection.execute(tables.audit.insert().values(**row, hash=_hash(previous, values)))


def verify(engine: Engine) -> int:
    """The number of rows, all in their chain. Raises ValueError with the first row that is not."""
    previous, n = "", 0
    with engine.connect() as connection:
        for row in connection.execute(select(tables.audit).order_by(tables.audit.c.id)):
            if row.hash != _hash(previous, tuple(getattr(row, name) for name in _FIELDS)):
                raise ValueError(f"audit row {row.id} does not follow from the one before: the log was tampered with")
            previous, n = row.hash, n + 1
    return n


def _hash(previous: str, values: tuple[Any, ...]) -> str:
    return hashlib.sha256(json.dumps([previous, *values], ensure_ascii=False).encode()).hexdigest()
