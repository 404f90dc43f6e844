"""One float32 row per (imp, candidate line item): the single function that serving and training see people through.

The engine builds the rows, scores them and logs those it bid on; training reads the logged rows. Nothing recomputes a
feature, so there is no second implementation to drift. Every value is scaled to about [-1, 1] and dense, unknown is 0
(beside a known-flag where 0 is also a value), so the models need no scaler and survive odd input.

Order: what only depends on the imp first (copied between candidates of one imp), then what the line item adds. Gender
is never a feature. Where the region's law forbids demographics for credit (``CTX_SPECIAL``) and the line item is credit
(``LIF_CREDIT``), age and the region cluster (a postcode in disguise) are masked to unknown.

`SPEC_HASH` names this spec in logs and manifests; whoever changes the meaning of a column bumps `SPEC_VERSION` (a
golden test notices).
"""

from __future__ import annotations

import hashlib
import math

import numba as nb
import numpy as np
import numpy.typing as npt

from dsp.audience.profile import (
    P_ACTIVITY,
    P_AFFINITY,
    P_AGE_BAND,
    P_HOURS,
    P_INCOME_BAND,
    P_INTENT,
    P_LIFECYCLE,
    P_OWNED,
    P_RECENCY,
    P_RISK,
    PROFILE_BYTES,
)
from dsp.base.memory import AHEAD, prefetch_row
from dsp.catalog.layout import (
    LI_FLAGS,
    LI_ID,
    LI_PRODUCT,
    LIF_CREDIT,
    LIV_EAD,
    LIV_LGD,
    LIV_MARGIN,
    LIV_PAYOUT_APPLY,
    LIV_PAYOUT_APPROVE,
    LIV_PAYOUT_FUND,
)
from dsp.model.context import (
    CTX_BROWSER,
    CTX_CATEGORY,
    CTX_CHANNEL,
    CTX_CONNECTION,
    CTX_DEVICETYPE,
    CTX_EXCHANGE,
    CTX_FLOOR,
    CTX_H,
    CTX_HAS_DEAL,
    CTX_HOUR,
    CTX_INSTL,
    CTX_MEDIA,
    CTX_OS,
    CTX_POS,
    CTX_PROFILE,
    CTX_SITE,
    CTX_SPECIAL,
    CTX_W,
    CTX_WEEKDAY,
)

SPEC_VERSION = 1

# One name per column; FEATURES is derived from these, so the two cannot disagree.
(
    # the request and the imp
    X_HOUR_SIN, X_HOUR_COS, X_WEEKEND, X_PHONE, X_TABLET, X_DESKTOP, X_TV,
    X_IOS, X_ANDROID, X_WINDOWS, X_CHROME, X_SAFARI, X_BROWSER_OTHER, X_WIFI, X_APP,
    X_VIDEO, X_NATIVE, X_LOG_AREA, X_LOG_ASPECT, X_ABOVE_FOLD, X_BELOW_FOLD, X_INSTL, X_LOG_FLOOR, X_HAS_DEAL,
    X_CAT_FINANCE, X_CAT_BUSINESS, X_CAT_HOME, X_CAT_AUTO, X_CAT_SHOPPING, X_CAT_NEWS,
    X_EXCHANGE_0, X_EXCHANGE_1, X_EXCHANGE_2, X_SITE_SIGN_0, X_SITE_SIGN_1,
    # the person, whatever the candidate
    X_KNOWN, X_INCOME, X_INCOME_KNOWN, X_INTENT_MAX, X_ACTIVITY, X_RECENCY, X_ACTIVE_NOW, X_TOPIC_AFFINITY,
    X_RISK_DEVICE, X_RISK_LENDERS, X_RISK_CONTACT, X_RISK_SOCIAL, X_RISK_QUALIFICATION,
    # the person, seen from the candidate
    X_AGE, X_AGE_SQUARE, X_RISK_REGION, X_INTENT, X_INTENT_SQUARE, X_INTENT_KNOWN, X_OWNED,
    X_WARM, X_APPLIED, X_REJECTED, X_CUSTOMER, X_DELINQUENT,
    # the candidate
    X_LOAN, X_CREDIT_CARD, X_INSURANCE, X_WEALTH, X_DEPOSIT,
    X_LOG_MARGIN, X_LOG_EAD, X_LGD, X_LOG_PAYOUT, X_CREDIT, X_LINE_SIGN_0, X_LINE_SIGN_1,
    # crosses
    X_INTENT_LOAN, X_INTENT_CREDIT_CARD, X_INTENT_INSURANCE, X_INCOME_EAD, X_RISK_EAD, X_RISK_INCOME,
    X_FINANCE_INTENT, X_ACTIVE_INTENT,
) = range(80)  # fmt: skip

FEATURES: tuple[str, ...] = tuple(name[2:].lower() for name in list(globals()) if name.startswith("X_"))
F = len(FEATURES)
SHARED = X_AGE  # columns [0, SHARED) depend on the imp alone
SPEC_HASH = hashlib.sha256(f"dsp-features-{SPEC_VERSION}:{','.join(FEATURES)}".encode()).hexdigest()

assert F == 80
assert F % 16 == 0
PRODUCTS = 5
LINE_PRODUCT = X_INTENT_LOAN - X_LOAN  # columns [X_LOAN, X_INTENT_LOAN) depend on the line item alone
LINE_WIDTH = 16

_HOUR_SIN = np.sin(2 * np.pi * np.arange(24) / 24).astype(np.float32)
_HOUR_COS = np.cos(2 * np.pi * np.arange(24) / 24).astype(np.float32)
# Which of the profile's content affinities (news, finance, sports, technology, entertainment, shopping, travel, home)
# an IAB tier 1 category is about: the person's taste for what they are reading right now. -1 none.
_TOPIC = np.full(27, -1, np.int64)
_TOPIC[[12, 11, 14]] = 0
_TOPIC[[13, 3]] = 1
_TOPIC[17] = 2
_TOPIC[19] = 3
_TOPIC[[1, 9]] = 4
_TOPIC[[22, 18]] = 5
_TOPIC[20] = 6
_TOPIC[[10, 21, 6]] = 7
_RISK_FACTORS = 5  # all but the region cluster, which sits between them in the profile
_REGION = 4

I64 = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]


@nb.njit(cache=True, inline="always")
def _flag(condition: bool) -> np.float32:
    return np.float32(1.0) if condition else np.float32(0.0)


@nb.njit(cache=True, inline="always")
def _log(amount: float, scale: float) -> np.float32:
    """log(1 + amount) / scale with the sign kept; 0 for NaN or nothing."""
    if amount > 0.0:
        return np.float32(math.log1p(amount) / scale)
    if amount < 0.0:
        return np.float32(-math.log1p(-amount) / scale)
    return np.float32(0.0)


@nb.njit(cache=True, inline="always")
def _sign(value: int, bit: int) -> np.float32:
    """±1 by one bit of a hash (a random projection of an unbounded vocabulary); 0 for absent."""
    if value == 0:
        return np.float32(0.0)
    return np.float32(1.0) if (value >> bit) & 1 else np.float32(-1.0)


@nb.njit(cache=True, inline="always")
def _score(byte: int) -> np.float32:
    """A profile score 0..254 centred to [-0.5, 0.5]; unknown (255) is 0."""
    return np.float32(0.0) if byte == 255 else np.float32(byte) / np.float32(254.0) - np.float32(0.5)


@nb.njit(cache=True, nogil=True)
def _context_features(row: F32, c: I64) -> None:
    hour = c[CTX_HOUR] % 24
    row[X_HOUR_SIN] = _HOUR_SIN[hour]
    row[X_HOUR_COS] = _HOUR_COS[hour]
    row[X_WEEKEND] = _flag(c[CTX_WEEKDAY] >= 5)
    device = c[CTX_DEVICETYPE]
    row[X_PHONE] = _flag(device in (1, 4))
    row[X_TABLET] = _flag(device == 5)
    row[X_DESKTOP] = _flag(device == 2)
    row[X_TV] = _flag(device in (3, 6, 7))
    row[X_IOS] = _flag(c[CTX_OS] == 1)
    row[X_ANDROID] = _flag(c[CTX_OS] == 2)
    row[X_WINDOWS] = _flag(c[CTX_OS] == 3)
    browser = c[CTX_BROWSER]
    row[X_CHROME] = _flag(browser == 1)
    row[X_SAFARI] = _flag(browser == 2)
    row[X_BROWSER_OTHER] = _flag(3 <= browser <= 5)
    row[X_WIFI] = _flag(1 <= c[CTX_CONNECTION] <= 2)
    row[X_APP] = _flag(c[CTX_CHANNEL] == 2)
    row[X_VIDEO] = _flag(c[CTX_MEDIA] & 2 != 0)
    row[X_NATIVE] = _flag(c[CTX_MEDIA] & 8 != 0)
    w = float(max(c[CTX_W], 0))
    h = float(max(c[CTX_H], 0))
    row[X_LOG_AREA] = _log(w * h, 16.0)
    row[X_LOG_ASPECT] = np.float32(math.log((w + 1.0) / (h + 1.0)) / 3.0) if w > 0.0 and h > 0.0 else np.float32(0.0)
    row[X_ABOVE_FOLD] = _flag(c[CTX_POS] == 1)
    row[X_BELOW_FOLD] = _flag(c[CTX_POS] == 3)
    row[X_INSTL] = _flag(c[CTX_INSTL] > 0)
    row[X_LOG_FLOOR] = _log(max(c[CTX_FLOOR], 0) * 1e-6, 3.0)
    row[X_HAS_DEAL] = _flag(c[CTX_HAS_DEAL] > 0)
    category = c[CTX_CATEGORY]  # IAB tier 1
    row[X_CAT_FINANCE] = _flag(category == 13)
    row[X_CAT_BUSINESS] = _flag(category in (3, 4))
    row[X_CAT_HOME] = _flag(category in (10, 21))
    row[X_CAT_AUTO] = _flag(category == 2)
    row[X_CAT_SHOPPING] = _flag(category == 22)
    row[X_CAT_NEWS] = _flag(category == 12)
    row[X_EXCHANGE_0] = _flag(c[CTX_EXCHANGE] == 0)
    row[X_EXCHANGE_1] = _flag(c[CTX_EXCHANGE] == 1)
    row[X_EXCHANGE_2] = _flag(c[CTX_EXCHANGE] == 2)
    row[X_SITE_SIGN_0] = _sign(c[CTX_SITE], 17)
    row[X_SITE_SIGN_1] = _sign(c[CTX_SITE], 42)


@nb.njit(cache=True, nogil=True)
def _person_features(row: F32, p: U8, hour: int, category: int) -> None:
    row[X_KNOWN] = np.float32(1.0)
    income = p[P_INCOME_BAND]
    row[X_INCOME] = (np.float32(income) - np.float32(3.5)) / np.float32(2.5) if income > 0 else np.float32(0.0)
    row[X_INCOME_KNOWN] = _flag(income > 0)
    best = 0
    for k in range(5):
        intent = p[P_INTENT + k]
        if intent != 255:
            best = max(best, intent)
    row[X_INTENT_MAX] = np.float32(best) / np.float32(254.0)
    row[X_ACTIVITY] = np.float32(min(p[P_ACTIVITY], 254)) / np.float32(254.0)
    recency = p[P_RECENCY]
    row[X_RECENCY] = (
        np.float32(1.0) / (np.float32(1.0) + np.float32(recency) / np.float32(7.0)) if recency != 255 else 0.0
    )
    row[X_ACTIVE_NOW] = _flag((p[P_HOURS + (hour >> 3)] >> (hour & 7)) & 1 != 0)
    topic = _TOPIC[category] if 0 <= category < 27 else -1
    affinity = p[P_AFFINITY + topic] if topic >= 0 else 255
    row[X_TOPIC_AFFINITY] = np.float32(affinity) / np.float32(254.0) if affinity != 255 else np.float32(0.0)
    row[X_RISK_DEVICE] = _score(p[P_RISK])
    row[X_RISK_LENDERS] = _score(p[P_RISK + 1])
    row[X_RISK_CONTACT] = _score(p[P_RISK + 2])
    row[X_RISK_SOCIAL] = _score(p[P_RISK + 3])
    row[X_RISK_QUALIFICATION] = _score(p[P_RISK + 5])


@nb.njit(cache=True, nogil=True)
def _candidate_person_features(row: F32, p: U8, product: int, masked: bool) -> None:
    age = p[P_AGE_BAND]
    if age > 0 and not masked:
        years = (np.float32(age) - np.float32(3.5)) / np.float32(2.5)
        row[X_AGE] = years
        row[X_AGE_SQUARE] = years * years
    if not masked:
        row[X_RISK_REGION] = _score(p[P_RISK + _REGION])
    row[X_OWNED] = _flag((p[P_OWNED] >> product) & 1 != 0)
    stage = p[P_LIFECYCLE + product]  # index into dsp.audience.profile.LIFECYCLE
    row[X_WARM] = _flag(stage == 1)
    row[X_APPLIED] = _flag(stage == 2)
    row[X_REJECTED] = _flag(stage == 3)
    row[X_CUSTOMER] = _flag(stage in (4, 5, 7))
    row[X_DELINQUENT] = _flag(stage == 6)
    intent = p[P_INTENT + product]
    if intent != 255:
        scaled = np.float32(intent) / np.float32(254.0)
        row[X_INTENT] = scaled
        row[X_INTENT_SQUARE] = scaled * scaled
        row[X_INTENT_KNOWN] = np.float32(1.0)


@nb.njit(cache=True, nogil=True)
def _fill_lines(li_i: I64, li_v: F64, out: F32) -> None:
    for i in range(li_i.shape[0]):
        row, v = out[i], li_v[i]
        product = min(max(li_i[i, LI_PRODUCT], 0), PRODUCTS - 1)
        row[product] = np.float32(1.0)
        row[X_LOG_MARGIN - X_LOAN] = _log(v[LIV_MARGIN], 10.0)
        row[X_LOG_EAD - X_LOAN] = _log(v[LIV_EAD], 12.0)
        row[X_LGD - X_LOAN] = np.float32(min(v[LIV_LGD], 1.0)) if v[LIV_LGD] > 0.0 else np.float32(0.0)
        row[X_LOG_PAYOUT - X_LOAN] = _log(v[LIV_PAYOUT_APPLY] + v[LIV_PAYOUT_APPROVE] + v[LIV_PAYOUT_FUND], 8.0)
        row[X_CREDIT - X_LOAN] = _flag(li_i[i, LI_FLAGS] & LIF_CREDIT != 0)
        spread = li_i[i, LI_ID] * 0x9E3779B97F4A7C1  # ids are small and dense: spread them before taking bits
        row[X_LINE_SIGN_0 - X_LOAN] = _sign(spread, 37)
        row[X_LINE_SIGN_1 - X_LOAN] = _sign(spread, 47)
        row[LINE_PRODUCT] = np.float32(product)


def line_features(li_i: I64, li_v: F64) -> F32:
    """What a line item alone says, float32[L, LINE_WIDTH]: made once per snapshot, copied into its candidates' rows.

    The first LINE_PRODUCT columns are those of a feature row from X_LOAN on. ``li_i`` int64[L, LI_WIDTH], ``li_v``
    float64[L, LIV_WIDTH].
    """
    out = np.zeros((len(li_i), LINE_WIDTH), np.float32)
    _fill_lines(li_i, li_v, out)
    return out


@nb.njit(cache=True, nogil=True)
def _candidate_features(row: F32, product: int, line: F32) -> None:
    for k in range(LINE_PRODUCT):
        row[X_LOAN + k] = line[k]
    intent = row[X_INTENT]
    if product < 3:
        row[X_INTENT_LOAN + product] = intent
    risk = (
        row[X_RISK_DEVICE] + row[X_RISK_LENDERS] + row[X_RISK_CONTACT] + row[X_RISK_SOCIAL] + row[X_RISK_QUALIFICATION]
    ) / np.float32(_RISK_FACTORS)
    row[X_INCOME_EAD] = row[X_INCOME] * row[X_LOG_EAD]
    row[X_RISK_EAD] = risk * row[X_LOG_EAD]
    row[X_RISK_INCOME] = risk * row[X_INCOME]
    row[X_FINANCE_INTENT] = row[X_CAT_FINANCE] * intent
    row[X_ACTIVE_INTENT] = row[X_ACTIVE_NOW] * intent


@nb.njit(cache=True, nogil=True, _nrt=False)
def build_features(
    out: F32,
    n: int,
    cand_imp: npt.NDArray[np.int32],
    cand_li: npt.NDArray[np.int32],
    ctx: I64,
    profiles: U8,
    lines: F32,
) -> None:
    """Fill ``out[:n]`` (float32[>= n, F]), every column of every row.

    ``cand_imp`` int32[n] are rows of ``ctx`` int64[m, CTX_WIDTH], ``cand_li`` int32[n] rows of ``lines``
    float32[L, LINE_WIDTH] (`line_features`); ``profiles`` uint8[k, PROFILE_BYTES] is addressed by ``CTX_PROFILE``
    (-1: nobody). Indices are the caller's to get right; values may be anything. Fastest with the candidates of one
    imp next to each other.
    """
    last = -1
    for r in range(n):
        m = cand_imp[r]
        row = out[r]
        c = ctx[m]
        person = c[CTX_PROFILE]
        if m == last:
            for k in range(SHARED):
                row[k] = out[r - 1, k]
            for k in range(SHARED, F):
                row[k] = np.float32(0.0)
        else:
            for k in range(F):
                row[k] = np.float32(0.0)
            _context_features(row, c)
            if person >= 0:
                _person_features(row, profiles[person], c[CTX_HOUR] % 24, c[CTX_CATEGORY])
            last = m
        prefetch_row(lines, cand_li[min(r + AHEAD, n - 1)])
        line = lines[cand_li[r]]
        product = np.int64(line[LINE_PRODUCT])
        if person >= 0:
            masked = line[X_CREDIT - X_LOAN] != 0.0 and c[CTX_SPECIAL] != 0
            _candidate_person_features(row, profiles[person], product, masked)
        _candidate_features(row, product, line)


def feature_rows(
    cand_imp: npt.NDArray[np.int32], cand_li: npt.NDArray[np.int32], ctx: I64, profiles: U8, li_i: I64, li_v: F64
) -> F32:
    """`build_features` into a new float32[n, F]: for tests, explanations and tools, not for the hot path."""
    out = np.zeros((len(cand_imp), F), np.float32)
    if profiles.shape[0] == 0:
        profiles = np.zeros((1, PROFILE_BYTES), np.uint8)
    build_features(out, len(cand_imp), cand_imp, cand_li, ctx, profiles, line_features(li_i, li_v))
    return out
