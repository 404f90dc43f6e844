"""Reports: measures by day and up to two dimensions, compared, plotted, as a table and as files; saved ones by link."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import msgspec
from sqlalchemy import select
from starlette.responses import FileResponse, Response

from dsp.catalog import tables
from dsp.console import saved
from dsp.console.access import REPORT
from dsp.console.errors import ApiError, invalid
from dsp.console.models import DIMENSIONS, NewReportJob, NewSavedReport, ReportQuery, ReportSpec
from dsp.console.pages import plot, show
from dsp.console.pages.page import Page, see, wrong_address
from dsp.ledger.schema import MEASURES

_PAGE = 200  # rows
_MANY = 500  # advertisers that are offered by name


def reports(page: Page) -> Response:
    """GET /reports."""
    query = _asked(page)
    report = page.services.reports.run(page.person, query)
    daily = {"by": "", "daily": True, "start": report.start, "end": report.end, "limit": 5000}
    shape = {"advertiser_id": query.advertiser_id, "compare": query.compare}
    by_day = page.services.reports.run(page.person, ReportQuery(**daily, **shape))  # type: ignore[arg-type]
    shown = {"start": report.start, "end": report.end, "next": report.next, "items": [*map(_builtin, report.items)]}
    parts = [*query.groups(), "", ""]
    values: dict[str, Any] = {
        "spec": _link(query), "as_json": msgspec.json.encode(_spec(query)).decode(),
        "measures": MEASURES, "columns": query.columns(), "plots": _plots(page, by_day.items),
        "dimensions": DIMENSIONS, "first": parts[0], "second": parts[1], "advertisers": _advertisers(page),
        "saved": saved.listed(page.services.catalog.engine, page.person),
        "next": _link(query, offset=report.next) if report.next else "",
        "previous": _link(query, offset=max(query.offset - _PAGE, 0)) if query.offset else "",
    }  # fmt: skip
    return page.show("reports.html", query=query, report=shown, **values)


def _asked(page: Page) -> ReportQuery:
    """The query, as a link or the form has it: measures one by one, the second dimension by itself."""
    given = page.request.query_params
    query = {k: v for k, v in given.items() if k not in ("lang", "done", "then")}
    measures = [m for text in given.getlist("measures") for m in text.split(",") if m]
    query["measures"] = "" if set(measures) == set(MEASURES) else ",".join(measures)
    by = [b for b in dict.fromkeys((*query.get("by", "campaign").split(","), given.get("then", ""))) if b]
    try:
        return msgspec.convert({"limit": _PAGE, **query, "by": ",".join(by)}, ReportQuery, strict=False)
    except msgspec.ValidationError as error:
        raise wrong_address(error) from None


def _link(query: ReportSpec, **changes: Any) -> str:
    """The query string of a report, what is as usual left out."""
    fields = {f.name: f.default for f in msgspec.structs.fields(ReportSpec)}
    given = {k: getattr(query, k) for k, usual in fields.items() if getattr(query, k) != usual}
    return urlencode({k: str(v).lower() if isinstance(v, bool) else v for k, v in {**given, **changes}.items()})


def _spec(query: ReportQuery) -> ReportSpec:
    return ReportSpec(**{f.name: getattr(query, f.name) for f in msgspec.structs.fields(ReportSpec)})


def _advertisers(page: Page) -> list[Any]:
    a, mine = tables.advertiser.c, page.person.advertisers(REPORT)
    wanted = select(a.id, a.name).order_by(a.name).limit(_MANY)
    with page.services.catalog.engine.connect() as connection:
        return list(connection.execute(wanted if mine is None else wanted.where(a.id.in_(mine))))


def _builtin(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__struct_fields__}


def _plots(page: Page, rows: list[Any]) -> list[tuple[str, Any]]:
    """Spend by day of each currency, and of the days before where they are compared."""
    series: dict[str, list[Any]] = {}
    for row in rows:
        series.setdefault(row.currency, []).append(row)
    title, found = page.words("Spend by day"), []
    for currency, days in series.items():
        lines = [(page.words("Spend"), [r.spend_micros / 1e6 for r in days], "now")]
        if days[0].before is not None:
            lines.append((page.words("The days before"), [r.before["spend_micros"] / 1e6 for r in days], "then"))
        labels = [r.day[5:] for r in days]
        found.append((currency, plot.lines(labels, lines, show.compact, f"{title}, {currency}")))
    return found


def keep(page: Page) -> Response:
    """POST /reports/save."""
    name = page.form.get("name", "").strip()
    if not name or len(name) > 200:
        raise invalid("name", "write 1 to 200 characters")
    one = saved.save(page.services.catalog.engine, page.person, NewSavedReport(name, _posted(page)))
    return see(f"/reports/saved/{one.id}", "kept")


def _posted(page: Page) -> ReportSpec:
    try:
        return msgspec.json.decode(page.form.get("report", ""), type=ReportSpec)
    except (msgspec.DecodeError, UnicodeEncodeError):
        raise ApiError(400, "form", "that is not a form of ours") from None


def open_saved(page: Page) -> Response:
    """GET /reports/saved/ID: the report, with the reader's rights."""
    one = saved.get(page.services.catalog.engine, page.person, page.ref)
    done = page.request.query_params.get("done", "")
    return see("/reports?" + _link(one.report), "kept" if done == "kept" else "")


def remove(page: Page) -> Response:
    """POST /reports/saved/ID/remove."""
    saved.remove(page.services.catalog.engine, page.person, page.ref)
    return see("/reports", "removed")


def write(page: Page) -> Response:
    """POST /reports/jobs: begin to write a whole report."""
    kind: Any = "parquet" if page.form.get("format") == "parquet" else "csv"
    job = page.services.exports.start(page.person, NewReportJob(_posted(page), kind))
    return see(f"/reports/jobs/{job.id}")


def job(page: Page) -> Response:
    """GET /reports/jobs/ID: how far it is."""
    one = page.services.exports.get(page.person, page.ref)
    return page.show("report_job.html", job=one, spec=_link(one.report))


def file(page: Page) -> Response:
    """GET /reports/jobs/ID/file."""
    path = page.services.exports.file(page.person, page.ref)
    return FileResponse(path, media_type="application/octet-stream", filename=f"report{path.suffix}")
