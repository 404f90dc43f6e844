"""ARTF on the wire: a batch of `RTBRequest` messages to columns by one kernel, and proposals to `RTBResponse`.

The envelope is small and the bid request in it large: the kernel reads the envelope and the bids of a bid response,
and says where the bid request lies, which `dsp.openrtb.decode` reads like any other. What is broken marks its own row
and nothing else. Spans are (offset, length) in the joined text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dsp.base.kernel import kernel
from dsp.openrtb.fields import FIXED64, field, varint
from dsp.openrtb.hashing import hash_bytes
from dsp.pb.com.iabtechlab.bidstream.mutation.v1 import mutation_pb2 as pb

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

API_VERSION = "1.0"
MAX_BIDS = 64  # of one bid response; for further ones nothing is proposed
BID_REQUEST, BID_RESPONSE = 1, 2  # lifecycle
SEGMENTS, ACTIVATE_DEALS, SUPPRESS_DEALS, BID_SHADE = 1, 2, 3, 6  # intents this agent knows
INTENTS = {1: "segments", 2: "activate_deals", 3: "suppress_deals", 6: "bid_shade"}

OK, E_SYNTAX, E_TWICE = range(3)
ERRORS = ("", "not an RTBRequest: the bytes are no valid protobuf", "bid_request or bid_response is given twice")

# --- columns of a request: int64[n, M_WIDTH] ------------------------------------------------------------------------
(
    M_STATUS, M_LIFECYCLE, M_TMAX, M_INTENTS,  # bit per intent
    M_ID_OFF, M_ID_LEN, M_REQUEST_OFF, M_REQUEST_LEN, M_RESPONSE_OFF, M_RESPONSE_LEN,
    M_BID0, M_BIDN, M_CURRENCY,  # hash, 0 unsaid
) = range(13)  # fmt: skip
M_WIDTH = 13

# --- bids of bid responses: int64[MAX_BATCH * MAX_BIDS, MB_WIDTH] ---------------------------------------------------
(
    MB_SEAT_OFF, MB_SEAT_LEN, MB_ID_OFF, MB_ID_LEN, MB_IMP_OFF, MB_IMP_LEN, MB_DEAL_OFF, MB_DEAL_LEN,
    MB_PRICE,  # the bits of a double, CPM in the response's currency
    MB_MTYPE,
) = range(10)  # fmt: skip
MB_WIDTH = 10


class Mutation(NamedTuple):
    """A proposed change: ``ids`` for segments and deals, ``price`` (CPM, the response's currency) for shading."""

    intent: int
    path: str
    ids: Sequence[str] = ()
    price: float = 0.0


@kernel
def _bid(text: U8, at: int, end: int, row: I64) -> bool:
    row[:] = 0
    while at < end:
        number, value, start, at = field(text, at, end)
        if at < 0:
            return False
        if number == -1:
            row[MB_ID_OFF], row[MB_ID_LEN] = start, value
        elif number == -2:
            row[MB_IMP_OFF], row[MB_IMP_LEN] = start, value
        elif number == 3 + FIXED64:
            word = np.uint64(0)
            for k in range(8):
                word |= np.uint64(text[start + k]) << np.uint64(8 * k)
            row[MB_PRICE] = np.int64(word)
        elif number == -13:
            row[MB_DEAL_OFF], row[MB_DEAL_LEN] = start, value
        elif number == 33:
            row[MB_MTYPE] = value
    return True


@kernel
def _response(text: U8, at: int, end: int, row: I64, bids: I64, first: int) -> int:
    """How many bids there are, -1 where the bytes are broken."""
    count = 0
    while at < end:
        number, value, start, at = field(text, at, end)
        if at < 0:
            return -1
        if number == -4:
            row[M_CURRENCY] = hash_bytes(text, start, value)
        elif number == -2:
            begin, inner, stop = count, start, at
            seat_off = seat_len = 0
            while inner < stop:
                number, value, start, inner = field(text, inner, stop)
                if inner < 0:
                    return -1
                if number == -1 and count < MAX_BIDS:
                    if not _bid(text, start, inner, bids[first + count]):
                        return -1
                    count += 1
                elif number == -2:
                    seat_off, seat_len = start, value
            for b in range(first + begin, first + count):
                bids[b, MB_SEAT_OFF], bids[b, MB_SEAT_LEN] = seat_off, seat_len
    return count


@kernel
def decode_artf(text: U8, ends: I64, n: int, rows: I64, bids: I64) -> int:
    """Fill ``rows`` int64[n, M_WIDTH] and ``bids``, message i ending at ``ends[i]`` of ``text``; how many bids."""
    begin = total = 0
    for i in range(n):
        row, at, end = rows[i], begin, ends[i]
        begin = end
        row[:] = 0
        row[M_REQUEST_LEN] = row[M_RESPONSE_LEN] = -1
        while at < end:
            number, value, start, at = field(text, at, end)
            if at < 0:
                row[M_STATUS] = E_SYNTAX
                break
            if number == 1:
                row[M_LIFECYCLE] = value
            elif number == -2:
                row[M_ID_OFF], row[M_ID_LEN] = start, value
            elif number == 3:
                row[M_TMAX] = value
            elif number == 7:
                if 0 < value < 63:
                    row[M_INTENTS] |= np.int64(1) << value
            elif number == -7:  # packed
                while start < at:
                    intent, start = varint(text, start, at)
                    if start < 0:
                        row[M_STATUS] = E_SYNTAX
                        break
                    if 0 < intent < 63:
                        row[M_INTENTS] |= np.int64(1) << intent
            elif number == -4 or number == -5:
                column = M_REQUEST_OFF if number == -4 else M_RESPONSE_OFF
                if row[column + 1] >= 0:
                    row[M_STATUS] = E_TWICE
                row[column], row[column + 1] = start, value
        row[M_BID0] = total
        if row[M_STATUS] == OK and row[M_RESPONSE_LEN] > 0:
            off = row[M_RESPONSE_OFF]
            count = _response(text, off, off + row[M_RESPONSE_LEN], row, bids, total)
            if count < 0:
                row[M_STATUS] = E_SYNTAX
            else:
                row[M_BIDN] = count
                total += count
    return total


def encode_artf(request_id: str, mutations: Sequence[Mutation], model_version: str) -> bytes:
    """A serialized `RTBResponse`."""
    out = pb.RTBResponse(id=request_id, metadata=pb.Metadata(api_version=API_VERSION, model_version=model_version))
    for each in mutations:
        made = out.mutations.add(intent=each.intent, path=each.path)
        if each.intent == BID_SHADE:
            made.op = pb.OPERATION_REPLACE
            made.adjust_bid.price = each.price
        else:
            made.op = pb.OPERATION_REMOVE if each.intent == SUPPRESS_DEALS else pb.OPERATION_ADD
            made.ids.id.extend(each.ids)
    return out.SerializeToString()


def warm_requests() -> list[bytes]:
    """A request of each lifecycle, with everything in it that the kernels look at."""
    imp = {"id": "1", "bidfloor": 0.1, "banner": {"w": 300, "h": 250}, "pmp": {"deals": [{"id": "warm"}]}}
    request = {"id": "warm", "imp": [imp], "at": 1, "site": {"domain": "a.example"}, "device": {"ifa": "warm"}}
    bids = [{"id": "1", "impid": "1", "price": 1.0, "dealid": "warm"}]
    response = {"id": "warm", "cur": "USD", "seatbid": [{"seat": "s", "bid": bids}]}
    asked: dict[str, Any] = {"id": "w", "tmax": 5, "bid_request": request, "applicable_intents": pb.Intent.keys()}
    return [
        pb.RTBRequest(lifecycle="LIFECYCLE_PUBLISHER_BID_REQUEST", **asked).SerializeToString(),
        pb.RTBRequest(lifecycle="LIFECYCLE_DSP_BID_RESPONSE", bid_response=response, **asked).SerializeToString(),
    ]
