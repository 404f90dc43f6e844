"""A notice: the bid that a token speaks of, what happened to it, and what it costs."""

from __future__ import annotations

import math
from typing import NamedTuple

from dsp.base.money import impression_micros
from dsp.base.token import TOKEN, TOKEN_TEST, Signer

_impression_micros = impression_micros.py_func  # one at a time, plain Python is faster than a call into compiled code
UNFILLED = -1  # the exchange did not fill in its price macro


class Ticket(NamedTuple):
    """`dsp.base.token.TOKEN` as Python values, in its order."""

    kid: int
    flags: int
    exchange: int
    line_item: int
    creative: int
    reserve_micros: int
    bid_cpm_micros: int
    currency: bytes
    arm: int
    fx: float
    period: int
    bucket: int
    lease: int
    epoch: int
    bid_id: int
    time_s: int
    media: int
    person: bytes
    at: int


assert Ticket._fields == TOKEN.names


class Notice(NamedTuple):
    """What a notice says. ``price_micros``: CPM, bid currency (loss: the least that had won), or `UNFILLED`."""

    kind: int  # OUTCOMES index
    ticket: Ticket
    time_ms: int  # when it was received
    price_micros: int = UNFILLED
    value_micros: int = 0  # conversions: amount; losses: the reason code, in millionths
    external_id: str = ""  # conversions: the advertiser's or partner's own number of it

    @property
    def test(self) -> bool:
        """Of a test request: acknowledged, without any effect."""
        return bool(self.ticket.flags & TOKEN_TEST)


def open_ticket(signer: Signer, token: str) -> Ticket:
    """The bid in a token. Raises `dsp.base.token.TokenError`."""
    return Ticket._make(signer.open(token).item())


def charge_micros(ticket: Ticket, price_micros: int) -> int:
    """What one impression at CPM ``price_micros`` (bid currency) costs in the account's currency, half up."""
    price = ticket.bid_cpm_micros if price_micros == UNFILLED else price_micros
    micros: int = _impression_micros(price)
    return micros if ticket.fx == 1.0 else math.floor(micros * ticket.fx + 0.5)
