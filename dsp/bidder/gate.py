"""Stage 2, gate: may and can we answer this request at all, and what kind of traffic is it?

Refusals end here with an OpenRTB no-bid reason: too little time left of tmax, an exchange above its QPS cap, a crawler.
What later stages ask of the device (operating system, browser, content tier) is worked out here once per request, so
that no later stage reads text.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dsp.base.kernel import kernel
from dsp.catalog.layout import EX_ALLOWANCE_MS, EX_AUCTION, EX_CURRENCY, EX_FEE_PPM, EX_QPS, EX_TMAX_MS, MAX_REFUSALS
from dsp.model.context import BROWSERS, OSES
from dsp.openrtb.columns import (
    CHANNEL_APP,
    OK,
    R_AT,
    R_CAT0,
    R_CATN,
    R_CHANNEL,
    R_CUR0,
    R_CURN,
    R_EXCHANGE,
    R_OS,
    R_STATUS,
    R_TMAX,
    R_UA_LEN,
    R_UA_OFF,
)
from dsp.openrtb.hashing import hash_text

# --- derived columns of a request: int64[n, Q_WIDTH] --------------------------------------------------------------
(
    Q_NBR,  # GO, BAD_REQUEST, OVER_QPS or the no-bid reason
    Q_OS,  # OSES index
    Q_BROWSER,  # BROWSERS index
    Q_TIER1,  # IAB tier 1 number of the content, 0 unknown
    Q_CURRENCY,  # index of the currency to bid in
    Q_AT,  # 1 first, 2 second price
    Q_LEFT_US,  # what is left of tmax, microseconds
    Q_BITS,  # consent decision: JOIN | FREQUENCY | RISK | SPECIAL
    Q_FOUND,  # 1 with a joined profile
    Q_REASON,  # how far the best candidate came: the no-bid reason if nothing bids
    Q_REFUSES,  # the bit of its exchange in `fit.AD_REFUSED`
    Q_FEE_PPM,  # what its exchange charges on top of a price, millionths
) = range(12)
Q_WIDTH = 12

GO = -1
BAD_REQUEST = -2
OVER_QPS = -3

NBR_CRAWLER = 3
NBR_NO_TIME = 15
NBR_NO_CURRENCY = 503

OS_HASHES = np.array(
    [
        hash_text(t)
        for t in ("ios", "iphone os", "ipados", "android", "windows", "macos", "mac os x", "os x", "mac", "linux")
    ],
    np.int64,
)
OS_VALUES = np.array([1, 1, 1, 2, 3, 4, 4, 4, 4, 5], np.int64)
OS_NAMES_HASH = np.array([hash_text(t) for t in OSES], np.int64)
BROWSER_NAMES_HASH = np.array([hash_text(t) for t in BROWSERS], np.int64)
_B = {name: i for i, name in enumerate(BROWSERS)}
B_CHROME, B_SAFARI, B_FIREFOX, B_EDGE, B_OTHER, B_APP = (
    _B["chrome"], _B["safari"], _B["firefox"], _B["edge"], _B["other"], _B["app"],
)  # fmt: skip
OS_OTHER = OSES.index("other")

TIER1_SIZE = 4096  # open addressing over hashes of "IAB1".."IAB26" and "IABn-m"


def _tier1_table() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    keys, values = np.zeros(TIER1_SIZE, np.int64), np.zeros(TIER1_SIZE, np.int64)
    for tier in range(1, 27):
        for name in [f"iab{tier}"] + [f"iab{tier}-{sub}" for sub in range(1, 71)]:
            h = hash_text(name)
            at = h & (TIER1_SIZE - 1)
            while keys[at]:
                at = (at + 1) & (TIER1_SIZE - 1)
            keys[at], values[at] = h, tier
    return keys, values


TIER1_KEYS, TIER1_VALUES = _tier1_table()
TIER1_HASH = np.array([0] + [hash_text(f"iab{tier}") for tier in range(1, 27)], np.int64)


@kernel
def tier1_of(h: int, keys: npt.NDArray[np.int64], values: npt.NDArray[np.int64]) -> int:
    """IAB tier 1 number (1..26) of a content category's hash, 0 if it is not of that taxonomy."""
    at = h & (TIER1_SIZE - 1)
    while keys[at] != 0:
        if keys[at] == h:
            return values[at]
        at = (at + 1) & (TIER1_SIZE - 1)
    return 0


@kernel
def read_user_agent(text: npt.NDArray[np.uint8], off: int, length: int) -> tuple[int, bool]:
    """(BROWSERS index, is a crawler) of a user agent string; one pass, case-insensitive, first match of the strongest.

    Order matters as browsers claim their ancestors' names: Edge says Chrome and Safari, Chrome says Safari.
    """
    chrome = safari = firefox = edge = crawler = False
    end = off + length
    fold = np.uint8(32)  # letters to lower case; what it makes of other bytes matches nothing below
    for i in range(off, end - 2):
        c = text[i] | fold
        if c == 101:  # edg(e|a|ios)
            edge = edge or ((text[i + 1] | fold) == 100 and (text[i + 2] | fold) == 103)
        elif c == 115:  # saf(ari), spid(er)
            d, e = text[i + 1] | fold, text[i + 2] | fold
            safari = safari or (d == 97 and e == 102)
            crawler = crawler or (d == 112 and e == 105 and i + 3 < end and (text[i + 3] | fold) == 100)
        elif c == 99:  # chro(me), cri(os), craw(ler)
            d, e = text[i + 1] | fold, text[i + 2] | fold
            if d == 104 or d == 114:
                f = (text[i + 3] | fold) if i + 3 < end else np.uint8(0)
                chrome = chrome or (d == 104 and e == 114 and f == 111) or (d == 114 and e == 105)
                crawler = crawler or (d == 114 and e == 97 and f == 119)
        elif c == 102:  # fir(efox), fxi(os)
            d, e = text[i + 1] | fold, text[i + 2] | fold
            firefox = firefox or (d == 105 and e == 114) or (d == 120 and e == 105)
        elif c == 98:  # bot, at the end of a word: Googlebot/2.1, "bot;"; but a CUBOT is a phone
            if (text[i + 1] | fold) == 111 and (text[i + 2] | fold) == 116:
                after = (text[i + 3] | fold) if i + 3 < end else fold
                phone = i >= off + 2 and (text[i - 1] | fold) == 117 and (text[i - 2] | fold) == 99
                crawler = crawler or (not (97 <= after <= 122) and not phone)
    if edge:
        return B_EDGE, crawler
    if firefox:
        return B_FIREFOX, crawler
    if chrome:
        return B_CHROME, crawler
    if safari:
        return B_SAFARI, crawler
    return (B_OTHER if length > 0 else 0), crawler


@kernel
def take_token(
    tokens: npt.NDArray[np.float64], last_ns: npt.NDArray[np.int64], exchange: int, qps: float, now_ns: int
) -> bool:
    """One request's token from an exchange's bucket (rate ``qps``, depth a quarter second's worth, at least 1)."""
    depth = max(1.0, 0.25 * qps)
    filled = tokens[exchange] + (now_ns - last_ns[exchange]) * 1e-9 * qps
    last_ns[exchange] = now_ns
    filled = min(filled, depth)
    if filled < 1.0:
        tokens[exchange] = filled
        return False
    tokens[exchange] = filled - 1.0
    return True


@kernel
def choose_currency(
    pool: npt.NDArray[np.int64], start: int, count: int, preferred: int, cur_hash: npt.NDArray[np.int64]
) -> int:
    """Index of the currency to bid in: the exchange's own if allowed, else the first of ``cur`` we have a rate for.

    -1 when none of the allowed currencies has a rate. An empty list allows the exchange's own.
    """
    if count == 0:
        return preferred
    best = -1
    for k in range(start, start + count):
        for m in range(cur_hash.shape[0]):
            if pool[k] == cur_hash[m]:
                if m == preferred:
                    return m
                if best < 0:
                    best = m
    return best


@kernel
def forget_refused(n: int, q: npt.NDArray[np.int64], bits: npt.NDArray[np.int64]) -> None:
    """Take every permission from requests that are refused already: nobody's profile is read for them."""
    for r in range(n):
        if q[r, Q_NBR] != GO:
            bits[r] = 0


@kernel
def least_left_us(n: int, q: npt.NDArray[np.int64]) -> int:
    """What the most pressed of ``n`` requests that are still in the running has left, in microseconds."""
    least = 1 << 40
    for r in range(n):
        if q[r, Q_NBR] == GO:
            least = min(least, q[r, Q_LEFT_US])
    return least


@kernel
def gate(
    n: int,
    req: npt.NDArray[np.int64],
    pool: npt.NDArray[np.int64],
    text: npt.NDArray[np.uint8],
    arrived_ns: npt.NDArray[np.int64],
    now_ns: int,
    ex_i: npt.NDArray[np.int64],
    qps_share: float,
    tokens: npt.NDArray[np.float64],
    tokens_ns: npt.NDArray[np.int64],
    cur_hash: npt.NDArray[np.int64],
    tier1_keys: npt.NDArray[np.int64],
    tier1_values: npt.NDArray[np.int64],
    min_left_us: int,
    q: npt.NDArray[np.int64],
) -> None:
    """Fill ``q`` int64[n, Q_WIDTH] for each request; Q_NBR is GO where the next stages should look at it.

    ``arrived_ns`` and ``now_ns`` are monotonic nanoseconds, ``qps_share`` this worker's part of an exchange's cap.
    """
    for r in range(n):
        q[r, Q_FOUND] = 0
        q[r, Q_REASON] = 0
        if req[r, R_STATUS] != OK:
            q[r, Q_NBR] = BAD_REQUEST
            continue
        x = req[r, R_EXCHANGE]
        qps = ex_i[x, EX_QPS] * qps_share
        if qps > 0 and not take_token(tokens, tokens_ns, x, qps, now_ns):
            q[r, Q_NBR] = OVER_QPS
            continue
        tmax_ms = req[r, R_TMAX]
        if tmax_ms <= 0:
            tmax_ms = ex_i[x, EX_TMAX_MS]
        left_us = (tmax_ms - ex_i[x, EX_ALLOWANCE_MS]) * 1000 - (now_ns - arrived_ns[r]) // 1000
        q[r, Q_LEFT_US] = left_us
        if left_us < min_left_us:
            q[r, Q_NBR] = NBR_NO_TIME
            continue
        currency = choose_currency(pool, req[r, R_CUR0], req[r, R_CURN], ex_i[x, EX_CURRENCY], cur_hash)
        q[r, Q_CURRENCY] = currency
        if currency < 0:
            q[r, Q_NBR] = NBR_NO_CURRENCY
            continue
        browser, crawler = read_user_agent(text, req[r, R_UA_OFF], req[r, R_UA_LEN])
        if crawler:
            q[r, Q_NBR] = NBR_CRAWLER
            continue
        q[r, Q_BROWSER] = B_APP if req[r, R_CHANNEL] == CHANNEL_APP else browser
        os = 0
        h = req[r, R_OS]
        if h != 0:
            os = OS_OTHER
            for k in range(OS_HASHES.shape[0]):
                if OS_HASHES[k] == h:
                    os = OS_VALUES[k]
                    break
        q[r, Q_OS] = os
        tier = 0
        for k in range(req[r, R_CAT0], req[r, R_CAT0] + req[r, R_CATN]):
            tier = tier1_of(pool[k], tier1_keys, tier1_values)
            if tier != 0:
                break
        q[r, Q_TIER1] = tier
        at = req[r, R_AT]
        if at != 1 and at != 2:
            at = ex_i[x, EX_AUCTION] if at == 0 else 1
        q[r, Q_AT] = at
        q[r, Q_FEE_PPM] = ex_i[x, EX_FEE_PPM]
        q[r, Q_REFUSES] = 1 << x if x < MAX_REFUSALS else 0
        q[r, Q_NBR] = GO
