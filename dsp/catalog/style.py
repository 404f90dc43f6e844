"""What an exchange's profile asks of our bids: the style of their texts, and which ads it takes at all.

All of it is worked out when a catalog is compiled. Exchanges of one style share one set of templates, and which ads an
exchange refuses is a bit per exchange in the creative's row, looked at once an ad fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from dsp.catalog.layout import MAX_REFUSALS
from dsp.catalog.profile import Notice
from dsp.catalog.records import Advertiser, Creative, Exchange

NOTICES: tuple[Notice, ...] = ("win", "billing", "loss")
_PRICE = "${AUCTION_PRICE}"


class Style(msgspec.Struct, frozen=True):
    """How bids of one kind of exchange are written."""

    notices: tuple[Notice, ...] = NOTICES
    price_macro: str = _PRICE
    bid: str = ""  # JSON of further members

    def url(self, notice: Notice, url: str) -> str:
        """Our ``url`` for a notice as it belongs into a bid; empty where the exchange doesn't call it."""
        return url.replace(_PRICE, self.price_macro) if notice in self.notices else ""

    def members(self, **values: str) -> bytes:
        """The further members as a JSON object, ``values`` filled in; empty if there are none."""
        return msgspec.json.encode(_filled(msgspec.json.decode(self.bid), values)) if self.bid else b""


STANDARD = Style()


def _filled(value: Any, values: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(one, values) for key, one in value.items()}
    if isinstance(value, list):
        return [_filled(one, values) for one in value]
    if isinstance(value, str):
        for name, text in values.items():
            value = value.replace(f"{{{name}}}", text)
    return value


def style_of(exchange: Exchange) -> Style:
    """The style of an exchange's bids."""
    profile = exchange.profile
    bid = msgspec.json.encode(profile.bid).decode() if profile.bid else ""
    return Style(tuple(n for n in NOTICES if n in profile.notices), profile.price_macro, bid)


def seats_of(exchange: Exchange) -> dict[str, str]:
    """The exchange's seats -> ours."""
    return {theirs: ours for ours, theirs in exchange.seats.items()}


class Refusals:
    """Which exchanges don't take an ad."""

    def __init__(self, exchanges: Sequence[Exchange]) -> None:
        self._exchanges = [
            (1 << i, x.name, x.profile)
            for i, x in enumerate(exchanges[:MAX_REFUSALS])
            if x.profile.required or x.profile.banned_categories or x.profile.approval != "none"
        ]
        self.any = bool(self._exchanges)

    def of(self, creative: Creative, advertiser: Advertiser) -> int:
        """A bit per exchange index."""
        spec, refused = creative.spec, 0
        covering = {name for category in advertiser.categories for name in (category, category.partition("-")[0])}
        has = {
            "iurl": bool(spec.image),
            "bundle": bool(advertiser.bundle),
            "attr": bool(spec.attr),
            "api": bool(spec.api),
            "secure": spec.secure is True,
        }
        for bit, name, profile in self._exchanges:
            unapproved = profile.approval == "before" and name not in spec.approved
            if unapproved or covering & set(profile.banned_categories) or not all(has[m] for m in profile.required):
                refused |= bit
        return refused
