"""The catalog in SQL: apply a file, read everything back for the compiler, change a status.

A file is applied in one transaction or not at all. It says everything about the things it names (a creative that a
named line item no longer has is archived) and nothing about others, unless ``prune`` makes it the whole catalog. Ids
are given once and stay: they are what tokens and books carry. Each change raises ``revision``, by which others see it.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Engine, Table, create_engine, event, inspect, select, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.schema import CreateColumn

from dsp.catalog import records, tables, types
from dsp.catalog.apply import Writer
from dsp.catalog.check import Known, check
from dsp.catalog.profile import Profile
from dsp.catalog.settle import settled
from dsp.catalog.source import CatalogError, read_source

STATUSES = ("active", "paused", "archived")


def open_catalog(path_or_url: str | Path) -> Engine:
    """An engine on the catalog database (a SQLite file, or any SQLAlchemy URL), its tables made when missing."""
    text = str(path_or_url)
    if "://" not in text:
        Path(text).parent.mkdir(parents=True, exist_ok=True)
        text = f"sqlite:///{text}"
    engine = create_engine(text)
    if make_url(text).get_backend_name() == "sqlite":
        event.listen(engine, "connect", _sqlite_settings)
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    with engine.connect() as connection:
        fresh = not inspect(connection).has_table(tables.creative.name)
    if fresh:
        _create(engine)
    else:
        _add_columns(engine)
    return engine


def _add_columns(engine: Engine) -> None:
    """Give tables of an earlier release the columns that came since; each has a default (`tables.later`)."""
    tables.metadata.create_all(engine)
    with engine.connect() as connection:
        have = {table: {c["name"] for c in inspect(connection).get_columns(table)} for table in tables.metadata.tables}
    for name, table in tables.metadata.tables.items():
        for column in table.columns:
            if column.name not in have[name]:
                ddl = CreateColumn(column).compile(dialect=engine.dialect)
                with contextlib.suppress(OperationalError, ProgrammingError), engine.begin() as connection:
                    connection.exec_driver_sql(f"ALTER TABLE {name} ADD COLUMN {ddl}")  # else another process did it


def _sqlite_settings(connection: Any, _record: Any) -> None:
    """Settings of one connection; transactions are begun by us, so that reads are in them too."""
    connection.isolation_level = None
    for setting in ("busy_timeout=5000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {setting}")


def _create(engine: Engine) -> None:
    """Make tables and first rows; another process may be doing the same, and then its work stands."""
    with contextlib.suppress(OperationalError, ProgrammingError):
        tables.metadata.create_all(engine)
    tables.metadata.create_all(engine)
    with contextlib.suppress(IntegrityError), engine.begin() as connection:
        connection.execute(tables.revision.insert().values(id=1, revision=0))
        connection.execute(tables.currency.insert().values(code="USD", usd=1.0, date=""))


def current_revision(engine: Engine) -> int:
    """The number of changes so far."""
    with engine.connect() as connection:
        return _revision(connection)


def _revision(connection: Connection) -> int:
    return int(connection.execute(select(tables.revision.c.revision)).scalar_one())


def _bump(connection: Connection) -> int:
    connection.execute(update(tables.revision).values(revision=tables.revision.c.revision + 1))
    return _revision(connection)


def apply_file(engine: Engine, path: str | Path, *, prune: bool = False) -> int:
    """Save the catalog file at ``path``; the new revision. Raises `CatalogError` and then has changed nothing.

    ``prune``: line items that the file does not name are archived.
    """
    source = read_source(Path(path), types.CatalogFile)
    file, problems = settled(source.value, Path(path).parent)
    if problems:
        source.fail(problems)
    with engine.begin() as connection:
        revision = _bump(connection)  # first, to hold the write lock while checking
        problems = check(file, known(connection))
        if problems:
            source.fail(problems)
        writer = Writer(connection)
        writer.write(file)
        if prune:
            writer.archive_unnamed()
        return revision


def known(connection: Connection) -> Known:
    """What a file may refer to without defining it."""
    exchanges = {int(row.id): str(row.name) for row in connection.execute(select(tables.exchange))}
    return Known(
        currencies={row.code for row in connection.execute(select(tables.currency))} | {"USD"},
        exchanges={name: number for number, name in exchanges.items()},
        segments={row.name: (row.number, row.demographic) for row in connection.execute(select(tables.segment))},
        offers={row.name: _offer_spec(row) for row in connection.execute(select(tables.offer))},
        deals={row.id: exchanges[row.exchange_id] for row in connection.execute(select(tables.deal))},
        advertisers={row.name: row.currency for row in connection.execute(select(tables.advertiser))},
    )


def _offer_spec(row: Any) -> types.Offer:
    payouts = types.Payouts(row.payout_click, row.payout_apply, row.payout_approve, row.payout_fund)
    facts = _JSON["facts"].decode(row.facts)
    return types.Offer(row.name, row.product, row.lender, row.currency, row.margin, row.lgd, row.ead, payouts, facts)


def set_status(engine: Engine, line_item_id: int, status: str) -> int:
    """Set a line item active, paused or archived; the new revision. Raises `CatalogError` (unknown id or status)."""
    if status not in STATUSES:
        raise CatalogError(f"unknown status {status!r}; write one of {', '.join(STATUSES)}")
    with engine.begin() as connection:
        table = tables.line_item
        done = connection.execute(update(table).where(table.c.id == line_item_id).values(status=status))
        if done.rowcount == 0:
            raise CatalogError(f"no line item has the id {line_item_id}")
        return _bump(connection)


def _rows(
    connection: Connection, table: Table, record: type[Any], key: str = "id", where: ColumnElement[bool] | None = None
) -> list[Any]:
    """Rows of ``table`` (all without ``where``) as ``record``, JSON columns parsed, in the order of their keys."""
    columns = [table.c[name] for name in record.__struct_fields__]
    hints = {name: hint for name, hint in _JSON.items() if name in record.__struct_fields__}
    query = select(*columns).order_by(table.c[key])
    result = connection.execute(query if where is None else query.where(where))
    if not hints:
        return [record(*row) for row in result]
    decoders = [hints.get(name) for name in record.__struct_fields__]
    return [record(*(d.decode(v) if d else v for d, v in zip(decoders, row, strict=True))) for row in result]


_TUPLE = msgspec.json.Decoder(tuple[str, ...])
_JSON: dict[str, msgspec.json.Decoder[Any]] = {
    "domains": _TUPLE,
    "categories": _TUPLE,
    "deals": _TUPLE,
    "suppress": _TUPLE,
    "targeting": msgspec.json.Decoder(types.Targeting),
    "frequency": msgspec.json.Decoder(tuple[types.Cap, ...]),
    "product_frequency": msgspec.json.Decoder(dict[str, tuple[types.Cap, ...]]),
    "seats": msgspec.json.Decoder(dict[str, str]),
    "ips": _TUPLE,
    "profile": msgspec.json.Decoder(Profile),
    "facts": msgspec.json.Decoder(dict[str, str]),
    "experiments": msgspec.json.Decoder(tuple[types.Experiment, ...]),
    "spec": msgspec.json.Decoder(types.Creative),
}


def load_catalog(engine: Engine) -> records.Catalog:
    """Everything, from one transaction, but for archived creatives; an archived line item comes with its status."""
    with engine.begin() as connection:
        return read_catalog(connection)


def read_catalog(connection: Connection, line_item: int | None = None) -> records.Catalog:
    """`load_catalog` within a transaction; of line items and creatives only ``line_item`` and its own, if given."""
    c, li = tables.creative.c, tables.line_item.c
    alone = None if line_item is None else li.id == line_item
    its = None if line_item is None else c.line_item_id == line_item
    creatives = _rows(connection, tables.creative, records.Creative, where=its)
    archived = select(c.id).where(c.status == "archived")
    archived = archived if its is None else archived.where(its)
    gone = set(connection.scalars(archived))
    return records.Catalog(
        revision=_revision(connection),
        currencies=_rows(connection, tables.currency, records.Currency, "code"),
        exchanges=_rows(connection, tables.exchange, records.Exchange),
        segments=_rows(connection, tables.segment, records.Segment, "number"),
        deals=_rows(connection, tables.deal, records.Deal),
        offers=_rows(connection, tables.offer, records.Offer),
        advertisers=_rows(connection, tables.advertiser, records.Advertiser),
        campaigns=_rows(connection, tables.campaign, records.Campaign),
        line_items=_rows(connection, tables.line_item, records.LineItem, where=alone),
        creatives=[c for c in creatives if c.id not in gone],
    )


BudgetRow = tuple[int, int, int, str, int, int, int, int, str, int, int]


def budgets(engine: Engine) -> list[BudgetRow]:
    """Per line item: (line_item_id, campaign_id, advertiser_id, currency, li_total, li_daily, camp_total, camp_daily,
    time zone, start_s, end_s), budgets in micros, `layout.NO_LIMIT_MICROS` where a level sets none.
    """
    li, c, a = tables.line_item.c, tables.campaign.c, tables.advertiser.c
    query = (
        select(
            li.id, c.id, a.id, a.currency, li.total_micros, li.daily_micros, c.total_micros, c.daily_micros,
            li.timezone, li.start_s, li.end_s,
        )
        .select_from(tables.line_item.join(tables.campaign).join(tables.advertiser))
        .order_by(li.id)
    )  # fmt: skip
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(query)]
