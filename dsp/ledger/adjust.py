"""Money that people move, not notices: payments in, credit notes, make-goods, clawbacks, disputes settled, and what
media platforms bill that run the auction themselves.

Each is one ordinary entry (and its margin), made once per key. What gives a line item its spend back reopens its
budget by as much; what a platform bills is spent like any other cost.
"""

from __future__ import annotations

from typing import NamedTuple

from dsp.ledger.accounts import CASH, DISPUTE, HOUSE, LINE_ITEM, PAYABLE, PREPAID
from dsp.ledger.rows import Side

MAX_MICROS = 10**17
KINDS = {  # kind -> (what is debited, what is credited, what it is)
    "deposit": (CASH, PREPAID, "an advertiser pays in"),
    "refund": (PREPAID, CASH, "an advertiser is paid back"),
    "credit_note": (HOUSE, PREPAID, "we owe an advertiser money, or let it off paying"),
    "make_good": (HOUSE, LINE_ITEM, "we bear a line item's cost, so that as much is delivered again"),
    "clawback": (PAYABLE, LINE_ITEM, "an exchange takes back its charge for invalid traffic"),
    "dispute_won": (PAYABLE, DISPUTE, "an exchange drops what it charged beyond reservations"),
    "dispute_lost": (HOUSE, DISPUTE, "we pay what an exchange charged beyond reservations"),
    "platform_cost": (LINE_ITEM, PAYABLE, "a media platform bills what it delivered for a line item on its own"),
}
NUMBERS = {kind: number for number, kind in enumerate(KINDS, 1)}


class AdjustmentError(ValueError):
    """An adjustment that cannot be made; the message says why."""


class Adjustment(NamedTuple):
    """What is to be moved. ``key`` is the caller's, for instance the number of the document: one key, one posting."""

    key: str
    kind: str
    micros: int  # media cost where a line item gets it back: its margin follows
    advertiser: int = 0
    line_item: int = 0
    exchange: int = 0
    period: int = 0  # the budget period that a line item gets it back in; 0: in its total only
    currency: str = ""  # needed where no line item says it
    note: str = ""

    def check(self) -> None:
        """Raise `AdjustmentError` for what no books can tell us."""
        if self.kind not in KINDS:
            raise AdjustmentError(f"kind {self.kind!r} is none of {', '.join(KINDS)}")
        if not self.key or len(self.key) > 200:
            raise AdjustmentError("a key of 1 to 200 characters is needed: the document's number, say")
        if not 0 < self.micros <= MAX_MICROS:
            raise AdjustmentError("the amount must be more than 0")
        for kind, number, name in (
            (LINE_ITEM, self.line_item, "line item"),
            (PAYABLE, self.exchange, "exchange"),
            (DISPUTE, self.exchange, "exchange"),
            (PREPAID, self.advertiser, "advertiser"),
        ):
            if kind in KINDS[self.kind][:2] and number <= 0:
                raise AdjustmentError(f"a {self.kind} needs the {name}'s id")
        if not self.line_item and len(self.currency) != 3:
            raise AdjustmentError("a currency code of three letters is needed")

    def sides(self) -> tuple[Side, Side]:
        """Debit and credit."""
        refs = {LINE_ITEM: self.line_item, PAYABLE: self.exchange, DISPUTE: self.exchange}
        debit, credit, _ = KINDS[self.kind]
        return Side(debit, refs.get(debit, self.advertiser)), Side(credit, refs.get(credit, self.advertiser))
