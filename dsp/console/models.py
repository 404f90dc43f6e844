"""What the API takes and gives, as types: the catalog file's own, with ids. OpenAPI is generated from these."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from dsp.catalog import types
from dsp.ledger.schema import MEASURES

Id = Annotated[int, Meta(ge=1, le=2**53)]
_NOT = {"advertiser": {"campaigns"}, "campaign": {"line_items"}, "line_item": set[str]()}
SPECS: dict[str, type[Any]] = {
    "advertiser": types.Advertiser,
    "campaign": types.Campaign,
    "line_item": types.LineItem,
}
PARENT = {"advertiser": "", "campaign": "advertiser_id", "line_item": "campaign_id"}


def _fields(kind: str) -> list[msgspec.structs.FieldInfo]:
    return [f for f in msgspec.structs.fields(SPECS[kind]) if f.name not in _NOT[kind]]


def defined(f: msgspec.structs.FieldInfo) -> Any:
    """A field as `msgspec.defstruct` takes it, with its default."""
    if f.required:
        return f.name, f.type
    made: Any = f.default_factory
    default: Any = f.default if made is msgspec.NODEFAULT else msgspec.field(default_factory=made)
    return f.name, f.type, default


def _new(kind: str) -> type[Struct]:
    """The body of a POST: the file's fields and the parent."""
    parent: list[Any] = [(PARENT[kind], Id)] if PARENT[kind] else []
    named = [defined(f) for f in _fields(kind)]
    title = "New" + kind.title().replace("_", "")
    return msgspec.defstruct(title, [*parent, *named], kw_only=True, forbid_unknown_fields=True)


def _change(kind: str) -> type[Struct]:
    """The body of a PATCH: any of the fields; what is left out stays."""
    named: list[Any] = [(f.name, f.type | UnsetType, UNSET) for f in _fields(kind)]
    title = "Change" + kind.title().replace("_", "")
    return msgspec.defstruct(title, named, kw_only=True, forbid_unknown_fields=True)


def _view(kind: str) -> type[Struct]:
    """What is shown."""
    ids: list[Any] = [("id", int), ("advertiser_id", int)]
    ids += [("campaign_id", int)] if kind == "line_item" else []
    named = [(f.name, str if f.name == "status" else f.type) for f in _fields(kind)]
    return msgspec.defstruct(kind.title().replace("_", ""), [*ids, *named], kw_only=True)


NEW = {kind: _new(kind) for kind in SPECS}
CHANGE = {kind: _change(kind) for kind in SPECS}
VIEW = {kind: _view(kind) for kind in SPECS}


def _page(kind: str) -> type[Struct]:
    """A list of them."""
    items: Any = list.__class_getitem__(VIEW[kind])
    return msgspec.defstruct(f"{kind.title().replace('_', '')}Page", [("items", items), ("next", int | None, None)])


PAGE = {kind: _page(kind) for kind in SPECS}


class ListQuery(Struct, forbid_unknown_fields=True):
    """Filters of a list: in the order of ids, ``after`` the last one seen."""

    after: Annotated[int, Meta(ge=0, le=2**53)] = 0
    limit: Annotated[int, Meta(ge=1, le=500)] = 50
    q: Annotated[str, Meta(max_length=200)] = ""
    status: Literal["", "active", "paused", "archived"] = ""
    advertiser_id: Annotated[int, Meta(ge=0, le=2**53)] = 0
    campaign_id: Annotated[int, Meta(ge=0, le=2**53)] = 0
    line_item_id: Annotated[int, Meta(ge=0, le=2**53)] = 0  # of creatives


class LibraryQuery(Struct, forbid_unknown_fields=True):
    """Filters of offers, exchanges, deals, segments: in the order of their names."""

    offset: Annotated[int, Meta(ge=0, le=10**6)] = 0
    limit: Annotated[int, Meta(ge=1, le=500)] = 50
    q: Annotated[str, Meta(max_length=200)] = ""
    advertiser_id: Annotated[int, Meta(ge=0, le=2**53)] = 0


class UserQuery(Struct, forbid_unknown_fields=True):
    """Filters of users: in the order of ids, ``after`` the last one seen."""

    after: Annotated[int, Meta(ge=0, le=2**53)] = 0
    limit: Annotated[int, Meta(ge=1, le=500)] = 50
    q: Annotated[str, Meta(max_length=200)] = ""


class NoQuery(Struct, forbid_unknown_fields=True):
    """No parameters."""


class AuditQuery(Struct, forbid_unknown_fields=True):
    """Changes, newest first, ``before`` the last one seen."""

    before: Annotated[int, Meta(ge=0, le=2**53)] = 0
    limit: Annotated[int, Meta(ge=1, le=500)] = 50
    kind: Annotated[str, Meta(max_length=20)] = ""
    ref: Annotated[int, Meta(ge=0, le=2**53)] = 0


class Change(Struct):
    """A row of the audit log."""

    id: int
    time_s: int
    who: str
    via: str
    action: str
    kind: str
    ref: int
    before: Any = None
    after: Any = None


class ChangePage(Struct):
    """Changes, newest first."""

    items: list[Change]
    next: int | None = None


class Creative(Struct):
    """An ad of a line item, in one size."""

    id: int
    line_item_id: int
    advertiser_id: int
    status: str
    spec: types.Creative


class NewCreative(Struct, forbid_unknown_fields=True):
    """An ad to add to a line item. With ``sizes`` one for each is made, and the first is answered."""

    line_item_id: Id
    spec: types.Creative


class ChangeCreative(Struct, forbid_unknown_fields=True):
    """The whole ad anew; its name stays."""

    spec: types.Creative


class CreativePage(Struct):
    """Creatives."""

    items: list[Creative]
    next: int | None = None


class Named(Struct):
    """Something a line item may refer to."""

    name: str
    detail: str


class References(Struct):
    """What line items may refer to by name."""

    offers: list[Named]
    exchanges: list[Named]
    segments: list[Named]
    deals: list[Named]


class Me(Struct):
    """Who the session or key belongs to."""

    email: str
    roles: dict[str, str]
    scopes: list[str]


class User(Struct):
    """A user, roles by advertiser id ("0": all)."""

    id: int
    email: str
    disabled: bool
    totp: bool
    roles: dict[str, str]


Roles = dict[Annotated[str, Meta(pattern="^[0-9]{1,15}$")], str]


class NewUser(Struct, forbid_unknown_fields=True):
    """A user to make."""

    email: Annotated[str, Meta(max_length=200)]
    password: Annotated[str, Meta(max_length=1000)]
    roles: Roles


class ChangeUser(Struct, forbid_unknown_fields=True):
    """What may change. ``roles`` are all of them, as far as the asker administers their advertisers."""

    roles: Roles | UnsetType = UNSET
    disabled: bool | UnsetType = UNSET
    password: Annotated[str, Meta(max_length=1000)] | UnsetType = UNSET


class UserPage(Struct):
    """Users."""

    items: list[User]
    next: int | None = None


class Key(Struct):
    """An API key; ``secret`` is there once, in the answer that made it."""

    id: int
    name: str
    scopes: list[str]
    revoked: bool = False
    secret: str | UnsetType = UNSET


class NewKey(Struct, forbid_unknown_fields=True):
    """An API key to make."""

    name: Annotated[str, Meta(min_length=1, max_length=200)]
    scopes: list[str]


class KeyList(Struct):
    """API keys."""

    items: list[Key]


class Made(Struct):
    """The id of what was made."""

    id: int


DIMENSIONS = ("advertiser", "campaign", "line_item", "exchange", "creative")
_ONE, _MEASURE = "|".join(DIMENSIONS), "|".join(MEASURES)
_Dimensions = Annotated[str, Meta(pattern=f"^(({_ONE})(,({_ONE}))?)?$")]
_Measures = Annotated[str, Meta(pattern=f"^(({_MEASURE})(,({_MEASURE}))*)?$")]
_Day = Annotated[str, Meta(pattern="^([0-9]{4}-[0-9]{2}-[0-9]{2})?$")]


class ReportSpec(Struct, forbid_unknown_fields=True):
    """Measures by day, by up to two dimensions ("campaign,exchange"), or both, from ``start`` to ``end``, both days
    included; without them the last 30 days. ``id``: only this one of the first dimension. ``measures`` of a table or
    file, all of them without. ``compare``: with what the same were in as many days before.
    """

    by: _Dimensions = "campaign"
    daily: bool = False
    start: _Day = ""
    end: _Day = ""
    id: Annotated[int, Meta(ge=0, le=2**53)] = 0
    advertiser_id: Annotated[int, Meta(ge=0, le=2**53)] = 0
    measures: _Measures = ""
    compare: bool = False

    def groups(self) -> tuple[str, ...]:
        """The dimensions."""
        return tuple(dict.fromkeys(self.by.split(","))) if self.by else ()

    def columns(self) -> tuple[str, ...]:
        """The measures, in the order of MEASURES."""
        return tuple(m for m in MEASURES if m in self.measures.split(",")) if self.measures else MEASURES


class ReportQuery(ReportSpec, forbid_unknown_fields=True):
    """A page of a report."""

    offset: Annotated[int, Meta(ge=0, le=2**40)] = 0
    limit: Annotated[int, Meta(ge=1, le=5000)] = 1000


ReportRow = msgspec.defstruct(
    "ReportRow",
    [
        *(("day", str), ("id", int), ("name", str), ("second_id", int), ("second", str), ("currency", str)),
        *((name, int) for name in MEASURES),
        ("before", dict[str, int] | None, None),  # MEASURES of the days before, where they were asked for
    ],
)


class Report(Struct):
    """Rows in the order of day and ids, of an exchange's last; ``next``: the offset to go on from."""

    start: str
    end: str
    items: list[ReportRow]  # type: ignore[valid-type]
    next: int | None = None


class NewImage(Struct, forbid_unknown_fields=True):
    """A picture, base64."""

    data: bytes


class Image(Struct):
    """A picture that is kept: its public address, size as 300x250, bytes."""

    url: str
    size: str
    bytes: int


class NewReportJob(Struct, forbid_unknown_fields=True):
    """A whole report to write to a file."""

    report: ReportSpec
    format: Literal["csv", "parquet"] = "csv"


class ReportJob(Struct):
    """How far a report's file is, ``progress`` in millionths."""

    id: int
    state: Literal["waiting", "running", "done", "failed"]
    progress: int
    rows: int
    format: str
    report: ReportSpec


class NewSavedReport(Struct, forbid_unknown_fields=True):
    """A report to keep. Who may report on ``report.advertiser_id`` finds it (0: on all advertisers)."""

    name: Annotated[str, Meta(min_length=1, max_length=200)]
    report: ReportSpec


class SavedReport(Struct):
    """A report that was kept; everybody sees it with their own rights."""

    id: int
    name: str
    who: str
    report: ReportSpec


class Review(Struct):
    """A change of a campaign that waits; ``mine``: the reader asked for it, so another decides."""

    id: int
    campaign_id: int
    campaign: str
    changes: dict[str, Any]
    asked_by: str
    asked_s: int
    mine: bool


class ReviewList(Struct):
    """The oldest first."""

    items: list[Review]


class SavedReportList(Struct):
    """Saved reports, by name."""

    items: list[SavedReport]
