"""From a notice's path and query to a `Notice`, or a refusal with the right status. Pure.

Paths are those of the bid templates (`dsp.catalog`): /n/ win, /b/ billing, /l/ loss, /c/ click, /i/ our pixel, /p/
conversion, each followed by the token. Query: ``p`` price, ``c`` currency, ``r`` loss reason, ``m`` minimum to win,
``e`` conversion stage, ``v`` its amount, ``id`` the advertiser's number of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from urllib.parse import unquote_plus

from dsp.base.money import parse_micros
from dsp.base.token import Signer, TokenError
from dsp.ledger.prices import PriceError, Prices
from dsp.ledger.ticket import UNFILLED, Notice, Ticket, open_ticket
from dsp.log.outcomes import (
    APPLIED,
    APPROVED,
    BILLING,
    CLICK,
    DEFAULTED,
    FUNDED,
    IMPRESSION,
    LOSS,
    REGISTERED,
    WIN,
)

ABSURD_TIMES_BID = 100  # a price beyond this many times the bid is a fault of units, not a price
MONEY_MAX_AGE_S = 7 * 86400
CONVERSION_MAX_AGE_S = 90 * 86400
FUTURE_S = 600  # a token from further ahead than clocks can differ
VALUE_MAX_MICROS = 10**15
QUERY_MAX_BYTES = 2048
ID_MAX = 200
_NONE: Mapping[str, float] = {}
PATHS = {"n": WIN, "b": BILLING, "l": LOSS, "c": CLICK, "i": IMPRESSION, "p": REGISTERED}
CONVERSIONS = {
    "registered": REGISTERED,
    "applied": APPLIED,
    "approved": APPROVED,
    "funded": FUNDED,
    "defaulted": DEFAULTED,
}


class RefusedError(Exception):
    """A notice that must not touch the books: HTTP status, a short reason for the counter, a text for the caller."""

    def __init__(self, status: int, reason: str, text: str) -> None:
        super().__init__(text)
        self.status, self.reason, self.text = status, reason, text


def parse_query(text: str) -> dict[str, str]:
    """Query parameters, the last of each name. Raises `RefusedError` when it is too long."""
    if len(text) > QUERY_MAX_BYTES:
        raise RefusedError(414, "query", f"the query has more than {QUERY_MAX_BYTES} characters")
    pairs = (part.partition("=") for part in text.split("&") if part)
    return {name: unquote_plus(value) if "%" in value or "+" in value else value for name, _, value in pairs}


def read_notice(
    signer: Signer,
    path: str,
    token: str,
    query: Mapping[str, str],
    time_ms: int,
    rates: Mapping[str, float] = _NONE,
    prices: Prices | None = None,
) -> Notice:
    """The notice of ``/{path}/{token}?{query}`` received at ``time_ms``. Raises `RefusedError`.

    ``rates``: US dollars for one unit by currency, for prices in another currency than the bid's. ``prices`` opens
    those that the bid's exchange encrypts.
    """
    kind = PATHS.get(path)
    if kind is None:
        raise RefusedError(404, "path", "no such notice: /n/ /b/ /l/ /c/ /i/ /p/ and a token")
    try:
        ticket = open_ticket(signer, token)
    except TokenError as error:
        raise RefusedError(403, "token", str(error)) from None
    if path == "p":
        kind = CONVERSIONS.get(query.get("e", ""), -1)
        if kind < 0:
            raise RefusedError(400, "stage", f"e={query.get('e', '')[:40]!r} is none of {', '.join(CONVERSIONS)}")
    check_age(ticket, kind, time_ms / 1000)
    if kind in {WIN, BILLING} or (kind == IMPRESSION and "p" in query):
        return Notice(kind, ticket, time_ms, _price(_opened(query, ticket, prices), ticket, rates))
    if kind == LOSS:
        least = query.get("m")
        return Notice(kind, ticket, time_ms, _least_to_win(least, ticket), _reason(query.get("r")) * 1_000_000)
    if kind == IMPRESSION:  # where it is billed, at the bid price
        return Notice(kind, ticket, time_ms)
    if path != "p":
        return Notice(kind, ticket, time_ms, 0)
    return Notice(kind, ticket, time_ms, 0, parse_value(query.get("v")), query.get("id", "")[:ID_MAX])


def is_progress(notice: Notice, query: Mapping[str, str]) -> bool:
    """Whether our pixel tells how a video goes on, or that it failed (``e``), and not that it was shown."""
    return notice.kind == IMPRESSION and bool(query.get("e"))


UNFILLED_MACROS = ("${", "%%", "{")  # how a macro begins that an exchange has left as it was


def _opened(query: Mapping[str, str], ticket: Ticket, prices: Prices | None) -> Mapping[str, str]:
    """The query with its price in plain text, where the exchange encrypts it. Raises `RefusedError`."""
    text = query.get("p", "")
    if prices is None or not text or text.startswith(UNFILLED_MACROS) or not prices.encrypted(ticket.exchange):
        return query
    try:
        micros = prices.open(ticket.exchange, text, ticket.bid_id)
    except PriceError as error:
        raise RefusedError(400, error.reason, str(error)) from None
    return {**query, "p": f"{micros // 1_000_000}.{micros % 1_000_000:06d}"}


def _price(query: Mapping[str, str], ticket: Ticket, rates: Mapping[str, float]) -> int:
    """What the notice says was paid, in the bid's currency."""
    if not _other_currency(query.get("c"), ticket):
        return parse_price(query.get("p"), ticket)
    price = parse_price(query.get("p"), ticket, bounded=False)
    theirs, ours = rates.get(query["c"].upper(), 0.0), rates.get(ticket.currency.decode("ascii", "replace"), 0.0)
    if price == UNFILLED or not theirs or not ours:
        return UNFILLED  # no rate for it: the bid price is the most we can owe
    return _bounded(math.floor(price * (theirs / ours) + 0.5), query.get("p", ""), ticket)


def _other_currency(code: str | None, ticket: Ticket) -> bool:
    return bool(code) and not str(code).startswith("${") and str(code).upper().encode() != ticket.currency


def _least_to_win(text: str | None, ticket: Ticket) -> int:
    """A hint, not money: whatever is not a price is unknown (0)."""
    try:
        return max(0, parse_price(text, ticket))
    except RefusedError:
        return 0


def _reason(text: str | None) -> int:
    """OpenRTB loss reason code, 0 unknown."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) <= 5 else 0


def check_age(ticket: Ticket, kind: int, now_s: float) -> None:
    """Refuse what is too old to be true, or of the future."""
    longest = CONVERSION_MAX_AGE_S if kind > LOSS and kind not in {BILLING, IMPRESSION} else MONEY_MAX_AGE_S
    age_s = now_s - ticket.time_s
    if age_s > longest:
        raise RefusedError(
            410, "expired", f"the bid is {age_s / 86400:.1f} days old; such notices end after {longest // 86400}"
        )
    if age_s < -FUTURE_S:
        raise RefusedError(400, "future", "the bid is of the future: check the clocks")


def parse_price(text: str | None, ticket: Ticket, *, bounded: bool = True) -> int:
    """A price parameter as CPM micros; a macro left as it is, or nothing, is `UNFILLED`. Raises `RefusedError`."""
    if text is None or not text or text.startswith((*UNFILLED_MACROS, "__", "%24%7B")):
        return UNFILLED
    try:
        price = parse_micros(text) if len(text) <= 32 else -1
    except ValueError:
        price = -1
    if price < 0:
        raise RefusedError(400, "price", f"p={text[:40]!r} is not a price: a decimal CPM, 0 or more")
    return _bounded(price, text, ticket) if bounded else price


def _bounded(price: int, text: str, ticket: Ticket) -> int:
    if price > ABSURD_TIMES_BID * max(ticket.bid_cpm_micros, 1_000_000):
        raise RefusedError(400, "absurd_price", f"p={text[:40]!r} is more than {ABSURD_TIMES_BID} times the bid")
    return price


def parse_value(text: str | None) -> int:
    """A conversion's amount as micros, 0 when there is none. Raises `RefusedError`."""
    if not text or text.startswith("${"):
        return 0
    try:
        value = parse_micros(text) if len(text) <= 32 else -1
    except ValueError:
        value = -1
    if not 0 <= value <= VALUE_MAX_MICROS:
        raise RefusedError(400, "value", f"v={text[:40]!r} is not an amount of 0 or more")
    return value
