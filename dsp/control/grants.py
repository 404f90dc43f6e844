"""The sync exchange between a bidder worker and the ledger: what a worker holds, needs and returns, and what it gets.

Everything is cumulative per (lease, line item, period), so a lost request or reply costs nothing: the next one says it
all again. Rows travel as packed records (`WANT`, `GRANT`) because thousands of line items may change at once; only rows
that changed since the other side's last word are sent. Rules: design section 5.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Protocol

import msgspec
import numpy as np

# What a worker says of a line item. All amounts are micros of the account currency.
WANT = np.dtype(
    [
        ("line_item", "<i8"),
        ("period", "<i8"),  # the budget period its slice is of
        ("seen", "<i8"),  # granted, as far as the worker knows
        ("returned", "<i8"),  # given back so far
        ("want", "<i8"),  # needed beyond `seen`; 0: content
    ]
)

# What the ledger says of a line item, one consistent view: granted, posted and settled are of the same moment.
GRANT = np.dtype(
    [
        ("line_item", "<i8"),
        ("period", "<i8"),
        ("granted", "<i8"),  # G, so far
        ("returned", "<i8"),  # as far as the ledger knows
        ("posted", "<i8"),  # C: cost charged to this slice so far
        ("settled", "<i8"),  # reservations posted or voided, of the buckets that are not closed
        ("least", "<i8"),  # the smallest useful slice: a few of its largest bids
        ("multiplier", "<f8"),  # pacing
        ("recall", "<i8"),  # RECALL_*
        ("slack", "<i8"),  # tolerance: how far open reservations may be counted below their full amount (rule 11)
    ]
)

SYNC_METHOD = "/dsp.v1.Ledger/Sync"  # gRPC
SIGNATURE = "x-dsp-signature"  # HTTP header, gRPC metadata
SYNC_MAX_BYTES = 64 << 20

RECALL_NONE = 0
RECALL_SURPLUS = 1  # others starve: give back what present demand does not need
RECALL_ALL = 2  # the budget was cut or is gone: give back whatever is not reserved


class SyncRequest(msgspec.Struct, frozen=True, array_like=True):
    """A worker's word. ``lease`` 0 asks for a lease; ``epoch`` and ``seq`` are of the last reply that was applied."""

    worker: str
    lease: int
    epoch: int
    seq: int
    bucket: int  # the current reservation bucket: all lower ones are over
    closed: int  # buckets below are closed, as the worker knows
    wants: bytes = b""  # WANT[n]
    final: bool = False  # the worker stops: no bid will follow under this lease


class SyncReply(msgspec.Struct, frozen=True, array_like=True):
    """The ledger's word; with another lease than the worker's, everything of the old lease is void for the worker."""

    lease: int
    epoch: int
    seq: int
    lease_s: float  # how long the worker may bid, from when it sent the request
    closed: int  # buckets below are closed: what was reserved in them is settled
    grants: bytes = b""  # GRANT[n]
    stop: bool = False  # kill switch: no bidding at all until a reply says otherwise


class SyncTransport(Protocol):
    """How a worker reaches the ledger: HTTP in production, a direct call in simulation."""

    def sync(self, request: SyncRequest) -> SyncReply:
        """One exchange. Raises OSError when the ledger cannot be reached or refuses."""

    def close(self) -> None:
        """Let go of connections."""


encode_request = msgspec.msgpack.Encoder().encode
encode_reply = msgspec.msgpack.Encoder().encode
decode_request = msgspec.msgpack.Decoder(SyncRequest).decode
decode_reply = msgspec.msgpack.Decoder(SyncReply).decode


def sync_key(secret: bytes) -> bytes:
    """The key that authenticates syncs, derived from a notice signing secret so that both roles hold it already."""
    return blake2b(b"sync", key=secret[:64], digest_size=32).digest()


def sign_sync(key: bytes, body: bytes) -> str:
    """The signature header of a request body; without it nobody may take slices."""
    return blake2b(body, key=key, digest_size=16).hexdigest()
