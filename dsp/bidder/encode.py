"""Stage 10, encode: bids to bytes, in the format the request came in.

A creative's whole bid is pre-rendered (the catalog compiler writes it); one kernel seals the batch's tokens and another
copies templates, ids, prices and tokens into one buffer. Python only fills native ads, which depend on the request's
assets, and cuts the buffer into responses.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dsp.base.token import TOKEN_TEXT_BYTES, Signer, seal_records
from dsp.bidder.answer import Answer
from dsp.bidder.marks import find_marks
from dsp.bidder.native import NativeCache
from dsp.bidder.plan import Plan
from dsp.bidder.price import B_CAND
from dsp.bidder.rank import C_CR, C_IMP
from dsp.bidder.write import write_responses
from dsp.catalog.layout import CR_MEDIA
from dsp.openrtb.columns import (
    ASSET_WIDTH,
    FMT_JSON,
    I_N_ASSETS0,
    I_N_ASSETSN,
    I_N_HASH,
    I_N_VER,
    I_N_WRAPPED,
    I_REQ,
    NATIVE,
    R_FMT,
    R_ID_LEN,
    R_ID_OFF,
    Batch,
)
from dsp.openrtb.limits import MAX_BATCH, MAX_IMPS

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

BID_ROOM = 1024  # what a bid takes beside its template, its native ad and the request's own ids


def varint(value: int) -> bytes:
    """A protobuf varint of a non-negative integer."""
    out = bytearray()
    while value >= 0x80:
        out.append((value & 0x7F) | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class Encoder:
    """Turns the bids of a batch into responses; belongs to one snapshot."""

    def __init__(self, plan: Plan, signer: Signer) -> None:
        self.plan = plan
        self.signer = signer
        snapshot = plan.snapshot
        self._json = find_marks(snapshot.tpl_json, snapshot.tpl_json_off)
        self._pb = find_marks(snapshot.tpl_pb, snapshot.tpl_pb_off)
        seats = [str(seat).encode() for seat in snapshot.meta["seats"]]
        self._seats = np.frombuffer(b"".join(seats) or b"\0", np.uint8)
        self._seat_off: I64 = np.cumsum([0, *map(len, seats)], dtype=np.int64)
        longest = max(int(self._json.length.max(initial=0)), int(self._pb.length.max(initial=0)))
        self._bid_bytes = longest + BID_ROOM
        self._texts: U8 = np.zeros((MAX_BATCH * MAX_IMPS, TOKEN_TEXT_BYTES), np.uint8)
        self._native_off: I64 = np.zeros(MAX_BATCH * MAX_IMPS + 1, np.int64)
        self._no_native: U8 = np.zeros(1, np.uint8)
        self._ends: I64 = np.zeros(MAX_BATCH, np.int64)
        self._price = np.zeros(1, np.float64)
        self._out: U8 = np.zeros(MAX_BATCH * self._bid_bytes, np.uint8)
        self._native = NativeCache()

    def responses(
        self,
        batch: Batch,
        q: I64,
        cand: I64,
        bids: I64,
        n_bids: int,
        first_bid: I64,
        records: U8,
        first_bid_id: int,
        answers: list[Answer],
        kind: int,
    ) -> None:
        """Put (kind, response bytes) into ``answers`` for each request with bids.

        ``bids`` and ``first_bid`` as `price.select` left them, ``records`` uint8[n_bids, TOKEN_BYTES] packed token
        records, whose persons are encrypted on the way.
        """
        plan = self.plan
        seal_records(n_bids, records, *self.signer.keys, self._texts)
        native = self._fill_native(batch, cand, bids, n_bids)
        # Every id of the batch's text is written at most once.
        bound = n_bids * self._bid_bytes + len(native) * TOKEN_TEXT_BYTES + 2 * int(batch.counts[3]) + 4096
        if len(self._out) < bound:
            self._out = np.zeros(bound, np.uint8)
        write_responses(
            batch.n, batch.req, batch.imp, batch.deal, batch.pool, batch.text, q, cand, bids, first_bid,
            plan.li_i, plan.cr_i, plan.ex_i, plan.cur_code, self._seats, self._seat_off,
            *self._json[:4], *self._pb[:4], native, self._native_off, self._texts, first_bid_id,
            self._price, self._price.view(np.uint8), self._out, self._ends,
        )  # fmt: skip
        view = memoryview(self._out)  # type: ignore[arg-type]
        begin = 0
        for r, end in enumerate(self._ends[: batch.n].tolist()):
            if end > begin:
                answers[r] = kind, bytes(view[begin:end])
                begin = end

    def _fill_native(self, batch: Batch, cand: I64, bids: I64, n_bids: int) -> U8:
        """The markup of native bids as %-formats, bid b's ending at ``_native_off[b + 1]``; empty for other media."""
        rows = bids[:n_bids, B_CAND]
        creatives = cand[rows, C_CR]
        is_native = self.plan.cr_i[creatives, CR_MEDIA] == NATIVE
        self._native_off[: n_bids + 1] = 0
        if not is_native.any():
            return self._no_native
        texts: list[bytes] = []
        for b in np.flatnonzero(is_native).tolist():
            imp = batch.imp[cand[rows[b], C_IMP]].tolist()
            start = imp[I_N_ASSETS0]
            assets = batch.pool[start : start + imp[I_N_ASSETSN] * ASSET_WIDTH]
            creative = int(creatives[b])
            plain, escaped, _ = self._native.get(
                imp[I_N_HASH], creative, assets, imp[I_N_VER], bool(imp[I_N_WRAPPED]),
                self.plan.snapshot.native(creative),
            )  # fmt: skip
            texts.append(escaped if batch.req[imp[I_REQ], R_FMT] == FMT_JSON else plain)
            self._native_off[b + 1] = len(texts[-1])
        np.cumsum(self._native_off[: n_bids + 1], out=self._native_off[: n_bids + 1])
        return np.frombuffer(b"".join(texts), np.uint8)


def no_bid(batch: Batch, r: int, nbr: int) -> bytes:
    """A BidResponse with the request's id and the no-bid reason, in the request's format."""
    row = batch.req[r]
    request_id = batch.text[row[R_ID_OFF] : row[R_ID_OFF] + row[R_ID_LEN]].tobytes()
    if row[R_FMT] == FMT_JSON:
        return b'{"id":"%b","nbr":%d}' % (request_id, nbr)
    return b"\x0a" + varint(len(request_id)) + request_id + b"\x30" + varint(nbr)
