"""A catalog file, applied through the API: each thing that it names is made or changed, from the top down.

Not one transaction, as `dsp catalog apply` on the machine itself is; applying the file again goes on where a refusal
stopped it, and then changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from dsp.catalog.types import CatalogFile
from dsp.cli.api_client import ApiClient, RefusedError

Result = dict[str, Any]


def applying(api: ApiClient, file: CatalogFile) -> Iterator[Result]:
    """One result for each thing, as it is done: kind, id, name, action (made, changed, unchanged)."""
    if file.currencies is not None:
        raise RefusedError("currencies: exchange rates are set on the machine itself, by `dsp catalog apply`")
    segments = [
        {"name": name, **(value if isinstance(value, dict) else {"number": value})}
        for name, value in file.segments.items()
    ]
    for kind, path, named, listed in (
        ("exchange", "/exchanges", "name", _plain(file.exchanges)),
        ("segment", "/segments", "name", segments),
        ("offer", "/offers", "name", _plain(file.offers)),
        ("deal", "/deals", "id", _plain(file.deals)),
    ):
        for spec in listed:
            have = next((h for h in api.rows(path, 500, q=spec[named]) if h[named] == spec[named]), None)
            fixed = ("name", "number") if kind == "segment" else ("id", "name")
            key = "number" if kind == "segment" else "id"
            yield _put(api, kind, path, spec, have, key, fixed)
    for advertiser in _plain(file.advertisers):
        yield from _advertiser(api, advertiser)


def count(file: CatalogFile) -> int:
    """How many results `applying` will give."""
    campaigns = [campaign for advertiser in file.advertisers for campaign in advertiser.campaigns]
    above = len(file.exchanges) + len(file.segments) + len(file.offers) + len(file.deals) + len(file.advertisers)
    return above + len(campaigns) + sum(len(campaign.line_items) for campaign in campaigns)


def _advertiser(api: ApiClient, spec: dict[str, Any]) -> Iterator[Result]:
    campaigns = spec.pop("campaigns")
    done = _put(api, "advertiser", "/advertisers", spec, api.named("/advertisers", spec["name"]))
    yield done
    for campaign in campaigns:
        items = campaign.pop("line_items")
        owner = {"advertiser_id": done["id"]}
        have = api.named("/campaigns", campaign["name"], **owner)
        made = _put(api, "campaign", "/campaigns", campaign, have, above=owner)
        yield made
        for item in items:
            parent = {"campaign_id": made["id"]}
            have = api.named("/line-items", item["name"], **parent)
            yield _put(api, "line_item", "/line-items", item, have, above=parent)


def _put(
    api: ApiClient, kind: str, path: str, spec: dict[str, Any], have: dict[str, Any] | None, key: str = "id",
    fixed: tuple[str, ...] = (), above: dict[str, Any] | None = None,
) -> Result:  # fmt: skip
    name = spec.get("name", spec.get("id"))
    try:
        if have is None:
            made, action = api.post(path, {**spec, **(above or {})}), "made"
        else:
            changes = {k: v for k, v in spec.items() if k not in fixed}
            made = api.patch(f"{path}/{have[key]}", changes)
            action = "unchanged" if made == have else "changed"
    except RefusedError as error:
        raise RefusedError(f"{kind.replace('_', ' ')} {name!r}: {error}") from None
    return {"kind": kind, "id": made[key], "name": name, "action": action}


def _plain(things: Any) -> list[dict[str, Any]]:
    """Catalog types as JSON values, every field there: a file says everything about what it names."""
    return [_dict(thing) for thing in things]


def _dict(thing: Any) -> dict[str, Any]:
    found = {}
    for name in thing.__struct_fields__:
        value = getattr(thing, name)
        nested = name in ("campaigns", "line_items")
        found[name] = [_dict(one) for one in value] if nested else msgspec.to_builtins(value)
    return found
