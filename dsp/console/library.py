"""What line items refer to by name: offers, exchanges, deals, audience segments. Checked and written as a file has it.

Offers, deals and segments may belong to an advertiser (`dsp.console.owned`), whose traders then write them; what
belongs to none, and exchanges, only who may write everywhere. Names and ids stay as they are: line items, books and
tokens carry them. An exchange's token is never shown again.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from sqlalchemy import Connection, Table, or_, select

from dsp.catalog import store, tables, types
from dsp.catalog.apply import Writer
from dsp.catalog.check import check
from dsp.catalog.profile import Profile, check_profile, shipped, shipped_names
from dsp.catalog.settle import whole
from dsp.catalog.source import CatalogError
from dsp.console.access import ALL, EDIT, READ, Identity
from dsp.console.audit import record
from dsp.console.catalog import Catalog, Shown, etag_of
from dsp.console.convert import decimal
from dsp.console.errors import ApiError, FieldError, invalid, not_found
from dsp.console.models import LibraryQuery, defined
from dsp.console.operation import Call, Operation, Reply, given, shown
from dsp.console.owned import give, hidden, owner_of
from dsp.console.tables import owner
from dsp.console.transaction import changing, reading


class Segment(Struct, frozen=True, forbid_unknown_fields=True):
    """An audience segment: the number that profiles carry and the name that line items use."""

    name: str
    number: int
    demographic: str = ""  # gender, age...: credit may not be targeted by it where the law forbids it


SPECS: dict[str, type[Any]] = {
    "offer": types.Offer, "exchange": types.Exchange, "deal": types.Deal, "segment": Segment,
}  # fmt: skip
TABLES: dict[str, Table] = {
    "offer": tables.offer, "exchange": tables.exchange, "deal": tables.deal, "segment": tables.segment,
}  # fmt: skip
KEY = {"offer": "id", "exchange": "id", "deal": "id", "segment": "number"}  # in the path
FIXED = {"offer": {"name"}, "exchange": {"id", "name"}, "deal": {"id"}, "segment": {"name", "number"}}
PATHS = {"offer": "/offers", "exchange": "/exchanges", "deal": "/deals", "segment": "/segments"}
NAMED = {"offer": "name", "exchange": "name", "deal": "id", "segment": "name"}  # what line items write
Owner = Annotated[int, Meta(ge=0, le=2**53)]
_SECRET = "token"  # of an exchange
_PROFILE = msgspec.json.Decoder(Profile).decode


def _view(kind: str) -> type[Struct]:
    ids: list[Any] = [("id", int)] if kind == "offer" else []
    fields = [(f.name, f.type) for f in msgspec.structs.fields(SPECS[kind]) if f.name != _SECRET]
    more: list[Any] = [("token_set", bool)] if kind == "exchange" else [("advertiser_id", int)]
    return msgspec.defstruct(kind.title(), [*ids, *fields, *more], kw_only=True)


def _change(kind: str) -> type[Struct]:
    names = [f for f in msgspec.structs.fields(SPECS[kind]) if f.name not in FIXED[kind]]
    fields: list[Any] = [(f.name, f.type | UnsetType, UNSET) for f in names]
    fields += [("advertiser_id", Owner | UnsetType, UNSET)] if kind != "exchange" else []
    return msgspec.defstruct("Change" + kind.title(), fields, kw_only=True, forbid_unknown_fields=True)


def _new(kind: str) -> type[Struct]:
    named = [defined(f) for f in msgspec.structs.fields(SPECS[kind])]
    named += [("advertiser_id", Owner, 0)] if kind != "exchange" else []
    return msgspec.defstruct("New" + kind.title(), named, kw_only=True, forbid_unknown_fields=True)


def _page(kind: str) -> type[Struct]:
    items: Any = list.__class_getitem__(VIEW[kind])
    return msgspec.defstruct(kind.title() + "Page", [("items", items), ("total", int), ("next", int | None, None)])


VIEW = {kind: _view(kind) for kind in SPECS}
CHANGE = {kind: _change(kind) for kind in SPECS}
NEW = {kind: _new(kind) for kind in SPECS}
PAGE = {kind: _page(kind) for kind in SPECS}


def page(catalog: Catalog, by: Identity, kind: str, query: LibraryQuery) -> dict[str, Any]:
    """``query.limit`` of them from ``query.offset``, in the order of their names."""
    table = TABLES[kind]
    name = table.c[NAMED[kind]]
    with reading(catalog.engine) as connection:
        wanted = select(table)
        if query.q:
            wanted = wanted.where(name.icontains(query.q, autoescape=True))
        if query.advertiser_id:
            o = owner.c
            wanted = wanted.where(name.in_(select(o.key).where(o.kind == kind, o.advertiser_id == query.advertiser_id)))
        less = hidden(connection, by).of(kind)
        rows = [row for row in connection.execute(wanted.order_by(name)) if getattr(row, NAMED[kind]) not in less]
        items = [_shown(connection, kind, row) for row in rows[query.offset : query.offset + query.limit]]
    more = query.offset + query.limit
    return {"items": items, "total": len(rows), "next": more if more < len(rows) else None}


def get(catalog: Catalog, by: Identity, kind: str, key: int | str) -> Shown:
    """One of them. Raises 404."""
    with reading(catalog.engine) as connection:
        return _get(connection, by, kind, key)


def _get(connection: Connection, by: Identity, kind: str, key: int | str) -> Shown:
    table = TABLES[kind]
    row = connection.execute(select(table).where(table.c[KEY[kind]] == key)).first()
    if row is None or getattr(row, NAMED[kind]) in hidden(connection, by).of(kind):
        raise not_found(kind)
    return _shown(connection, kind, row)


def _shown(connection: Connection, kind: str, row: Any) -> Shown:
    if kind == "exchange":
        fields = {f: getattr(row, f) for f in types.Exchange.__struct_fields__ if f not in (_SECRET, "fee")}
        profile = _PROFILE(row.profile)
        fields |= {name: msgspec.json.decode(getattr(row, name)) for name in ("seats", "ips")}
        fields |= {"profile": msgspec.to_builtins(profile), "fee": profile.fee}
        return {**fields, "token_set": bool(row.token)}
    of = {"advertiser_id": owner_of(connection, kind, getattr(row, NAMED[kind]))}
    if kind == "segment":
        return {"name": row.name, "number": row.number, "demographic": row.demographic, **of}
    if kind == "deal":
        name = select(tables.exchange.c.name).where(tables.exchange.c.id == row.exchange_id)
        exchange = connection.execute(name).scalar_one()
        floor = decimal(row.floor_micros)
        return {"id": row.id, "exchange": exchange, "floor": floor, "currency": row.currency, "at": row.at, **of}
    payouts = {stage: getattr(row, f"payout_{stage}") for stage in ("click", "apply", "approve", "fund")}
    names = ("id", "name", "product", "lender", "currency", "margin", "lgd", "ead")
    return {**{name: getattr(row, name) for name in names}, "payouts": payouts, **of}


def create(catalog: Catalog, by: Identity, kind: str, body: Shown) -> Shown:
    """Make one. Raises 403, 404 (its advertiser), 409 (it is there), 422."""
    table = TABLES[kind]
    with changing(catalog.engine) as connection:
        catalog.begin(connection)
        _may(connection, by, int(body.get("advertiser_id", 0)))
        keys = {KEY[kind]: body.get(KEY[kind]), NAMED[kind]: body[NAMED[kind]]}
        taken = or_(*(table.c[column] == value for column, value in keys.items() if value is not None))
        if connection.execute(select(table.c[NAMED[kind]]).where(taken)).first():
            raise ApiError(409, "exists", "that name or number is taken; choose another")
        return _save(catalog, connection, by, "create", kind, None, body)


def _may(connection: Connection, by: Identity, advertiser_id: int) -> None:
    """Raise 403 or 404 unless ``by`` may write what belongs to an advertiser (0: to none)."""
    a = tables.advertiser.c
    there = not advertiser_id or connection.execute(select(a.id).where(a.id == advertiser_id)).first() is not None
    if advertiser_id and not (there and by.may(READ, advertiser_id)):
        raise not_found("advertiser")
    by.require(EDIT, advertiser_id or ALL)


def change(
    catalog: Catalog, by: Identity, kind: str, key: int | str, changes: Shown, etag: str, action: str = "change"
) -> Shown:
    """Change some fields; ``etag`` as of `Catalog.change`. Raises 403, 404, 412, 422."""
    with changing(catalog.engine) as connection:
        catalog.begin(connection)
        before = _get(connection, by, kind, key)
        _may(connection, by, before.get("advertiser_id", 0))
        if etag not in ("*", etag_of(before)):
            raise ApiError(412, "stale", "someone changed it since you read it; read it again, then change it")
        if "advertiser_id" in changes:
            _may(connection, by, changes["advertiser_id"])
        spec = {k: v for k, v in before.items() if k in SPECS[kind].__struct_fields__ or k == "advertiser_id"}
        if kind == "exchange":
            token = select(tables.exchange.c.token).where(tables.exchange.c.id == key)
            spec[_SECRET] = connection.execute(token).scalar_one()
        return _save(catalog, connection, by, action, kind, before, {**spec, **changes})


def _save(
    catalog: Catalog, connection: Connection, by: Identity, action: str, kind: str, before: Shown | None, spec: Shown
) -> Shown:
    _short(spec)
    spec = dict(spec)
    advertiser = int(spec.pop("advertiser_id", 0))
    try:
        one = msgspec.convert(msgspec.to_builtins(spec), SPECS[kind])
    except msgspec.ValidationError as error:
        raise invalid("body", str(error)) from None
    if kind == "exchange":
        one = _whole(one)
    if kind == "segment":
        listed: Any = {one.name: {"number": one.number, "demographic": one.demographic}}
    else:
        listed = (one,)
    file = types.CatalogFile(**{f"{kind}s": listed})
    problems = check(file, store.known(connection))
    if problems:
        whole = "number" if kind == "segment" else "body"
        fields = [FieldError(".".join(map(str, path[2:])) or whole, text) for path, text in problems]
        raise ApiError(422, "invalid", "; ".join(f"{f.field}: {f.message}" for f in fields[:3]), fields[:50])
    Writer(connection).write(file)
    table, name = TABLES[kind], getattr(one, NAMED[kind])
    if kind != "exchange":
        give(connection, kind, name, advertiser)
    row = connection.execute(select(table).where(table.c[NAMED[kind]] == name)).one()
    after = _shown(connection, kind, row)
    ref = row.number if kind == "segment" else row.id if kind != "deal" else 0
    record(connection, catalog.clock(), by.email, by.via, action, kind, ref, advertiser, before, after)
    return after


def _whole(exchange: types.Exchange) -> types.Exchange:
    """With its profile: one that comes with the program, by name, or given whole. No file is read for a request."""
    profile = exchange.profile
    if isinstance(profile, str):
        try:
            return whole(exchange, shipped(profile))
        except CatalogError:
            names = ", ".join(shipped_names())
            raise invalid("profile", f"no profile has that name; write one of {names}, or the profile itself") from None
    problems = check_profile(profile)
    if problems:
        fields = [FieldError(".".join(("profile", *map(str, path))), text) for path, text in problems]
        raise ApiError(422, "invalid", "; ".join(f"{f.field}: {f.message}" for f in fields[:3]), fields[:50])
    return whole(exchange, profile)


_LONG = {"name": 200, "id": 200, "lender": 200, "token": 200, "seat": 100, "demographic": 20}


def _short(spec: Shown) -> None:
    for name, most in _LONG.items():
        text = spec.get(name)
        if isinstance(text, str) and (len(text) > most or (text and not text.isprintable())):
            raise invalid(name, f"write at most {most} visible characters")
    for name in ("name", "id", "lender"):
        if isinstance(spec.get(name), str) and not spec[name].strip():
            raise invalid(name, "is empty")
    for name in ("qps", "tmax_ms", "allowance_ms"):
        if not 0 <= (spec.get(name) or 0) < 2**31:
            raise invalid(name, "is too large, or negative")


def _operations(kind: str) -> list[Operation]:
    def key(call: Call) -> int | str:
        return call.key if kind == "deal" else call.ref

    def listed(call: Call) -> Reply:
        return Reply(page(call.services.catalog, call.by, kind, call.query))

    def got(call: Call) -> Reply:
        return shown(get(call.services.catalog, call.by, kind, key(call)))

    def made(call: Call) -> Reply:
        return shown(create(call.services.catalog, call.by, kind, given(call.body)), 201)

    def changed(call: Call) -> Reply:
        return shown(change(call.services.catalog, call.by, kind, key(call), given(call.body), call.etag))

    path = PATHS[kind]
    one = f"{path}/{{key}}" if kind == "deal" else f"{path}/{{id}}"
    return [
        Operation("GET", path, f"List {kind}s", listed, PAGE[kind], LibraryQuery),
        Operation("POST", path, f"Make one of the {kind}s", made, VIEW[kind], body=NEW[kind], status=201,
                  errors=(404, 409, 422)),
        Operation("GET", one, f"Read one of the {kind}s", got, VIEW[kind], errors=(404,)),
        Operation("PATCH", one, f"Change one of the {kind}s", changed, VIEW[kind], body=CHANGE[kind], match=True,
                  errors=(404, 412, 422, 428)),
    ]  # fmt: skip


OPERATIONS: tuple[Operation, ...] = tuple(o for kind in SPECS for o in _operations(kind))
