"""What an operator asks a running ledger: stop, resume, adjust, list. Signed with the key that workers' syncs use."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from dsp.ledger.accounts import ADVERTISER, CAMPAIGN, LINE_ITEM
from dsp.ledger.adjust import Adjustment
from dsp.ledger.books import Books
from dsp.ledger.stops import EVERYTHING

MAX_AGE_S = 60
REFS = {"everything": 0, "line_item": LINE_ITEM, "campaign": CAMPAIGN, "advertiser": ADVERTISER}


class Stop(msgspec.Struct, tag="stop", forbid_unknown_fields=True):
    """Stop what ``what`` and ``id`` name; nothing is bid on it until it is resumed."""

    at_s: float
    what: Literal["everything", "line_item", "campaign", "advertiser"] = "everything"
    id: int = 0
    detail: str = ""


class Resume(msgspec.Struct, tag="resume", forbid_unknown_fields=True):
    """End a stop, a person's or a brake's."""

    at_s: float
    what: Literal["everything", "line_item", "campaign", "advertiser"] = "everything"
    id: int = 0


class Adjust(msgspec.Struct, tag="adjust", forbid_unknown_fields=True):
    """`dsp.ledger.adjust.Adjustment`."""

    at_s: float
    adjustment: Adjustment


class Stops(msgspec.Struct, tag="stops", forbid_unknown_fields=True):
    """List what is stopped."""

    at_s: float


Order = Stop | Resume | Adjust | Stops
decode_order = msgspec.json.Decoder(Order).decode
encode_order = msgspec.json.Encoder().encode


def carry_out(order: Order, books: Books, time_ms: int) -> dict[str, Any]:
    """Do it, inside a batch; what to answer. Raises `AdjustmentError`."""
    if isinstance(order, Adjust):
        return {"posted": books.adjust(order.adjustment, time_ms)}
    if isinstance(order, Stops):
        names = {number: name for name, number in REFS.items()}
        return {
            "stops": [
                {"what": names[kind], "id": ref, "reason": reason, "detail": detail, "time_ms": at_ms}
                for (kind, ref), (reason, detail, at_ms) in sorted(books.stops.items())
            ]
        }
    kind, ref = EVERYTHING if order.what == "everything" else (REFS[order.what], order.id)
    if isinstance(order, Stop):
        books.stop(kind, ref, "person", order.detail[:1000], time_ms)
        return {"stopped": True}
    return {"resumed": books.resume(kind, ref, time_ms)}
