"""Exchange profiles: all that differs from one exchange to another, as data.

A profile is a YAML file: one of those that come with the program (`profiles/NAME.yaml` beside this module), one of your
own, or the ``profile`` of an exchange in the catalog file. It travels inside the catalog: the database and the snapshot
hold it whole, so nothing reads the file after `dsp catalog apply`. A new JSON dialect is a new file and no code.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import msgspec

from dsp.base.money import parse_micros
from dsp.catalog.source import CatalogError, Problem, read_source
from dsp.openrtb.dialect import Dialect, DialectError, compile_dialect

DIRECTORY = Path(__file__).parent / "profiles"
NoBid = Literal["204", "empty", "nbr"]
Notice = Literal["win", "billing", "loss"]
Required = Literal["iurl", "bundle", "attr", "api", "secure"]
_CATEGORY = re.compile(r"IAB\d{1,2}(-\d{1,2})?")
_OURS = {
    "id",
    "impid",
    "price",
    "nurl",
    "burl",
    "lurl",
    "adm",
    "exp",
    "w",
    "h",
    "dur",
    "dealid",
}  # written by the bidder


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How one kind of exchange speaks and what it asks for."""

    about: str = ""  # which exchange, and where its facts are from
    openrtb: Literal["2.3", "2.4", "2.5", "2.6"] = "2.6"
    wire: Literal["json", "protobuf"] = "json"  # what it sends; the bidder answers in what a request came in
    currency: str = "USD"  # to bid in, where the request allows it
    auction: Literal["first", "second"] = "first"  # where the request does not say
    billable: Literal["burl", "nurl", "pixel"] = "burl"  # the notice that is charged
    tmax_ms: int = 200  # where the request has none
    allowance_ms: int = 20  # network time taken off tmax
    qps: int = 0  # per host; 0: no cap
    exp_s: int = 300  # bid.exp, and the life of a reservation
    fee: str | float = 0  # share of the price that it charges on top: part of what a bid may cost, reserved and posted
    no_bid: NoBid = "204"  # or 200 with a BidResponse without bids, or with one that has the reason
    notices: tuple[Notice, ...] = ("win", "billing", "loss")  # which of nurl, burl and lurl a bid there has
    price_macro: str = "${AUCTION_PRICE}"  # what it replaces with the price in these
    price: Literal["plain", "google", "aes-gcm", "aes-ecb"] = "plain"  # how the price comes; keys: secrets/price.json
    bid: dict[str, Any] = {}  # further members of every JSON bid; {crid}, {cid} and {seat} in texts are filled in
    required: tuple[Required, ...] = ()  # members that a bid must have: ads without them don't bid there
    banned_categories: tuple[str, ...] = ()  # IAB categories of advertisers that it never takes
    approval: Literal["none", "before"] = "none"  # before: only ads whose `approved` names the exchange bid there
    request: Dialect = Dialect()


def check_limits(qps: int | None, allowance_ms: int | None, tmax_ms: int | None, exp_s: int | None) -> list[Problem]:
    """What is wrong with the times and the cap of a profile or an exchange; None is left to the profile."""
    problems: list[Problem] = []
    if not 0 <= (allowance_ms or 0) < (10_000 if tmax_ms is None else tmax_ms) <= 10_000:
        problems.append((("allowance_ms",), "must be 0 or more and below tmax_ms, which must be at most 10000"))
    if exp_s is not None and not 1 <= exp_s <= 86_400:
        problems.append((("exp_s",), "must be 1 to 86400 seconds"))
    if (qps or 0) < 0:
        problems.append((("qps",), "must be 0 (no cap) or more"))
    return problems


def check_profile(profile: Profile) -> list[Problem]:
    """What is wrong with ``profile`` beyond its types."""
    problems = check_limits(profile.qps, profile.allowance_ms, profile.tmax_ms, profile.exp_s)
    try:
        fee_ppm(profile)
    except ValueError:
        problems.append((("fee",), f"{profile.fee!r} is not a share; write a number from 0 to 1"))
    for i, category in enumerate(profile.banned_categories):
        if not _CATEGORY.fullmatch(category):
            problems.append((("banned_categories", i), f"{category!r} is not an IAB category; write IAB13 or IAB13-4"))
    problems += [(("bid", name), "is written by the bidder itself") for name in profile.bid if name in _OURS]
    charged: dict[str, Notice] = {"nurl": "win", "burl": "billing"}
    needed = charged.get(profile.billable)
    if needed is not None and needed not in profile.notices:
        problems.append((("notices",), f"has no {needed!r}, which is the notice that is charged"))
    if not re.fullmatch(r"[!-~]{3,60}", profile.price_macro) or set(profile.price_macro) & set('&"\\'):
        problems.append((("price_macro",), "is not a macro; write ${AUCTION_PRICE} or the like"))
    try:
        compile_dialect(profile.request)
    except DialectError as error:
        problems.append((("request", *error.path), str(error)))
    return problems


def fee_ppm(profile: Profile) -> int:
    """The fee in millionths of the price. Raises ValueError."""
    ppm = parse_micros(str(profile.fee))
    if not 0 <= ppm <= 1_000_000 or isinstance(profile.fee, bool):
        raise ValueError(f"{profile.fee!r} is not a share")
    return ppm


def read_profile(path: Path) -> Profile:
    """The profile in the file at ``path``. Raises `CatalogError`: each problem with file, line and field."""
    source = read_source(path, Profile)
    problems = check_profile(source.value)
    if problems:
        source.fail(problems)
    return source.value


@lru_cache(maxsize=64)
def shipped(name: str) -> Profile:
    """A profile that comes with the program. Raises `CatalogError`."""
    if name not in shipped_names():
        raise CatalogError(f"no profile {name!r}; there are {', '.join(shipped_names())}, or name a .yaml file")
    return read_profile(DIRECTORY / f"{name}.yaml")


def shipped_names() -> list[str]:
    """The profiles that come with the program."""
    return sorted(path.stem for path in DIRECTORY.glob("*.yaml"))
