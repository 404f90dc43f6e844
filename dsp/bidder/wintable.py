"""The win curves as the pricing kernel reads them: per curve the bids worth making and from which value on.

A model's curves (`dsp.model.curves`, parameters k and c) are laid out on a geometric grid of bids once when the model
is loaded, and their envelopes taken (`dsp.control.landscape`): shading a value is then one binary search, without a
logarithm. The grid costs less than 2e-3 of the best surplus (a test says so).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dsp.base.kernel import inlined
from dsp.control.landscape import envelope, place

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

CELLS = 320
_FROM, _TO = -5.5, 4.1  # of ln(bid / c)
_REACH = 14.0  # and of k times it: beyond, a chance is within 1e-6 of none or of certainty


@dataclass(frozen=True)
class WinTable:
    """``curve`` int64[X, MEDIA_SLOTS]: row of the tables ``value``, ``bid``, ``chance`` float64[n, CELLS].

    In a row, values from ``value[j]`` to ``value[j + 1]`` are best bid ``bid[j]`` for, which wins with ``chance[j]``;
    CPM micros of USD. The rest of a row is infinite, with the last chance.
    """

    curve: I64
    value: F64
    bid: F64
    chance: F64


def win_table(curves: F64) -> WinTable:
    """The tables of float64[X, MEDIA_SLOTS, 2] curves (k, c)."""
    rows, which = np.unique(curves.reshape(-1, 2), axis=0, return_inverse=True)
    value, bid = (np.full((len(rows), CELLS), np.inf) for _ in range(2))
    chance = np.zeros((len(rows), CELLS))
    for i, (k, c) in enumerate(rows):
        log_ratio = np.linspace(max(_FROM, -_REACH / k), min(_TO, _REACH / k), CELLS)
        reached = 1.0 / (1.0 + np.exp(-k * log_ratio))
        mass = np.diff(reached, prepend=0.0, append=1.0)
        found = envelope(mass, c * np.exp(log_ratio), bid[i], chance[i], value[i])
        bid[i, found:] = np.inf
        chance[i, found:] = chance[i, found - 1]
    return WinTable(which.reshape(curves.shape[:2]).astype(np.int64), value, bid, chance)


@inlined
def best_bid(value: F64, bid: F64, chance: F64, worth: float) -> tuple[float, float]:
    """(bid for ``worth`` by one row of the table, before floor and cap; its chance): half the worth off the table."""
    at = place(value, worth)
    if at >= 0:
        return bid[at], chance[at]
    return 0.5 * worth, 0.0


@inlined
def chance_of(bid: F64, chance: F64, price: float) -> float:
    """How likely ``price`` wins by one row of the table, between its bids by a straight line."""
    at = place(bid, price)
    if at < 0:
        return chance[0] * price / bid[0]
    if at + 1 == bid.shape[0] or bid[at + 1] == np.inf:
        return chance[at]
    return chance[at] + (chance[at + 1] - chance[at]) * (price - bid[at]) / (bid[at + 1] - bid[at])
