"""Whose the offers, deals and segments are. One client never sees another's.

Each may be given to an advertiser. What was given to none, as everything that comes by file, is everybody's until line
items use it, and then theirs whose line items do: hidden from readers whose own don't. Exchanges are everybody's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, select

from dsp.catalog import store, tables, types
from dsp.catalog.check import Known
from dsp.console import tables as own
from dsp.console.access import READ, Identity

_TARGETING = msgspec.json.Decoder(types.Targeting).decode
_NAMES = msgspec.json.Decoder(tuple[str, ...]).decode


@dataclass(frozen=True)
class Hidden:
    """Names of offers and segments, ids of deals, that a reader must not see."""

    offer: frozenset[str] = frozenset()
    deal: frozenset[str] = frozenset()
    segment: frozenset[str] = frozenset()

    def of(self, kind: str) -> frozenset[str]:
        """Those of one kind."""
        found: frozenset[str] = getattr(self, kind, frozenset())
        return found


def hidden(connection: Connection, by: Identity) -> Hidden:
    """What ``by`` must not see."""
    mine = by.advertisers(READ)
    if mine is None:
        return Hidden()
    owners: dict[str, dict[str, set[int]]] = {"offer": {}, "deal": {}, "segment": {}}
    for row in connection.execute(select(own.owner)):
        owners[row.kind].setdefault(row.key, set()).add(row.advertiser_id)
    for advertiser, used in _used(connection):
        for kind, names in used.items():
            for name in names:
                owners[kind].setdefault(name, set()).add(advertiser)
    return Hidden(**{kind: _foreign(of, mine) for kind, of in owners.items()})


def _foreign(owners: Mapping[str, set[int]], mine: frozenset[int]) -> frozenset[str]:
    return frozenset(name for name, of in owners.items() if not of & mine)


def _used(connection: Connection) -> list[tuple[int, dict[str, set[str]]]]:
    """Per advertiser, what its line items refer to."""
    li = tables.line_item.c
    found: dict[int, dict[str, set[str]]] = {}
    columns = (tables.campaign.c.advertiser_id, tables.offer.c.name, li.deals, li.targeting)
    joined = tables.line_item.join(tables.campaign).join(tables.offer, li.offer_id == tables.offer.c.id)
    for advertiser, offer, deals, targeting in connection.execute(select(*columns).select_from(joined).distinct()):
        used = found.setdefault(advertiser, {"offer": set(), "deal": set(), "segment": set()})
        used["offer"].add(offer)
        if deals != "[]":
            used["deal"].update(_NAMES(deals))
        if '"segments"' in targeting:
            segments = _TARGETING(targeting).segments
            used["segment"].update((*segments.include, *segments.exclude))
    return list(found.items())


def known_to(connection: Connection, by: Identity) -> Known:
    """What a line item of ``by`` may refer to; what is hidden is unknown, in refusals' hints too."""
    known, less = store.known(connection), hidden(connection, by)
    if less == Hidden():
        return known
    return msgspec.structs.replace(
        known,
        offers=_without(known.offers, less.offer),
        deals=_without(known.deals, less.deal),
        segments=_without(known.segments, less.segment),
    )


def _without(names: Mapping[str, Any], less: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in names.items() if name not in less}


def owner_of(connection: Connection, kind: str, key: str) -> int:
    """The advertiser that it was given to, 0 for none."""
    o = own.owner.c
    found = connection.execute(select(o.advertiser_id).where(o.kind == kind, o.key == key)).scalar()
    return int(found or 0)


def give(connection: Connection, kind: str, key: str, advertiser_id: int) -> None:
    """Give it to an advertiser, or to none."""
    o = own.owner.c
    connection.execute(delete(own.owner).where(o.kind == kind, o.key == key))
    if advertiser_id:
        connection.execute(own.owner.insert().values(kind=kind, key=key, advertiser_id=advertiser_id))
