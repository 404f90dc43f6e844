"""Experiments as the REST API has them: each is a part of its campaign, whose change a change of it is.

So the campaign's ETag guards it, the audit log and undo know it as a change of the campaign, and a catalog file says
the same. The logs know an experiment by a number that its campaign, name and salt make; these stay, and so does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import replace
from sqlalchemy import Connection, select

from dsp.catalog import tables, types
from dsp.catalog.check_experiment import check_experiments
from dsp.catalog.meta import experiment_id
from dsp.catalog.source import FieldPath
from dsp.console.access import EDIT, READ, REPORT, Identity
from dsp.console.catalog import Catalog, etag_of
from dsp.console.errors import ApiError, FieldError, invalid, not_found
from dsp.console.models import Id
from dsp.console.operation import Call, Operation, Reply, given
from dsp.console.transaction import changing, reading
from dsp.console.trials import Results

_EXPERIMENTS = msgspec.json.Decoder(tuple[types.Experiment, ...]).decode


class CampaignExperiment(Struct):
    """A split of people into arms, ``results`` where they were asked for, are known and may be seen."""

    id: int
    campaign_id: int
    campaign: str
    advertiser_id: int
    name: str
    status: str
    arms: tuple[types.Arm, ...]
    line_items: tuple[str, ...]
    salt: str
    results: Results | None = None


class ExperimentPage(Struct):
    """Experiments."""

    items: list[CampaignExperiment]
    next: int | None = None


class NewExperiment(Struct, forbid_unknown_fields=True):
    """An experiment to add to a campaign; it begins at once."""

    campaign_id: Id
    name: str
    arms: tuple[types.Arm, ...]
    line_items: tuple[str, ...] = ()
    salt: Annotated[str, Meta(max_length=200)] = ""


class ChangeExperiment(Struct, forbid_unknown_fields=True):
    """What may change; what is left out stays. Other shares put people into other arms: better end it and make one."""

    arms: tuple[types.Arm, ...] | UnsetType = UNSET
    line_items: tuple[str, ...] | UnsetType = UNSET
    status: Literal["active", "ended"] | UnsetType = UNSET


class ExperimentsQuery(Struct, forbid_unknown_fields=True):
    """Filters of the list: in the order of ids, ``after`` the last one seen."""

    after: Annotated[int, Meta(ge=0, le=2**53)] = 0
    limit: Annotated[int, Meta(ge=1, le=500)] = 50
    q: Annotated[str, Meta(max_length=200)] = ""
    status: Literal["", "active", "ended"] = ""
    advertiser_id: Annotated[int, Meta(ge=0, le=2**53)] = 0
    campaign_id: Annotated[int, Meta(ge=0, le=2**53)] = 0


class ExperimentQuery(Struct, forbid_unknown_fields=True):
    """``days``: how far back results go, 0 for all there is. Without ``results`` no log is read."""

    days: Annotated[int, Meta(ge=0, le=3650)] = 0
    results: bool = True


@dataclass(frozen=True)
class _Declared:
    """One of a campaign's, by its place among them."""

    shown: CampaignExperiment
    at: int


def page(catalog: Catalog, by: Identity, query: ExperimentsQuery) -> ExperimentPage:
    """The experiments of all campaigns that ``by`` may read."""
    found = [
        one.shown
        for one in _declared(catalog, by, query.advertiser_id, query.campaign_id)
        if one.shown.id > query.after
        and query.q.lower() in one.shown.name.lower()
        and query.status in ("", one.shown.status)
    ]
    found.sort(key=lambda one: one.id)
    items = found[: query.limit]
    return ExperimentPage(items, items[-1].id if len(found) > query.limit else None)


def get(catalog: Catalog, by: Identity, ref: int) -> tuple[CampaignExperiment, str]:
    """One with its campaign's ETag. Raises 404."""
    with reading(catalog.engine):
        one = _find(catalog, by, ref).shown
        return one, etag_of(catalog.get(by, "campaign", one.campaign_id))


def create(catalog: Catalog, by: Identity, body: NewExperiment, etag: str) -> tuple[CampaignExperiment, str]:
    """Add one to a campaign. Raises 403, 404, 409 (its name is taken), 412, 422."""
    if not 1 <= len(body.name) <= 200 or not body.name.strip() or not body.name.isprintable():
        raise invalid("name", "write 1 to 200 visible characters")
    one = types.Experiment(body.name, body.arms, body.line_items, body.salt)
    with changing(catalog.engine) as connection:
        campaign = catalog.get(by, "campaign", body.campaign_id)
        others = msgspec.convert(campaign["experiments"], tuple[types.Experiment, ...])
        if any(other.name == one.name for other in others):
            raise ApiError(409, "exists", f"the name {one.name!r} is taken; choose another")
        return _save(catalog, connection, by, campaign, (*others, one), len(others), etag or "*")


def change(catalog: Catalog, by: Identity, ref: int, changes: dict[str, Any], etag: str) -> Any:
    """Change or end one; (it, its campaign's ETag). Raises 403, 404, 409, 412, 422."""
    with changing(catalog.engine) as connection:
        found = _find(catalog, by, ref)
        campaign = catalog.get(by, "campaign", found.shown.campaign_id)
        mine = list(msgspec.convert(campaign["experiments"], tuple[types.Experiment, ...]))
        mine[found.at] = replace(mine[found.at], **changes)
        ends = changes.get("status") == "ended" and len(changes) == 1
        return _save(catalog, connection, by, campaign, mine, found.at, etag, check=not ends)


def _save(
    catalog: Catalog,
    connection: Connection,
    by: Identity,
    campaign: dict[str, Any],
    all_: Sequence[types.Experiment],
    at: int,
    etag: str,
    check: bool = True,
) -> tuple[CampaignExperiment, str]:
    """Write a campaign with ``all_`` its experiments, of which the one ``at`` a place is new. Whatever it names may be
    gone by the time it ends: that is no reason to let it run on.
    """
    by.require(EDIT, campaign["advertiser_id"])
    if check:
        _check(connection, campaign, all_, at)
    after = catalog.change(by, "campaign", campaign["id"], {"experiments": msgspec.to_builtins(all_)}, etag)
    return _shown(after["id"], after["name"], after["advertiser_id"], all_[at]), etag_of(after)


def _check(connection: Connection, campaign: dict[str, Any], all_: Sequence[types.Experiment], at: int) -> None:
    """Raise 422 for what is wrong with the one at a place, names of line items, ads and offers included."""
    others = tuple(one for i, one in enumerate(all_) if i != at)
    ordered = (*others, all_[at])  # what overlaps is the last one's fault
    spec = types.Campaign(campaign["name"], _line_items(connection, campaign["id"]), experiments=ordered)
    fields: list[FieldError] = []

    def say(path: FieldPath, text: str) -> None:
        if path[0] == len(others):
            fields.append(FieldError(".".join(map(str, path[1:])), text))

    check_experiments((), spec, say)
    if fields:
        raise ApiError(422, "invalid", "; ".join(f"{f.field}: {f.message}" for f in fields[:3]), fields[:50])


def _line_items(connection: Connection, campaign: int) -> tuple[types.LineItem, ...]:
    """What an experiment may name of a campaign's line items: their names, offers, ads as a file has them."""
    t, o, c = tables.line_item, tables.offer, tables.creative
    alive = (t.c.campaign_id == campaign) & (t.c.status != "archived")
    ads: dict[int, dict[str, types.Creative]] = {}
    found = select(c.c.line_item_id, c.c.name, c.c.w, c.c.h).join(t, t.c.id == c.c.line_item_id)
    for row in connection.execute(found.where(alive, c.c.status == "active").order_by(c.c.id)):
        names = (row.name, row.name.removesuffix(f" {row.w}x{row.h}"))  # of one size, of all its sizes
        ads.setdefault(row.line_item_id, {}).update({name: types.Creative(name, "banner", "") for name in names})
    rows = connection.execute(select(t.c.id, t.c.name, o.c.name.label("offer")).join(o).where(alive).order_by(t.c.id))
    return tuple(types.LineItem(row.name, row.offer, 0, tuple(ads.get(row.id, {}).values())) for row in rows)


def _declared(catalog: Catalog, by: Identity, advertiser: int = 0, campaign: int = 0) -> list[_Declared]:
    c = tables.campaign.c
    wanted = select(c.id, c.name, c.advertiser_id, c.experiments).where(c.experiments != "[]").order_by(c.id)
    mine = by.advertisers(READ)
    if mine is not None:
        wanted = wanted.where(c.advertiser_id.in_(mine))
    if advertiser:
        wanted = wanted.where(c.advertiser_id == advertiser)
    if campaign:
        wanted = wanted.where(c.id == campaign)
    with reading(catalog.engine) as connection:
        rows = connection.execute(wanted).all()
    return [
        _Declared(_shown(row.id, row.name, row.advertiser_id, spec), at)
        for row in rows
        for at, spec in enumerate(_EXPERIMENTS(row.experiments))
    ]


def _find(catalog: Catalog, by: Identity, ref: int) -> _Declared:
    found = next((one for one in _declared(catalog, by) if one.shown.id == ref), None)
    if found is None:
        raise not_found("experiment")
    return found


def _shown(campaign: int, name: str, advertiser: int, spec: types.Experiment) -> CampaignExperiment:
    number = experiment_id(campaign, spec)
    return CampaignExperiment(
        number, campaign, name, advertiser, spec.name, spec.status, spec.arms, spec.line_items, spec.salt
    )


def _listed(call: Call) -> Reply:
    return Reply(page(call.services.catalog, call.by, call.query))


def _got(call: Call) -> Reply:
    one, etag = get(call.services.catalog, call.by, call.ref)
    if call.query.results and call.by.may(REPORT, one.advertiser_id):
        one.results = call.services.trials.read(one.id, call.query.days)
    return Reply(one, 200, etag, live=True)


def _made(call: Call) -> Reply:
    one, etag = create(call.services.catalog, call.by, call.body, call.etag)
    return Reply(one, 201, etag)


def _changed(call: Call) -> Reply:
    one, etag = change(call.services.catalog, call.by, call.ref, given(call.body), call.etag)
    return Reply(one, 200, etag)


OPERATIONS = (
    Operation("GET", "/experiments", "List experiments", _listed, ExperimentPage, ExperimentsQuery),
    Operation("POST", "/experiments", "Add an experiment to a campaign", _made, CampaignExperiment,
              body=NewExperiment, status=201, tagged=True, errors=(404, 409, 412, 422)),
    Operation("GET", "/experiments/{id}", "Read an experiment and what it shows; its ETag is its campaign's", _got,
              CampaignExperiment, ExperimentQuery, errors=(404, 503)),
    Operation("PATCH", "/experiments/{id}", "Change or end an experiment", _changed, CampaignExperiment,
              body=ChangeExperiment, match=True, errors=(404, 409, 412, 422, 428)),
)  # fmt: skip
