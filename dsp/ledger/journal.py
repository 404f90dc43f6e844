"""Every write of the books as a few statements per transaction, however many notices it holds.

Rows travel as one JSON parameter (``json_each``): the statement count per commit is constant, and SQLite works without
the GIL meanwhile. Amounts in upserts are differences, so a row is never written from a stale copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, Table

from dsp.ledger.schema import BALANCES, ENTRIES, EVENTS, GRANTS, LEASES, LEDGER, LINES, TALLIES

Row = Sequence[Any]


class FencedError(RuntimeError):
    """Another ledger has raised the epoch: this one must not write."""


class Journal:
    """One connection, at most one open transaction, begun by the first write and ended by `commit` or `rollback`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None
        self.epoch = 0
        self._insert_events = _insert(EVENTS, "bid_id, kind")
        self._insert_entries = _insert(ENTRIES, "bid_id, kind", skip="id")
        self._leases = _upsert(LEASES, ["closed", "closed_ms", "state", "epoch"])
        self._grants = _upsert(GRANTS, ["granted", "returned", "posted"])
        self._lines = _upsert(LINES, ["campaign", "advertiser", "currency", "name"])
        self._balances = _upsert(BALANCES, add=["debit_micros", "credit_micros"])
        self._tallies = _upsert(TALLIES, add=["n", "charge_micros", "posted_micros", "value"])

    def raise_epoch(self) -> int:
        """Become the writer: older ledgers are fenced from now on."""
        with self._engine.begin() as connection:
            connection.exec_driver_sql("INSERT INTO ledger (id, epoch) VALUES (1, 0) ON CONFLICT (id) DO NOTHING")
            connection.exec_driver_sql("UPDATE ledger SET epoch = epoch + 1 WHERE id = 1")
            self.epoch = int(connection.execute(LEDGER.select()).one().epoch)
        return self.epoch

    def read(self, table: Table) -> list[Any]:
        """All rows of a small table."""
        with self._engine.connect() as connection:
            return list(connection.execute(table.select()))

    @property
    def engine(self) -> Engine:
        """For reading beyond `read`."""
        return self._engine

    def begin(self) -> Connection:
        """The open transaction. Raises `FencedError`, or SQLAlchemyError when the database is away."""
        if self._connection is None:
            connection = self._engine.connect()
            try:
                connection.begin()
                (epoch,) = connection.exec_driver_sql("SELECT epoch FROM ledger WHERE id = 1").one()
                if epoch != self.epoch:
                    raise FencedError(f"epoch is {epoch}, this ledger's {self.epoch}: another one has taken over")
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def commit(self) -> None:
        """Make everything since `begin` durable; nothing to do without writes."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with connection:
                connection.commit()

    def rollback(self) -> None:
        """Forget everything since `begin`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def add_events(self, rows: Iterable[Row]) -> set[tuple[int, int]]:
        """Insert events; the (bid_id, kind) of those that were not there."""
        return self._returning(self._insert_events, rows)

    def add_entries(self, rows: Iterable[Row]) -> set[tuple[int, int]]:
        """Insert entries (without id); the (bid_id, kind) of those that were not there."""
        return self._returning(self._insert_entries, rows)

    def put_lines(self, rows: Sequence[Row]) -> None:
        """Insert or replace line items."""
        self._write(self._lines, rows)

    def put_leases(self, rows: Sequence[Row]) -> None:
        """Insert or replace leases."""
        self._write(self._leases, rows)

    def put_grants(self, rows: Sequence[Row]) -> None:
        """Insert or replace grants."""
        self._write(self._grants, rows)

    def drop_grants(self, rows: Sequence[Row]) -> None:
        """Delete reclaimed grants (lease, line item, period)."""
        self._write(
            "DELETE FROM grants WHERE (lease, line_item, period) IN "
            "(SELECT value->>0, value->>1, value->>2 FROM json_each(?))",
            rows,
        )

    def add_balances(self, rows: Sequence[Row]) -> None:
        """Add debits and credits."""
        self._write(self._balances, rows)

    def add_tallies(self, rows: Sequence[Row]) -> None:
        """Add to the tallies."""
        self._write(self._tallies, rows)

    def _write(self, statement: str, rows: Sequence[Row]) -> None:
        if rows:
            self.begin().exec_driver_sql(statement, (_json(rows),))

    def _returning(self, statement: str, rows: Iterable[Row]) -> set[tuple[int, int]]:
        found = self.begin().exec_driver_sql(statement, (_json(rows),)).fetchall()
        return {(bid_id, kind) for bid_id, kind in found}


def _json(rows: Iterable[Row]) -> str:
    return msgspec.json.encode(rows).decode()


def _insert(table: Table, returning: str, skip: str = "") -> str:
    names = [column.name for column in table.columns if column.name != skip]
    values = ", ".join(f"value->>{i}" for i in range(len(names)))
    return (
        f"INSERT INTO {table.name} ({', '.join(names)}) SELECT {values} FROM json_each(?) WHERE true "
        f"ON CONFLICT DO NOTHING RETURNING {returning}"
    )


def _upsert(table: Table, put: Sequence[str] = (), add: Sequence[str] = ()) -> str:
    names = [column.name for column in table.columns]
    keys = [column.name for column in table.primary_key]
    values = ", ".join(f"value->>{i}" for i in range(len(names)))
    changes = [f"{name} = excluded.{name}" for name in put]
    changes += [f"{name} = {table.name}.{name} + excluded.{name}" for name in add]
    return (
        f"INSERT INTO {table.name} ({', '.join(names)}) SELECT {values} FROM json_each(?) WHERE true "
        f"ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {', '.join(changes)}"
    )
