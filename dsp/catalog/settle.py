"""A catalog file's exchanges with their profiles found and everything they leave unsaid taken from these."""

from __future__ import annotations

from pathlib import Path

import msgspec

from dsp.catalog import types
from dsp.catalog.profile import Profile, check_profile, read_profile, shipped
from dsp.catalog.source import CatalogError, Problem

_FROM_PROFILE = ("qps", "allowance_ms", "tmax_ms", "currency", "exp_s", "auction", "billable")


def settled(file: types.CatalogFile, beside: Path) -> tuple[types.CatalogFile, list[Problem]]:
    """``file`` with whole exchanges, and what is wrong with their profiles; files are looked for ``beside`` it.

    Raises `CatalogError` over a profile in a file of its own, which names that file.
    """
    exchanges: list[types.Exchange] = []
    problems: list[Problem] = []
    for i, exchange in enumerate(file.exchanges):
        profile = exchange.profile
        if isinstance(profile, Profile):
            problems += [(("exchanges", i, "profile", *path), text) for path, text in check_profile(profile)]
        elif profile.endswith((".yaml", ".yml")):
            profile = read_profile(beside / profile)
        else:
            try:
                profile = shipped(profile)
            except CatalogError as error:
                problems.append((("exchanges", i, "profile"), str(error)))
                profile = Profile()
        exchanges.append(whole(exchange, profile))
        if exchange.fee is not None:
            wrong = check_profile(msgspec.structs.replace(profile, fee=exchange.fee))
            problems += [(("exchanges", i, *path), text) for path, text in wrong if path == ("fee",)]
    return msgspec.structs.replace(file, exchanges=tuple(exchanges)), problems


def whole(exchange: types.Exchange, profile: Profile) -> types.Exchange:
    """``exchange`` with every field set."""
    unsaid = {name: getattr(profile, name) for name in _FROM_PROFILE if getattr(exchange, name) is None}
    if exchange.fee is not None:
        profile = msgspec.structs.replace(profile, fee=exchange.fee)
    return msgspec.structs.replace(exchange, profile=profile, **unsaid)
