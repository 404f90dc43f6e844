"""Operations of the REST API about many things at once, copies, forecasts and bills, as the pages have them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct
from sqlalchemy.exc import SQLAlchemyError

from dsp.catalog.store import load_catalog
from dsp.console import library, models
from dsp.console.access import ALL, READ
from dsp.console.bulk import MOST, change_all, duplicate
from dsp.console.errors import ApiError, invalid
from dsp.console.operation import Call, Operation, Reply, shown
from dsp.console.reach import reach_of
from dsp.console.services import Services
from dsp.ledger.reconcile import BillError, Outcome, reconcile

_DIFFERENCES = 1000


class BulkChange(Struct, forbid_unknown_fields=True):
    """Pause or resume ``ids``, or set their ``daily`` or ``total`` budget: "500", "+10%", "-20%"; "" for none."""

    ids: Annotated[list[models.Id], Meta(min_length=1, max_length=MOST)]
    action: Literal["pause", "resume", "daily", "total"]
    budget: Annotated[str, Meta(max_length=40)] = ""


class BulkDone(Struct):
    """How many were changed: all, or none where anything is refused."""

    changed: int


class Stage(Struct):
    """Requests that ended for one reason, and the remedy's place: a no-bid reason, or a field of targeting."""

    what: str
    requests: int


class Forecast(Struct):
    """Of ``requests`` recent ones, standing for ``daily`` a day: how many a line item's targeting wants, how many it
    bids on, and where the others end. ``cpm``: the mean bid; ``most_a_day``: what winning all would cost; both in
    ``currency``.
    """

    requests: int
    daily: float
    wanted: int
    bids: int
    cpm: float
    currency: str
    most_a_day: float
    ended: list[Stage]
    left_out: list[Stage]
    unknown: list[str]


class Bill(Struct, forbid_unknown_fields=True):
    """An exchange's bill as CSV, by bid (bid_id, amount) or by UTC day (date, impressions, amount)."""

    csv: Annotated[str, Meta(max_length=1 << 20)]


class BillDifference(Struct):
    """What is booked and billed differently; amounts in micros."""

    what: str
    key: str
    billed: int
    booked: int
    billed_micros: int
    booked_micros: int


class BillOutcome(Struct):
    """The sums of bill and books, and the first differences."""

    billed: int
    booked: int
    billed_micros: int
    booked_micros: int
    differences: list[BillDifference]


def _bulk(kind: str, path: str) -> Operation:
    def run(call: Call) -> Reply:
        body: BulkChange = call.body
        return Reply(BulkDone(change_all(call.services.catalog, call.by, kind, body.ids, body.action, body.budget)))

    summary = f"Pause, resume or budget many {kind.replace('_', ' ')}s: all of them, or none"
    return Operation("POST", f"{path}/bulk", summary, run, BulkDone, body=BulkChange, errors=(404, 409, 422))


def _copy(kind: str, path: str) -> Operation:
    def run(call: Call) -> Reply:
        return shown(duplicate(call.services.catalog, call.by, kind, call.ref), 201)

    summary = f"Copy a {kind.replace('_', ' ')}; the copy is a draft"
    view = models.VIEW[kind]
    return Operation("POST", f"{path}/{{id}}/duplicate", summary, run, view, status=201, errors=(404, 409, 422))


def _reach(call: Call) -> Reply:
    one = call.services.catalog.get(call.by, "line_item", call.ref)
    r = reach_of(call.services.config, load_catalog(call.services.catalog.engine), one["id"])
    ended, left_out = ([Stage(what, n) for what, n in rows] for rows in (r.stages, r.left_out))
    return Reply(
        Forecast(
            r.requests, r.daily, r.wanted, r.bids, r.cpm, r.currency, r.most_a_day, ended, left_out, list(r.unknown)
        )
    )


def _bill(call: Call) -> Reply:
    call.by.require(READ, ALL)
    library.get(call.services.catalog, call.by, "exchange", call.ref)
    try:
        found = reconciled(call.services, call.ref, call.body.csv)
    except BillError as error:
        raise invalid("csv", str(error)) from None
    differences = [BillDifference(*row) for row in found.differences[:_DIFFERENCES]]
    return Reply(BillOutcome(found.billed, found.booked, found.billed_micros, found.booked_micros, differences))


def reconciled(services: Services, exchange: int, text: str) -> Outcome:
    """A bill's text against the books. Raises BillError and 503."""
    try:
        with tempfile.NamedTemporaryFile("w", suffix=".csv", newline="") as file:
            file.write(text)
            file.flush()
            return reconcile(services.reports.books, exchange, Path(file.name))
    except UnicodeEncodeError as error:
        raise BillError(f"is no text: {error}") from None
    except SQLAlchemyError:
        raise ApiError(503, "books", "the ledger's books can't be read yet; start the ledger") from None


OPERATIONS = (
    _bulk("campaign", "/campaigns"),
    _copy("campaign", "/campaigns"),
    _bulk("line_item", "/line-items"),
    _copy("line_item", "/line-items"),
    Operation("GET", "/line-items/{id}/reach", "What a line item would do on recent traffic", _reach, Forecast,
              errors=(404, 503)),
    Operation("POST", "/exchanges/{id}/bill", "Compare an exchange's bill with the books; nothing is changed", _bill,
              BillOutcome, body=Bill, errors=(404, 422, 503), needs="read"),
)  # fmt: skip
