"""Operations of the REST API about reports: pages, files, whole reports as jobs, saved ones."""

from __future__ import annotations

from dsp.console import models, saved
from dsp.console.export import as_csv, as_parquet
from dsp.console.operation import Call, Operation, Reply

BINARY = "application/octet-stream"


def _report(call: Call) -> Reply:
    return Reply(call.services.reports.run(call.by, call.query))


def _csv(call: Call) -> Reply:
    items = call.services.reports.run(call.by, call.query).items
    return Reply(None, content=as_csv(call.query, items), filename="report.csv")


def _parquet(call: Call) -> Reply:
    items = call.services.reports.run(call.by, call.query).items
    return Reply(None, content=as_parquet(call.query, items), filename="report.parquet")


def _start(call: Call) -> Reply:
    return Reply(call.services.exports.start(call.by, call.body), 202)


def _job(call: Call) -> Reply:
    return Reply(call.services.exports.get(call.by, call.ref))


def _file(call: Call) -> Reply:
    path = call.services.exports.file(call.by, call.ref)
    return Reply(None, path=path, filename=f"report{path.suffix}")


def _save(call: Call) -> Reply:
    return Reply(saved.save(call.services.catalog.engine, call.by, call.body), 201)


def _saved(call: Call) -> Reply:
    return Reply(saved.get(call.services.catalog.engine, call.by, call.ref))


def _all_saved(call: Call) -> Reply:
    return Reply(models.SavedReportList(saved.listed(call.services.catalog.engine, call.by)))


def _remove(call: Call) -> Reply:
    saved.remove(call.services.catalog.engine, call.by, call.ref)
    return Reply(models.Made(call.ref))


OPERATIONS = (
    Operation("GET", "/reports", "Measures by day and dimension", _report, models.Report, models.ReportQuery,
              errors=(422, 503), needs="report"),
    Operation("GET", "/reports.csv", "The same as CSV", _csv, str, models.ReportQuery, errors=(422, 503),
              media="text/csv", needs="report"),
    Operation("GET", "/reports.parquet", "The same as Parquet, money in micros", _parquet, str, models.ReportQuery,
              errors=(422, 503), media=BINARY, needs="report"),
    Operation("POST", "/report-jobs", "Write a whole report to a file", _start, models.ReportJob,
              body=models.NewReportJob, status=202, errors=(422, 429), needs="report"),
    Operation("GET", "/report-jobs/{id}", "How far it is", _job, models.ReportJob, errors=(404,), needs="report"),
    Operation("GET", "/report-jobs/{id}/file", "The file", _file, str, errors=(404, 409), media=BINARY, needs="report"),
    Operation("GET", "/saved-reports", "List saved reports", _all_saved, models.SavedReportList, needs="report"),
    Operation("POST", "/saved-reports", "Save a report", _save, models.SavedReport, body=models.NewSavedReport,
              status=201, errors=(422,), needs="report"),
    Operation("GET", "/saved-reports/{id}", "Read a saved report", _saved, models.SavedReport, errors=(404,),
              needs="report"),
    Operation("POST", "/saved-reports/{id}/remove", "Remove a saved report", _remove, models.Made, errors=(404,),
              needs="report"),
)  # fmt: skip
