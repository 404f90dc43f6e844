"""Postbacks of mobile measurement partners: their words for a conversion, by a template in the configuration.

A partner counts installs and what follows in an app, and calls us, ``/m/NAME`` with parameters in the query, a form or
a JSON object, under names of its own. A template says which parameter is which::

    ledger:
      partners:
        - name: adjust
          click: clickid            # our token: the landing page was https://track.example/x?clickid={CLICK_ID}
          event: event_name
          registered: [install]     # its events, by what they mean to us
          applied: [loan_application]
          funded: [loan_paid_out]
          value: revenue
          currency: currency
          id: transaction_id        # its number of the event
          secret: key               # parameter that must be ``password``
          password: ...

Events that the template does not name are acknowledged and ignored: partners send all they have. Pure.
"""

from __future__ import annotations

import hmac
import math
from collections.abc import Mapping, Sequence

import msgspec

from dsp.base.config import PartnerConfig
from dsp.base.token import Signer
from dsp.ledger.notices import CONVERSIONS, ID_MAX, RefusedError, parse_value, read_notice
from dsp.ledger.ticket import Notice, Ticket

CLICK_SLOT = "{CLICK_ID}"  # in a landing URL: where a partner's tracking link wants our token

_object = msgspec.json.Decoder(dict[str, str | int | float | bool | None]).decode


def landing_url(url: str, token: str) -> str:
    """A landing page with the click's token: in its slot, or as ``dsp_click_id``."""
    if CLICK_SLOT in url:
        return url.replace(CLICK_SLOT, token)
    address, mark, fragment = url.partition("#")
    return f"{address}{'&' if '?' in address else '?'}dsp_click_id={token}{mark}{fragment}"


def read_json(body: bytes) -> dict[str, str]:
    """A flat JSON object as parameters. Raises `RefusedError`."""
    try:
        found = _object(body)
    except msgspec.MsgspecError as error:
        raise RefusedError(400, "body", f"a flat JSON object is needed: {error}") from None
    return {name: str(value) for name, value in found.items() if value is not None}


def read_postback(
    signer: Signer,
    partner: PartnerConfig,
    query: Mapping[str, str],
    time_ms: int,
    rates: Mapping[str, float],
    fees: Mapping[int, float],
) -> Notice | None:
    """The conversion in a partner's call; None: an event we do not count. Raises `RefusedError`.

    ``rates`` are US dollars for one unit of a currency, ``fees`` what an exchange (by id) makes of a price of 1.
    """
    if partner.secret and not hmac.compare_digest(query.get(partner.secret, "").encode(), partner.password.encode()):
        raise RefusedError(403, "secret", f"{partner.secret} is not what was agreed")
    event = query.get(partner.event, "")
    stage = next((name for name in CONVERSIONS if event in getattr(partner, name)), "")
    if not stage:
        return None
    notice = read_notice(signer, "p", query.get(partner.click, ""), {"e": stage}, time_ms)
    value = parse_value(query.get(partner.value)) if partner.value else 0
    code = query.get(partner.currency, "") if partner.currency else ""
    return notice._replace(
        value_micros=in_account(value, code, notice.ticket, rates, fees.get(notice.ticket.exchange, 1.0)),
        external_id=query.get(partner.id, "")[:ID_MAX] if partner.id else "",
    )


def in_account(value_micros: int, code: str, ticket: Ticket, rates: Mapping[str, float], fee: float = 1.0) -> int:
    """An amount in currency ``code`` in that of the bid's account. Without a rate it is of no use: 0.

    ``fee`` is what the exchange's makes of a price of 1: the bid's rate has it in it, a conversion's value hasn't.
    """
    if not value_micros or not code:
        return value_micros
    theirs = rates.get(code.upper(), 0.0)
    bid = rates.get(ticket.currency.decode("ascii", "replace"), 0.0)
    if not theirs or not bid:
        return 0
    account = bid * fee / ticket.fx  # USD for one unit: fx is account currency per unit of the bid's
    return value_micros if math.isclose(theirs, account) else math.floor(value_micros * theirs / account + 0.5)


def check_partners(partners: Sequence[PartnerConfig]) -> None:
    """Raises ValueError for a template that cannot work."""
    for partner in partners:
        events = [event for name in CONVERSIONS for event in getattr(partner, name)]
        twice = next((event for event in events if events.count(event) > 1), None)
        if twice is not None:
            raise ValueError(f"partner {partner.name}: {twice} means two stages; name it once")
        if partner.secret and not partner.password:
            raise ValueError(f"partner {partner.name}: secret {partner.secret!r} needs a password")
