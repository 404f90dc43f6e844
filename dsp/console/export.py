"""Reports as files: a page of one at once, a whole one as a job with progress.

CSV has money as decimals; Parquet has it as it is kept, int64 micros, with days as dates. Jobs are rows of the
console's database and files in its data directory for a week. A file is handed to who asked for it alone, and only
while that person may still report on all that it is of.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import IO, Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import Engine, func, select

from dsp.base.console_metrics import ConsoleMetrics
from dsp.base.logs import logger
from dsp.console import tables
from dsp.console.access import REPORT, Identity
from dsp.console.errors import ApiError, not_found
from dsp.console.models import NewReportJob, ReportJob, ReportSpec
from dsp.console.reports import Reports, span
from dsp.console.transaction import changing, reading

KEEP_S = 7 * 86_400
STALLED_S = 120  # without progress: its process is gone
MOST_WAITING = 3  # of one person
_LOG = logger(__name__)
_SPEC = msgspec.json.Decoder(ReportSpec).decode
_JOB = tables.report_job.c


def header(spec: ReportSpec) -> list[str]:
    """The names of the columns before the measures."""
    return ["day", "id", "name", *(("second_id", "second") if len(spec.groups()) > 1 else ()), "currency"]


def _measures(spec: ReportSpec) -> list[tuple[str, bool]]:
    """(measure, whether of the days before)."""
    return [(m, old) for m in spec.columns() for old in ((False, True) if spec.compare else (False,))]


def _value(row: Any, measure: str, old: bool) -> int:
    return int(row.before[measure] if old else getattr(row, measure))


class CsvFile:
    """Writes rows of a report to a text file; text that a spreadsheet would run is made inert."""

    def __init__(self, file: IO[str], spec: ReportSpec) -> None:
        self._writer, self._first, self._measures = csv.writer(file), header(spec), _measures(spec)
        named = [("before " if old else "") + m.removesuffix("_micros") for m, old in self._measures]
        self._writer.writerow([*self._first, *named])

    def write(self, rows: Sequence[Any]) -> None:
        """Add rows."""
        for row in rows:
            cells = [_inert(getattr(row, name)) for name in self._first]
            for m, old in self._measures:
                value = _value(row, m, old)
                cells.append(value / 1e6 if m.endswith("_micros") else value)
            self._writer.writerow(cells)


def _inert(value: Any) -> Any:
    return "'" + value if isinstance(value, str) and value[:1] in "=+-@\t\r" and value else value


class ParquetFile:
    """Writes rows of a report to a Parquet file."""

    def __init__(self, file: IO[bytes], spec: ReportSpec) -> None:
        self._first, self._measures = header(spec), _measures(spec)
        types = {"day": pa.date32(), "id": pa.int64(), "second_id": pa.int64()}
        fields = [(name, types.get(name, pa.string())) for name in self._first]
        fields += [(("before_" if old else "") + m, pa.int64()) for m, old in self._measures]
        self._schema = pa.schema(fields)
        self._writer = pq.ParquetWriter(file, self._schema)

    def write(self, rows: Sequence[Any]) -> None:
        """Add rows."""
        columns: list[list[Any]] = [[getattr(row, name) for row in rows] for name in self._first]
        columns[0] = [date.fromisoformat(day) if day else None for day in columns[0]]
        columns += [[_value(row, m, old) for row in rows] for m, old in self._measures]
        self._writer.write_table(pa.table(columns, schema=self._schema))

    def close(self) -> None:
        """Write the end of the file."""
        self._writer.close()


def as_csv(spec: ReportSpec, rows: Sequence[Any]) -> bytes:
    """The rows as a CSV file."""
    out = io.StringIO()
    CsvFile(out, spec).write(rows)
    return out.getvalue().encode()


def as_parquet(spec: ReportSpec, rows: Sequence[Any]) -> bytes:
    """The rows as a Parquet file."""
    out = io.BytesIO()
    file = ParquetFile(out, spec)
    file.write(rows)
    file.close()
    return out.getvalue()


class Exports:
    """Jobs that write whole reports, one at a time, to files under ``directory``."""

    def __init__(
        self, engine: Engine, reports: Reports, directory: Path, clock: Callable[[], float], metrics: ConsoleMetrics
    ) -> None:
        self.engine, self.reports, self.directory, self.clock = engine, reports, directory, clock
        self._metrics = metrics
        self._pool = ThreadPoolExecutor(1, "export")

    def start(self, by: Identity, asked: NewReportJob) -> ReportJob:
        """Begin one. Raises 403, 422, 429 (too many wait)."""
        if not by.may_anywhere(REPORT):
            by.require(REPORT, 0)
        span(asked.report)
        mine = by.advertisers(REPORT)
        rights = "" if mine is None else ",".join(map(str, sorted(mine)))
        with changing(self.engine) as connection:
            waiting = (_JOB.user_id == by.user_id) & _JOB.state.in_(("waiting", "running"))
            alive = _JOB.time_s > self.clock() - STALLED_S
            if connection.execute(select(func.count()).where(waiting, alive)).scalar_one() >= MOST_WAITING:
                raise ApiError(429, "busy", "your other reports are still being written; wait for one", retry_s=5)
            self._clean(connection)
            values = {"user_id": by.user_id, "rights": rights, "format": asked.format, "state": "waiting"}
            report = msgspec.json.encode(asked.report).decode()
            insert = tables.report_job.insert().values(
                **values, report=report, progress=0, rows=0, time_s=int(self.clock())
            )
            ref = int(connection.execute(insert).inserted_primary_key[0])  # type: ignore[index]
        self._metrics.report_job(+1)
        self._pool.submit(self._run, by, ref, asked)
        return self.get(by, ref)

    def get(self, by: Identity, ref: int) -> ReportJob:
        """How far it is. Raises 404, also to everybody but who asked."""
        with reading(self.engine) as connection:
            row = connection.execute(select(tables.report_job).where(_JOB.id == ref)).first()
        if row is None or row.user_id != by.user_id or not self._within(by, row.rights):
            raise not_found("report")
        stalled = row.state in ("waiting", "running") and row.time_s < self.clock() - STALLED_S
        state: Any = "failed" if stalled else row.state
        return ReportJob(row.id, state, row.progress, row.rows, row.format, _SPEC(row.report))

    def file(self, by: Identity, ref: int) -> Path:
        """What it wrote. Raises 404, 409 (not yet)."""
        job = self.get(by, ref)
        path = self._path(ref, job.format)
        if job.state != "done":
            raise ApiError(409, "not_ready", "the report is not written yet; ask again when its state is done")
        if not path.exists():
            raise not_found("report")
        return path

    def close(self) -> None:
        """Begin no further one, and wait for the one that is written."""
        self._pool.shutdown(cancel_futures=True)

    def _within(self, by: Identity, rights: str) -> bool:
        mine = by.advertisers(REPORT)
        return mine is None or (bool(rights) and {int(a) for a in rights.split(",")} <= mine)

    def _path(self, ref: int, format_: str) -> Path:
        return self.directory / f"{ref}.{format_}"

    def _run(self, by: Identity, ref: int, asked: NewReportJob) -> None:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            path = self._path(ref, asked.format)
            temporary = path.with_suffix(".part")
            if asked.format == "csv":
                with temporary.open("w", newline="") as file:
                    self._fill(by, ref, asked.report, CsvFile(file, asked.report))
            else:
                with temporary.open("wb") as binary:
                    writer = ParquetFile(binary, asked.report)
                    self._fill(by, ref, asked.report, writer)
                    writer.close()
            temporary.replace(path)
            self._note(ref, state="done", progress=1_000_000)
            self._metrics.report_job(-1, "done")
        except Exception as error:
            self._metrics.report_job(-1, "failed")
            _LOG.error("a report could not be written", exc_info=error)
            self._note(ref, state="failed")

    def _fill(self, by: Identity, ref: int, spec: ReportSpec, file: CsvFile | ParquetFile) -> None:
        n = 0
        self._note(ref, state="running")
        for share, rows in self.reports.parts(by, spec):
            file.write(rows)
            n += len(rows)
            self._note(ref, progress=int(share * 999_999), rows=n)

    def _note(self, ref: int, **values: Any) -> None:
        with self.engine.begin() as connection:
            update = tables.report_job.update().where(_JOB.id == ref)
            connection.execute(update.values(**values, time_s=int(self.clock())))

    def _clean(self, connection: Any) -> None:
        """Forget what is old."""
        old = _JOB.time_s < self.clock() - KEEP_S
        for row in connection.execute(select(_JOB.id, _JOB.format).where(old)):
            self._path(row.id, row.format).unlink(missing_ok=True)
        connection.execute(tables.report_job.delete().where(old))
