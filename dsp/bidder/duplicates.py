"""One impression offered through several paths: bid through the cheapest, behind the gate and consent.

A publisher sells a place through several exchanges, and each through resellers, so one impression arrives several times
within some hundred milliseconds. Bidding on each copy is bidding against ourselves, and pays the dearer path's fees.

*The same impression*: the same ``source.tid``, which exists for this; without it, where the person's consent allows a
join, the same site or app, address, user agent and format of the first imp. Only copies from *different* exchanges
count: two places of one page, or a retry, come from the same one. *What a path costs*: the exchange's fee and
``supply.hop_share`` for every node of the supply chain.

    a dearer or equally dear copy of what we bid on within ``supply.duplicates_ms``   refused, no-bid reason 516
    a cheaper copy                          bid on; and of one batch, the dearer is refused in its place
    the first copy, where a cheaper one usually follows                               refused, too

What usually follows is learned per site or app and exchange: a mean over some 32 impressions of whether a cheaper copy
came. It is learned from what is refused as well, so it needs no exploring, and ends by itself when the cheaper path
does. If the cheaper copy gets no bid from us, the next one may; nothing is refused for a copy that we let go.

One table for all workers of a host, a memory-mapped file of buckets of eight words; a word is one impression: 28 bits
of its key, the time in units of 8 ms, the exchange, the path's cost in tenths of a percent, and whether it was taken.
Words are written whole and without locks: two workers at once may both bid, no more than without this. What was learned
is each worker's own.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dsp.audience.consent import JOIN
from dsp.base.config import Config, SupplyConfig
from dsp.base.kernel import inlined, kernel
from dsp.base.mapped import shared_words
from dsp.base.metrics import SUPPLY
from dsp.bidder.gate import GO, Q_NBR
from dsp.catalog.layout import EX_FEE_PPM
from dsp.openrtb.codes import NBR_DUPLICATE
from dsp.openrtb.columns import (
    CHANNEL_APP,
    I_B_SIZES0,
    I_B_SIZESN,
    I_MEDIA,
    R_BUNDLE,
    R_CHANNEL,
    R_DOMAIN,
    R_EXCHANGE,
    R_IMP0,
    R_IMPN,
    R_IP_LEN,
    R_IP_OFF,
    R_IPV6_LEN,
    R_IPV6_OFF,
    R_SCHAIN_NODES,
    R_TEST,
    R_TID,
    R_UA_LEN,
    R_UA_OFF,
    Batch,
)
from dsp.openrtb.hashing import hash_bytes, hash_combine
from dsp.openrtb.limits import MAX_BATCH

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]

FILE_NAME = "paths.table"
WAYS = 8
WORDS = 1 << 18  # 2 MB
PLACES = 1 << 12
UNIT_NS = 8_000_000
USUALLY = 0.6  # share of impressions that a cheaper copy follows: above it the dearer is not bid on
MEMORY = np.float32(1 / 32)
SLOT = SUPPLY.index("duplicate")

# A word: tag 36..63, time 20..35, exchange 12..19, cost 1..11, taken 0.
_TAG, _TIME, _EXCHANGE, _COST = np.uint64(36), np.uint64(20), np.uint64(12), np.uint64(1)
_MOST_COST = 2047
_TAKEN = np.uint64(1)


@inlined
def word_of(key: int, unit: int, exchange: int, cost: int, taken: bool) -> np.uint64:
    """The word of an impression."""
    tag = np.uint64(key) >> _TAG << _TAG
    rest = np.uint64(unit & 0xFFFF) << _TIME | np.uint64(exchange & 0xFF) << _EXCHANGE | np.uint64(cost) << _COST
    return tag | rest | (_TAKEN if taken else np.uint64(0))


@inlined
def _live(word: np.uint64, unit: int, window: int) -> bool:
    age = (unit - np.int64(word >> _TIME & np.uint64(0xFFFF))) & 0xFFFF
    return bool(word != np.uint64(0)) and bool(age <= window)


@inlined
def _place(table: U64, key: int, unit: int, window: int) -> tuple[int, bool]:
    """(where the impression's word is, True), or (where a new one goes, False): a dead one's, else the oldest's."""
    base = int(np.int64(np.uint64(key) & np.uint64(table.shape[0] // WAYS - 1))) * WAYS
    best, oldest = base, -1
    for k in range(base, base + WAYS):
        word = table[k]
        if not _live(word, unit, window):
            best, oldest = k, 1 << 20
        elif word >> _TAG == np.uint64(key) >> _TAG:
            return k, True
        else:
            age = (unit - int(np.int64(word >> _TIME & np.uint64(0xFFFF)))) & 0xFFFF
            if age > oldest:
                best, oldest = k, age
    return best, False


@inlined
def _site(req: I64, r: int) -> int:
    return req[r, R_BUNDLE] if req[r, R_CHANNEL] == CHANNEL_APP else req[r, R_DOMAIN]


@kernel
def impression_key(r: int, req: I64, imp: I64, pool: I64, text: U8, bits: I64) -> int:
    """What is equal in copies of one impression and in nothing else, 0 where that can't be told."""
    if req[r, R_TID] != 0:
        return hash_combine(req[r, R_TID], req[r, R_TID])
    if bits[r] & JOIN == 0 or req[r, R_IMPN] == 0:
        return 0
    first = req[r, R_IMP0]
    size = pool[imp[first, I_B_SIZES0]] if imp[first, I_B_SIZESN] > 0 else np.int64(0)
    address = hash_bytes(text, req[r, R_IP_OFF], req[r, R_IP_LEN])
    if address == 0:
        address = hash_bytes(text, req[r, R_IPV6_OFF], req[r, R_IPV6_LEN])
    key = hash_combine(_site(req, r), hash_combine(address, hash_bytes(text, req[r, R_UA_OFF], req[r, R_UA_LEN])))
    return hash_combine(key, (size + 1) * 16 + imp[first, I_MEDIA])


@inlined
def _learned(tags: I64, rates: F32, site: int, exchange: int) -> int:
    """Where the mean of a place and exchange is; one that was of others begins anew."""
    key = hash_combine(site, exchange + 1)
    at = int(np.int64(np.uint64(key) & np.uint64(tags.shape[0] - 1)))
    if tags[at] != key:
        tags[at], rates[at] = key, np.float32(0.0)
    return at


@kernel
def check_duplicates(
    n: int, req: I64, imp: I64, pool: I64, text: U8, bits: I64, ex_i: I64, hop_ppm: int, unit: int, window: int,
    table: U64, tags: I64, rates: F32, q: I64, slots: I64, words: U64, refused: I64,
) -> None:  # fmt: skip
    """Refuse dearer copies: Q_NBR becomes NBR_DUPLICATE, counted in ``refused`` int64[X] by exchange.

    ``unit``: the time in UNIT_NS; ``window``: how long copies are, in the same. ``table`` uint64[words]; ``tags`` int64
    and ``rates`` float32[places]: how often a cheaper copy follows. ``slots`` int64[n] and ``words`` uint64[n] get
    which word each request has claimed, -1 none.
    """
    for r in range(n):
        slots[r] = -1
        if q[r, Q_NBR] != GO or req[r, R_TEST] == 1:
            continue
        key = impression_key(r, req, imp, pool, text, bits)
        if key == 0:
            continue
        x = req[r, R_EXCHANGE]
        cost = min((ex_i[x, EX_FEE_PPM] + hop_ppm * req[r, R_SCHAIN_NODES]) // 1000, _MOST_COST)
        at, known = _place(table, key, unit, window)
        loser, taken = -1, True
        if known:
            word = table[at]
            other = int(np.int64(word >> _EXCHANGE & np.uint64(0xFF)))
            was_taken = word & _TAKEN != np.uint64(0)
            if other == x & 0xFF:
                continue
            if cost < np.int64(word >> _COST & np.uint64(_MOST_COST)):
                rates[_learned(tags, rates, _site(req, r), other)] += MEMORY
                for k in range(r):  # of the same batch, and not decided yet
                    if slots[k] == at:
                        loser = k
            elif was_taken:
                loser = r
        else:
            mean = _learned(tags, rates, _site(req, r), x & 0xFF)
            rates[mean] -= rates[mean] * MEMORY
            taken = rates[mean] <= USUALLY
            if not taken:
                loser = r
        if loser >= 0:
            q[loser, Q_NBR] = NBR_DUPLICATE
            slots[loser] = -1
            refused[min(req[loser, R_EXCHANGE], refused.shape[0] - 1)] += 1
        if loser != r or not taken:
            table[at] = word_of(key, unit, x, cost, taken)
            if taken:
                slots[r], words[r] = at, table[at]


@kernel
def give_back(n: int, first_bid: I64, slots: I64, words: U64, table: U64) -> None:
    """Whoever claimed an impression and bid nothing leaves it to the next copy; ``first_bid`` int64[n + 1]."""
    for r in range(n):
        at = slots[r]
        if at >= 0 and first_bid[r + 1] == first_bid[r] and table[at] == words[r]:
            table[at] = words[r] & ~_TAKEN


class Duplicates:
    """What one engine knows of copies: the host's table, or with ``alone`` one of its own, and what usually follows."""

    def __init__(self, config: Config, *, alone: bool = False) -> None:
        self.config: SupplyConfig = config.supply
        self._window = max(1, round(self.config.duplicates_ms * 1e6 / UNIT_NS))
        self._hop_ppm = round(self.config.hop_share * 1e6)
        self.table: U64 = np.zeros(WORDS, np.uint64) if alone else shared_words(config.path("run", FILE_NAME), WORDS)
        self._tags: I64 = np.zeros(PLACES, np.int64)
        self.rates: F32 = np.zeros(PLACES, np.float32)
        self._slots: I64 = np.full(MAX_BATCH, -1, np.int64)
        self._words: U64 = np.zeros(MAX_BATCH, np.uint64)

    def check(self, n: int, batch: Batch, bits: I64, ex_i: I64, q: I64, refused: I64, now_ns: int) -> None:
        """Refuse dearer copies of a batch; counts into ``refused`` int64[X, len(SUPPLY)]. Monotonic ns."""
        check_duplicates(
            n, batch.req, batch.imp, batch.pool, batch.text, bits, ex_i, self._hop_ppm, now_ns // UNIT_NS, self._window,
            self.table, self._tags, self.rates, q, self._slots, self._words, refused[:, SLOT],
        )  # fmt: skip

    def done(self, n: int, first_bid: I64) -> None:
        """The batch is decided: what got no bid is left to the next copy."""
        give_back(n, first_bid, self._slots, self._words, self.table)


def open_duplicates(config: Config) -> Duplicates | None:
    """As the settings say; None where they switch it off."""
    return Duplicates(config) if config.supply.duplicates_ms > 0 else None
