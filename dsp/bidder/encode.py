"""Stage 10, encode: bids to bytes, in the format the request came in.

A creative's whole bid is pre-rendered (the catalog compiler writes it); one kernel seals the batch's tokens and another
copies templates, ids, prices and tokens into one buffer. Python fills a native ad when it meets a new kind of slot, and
cuts the buffer into responses.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dsp.base.token import TOKEN_TEXT_BYTES, Signer, seal_records
from dsp.bidder.answer import BAD, SHED, Answer
from dsp.bidder.marks import find_marks
from dsp.bidder.native import NativeTexts
from dsp.bidder.plan import Plan
from dsp.bidder.reason import REASONS
from dsp.bidder.write import write_responses
from dsp.catalog.snapshot import Snapshot
from dsp.openrtb.columns import Batch
from dsp.openrtb.decode import error_text
from dsp.openrtb.limits import MAX_BATCH, MAX_IMPS

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

SHED_TEXT = b"over the QPS cap of this exchange"
BID_ROOM = 1024  # what a bid takes beside its template, its native ad and the request's own ids
NO_BID_ROOM = 32  # beside the request's id


def _seats(snapshot: Snapshot) -> tuple[U8, I64]:
    """(text, int64[X, seats + 1]): what each exchange calls our seats, one after the other in the text."""
    names = [str(seat) for seat in snapshot.meta["seats"]]
    rows = [[str(seat).encode() for seat in x.get("seats", names)] for x in snapshot.meta["exchanges"]]
    offsets, at = np.zeros((max(1, len(rows)), len(names) + 1), np.int64), 0
    for row, seats in zip(offsets, rows, strict=False):
        row[:] = at + np.cumsum([0, *map(len, seats)])
        at = row[-1]
    return np.frombuffer(b"".join(seat for seats in rows for seat in seats) or b"\0", np.uint8), offsets


class Encoder:
    """Turns the bids of a batch into answers; belongs to one snapshot."""

    def __init__(self, plan: Plan, signer: Signer) -> None:
        self.plan = plan
        self.signer = signer
        snapshot = plan.snapshot
        self._json = find_marks(snapshot.tpl_json, snapshot.tpl_json_off)
        self._pb = find_marks(snapshot.tpl_pb, snapshot.tpl_pb_off)
        self._seats, self._seat_off = _seats(snapshot)
        longest = max(int(self._json.length.max(initial=0)), int(self._pb.length.max(initial=0)))
        self._bid_bytes = longest + BID_ROOM
        self._texts: U8 = np.zeros((MAX_BATCH * MAX_IMPS, TOKEN_TEXT_BYTES), np.uint8)
        self._kinds: I64 = np.zeros(MAX_BATCH, np.int64)
        self._ends: I64 = np.zeros(MAX_BATCH, np.int64)
        self._price = np.zeros(1, np.float64)
        self._out: U8 = np.zeros(MAX_BATCH * self._bid_bytes, np.uint8)
        self._native = NativeTexts(snapshot)

    def answers(
        self,
        batch: Batch,
        q: I64,
        cand: I64,
        bids: I64,
        n_bids: int,
        first_bid: I64,
        records: U8,
        first_bid_id: int,
        nbr_bodies: bool,
    ) -> list[Answer]:
        """The answer of every request of the batch.

        ``bids`` and ``first_bid`` as `price.select` left them, ``records`` uint8[n_bids, TOKEN_BYTES] packed token
        records, whose persons are encrypted on the way. With ``nbr_bodies`` a no-bid is a BidResponse with its reason.
        """
        plan = self.plan
        native_bytes = 0
        if n_bids:
            seal_records(n_bids, records, *self.signer.keys, self._texts)
            native_bytes = self._native.fill(batch, cand, bids, n_bids)
        # Every id of the batch's text is written at most once.
        bound = n_bids * self._bid_bytes + native_bytes + batch.n * NO_BID_ROOM + 2 * int(batch.counts[3]) + 4096
        if len(self._out) < bound:
            self._out = np.zeros(bound, np.uint8)
        native = self._native
        refused = write_responses(
            batch.n, batch.req, batch.imp, batch.deal, batch.pool, batch.text, q, cand, bids, first_bid,
            plan.li_i, plan.cr_i, plan.ex_i, plan.cur_code, self._seats, self._seat_off,
            *self._json[:4], *self._pb[:4], native.text, native.marks, native.spans, self._texts, first_bid_id,
            self._price, self._price.view(np.uint8), nbr_bodies, REASONS, self._out, self._kinds, self._ends,
        )  # fmt: skip
        ends = self._ends[: batch.n].tolist()
        kinds = self._kinds[: batch.n].tolist()
        out = self._out.data
        answers: list[Answer] = [
            (kind, out[begin:end].tobytes()) for kind, begin, end in zip(kinds, [0, *ends], ends, strict=False)
        ]
        if refused:
            for r, kind in enumerate(kinds):
                if kind == BAD:
                    answers[r] = BAD, error_text(batch, r).encode()
                elif kind == SHED:
                    answers[r] = SHED, SHED_TEXT
        return answers
