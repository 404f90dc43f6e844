"""RTA's kernels between the engine's: who is asked about becomes request columns, scores become answers.

A strategy is a line item that names the platform's exchange. Line items whose feature columns are equal get the same
score, so a request is scored once per such *group*, not once per strategy: that is exact, and makes 50 strategies over
a handful of offers cost a handful of rows.

What is answered per accepted strategy, from the design's value formula given a click:

    cpc = value(click = 1) x pacing multiplier      pcvr = p(apply | click)
    cpa = value(click = apply = 1, without the click's payout) x multiplier
    weight = cpc over its running mean for the strategy, in 0.2 .. 5 (outside, the platform ignores it)

so the platform's own price stays what it is on average, and moves from people worth little to people worth much.
Nobody who is in an application, was rejected, is delinquent or is suppressed is accepted for the product.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dsp.audience.consent import FREQUENCY, JOIN, RECORD, RISK
from dsp.audience.frequency import S_LIFECYCLE
from dsp.audience.profile import P_LIFECYCLE, P_SUPPRESS
from dsp.base.kernel import inlined, kernel
from dsp.bidder.gate import GO, Q_BITS, Q_FOUND, Q_NBR, Q_OS
from dsp.bidder.price import moved, value_of
from dsp.bidder.rta_tally import T_ACCEPTED, T_CPA, T_CPC, T_PCVR, T_WANTED, T_WEIGHT
from dsp.catalog.layout import LI_PRODUCT, LI_STRATEGY, LI_SUPPRESS, LIV_PAYOUT_CLICK
from dsp.model.context import (
    CTX_DAY,
    CTX_DEVICETYPE,
    CTX_EXCHANGE,
    CTX_HOUR,
    CTX_OS,
    CTX_PROFILE,
    CTX_WEEKDAY,
)
from dsp.openrtb.columns import R_COUNTRY, R_DEVICETYPE, R_EXCHANGE
from dsp.openrtb.rta import (
    A_ADLIST,
    A_ADS,
    A_EXPS,
    A_ID_LEN,
    A_ID_OFF,
    A_OS,
    A_PING,
    A_STATUS,
    A_TEST,
    AD_GROUP,
    AD_TARGET_LEN,
    AD_TARGET_OFF,
)

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]
U64 = npt.NDArray[np.uint64]
U8 = npt.NDArray[np.uint8]
I32 = npt.NDArray[np.int32]

MAX_STRATEGIES = 256
MAX_TARGET_BYTES = 32  # of an out_target_id
ANSWER_BYTES = 40_960  # the longest answer: MAX_STRATEGIES and MAX_ADS of everything
MEAN_SHARE = 1.0 / 1024  # what one answer moves a strategy's mean by
LEAST_WEIGHT, MOST_WEIGHT = 0.2, 5.0
REFUSED_CODE = 1
BY_MODEL, BY_ACCEPT, BY_REFUSE = 0, 1, 2  # experiment arms
ARMS = ("model", "accept", "refuse")
_IN_APPLICATION, _REJECTED, _DELINQUENT, _REGISTERED = 2, 3, 6, 1  # indices of dsp.audience.profile.LIFECYCLE
ALLOWED = JOIN | FREQUENCY | RISK | RECORD  # the record's own consent decides: RTA carries no signals

# Outcomes, slots of dsp_rta_requests_total.
O_ACCEPT, O_REFUSE, O_UNKNOWN, O_PING, O_TEST, O_BAD = range(6)

# --- columns of a strategy: int64[S, S_WIDTH] -------------------------------------------------------------------------
(
    S_LI,  # line item's index
    S_GROUP,
    S_ANSWER,  # ANSWERS index
    S_TARGET_LEN,
) = range(4)
S_WIDTH = 4
ANSWERS = ("weight", "cpc", "cpa")

# --- a platform's settings: int64[PL_WIDTH] ---------------------------------------------------------------------------
(
    PL_EXCHANGE, PL_COUNTRY, PL_OFFSET_S, PL_CACHE_ACCEPT, PL_CACHE_REFUSE, PL_CACHE_UNKNOWN, PL_CACHE_FRESH,
    PL_MIN_PRICE, PL_MAX_CPC, PL_MAX_CPA,
) = range(10)  # fmt: skip
PL_WIDTH = 10

# Operating systems of RTA to OSES and to OpenRTB's devicetype (1 mobile or tablet, 2 personal computer).
_OS = np.array([0, 1, 2, 3, 6, 6, 4, 2], np.int64)  # HarmonyOS runs what Android runs
_DEVICE = np.array([0, 1, 1, 2, 1, 1, 2, 1], np.int64)


@kernel
def rta_requests(n: int, asked: I64, platform: I64, now_s: int, req: I64, q: I64, bits: I64, ctx: I64) -> None:
    """Decoded RTA requests as the engine's columns: ``req`` and ``q`` for `target`, ``bits``, ``ctx`` for features."""
    local_s = now_s + platform[PL_OFFSET_S]
    day = local_s // 86_400
    for i in range(n):
        plain = asked[i, A_STATUS] == 0 and asked[i, A_PING] == 0
        os = asked[i, A_OS] if 0 <= asked[i, A_OS] < _OS.shape[0] else 0
        req[i] = 0
        req[i, R_EXCHANGE] = platform[PL_EXCHANGE]
        req[i, R_COUNTRY] = platform[PL_COUNTRY]
        req[i, R_DEVICETYPE] = _DEVICE[os]
        q[i] = 0
        q[i, Q_NBR] = GO if plain else -2
        q[i, Q_OS] = _OS[os]
        bits[i] = ALLOWED if plain else 0
        q[i, Q_BITS] = bits[i]
        row = ctx[i]
        row[:] = 0
        row[CTX_PROFILE] = -1
        row[CTX_HOUR] = (local_s - day * 86_400) // 3600
        row[CTX_WEEKDAY] = (day + 3) % 7
        row[CTX_DAY] = day
        row[CTX_DEVICETYPE] = _DEVICE[os]
        row[CTX_OS] = _OS[os]
        row[CTX_EXCHANGE] = platform[PL_EXCHANGE]


@inlined
def _wanted(r: int, li: int, matched: U64, some: I64) -> bool:
    bit = np.uint64(1) << np.uint64(li & 63)
    return some[r] != 0 and matched[r, li >> 6] & bit != np.uint64(0)


@inlined
def _stage(r: int, product: int, found: I64, profiles: U8, states: U8, known: I64) -> int:
    """How far the person is with the product, by the profile and by what was heard since; 0 for a stranger."""
    if found[r] == 0:
        return 0
    stage = int(profiles[r, P_LIFECYCLE + product])
    return max(stage, int(states[r, S_LIFECYCLE + product])) if known[r] != 0 else stage


@inlined
def _barred(r: int, line: I64, found: I64, profiles: U8, states: U8, known: I64) -> bool:
    if found[r] == 0:
        return False
    if profiles[r, P_SUPPRESS] != 0:
        return True
    stage = _stage(r, line[LI_PRODUCT], found, profiles, states, known)
    return stage in (_IN_APPLICATION, _REJECTED, _DELINQUENT) or (line[LI_SUPPRESS] >> stage) & 1 != 0


@kernel
def rta_candidates(
    n: int, q: I64, found: I64, profiles: U8, states: U8, known: I64, matched: U64, some: I64, strategies: I64,
    li_i: I64, ctx: I64,
    row_of: I64, wants: I64, wanting: I64, cand_imp: I32, cand_li: I32,
) -> int:  # fmt: skip
    """One candidate row per request and group with a strategy that wants it; ``row_of`` int64[n, groups], -1 none.

    ``wants`` int64[n, S] gets the strategies that want the request, ``wanting`` int64[n] how many they are.
    """
    count = 0
    for r in range(n):
        row_of[r] = -1
        wanting[r] = 0
        q[r, Q_FOUND] = found[r]
        ctx[r, CTX_PROFILE] = r if found[r] != 0 else -1
        if q[r, Q_NBR] != GO:
            continue
        for s in range(strategies.shape[0]):
            li, group = strategies[s, S_LI], strategies[s, S_GROUP]
            if not _wanted(r, li, matched, some) or _barred(r, li_i[li], found, profiles, states, known):
                continue
            wants[r, wanting[r]] = s
            wanting[r] += 1
            if row_of[r, group] < 0:
                row_of[r, group] = count
                cand_imp[count] = r
                cand_li[count] = li
                count += 1
    return count


@inlined
def _put_varint(out: U8, at: int, value: int) -> int:
    rest = np.uint64(value)
    while rest >= np.uint64(128):
        out[at] = np.uint8((rest & np.uint64(127)) | np.uint64(128))
        rest >>= np.uint64(7)
        at += 1
    out[at] = np.uint8(rest)
    return at + 1


@inlined
def _put_number(out: U8, at: int, field: int, value: int) -> int:
    return _put_varint(out, _put_varint(out, at, field << 3), value)


@inlined
def _put_bytes(out: U8, at: int, field: int, text: U8, off: int, length: int) -> int:
    at = _put_varint(out, _put_varint(out, at, field << 3 | 2), length)
    for k in range(length):
        out[at + k] = text[off + k]
    return at + length


@inlined
def _put_float(out: U8, at: int, field: int, value: float, f: F32, f_bits: I32) -> int:
    at = _put_varint(out, at, field << 3 | 5)
    f[0] = np.float32(value)
    word = np.int64(f_bits[0])
    for k in range(4):
        out[at + k] = np.uint8((word >> (8 * k)) & 255)
    return at + 4


@kernel
def _put_target(out: U8, at: int, strategy: I64, target: U8, price: I64, weight: float, pcvr: float, tag: int,
                f: F32, f_bits: I32) -> int:  # fmt: skip
    """A TargetInfo. Its length is below 128, so it takes one byte, filled in afterwards."""
    at = _put_varint(out, at, 12 << 3 | 2)
    length_at = at
    at = _put_bytes(out, at + 1, 1, target, 0, strategy[S_TARGET_LEN])
    if strategy[S_ANSWER] == 1:
        at = _put_number(out, at, 3, price[0])
    elif strategy[S_ANSWER] == 2:
        at = _put_number(out, at, 5, price[1])
    else:
        at = _put_float(out, at, 6, weight, f, f_bits)
    at = _put_number(out, at, 9, tag)
    if pcvr >= 0.0:
        at = _put_float(out, at, 11, pcvr, f, f_bits)
    out[length_at] = np.uint8(at - length_at - 1)
    return at


@kernel
def _put_ad(out: U8, at: int, group: int, taken: bool, answer: int, price: I64, weight: float, f: F32,
            f_bits: I32) -> int:  # fmt: skip
    """An AdResult; as `_put_target`."""
    at = _put_varint(out, at, 14 << 3 | 2)
    length_at = at
    at = _put_number(out, at + 1, 1, group)
    if not taken:
        at = _put_number(out, at, 4, 1)
    elif answer == 1:
        at = _put_number(out, at, 3, price[0])
    elif answer == 2:
        at = _put_number(out, at, 6, price[1])
    else:
        at = _put_float(out, at, 12, weight, f, f_bits)
    out[length_at] = np.uint8(at - length_at - 1)
    return at


@inlined
def _same(text: U8, off: int, target: U8, length: int) -> bool:
    for k in range(length):
        if text[off + k] != target[k]:
            return False
    return True


@kernel
def rta_answers(
    n: int, asked: I64, exps: I64, ads: I64, text: U8, platform: I64, experiments: I64, strategies: I64, targets: U8,
    found: I64, profiles: U8, states: U8, known: I64, row_of: I64, wants: I64, wanting: I64, p: F32,
    factor: F32, li_i: I64, li_v: F64, hundredths: F64,
    multiplier: F64, mean: F64, first_tag: int, heads: F32, price: I64, weight: F64, f: F32, f_bits: I32, out: U8,
    ends: I64, counted: I64, accepts: I64, tally: F64,
) -> None:  # fmt: skip
    """Write the RtaResponses one after the other to ``out`` uint8[n * ANSWER_BYTES], that of r up to ``ends[r]``.

    What can't be read gets none. ``p`` float32[rows, 5], their odds times ``factor`` float32[L, 5]; ``hundredths``
    float64[L]: of the platform's currency per unit of the line item's; ``experiments`` int64[m, 2] (exp_id, arm);
    ``mean`` float64[L] running means of a click's worth, updated but for tests; ``counted`` int64[outcomes],
    ``accepts`` int64[1] and ``tally`` float64[S, T_WIDTH] are added to. ``heads`` float32[5], ``price`` int64[S, 2],
    ``weight`` float64[S], ``f`` float32[1] with its view ``f_bits`` are scratch.
    """
    at = 0
    weight[: strategies.shape[0]] = -1.0
    for r in range(n):
        if asked[r, A_STATUS] != 0:
            counted[O_BAD] += 1
            ends[r] = at
            continue
        if asked[r, A_ID_LEN] > 0:
            at = _put_bytes(out, at, 1, text, asked[r, A_ID_OFF], asked[r, A_ID_LEN])
        if asked[r, A_PING] != 0:
            counted[O_PING] += 1
            at = ends[r] = _put_number(out, at, 2, 0)
            continue
        arm = BY_MODEL
        for e in range(asked[r, A_EXPS]):
            for m in range(experiments.shape[0]):
                if arm == BY_MODEL and exps[r, e] == experiments[m, 0]:
                    arm = experiments[m, 1]
        taken = 0
        counts = 0.0 if asked[r, A_TEST] != 0 else 1.0
        for w in range(wanting[r] if arm != BY_REFUSE else 0):
            s = wants[r, w]
            tally[s, T_WANTED] += counts
            li = strategies[s, S_LI]
            row = row_of[r, strategies[s, S_GROUP]]
            for k in range(5):
                heads[k] = p[row, k]
            heads[0] = np.float32(1.0)
            click = value_of(heads, factor[li], li_v[li])
            heads[1] = np.float32(1.0)
            action = value_of(heads, factor[li], li_v[li]) - li_v[li, LIV_PAYOUT_CLICK]
            worth = click * multiplier[li] * hundredths[li]
            if li_i[li, LI_STRATEGY] == 1:
                weight[s] = 1.0
            elif not worth >= platform[PL_MIN_PRICE]:
                if arm != BY_ACCEPT:
                    continue
                weight[s] = 1.0
            else:
                usual = mean[li] if mean[li] > 0.0 else click
                weight[s] = 1.0
                if arm == BY_MODEL:
                    weight[s] = min(max(click / usual, LEAST_WEIGHT), MOST_WEIGHT)
                if asked[r, A_TEST] == 0:
                    mean[li] = usual + (click - usual) * MEAN_SHARE
            price[s, 0] = min(max(np.int64(min(worth, 1e9)), platform[PL_MIN_PRICE]), platform[PL_MAX_CPC])
            due = action * multiplier[li] * hundredths[li]
            price[s, 1] = min(max(np.int64(min(due, 1e9)), np.int64(1)), platform[PL_MAX_CPA])
            wants[r, taken] = s  # from here on those that take it
            taken += 1
        at = _put_number(out, at, 2, 0 if taken > 0 else REFUSED_CODE)
        cache = platform[PL_CACHE_REFUSE]
        outcome = O_REFUSE
        if taken > 0:
            cache, outcome = platform[PL_CACHE_ACCEPT], O_ACCEPT
        elif found[r] == 0:
            cache, outcome = platform[PL_CACHE_UNKNOWN], O_UNKNOWN
        if found[r] != 0:
            for k in range(5):
                stage = _stage(r, k, found, profiles, states, known)
                if stage in (_IN_APPLICATION, _REGISTERED):
                    cache = platform[PL_CACHE_FRESH]
        if cache > 0:
            at = _put_number(out, at, 7, cache)
        for w in range(taken):
            s = wants[r, w]
            at = _put_bytes(out, at, 10, targets[s], 0, strategies[s, S_TARGET_LEN])
        tag = (first_tag + r) << 8 | arm
        for w in range(taken):
            s = wants[r, w]
            row = row_of[r, strategies[s, S_GROUP]]
            pcvr = moved(p[row, 1], factor[strategies[s, S_LI], 1])
            at = _put_target(out, at, strategies[s], targets[s], price[s], weight[s], pcvr, tag, f, f_bits)
            tally[s, T_ACCEPTED] += counts
            tally[s, T_WEIGHT] += counts * weight[s]
            tally[s, T_CPC] += counts * price[s, 0]
            tally[s, T_CPA] += counts * price[s, 1]
            tally[s, T_PCVR] += counts * pcvr
        if asked[r, A_ADLIST] != 0:
            for a in range(asked[r, A_ADS]):
                ad = ads[r, a]
                for s in range(strategies.shape[0]):
                    size = strategies[s, S_TARGET_LEN]
                    if ad[AD_TARGET_LEN] == size and _same(text, ad[AD_TARGET_OFF], targets[s], size):
                        at = _put_ad(
                            out, at, ad[AD_GROUP], weight[s] > 0.0, strategies[s, S_ANSWER], price[s], weight[s], f,
                            f_bits,
                        )  # fmt: skip
                        break
        for w in range(taken):
            weight[wants[r, w]] = -1.0
        ends[r] = at
        if asked[r, A_TEST] != 0:
            counted[O_TEST] += 1
        else:
            counted[outcome] += 1
            accepts[0] += taken
