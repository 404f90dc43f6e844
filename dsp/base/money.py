"""Money is int64 micros of a currency; these named functions are the only places where it is rounded.

A CPM price is *CPM micros* (millionths of the currency per thousand impressions); what one impression costs is
*micros*. 1 CPM micro is a thousandth of a micro of one impression.
"""

from __future__ import annotations

import numba as nb
import numpy as np

MICROS = 1_000_000


@nb.njit(cache=True, inline="always")
def quantize_cpm(cpm_micros: int) -> int:
    """A bid's CPM micros rounded down to a multiple of 1,000, so that one impression costs whole micros."""
    return (cpm_micros // 1000) * 1000


@nb.njit(cache=True, inline="always")
def impression_micros(cpm_micros: int) -> int:
    """What one impression costs at a CPM price, in micros: half up, so a whole-micro price stays exact."""
    return (cpm_micros + 500) // 1000


@nb.njit(cache=True, inline="always")
def convert_up(micros: int, rate: float) -> int:
    """``micros`` times a frozen FX rate, rounded up: a reservation never falls short of the charge."""
    return int(np.ceil(micros * rate - 1e-9))


def parse_micros(text: str) -> int:
    """A decimal amount ("1.234567") as micros, exact, half up beyond six decimals. Raises ValueError."""
    from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

    try:
        value = Decimal(text)
        if not value.is_finite():
            raise ValueError(f"not an amount: {text!r}")
        return int((value * MICROS).to_integral_value(rounding=ROUND_HALF_UP))
    except InvalidOperation:
        raise ValueError(f"not an amount: {text!r}") from None
