"""The exchanges of the synthetic market: name, auction type, currency, deals and share of the traffic.

The catalog knows the same exchanges by name; what is here is the exchange's own side of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from dsp.openrtb.columns import BANNER, NATIVE, VIDEO


@dataclass(frozen=True)
class Deal:
    """A private marketplace deal that an exchange offers on some of its inventory."""

    id: str
    floor: float  # CPM in the deal's currency
    currency: str = "USD"
    at: int = 1  # 1 first price, 2 second price, 3 the floor is the agreed price
    media: int = BANNER | VIDEO | NATIVE  # imps it is offered on
    countries: tuple[str, ...] = ()  # empty: all
    wseat: tuple[str, ...] = ()


@dataclass(frozen=True)
class Venue:
    """One exchange."""

    name: str
    at: int = 1  # auction type it announces
    currency: str = "USD"
    usd: float = 1.0  # one unit of its currency in USD, for floors and rivals
    weight: float = 1.0
    countries: tuple[str, ...] = ()  # whose inventory it sells; empty: all
    tmax_ms: int = 200
    token: str = ""  # bearer token for gRPC
    billed_on_win: bool = False  # charges with the win notice instead of the billing notice
    deals: tuple[Deal, ...] = ()


EXAMPLE_VENUES: tuple[Venue, ...] = (
    Venue("alpha", at=1, weight=5.0, tmax_ms=200),
    Venue("beta", at=2, weight=3.0, tmax_ms=250),
)
