"""A second person's approval: a campaign that may spend more than `console.approval_above` goes live by two people.

Line items spend within their campaign's budget, so campaigns alone are reviewed. The check is in `Catalog` and holds
for the API as for the pages. What waits here is the change somebody wanted, made as it was asked for when another
approves; if the campaign was changed meanwhile, it must be asked for anew.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from sqlalchemy import Connection, func, insert, select, update

from dsp.catalog import tables as catalog_tables
from dsp.console import tables
from dsp.console.access import ALL, READ, ROLES, Identity
from dsp.console.audit import record
from dsp.console.browse import limit
from dsp.console.catalog import Catalog, etag_of
from dsp.console.errors import ApiError, invalid, not_found
from dsp.console.transaction import changing

APPROVERS = ("owner", "admin", "reviewer")
WAITING, APPROVED, RETURNED = "waiting", "approved", "returned"


@dataclass(frozen=True)
class Review:
    """What waits for a second person."""

    id: int
    campaign_id: int
    campaign: str
    changes: dict[str, Any]
    asked_by: str
    asked_s: int
    total: int | None  # what it may spend as it is, micros
    daily: int | None
    mine: bool  # whether the reader asked, and so may not approve


def ask(catalog: Catalog, by: Identity, campaign_id: int, changes: dict[str, Any]) -> int:
    """Put a change before a second person; a newer one replaces what waited. Its id. Raises 403, 404, 422."""
    if not changes:
        raise invalid("body", "say what to change, such as the status active")
    changes = msgspec.to_builtins(changes)
    before = catalog.get(by, "campaign", campaign_id)
    by.require("write", before["advertiser_id"])
    r = tables.review
    with changing(catalog.engine) as connection:
        waits = (r.c.campaign_id == campaign_id) & (r.c.state == WAITING)
        connection.execute(update(r).where(waits).values(state=RETURNED))
        row = {
            "campaign_id": campaign_id,
            "advertiser_id": before["advertiser_id"],
            "state": WAITING,
        }
        who = {"asked_by": by.email, "asked_id": by.user_id, "asked_s": int(catalog.clock()), "decided_by": ""}
        done = connection.execute(insert(r).values(**row, **who, etag=etag_of(before), changes=json.dumps(changes)))
        _log(connection, catalog, by, "ask", campaign_id, before["advertiser_id"], changes)
        return int(done.inserted_primary_key[0]) if done.inserted_primary_key else 0


def waiting(catalog: Catalog, by: Identity) -> list[Review]:
    """What waits of what ``by`` may read, the oldest first."""
    r, c = tables.review.c, catalog_tables.campaign.c
    mine = by.advertisers(READ)
    wanted = select(tables.review, c.name, c.total_micros, c.daily_micros).join(
        catalog_tables.campaign, c.id == r.campaign_id
    )
    wanted = wanted.where(r.state == WAITING).order_by(r.id).limit(200)
    if mine is not None:
        wanted = wanted.where(r.advertiser_id.in_(mine))
    with catalog.engine.connect() as connection:
        rows = connection.execute(wanted).all()
    return [
        Review(
            x.id,
            x.campaign_id,
            x.name,
            json.loads(x.changes),
            x.asked_by,
            x.asked_s,
            limit(x.total_micros),
            limit(x.daily_micros),
            x.asked_id == by.user_id,
        )
        for x in rows
    ]


def count(catalog: Catalog, by: Identity) -> int:
    """How many wait that ``by`` could decide on."""
    mine = by.advertisers(READ)
    r = tables.review.c
    wanted = select(func.count()).where(r.state == WAITING, r.asked_id != by.user_id)
    if mine is not None:
        wanted = wanted.where(r.advertiser_id.in_(mine))
    with catalog.engine.connect() as connection:
        return int(connection.execute(wanted).scalar_one())


def decide(catalog: Catalog, by: Identity, review_id: int, approve: bool) -> int:
    """Approve, and the change is made; or return it. The campaign's id. Raises 403, 404, 409."""
    if by.via == "key":
        raise ApiError(403, "forbidden", "a second person decides that, signed in; an API key can ask")
    r = tables.review
    with changing(catalog.engine) as connection:
        row = connection.execute(select(r).where(r.c.id == review_id)).first()
        if row is None or not by.may(READ, row.advertiser_id):
            raise not_found("review")
        if row.state != WAITING:
            raise ApiError(409, "decided", "it is not waiting for a review")
        roles = {by.roles.get(ALL, ""), by.roles.get(row.advertiser_id, "")}
        if approve and not roles & set(APPROVERS):
            by.require("approve", row.advertiser_id)
        if approve and row.asked_id == by.user_id:
            raise ApiError(403, "forbidden", "someone else must approve what you sent for review")
        if not approve and row.asked_id != by.user_id and not roles & set(APPROVERS):
            by.require("approve", row.advertiser_id)
        state = APPROVED if approve else RETURNED
        connection.execute(update(r).where(r.c.id == review_id).values(state=state, decided_by=by.email))
        if approve:  # a reviewer may not edit: this one change is made in their name
            able = replace(by, roles={**by.roles, row.advertiser_id: "trader"}, scopes=frozenset(("read", "write")))
            catalog.change(able, "campaign", row.campaign_id, json.loads(row.changes), row.etag, "approve")
        else:
            _log(connection, catalog, by, "return", row.campaign_id, row.advertiser_id, None)
    return int(row.campaign_id)


def _log(
    connection: Connection, catalog: Catalog, by: Identity, action: str, ref: int, advertiser: int, after: Any
) -> None:
    record(connection, catalog.clock(), by.email, by.via, action, "review", ref, advertiser, None, after)


assert set(APPROVERS) <= set(ROLES)
