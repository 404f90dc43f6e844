"""The engine's arrays: allocated once for the largest batch, reused for every one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dsp.audience.frequency import States
from dsp.audience.profile import PROFILE_BYTES
from dsp.audience.store import KEY_BYTES, MAX_KEYS
from dsp.base.token import TOKEN_BYTES
from dsp.bidder.arms import MAX_GHOSTS
from dsp.bidder.capping import COUNTERS
from dsp.bidder.gate import Q_WIDTH
from dsp.bidder.price import B_WIDTH
from dsp.bidder.rank import C_WIDTH, N_PRODUCTS
from dsp.bidder.target import MAX_VALUES
from dsp.model.context import CTX_WIDTH
from dsp.openrtb.limits import MAX_BATCH, MAX_DEALS_PER_IMP, MAX_IMPS

MAX_IMP_ROWS = MAX_BATCH * MAX_IMPS
MAX_EXCHANGES = 1024


class Workspace:
    """Scratch arrays of one engine; rows are requests, imps, candidates or bids as the comment says."""

    def __init__(self, k: int, words: int, seed: int) -> None:
        """For ``k`` candidates per imp and bitmap rows of ``words`` words."""
        candidates = MAX_IMP_ROWS * k
        self.q = np.zeros((MAX_BATCH, Q_WIDTH), np.int64)  # requests
        self.arrived_ns = np.zeros(MAX_BATCH, np.int64)
        self.bits = np.zeros(MAX_BATCH, np.int64)
        self.keys = np.zeros((MAX_BATCH * MAX_KEYS, KEY_BYTES), np.uint8)
        self.wanted = np.zeros(MAX_BATCH * MAX_KEYS, np.int64)
        self.profiles = np.zeros((MAX_BATCH, PROFILE_BYTES), np.uint8)
        self.found = np.zeros(MAX_BATCH, np.int64)
        self.states = States(MAX_BATCH)
        self.capped = np.zeros(COUNTERS, np.int64)  # by capping.REASONS, since the last poll
        self.matched = np.zeros((MAX_BATCH, words), np.uint64)
        self.either = np.zeros(words, np.uint64)
        self.some = np.zeros(MAX_BATCH, np.int64)
        self.ctx = np.zeros((MAX_IMP_ROWS, CTX_WIDTH), np.int64)  # imps
        self.cand = np.zeros((candidates + 64, C_WIDTH), np.int64)  # candidates
        self.cand_imp = np.zeros(candidates + 64, np.int32)
        self.cand_li = np.zeros(candidates + 64, np.int32)
        self.value = np.zeros(candidates + 64, np.float64)
        self.bid_cpm = np.zeros(candidates + 64, np.int64)
        self.surplus = np.zeros(candidates + 64, np.float64)
        self.bids = np.zeros((MAX_IMP_ROWS, B_WIDTH), np.int64)  # bids
        self.ghosts = np.zeros((MAX_GHOSTS, B_WIDTH), np.int64)
        self.no_records = np.zeros((MAX_GHOSTS, TOKEN_BYTES), np.uint8)
        self.first_bid = np.zeros(MAX_BATCH + 1, np.int64)
        self.records = np.zeros((MAX_IMP_ROWS, TOKEN_BYTES), np.uint8)
        self.dims = np.zeros(MAX_VALUES, np.int64)  # values looked up for one request
        self.values = np.zeros(MAX_VALUES, np.int64)
        self.rows_found = np.zeros(MAX_VALUES + 64, np.int32)
        self.ends = np.zeros(64, np.int64)
        self.absent = np.zeros(64, np.int64)
        self.imp_rows = np.zeros(256, np.int32)
        self.known_deals = np.zeros((MAX_DEALS_PER_IMP, 2), np.int32)
        self.top_li = np.zeros(words * 64 + 1, np.int32)  # line items of one imp
        self.top_score = np.zeros(words * 64, np.float32)
        self.top_score_bits = self.top_score.view(np.int32)
        self.top_key = np.zeros(words * 64, np.int64)
        self.intent = np.zeros(N_PRODUCTS, np.float32)
        self.random = np.array([(seed * 0x9E3779B97F4A7C15 + 1) & 0xFFFFFFFFFFFFFFFF], np.uint64)
        self.tokens = np.full(MAX_EXCHANGES, 1.0, np.float64)  # QPS buckets by exchange index
        self.tokens_ns = np.zeros(MAX_EXCHANGES, np.int64)

    def keep_buckets(self, before: Workspace, ids_before: npt.NDArray[np.int64], ids: npt.NDArray[np.int64]) -> None:
        """Take over the QPS buckets of ``before``: an exchange (by its id) keeps what it had left, whatever its index.

        Without this every change of the catalog would fill them anew. An exchange that is new starts as at boot.
        """
        old = {int(each): k for k, each in enumerate(ids_before)}
        for k, each in enumerate(ids):
            at = old.get(int(each))
            if at is not None:
                self.tokens[k] = before.tokens[at]
                self.tokens_ns[k] = before.tokens_ns[at]
