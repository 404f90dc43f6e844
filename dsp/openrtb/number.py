"""Numbers as they come in JSON text and protobuf doubles, to int32 and to CPM micros.

Money is rounded so that a floor is never understated: the micros M of a price x are the smallest whole number whose
price M/1e6, read back as the double an exchange compares with, is at least x. For 0.1 that is 100,000 (not 100,001, as
the exact value of the double 0.1 would have it), for 0.1 + 0.2 it is 300,001.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from dsp.base.memory import constant, peek, peek_double

INT32_MAX = (1 << 31) - 1
INT32_MIN = -(1 << 31)
MAX_PRICE = 1e12  # units of a currency, CPM
BAD_MONEY = -1
_EXACT = 1 << 53  # integers below are exact as doubles
_MAX_MANTISSA = (1 << 62) // 10 - 9
tens = constant("openrtb_tens", 10.0 ** np.arange(23))  # powers of ten that are exact as doubles


@nb.njit(cache=True)
def scan_number(text: int, p: int) -> tuple[int, bool, int, int]:
    """Read a JSON number (RFC 8259 grammar) at ``p``.

    Returns (end, negative, mantissa, exponent): the value is mantissa · 10^exponent, digits beyond the 18th dropped. On
    a syntax error end is -1 - (where it is).
    """
    negative = peek(text, p) == 45
    if negative:
        p += 1
    mantissa, exponent = 0, 0
    c = peek(text, p)
    if c == 48:
        p += 1
        c = peek(text, p)
    elif 49 <= c <= 57:
        while 48 <= c <= 57:
            if mantissa < _MAX_MANTISSA:
                mantissa = mantissa * 10 + (c - 48)
            else:
                exponent += 1
            p += 1
            c = peek(text, p)
    else:
        return -1 - p, negative, mantissa, exponent
    if c == 46:
        p += 1
        c = peek(text, p)
        if not 48 <= c <= 57:
            return -1 - p, negative, mantissa, exponent
        while 48 <= c <= 57:
            if mantissa < _MAX_MANTISSA:
                mantissa = mantissa * 10 + (c - 48)
                exponent -= 1
            p += 1
            c = peek(text, p)
    if c in (101, 69):
        p += 1
        c = peek(text, p)
        minus = c == 45
        if c in (43, 45):
            p += 1
            c = peek(text, p)
        if not 48 <= c <= 57:
            return -1 - p, negative, mantissa, exponent
        power = 0
        while 48 <= c <= 57:
            power = min(power * 10 + (c - 48), 1 << 40)
            p += 1
            c = peek(text, p)
        exponent += -power if minus else power
    return p, negative, mantissa, exponent


@nb.njit(cache=True)
def clamp_int32(value: int) -> int:
    """``value`` within the int32 range."""
    return min(max(value, INT32_MIN), INT32_MAX)


@nb.njit(cache=True)
def decimal_to_int(negative: bool, mantissa: int, exponent: int) -> int:
    """mantissa · 10^exponent truncated and clamped to int32."""
    value = mantissa
    while exponent < 0 and value != 0:
        value //= 10
        exponent += 1
    while exponent > 0 and 0 < value <= INT32_MAX:
        value *= 10
        exponent -= 1
    return clamp_int32(-value if negative else value)


@nb.njit(cache=True)
def two_product(a: float, b: float) -> tuple[float, float]:
    """(product, its rounding error), exactly (Dekker 1971)."""
    product = a * b
    ta, tb = 134217729.0 * a, 134217729.0 * b
    ah, bh = ta - (ta - a), tb - (tb - b)
    al, bl = a - ah, b - bh
    return product, ((ah * bh - product) + ah * bl + al * bh) + al * bl


@nb.njit(cache=True)
def decimal_to_double(mantissa: int, exponent: int) -> float:
    """mantissa · 10^exponent as the nearest double (to the last bit for the exponents prices have, |e| ≤ 22)."""
    if mantissa == 0:
        return 0.0
    if exponent < -22 or exponent > 22:
        if exponent > 400:
            return np.inf
        if exponent < -400:
            return 0.0
        if exponent < -300:  # the power alone would underflow
            return float(mantissa) / 1e300 / 10.0 ** float(-exponent - 300)
        return float(mantissa) / 10.0 ** float(-exponent) if exponent < 0 else float(mantissa) * 10.0 ** float(exponent)
    high = float(mantissa)
    low = float(mantissa - int(high))
    if exponent >= 0:
        product, error = two_product(high, peek_double(tens(), 8 * exponent))
        return product + (error + low * peek_double(tens(), 8 * exponent))
    ten = peek_double(tens(), -8 * exponent)
    quotient = high / ten
    back, error = two_product(quotient, ten)
    return quotient + (((high - back) - error) + low) / ten


@nb.njit(cache=True)
def price_micros(x: float) -> int:
    """CPM micros of a price, rounded up as the module says; 0 for a negative one, BAD_MONEY for NaN or above 1e12."""
    if not x <= MAX_PRICE:
        return BAD_MONEY
    if x <= 0.0:
        return 0
    micros = int(x * 1e6)
    if micros >= _EXACT:
        return int(np.ceil(x * 1e6))
    while micros / 1e6 < x:
        micros += 1
    while micros > 0 and (micros - 1) / 1e6 >= x:
        micros -= 1
    return micros


@nb.njit(cache=True)
def degree_micros(x: float) -> int:
    """Degrees in millionths, half up; 0 for NaN and for what is no place on Earth."""
    if not -360.0 <= x <= 360.0:
        return 0
    return int(np.floor(x * 1e6 + 0.5))
