"""Saved reports: a question with a name and a link. Whoever opens one sees it with their own rights.

One that is of an advertiser is found by who may report on that advertiser; one of all, by who may report on all.
"""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Engine, select

from dsp.console import tables
from dsp.console.access import ADMIN, ALL, REPORT, Identity
from dsp.console.errors import ApiError, not_found
from dsp.console.models import NewSavedReport, ReportSpec, SavedReport
from dsp.console.reports import span
from dsp.console.transaction import changing, reading

_SPEC = msgspec.json.Decoder(ReportSpec).decode
_T = tables.saved_report.c


def save(engine: Engine, by: Identity, asked: NewSavedReport) -> SavedReport:
    """Keep one. Raises 403, 422 (its days)."""
    spec = asked.report
    mine = by.advertisers(REPORT)
    if not spec.advertiser_id and mine is not None and len(mine) == 1:
        spec = msgspec.structs.replace(spec, advertiser_id=next(iter(mine)))
    by.require(REPORT, spec.advertiser_id or ALL)
    span(spec)
    report = msgspec.json.encode(spec).decode()
    values = {"name": asked.name, "advertiser_id": spec.advertiser_id, "report": report}
    with changing(engine) as connection:
        insert = tables.saved_report.insert().values(**values, user_id=by.user_id, who=by.email)
        ref = int(connection.execute(insert).inserted_primary_key[0])  # type: ignore[index]
    return get(engine, by, ref)


def get(engine: Engine, by: Identity, ref: int) -> SavedReport:
    """One of them. Raises 404."""
    return _shown(_row(engine, by, ref))


def listed(engine: Engine, by: Identity) -> list[SavedReport]:
    """All that ``by`` may open."""
    mine = by.advertisers(REPORT)
    wanted = select(tables.saved_report).order_by(_T.name, _T.id)
    if mine is not None:
        wanted = wanted.where(_T.advertiser_id.in_(mine))
    with engine.connect() as connection:
        return [_shown(row) for row in connection.execute(wanted)]


def remove(engine: Engine, by: Identity, ref: int) -> None:
    """Forget one, one's own or as its admin. Raises 403, 404."""
    row = _row(engine, by, ref)
    if row.user_id != by.user_id and not by.may(ADMIN, row.advertiser_id):
        raise ApiError(403, "forbidden", "it is another person's; ask them or an admin to remove it")
    with changing(engine) as connection:
        connection.execute(tables.saved_report.delete().where(_T.id == ref))


def _row(engine: Engine, by: Identity, ref: int) -> Any:
    with reading(engine) as connection:
        row = connection.execute(select(tables.saved_report).where(_T.id == ref)).first()
    if row is None or not by.may(REPORT, row.advertiser_id):
        raise not_found("report")
    return row


def _shown(row: Any) -> SavedReport:
    return SavedReport(row.id, row.name, row.who, _SPEC(row.report))
