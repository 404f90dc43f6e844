"""Advertisers, campaigns and line items as the console reads and changes them.

A change is read, checked (`dsp.catalog.check`, the catalog file's own rules) and written in one transaction, with its
row of the audit log; the publisher sees the raised revision. An ETag is the hash of what is shown: whoever changes
something must have seen it as it is.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, Table, select, update

from dsp.catalog import tables, types
from dsp.catalog.apply import Writer
from dsp.catalog.check import check
from dsp.catalog.source import FieldPath
from dsp.console import drafts
from dsp.console.access import ALL, EDIT, READ, Identity
from dsp.console.approval import require_second
from dsp.console.audit import record
from dsp.console.convert import advertiser_of, campaign_of, line_item_of
from dsp.console.errors import ApiError, FieldError, invalid, not_found
from dsp.console.models import PARENT, SPECS, ListQuery
from dsp.console.owned import hidden, known_to
from dsp.console.transaction import changing, reading

Shown = dict[str, Any]
TABLES: dict[str, Table] = {
    "advertiser": tables.advertiser,
    "campaign": tables.campaign,
    "line_item": tables.line_item,
}
_DEPTH = {"advertiser": 2, "campaign": 4, "line_item": 6}  # of a field's path in a file that holds just one
_MOST = 2**53


class Catalog:
    """The catalog of one database."""

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.time, approval_above: float = 0.0) -> None:
        self.engine, self.clock = engine, clock
        self.approval_above = approval_above  # US dollars; 0: nobody else needs to approve

    # --- reading -----------------------------------------------------------------------------------------------------

    def page(self, by: Identity, kind: str, query: ListQuery) -> tuple[list[Shown], int | None]:
        """What ``by`` may read, and the id to go on after."""
        table = TABLES[kind]
        with reading(self.engine) as connection:
            wanted = select(table.c.id).order_by(table.c.id).where(table.c.id > query.after).limit(query.limit + 1)
            owner = table.c.id if kind == "advertiser" else table.c.get("advertiser_id")
            if kind == "line_item":
                wanted = wanted.join(tables.campaign, tables.campaign.c.id == table.c.campaign_id)
                owner = tables.campaign.c.advertiser_id
                if query.campaign_id:
                    wanted = wanted.where(table.c.campaign_id == query.campaign_id)
            assert owner is not None
            mine = by.advertisers(READ)
            if mine is not None:
                wanted = wanted.where(owner.in_(mine))
            if query.advertiser_id:
                wanted = wanted.where(owner == query.advertiser_id)
            if query.q:
                wanted = wanted.where(table.c.name.icontains(query.q, autoescape=True))
            if kind != "advertiser":
                kept = table.c.status == query.status if query.status else table.c.status != "archived"
                wanted = wanted.where(kept)
            ids = [int(i) for i in connection.scalars(wanted)]
            more = ids[query.limit - 1] if len(ids) > query.limit else None
            return self._show(connection, kind, ids[: query.limit]), more

    def get(self, by: Identity, kind: str, ref: int) -> Shown:
        """One of them. Raises 404."""
        with reading(self.engine) as connection:
            return self._get(connection, by, kind, ref)

    def _get(self, connection: Connection, by: Identity, kind: str, ref: int) -> Shown:
        found = self._show(connection, kind, [ref]) if 0 < ref <= _MOST else []
        if not found or not by.may(READ, found[0]["advertiser_id"]):
            raise not_found(kind.replace("_", " "))
        return found[0]

    def _show(self, connection: Connection, kind: str, ids: Sequence[int]) -> list[Shown]:
        """What is shown of rows, in a handful of statements however many they are."""
        table = TABLES[kind]
        rows = _by_id(connection, table, ids)
        shown: list[Shown] = []
        if kind == "advertiser":
            for ref, row in rows.items():
                shown.append({**_plain(advertiser_of(row)), "id": ref, "advertiser_id": ref})
                del shown[-1]["campaigns"]
            return shown
        if kind == "campaign":
            owners = _by_id(connection, tables.advertiser, [r.advertiser_id for r in rows.values()])
            for ref, row in rows.items():
                spec = _plain(campaign_of(row, owners[row.advertiser_id].timezone))
                del spec["line_items"]
                shown.append({**spec, "id": ref, "advertiser_id": row.advertiser_id, "status": row.status})
            return shown
        campaigns = _by_id(connection, tables.campaign, [r.campaign_id for r in rows.values()])
        offers = _by_id(connection, tables.offer, [r.offer_id for r in rows.values()])
        creatives = self._creatives(connection, list(rows))
        for ref, row in rows.items():
            spec = _plain(line_item_of(row, offers[row.offer_id].name, creatives.get(ref, [])))
            ids_ = {"id": ref, "campaign_id": row.campaign_id}
            ids_["advertiser_id"] = campaigns[row.campaign_id].advertiser_id
            shown.append({**spec, **ids_, "status": row.status})
        return shown

    @staticmethod
    def _creatives(connection: Connection, line_items: Sequence[int]) -> dict[int, list[Any]]:
        c = tables.creative.c
        found: dict[int, list[Any]] = {}
        query = select(tables.creative).where(c.line_item_id.in_(line_items), c.status == "active").order_by(c.id)
        for row in connection.execute(query):
            found.setdefault(row.line_item_id, []).append(row)
        return found

    def references(self, by: Identity) -> dict[str, list[dict[str, str]]]:
        """Names that line items of ``by`` may refer to."""
        with reading(self.engine) as c:
            less = hidden(c, by)
            offers = [(o.name, f"{o.product}, {o.lender}") for o in c.execute(select(tables.offer))]
            exchanges = [(x.name, x.auction) for x in c.execute(select(tables.exchange))]
            segments = [(s.name, s.demographic) for s in c.execute(select(tables.segment))]
            deals = [(d.id, d.currency) for d in c.execute(select(tables.deal))]
        offers = [row for row in offers if row[0] not in less.offer]
        segments = [row for row in segments if row[0] not in less.segment]
        deals = [row for row in deals if row[0] not in less.deal]
        found = {"offers": offers, "exchanges": exchanges, "segments": segments, "deals": deals}
        return {k: [{"name": n, "detail": d} for n, d in rows] for k, rows in found.items()}

    # --- changing ----------------------------------------------------------------------------------------------------

    def create(self, by: Identity, kind: str, body: Shown) -> Shown:
        """Make one. Raises 403, 404 (parent), 409 (its name is taken), 422."""
        body = dict(body)
        parent = body.pop(PARENT[kind], 0)
        with changing(self.engine) as connection:
            self.begin(connection)
            advertiser = 0
            if kind == "campaign":
                advertiser = self._get(connection, by, "advertiser", parent)["advertiser_id"]
            elif kind == "line_item":
                advertiser = self._get(connection, by, "campaign", parent)["advertiser_id"]
            by.require(EDIT, advertiser or ALL)
            if _find(connection, kind, parent, body["name"]):
                raise ApiError(409, "exists", f"the name {body['name']!r} is taken; choose another")
            ref = self._save(connection, by, kind, parent, body)
            made = self._show(connection, kind, [ref])[0]
            self._approved(connection, kind, "create", None, made)
            drafts.note(connection, kind, None, made)
            self._log(connection, by, "create", kind, None, made)
            return made

    def change(self, by: Identity, kind: str, ref: int, changes: Shown, etag: str, action: str = "change") -> Shown:
        """Change some fields. ``etag``: of what was seen ("*": whatever it is). Raises 403, 404, 409, 412, 422."""
        with changing(self.engine) as connection:
            self.begin(connection)
            before = self._get(connection, by, kind, ref)
            by.require(EDIT, before["advertiser_id"])
            if etag not in ("*", etag_of(before)):
                raise ApiError(412, "stale", "someone changed it since you read it; read it again, then change it")
            if before.get("status") == "archived":
                raise ApiError(409, "archived", "it is archived and can't be changed; make a new one")
            if not changes:
                return before
            parent = before[PARENT[kind]] if PARENT[kind] else 0
            spec = {k: v for k, v in before.items() if k not in ("id", "advertiser_id", "campaign_id")}
            name = str(changes.get("name", before["name"]))
            if name != before["name"]:
                if _find(connection, kind, parent, name):
                    raise ApiError(409, "exists", f"the name {name!r} is taken; choose another")
                table = TABLES[kind]
                connection.execute(update(table).where(table.c.id == ref).values(name=_short(name)))
            self._save(connection, by, kind, parent, {**spec, **changes})
            after = self._show(connection, kind, [ref])[0]
            self._approved(connection, kind, action, before, after)
            drafts.note(connection, kind, before, after)
            self._log(connection, by, action, kind, before, after)
            return after

    def _approved(self, connection: Connection, kind: str, action: str, before: Shown | None, after: Shown) -> None:
        """Raise 409 where a campaign would go live, or cost more while live, than one person may decide."""
        if self.approval_above and action != "approve":
            require_second(connection, self.approval_above, kind, before, after)

    def archive(self, by: Identity, kind: str, ref: int, etag: str) -> Shown:
        """End it for good; its books stay."""
        with changing(self.engine) as connection:
            self.begin(connection)
            before = self._get(connection, by, kind, ref)
            by.require(EDIT, before["advertiser_id"])
            if etag not in ("*", etag_of(before)):
                raise ApiError(412, "stale", "someone changed it since you read it; read it again, then archive it")
            table = TABLES[kind]
            connection.execute(update(table).where(table.c.id == ref).values(status="archived"))
            after = self._show(connection, kind, [ref])[0]
            self._log(connection, by, "archive", kind, before, after)
            return after

    def begin(self, connection: Connection) -> None:
        """Raise the revision, by which others see that something changed; first, to hold the write lock."""
        connection.execute(update(tables.revision).values(revision=tables.revision.c.revision + 1))

    def _log(self, connection: Connection, by: Identity, action: str, kind: str, before: Any, after: Shown) -> None:
        record(
            connection, self.clock(), by.email, by.via, action, kind, after["id"], after["advertiser_id"], before, after
        )

    def _save(self, connection: Connection, by: Identity, kind: str, parent: int, spec: Shown) -> int:
        """Check one with what is above it, by the rules of a catalog file, and write it; its id."""
        _short(spec["name"])
        try:
            one = msgspec.convert(msgspec.to_builtins(spec), SPECS[kind])
        except msgspec.ValidationError as error:
            raise invalid("body", str(error)) from None
        owner = _within(connection, kind, parent, one)
        problems = check(types.CatalogFile(advertisers=(_alone(kind, owner),)), known_to(connection, by))
        if problems:
            fields = [FieldError(_field(path[_DEPTH[kind] :]), text) for path, text in problems]
            raise ApiError(422, "invalid", "; ".join(f"{f.field}: {f.message}" for f in fields[:3]), fields[:50])
        Writer(connection).write(types.CatalogFile(advertisers=(owner,)))
        ref = _find(connection, kind, parent, one.name)
        assert ref is not None
        return ref


def etag_of(shown: Shown) -> str:
    """The ETag, quotes included."""
    return '"' + hashlib.sha256(msgspec.json.encode(shown)).hexdigest()[:32] + '"'


def _plain(spec: Any) -> Shown:
    """A catalog type as a dict of its fields, every one of them there."""
    return {name: msgspec.to_builtins(getattr(spec, name)) for name in spec.__struct_fields__}


def _by_id(connection: Connection, table: Table, ids: Sequence[int]) -> dict[int, Any]:
    query = select(table).where(table.c.id.in_(set(ids))).order_by(table.c.id)
    return {row.id: row for row in connection.execute(query)}


def _find(connection: Connection, kind: str, parent: int, name: str) -> int | None:
    table = TABLES[kind]
    query = select(table.c.id).where(table.c.name == name)
    if PARENT[kind]:
        query = query.where(table.c[PARENT[kind]] == parent)
    return connection.execute(query).scalar()


def _within(connection: Connection, kind: str, parent: int, one: Any) -> types.Advertiser:
    """``one`` as a file has it: inside its campaign and advertiser, which stay as they are."""
    if kind == "advertiser":
        return msgspec.structs.replace(one, campaigns=())
    campaign = one
    owner = parent
    if kind == "line_item":
        row = _by_id(connection, tables.campaign, [parent])[parent]
        owner = row.advertiser_id
    advertiser = advertiser_of(_by_id(connection, tables.advertiser, [owner])[owner])
    if kind == "line_item":
        campaign = campaign_of(row, advertiser.timezone)
        campaign = msgspec.structs.replace(campaign, line_items=(one,))
    else:
        campaign = msgspec.structs.replace(campaign, line_items=())
    return msgspec.structs.replace(advertiser, campaigns=(campaign,))


def _alone(kind: str, owner: types.Advertiser) -> types.Advertiser:
    """As it is checked: a line item without its campaign's experiments, which name others that are not here."""
    if kind != "line_item":
        return owner
    campaigns = tuple(msgspec.structs.replace(campaign, experiments=()) for campaign in owner.campaigns)
    return msgspec.structs.replace(owner, campaigns=campaigns)


def _short(name: str) -> str:
    if not 1 <= len(name) <= 200 or not name.strip() or not name.isprintable():
        raise invalid("name", "write 1 to 200 visible characters")
    return name


def _field(path: FieldPath) -> str:
    return ".".join(str(step) for step in path) or "budget"
