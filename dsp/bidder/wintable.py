"""The win curves as the pricing kernel reads them: per curve the bids worth making and from which value on.

A model's curves (`dsp.model.curves`, parameters k and c) are laid out on a geometric grid of bids once when the model
is loaded, and their envelopes taken (`dsp.control.landscape`): shading a value is then one binary search, without a
logarithm. The grid costs less than 2e-3 of the best surplus (a test says so).

Where the model brings what auctions go for by context (`dsp.model.winscale`), an exchange's table is in bids over the
scale of the auction at hand: the bid best for a value is scale * b0(value / scale).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dsp.base.kernel import inlined
from dsp.control.landscape import envelope, place
from dsp.model.curves import media_slot
from dsp.model.features import SHARED
from dsp.model.winscale import WinScale

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]

CELLS = 320
_FROM, _TO = -5.5, 4.1  # of ln(bid / c)
_REACH = 14.0  # and of k times it: beyond, a chance is within 1e-6 of none or of certainty


@dataclass(frozen=True)
class WinTable:
    """``curve`` int64[X, MEDIA_SLOTS] by public id of the exchange: row of the tables ``value``, ``bid``, ``chance``
    and ``below`` float64[n, CELLS].

    In a row, values from ``value[j]`` to ``value[j + 1]`` are best bid ``bid[j]`` for, which wins with ``chance[j]``;
    CPM micros of USD. ``below[j]`` is the integral of the chance up to that bid: what, at second price, is expected to
    be paid below it. The rest of a row is infinite, with the last chance and integral. Rows from ``scaled`` on are in
    units of the auction's own scale, exp(``weights`` float32[SHARED + 1] . (features, 1)) held in ``reach``.
    """

    curve: I64
    value: F64
    bid: F64
    chance: F64
    below: F64
    scaled: int
    weights: F32
    reach: tuple[float, float]


@dataclass(frozen=True)
class Odds:
    """What one auction is thought to go for: a row of a `WinTable` and its scale. Prices are CPM micros of USD."""

    bid: F64
    chance: F64
    scale: float

    @classmethod
    def of(cls, table: WinTable, exchange_id: int, media: int, features: F32) -> Odds:
        """Of an imp for ``media`` (bit) from an exchange, ``features`` float32[F] as scored."""
        t = int(table.curve[min(exchange_id, len(table.curve) - 1), media_slot(media)])
        scale = scale_of(features, table.weights, *table.reach) if t >= table.scaled else 1.0
        return cls(table.bid[t], table.chance[t], scale)

    def wins(self, price: float) -> float:
        """How likely a bid of ``price`` wins."""
        return float(chance_of(self.bid, self.chance, price / self.scale))

    def price_to_win(self) -> float:
        """The price that wins every other such auction; infinite where none of the table's does.

        The median, since a learned curve needn't have a mean.
        """
        n = int(np.isfinite(self.bid).sum())
        if self.chance[n - 1] < 0.5:
            return math.inf
        at = int(np.searchsorted(self.chance[:n], 0.5))
        if at == 0:
            return float(0.5 * self.bid[0] / self.chance[0] * self.scale)
        part = (0.5 - self.chance[at - 1]) / (self.chance[at] - self.chance[at - 1])
        return float((self.bid[at - 1] + part * (self.bid[at] - self.bid[at - 1])) * self.scale)


def win_table(curves: F64, scale: WinScale | None = None) -> WinTable:
    """The tables of float64[X, MEDIA_SLOTS, 2] curves (k, c), and of a ``scale`` where it has them."""
    table = _parametric(curves)
    if scale is None:
        return table
    value, bid, chance = _laid_out(len(scale.mass))
    for i, mass in enumerate(scale.mass):
        _lay_out(mass, scale.ratio, value[i], bid[i], chance[i])
    n, row = len(table.value), scale.row.reshape(table.curve.shape)
    return WinTable(
        np.where(row >= 0, row + n, table.curve),
        np.concatenate((table.value, value)),
        np.concatenate((table.bid, bid)),
        np.concatenate((table.chance, chance)),
        np.concatenate((table.below, _below(bid, chance))),
        n,
        scale.weights.astype(np.float32),
        scale.reach,
    )


def _parametric(curves: F64) -> WinTable:
    rows, which = np.unique(curves.reshape(-1, 2), axis=0, return_inverse=True)
    value, bid, chance = _laid_out(len(rows))
    for i, (k, c) in enumerate(rows):
        log_ratio = np.linspace(max(_FROM, -_REACH / k), min(_TO, _REACH / k), CELLS)
        reached = 1.0 / (1.0 + np.exp(-k * log_ratio))
        mass = np.diff(reached, prepend=0.0, append=1.0)
        _lay_out(mass, c * np.exp(log_ratio), value[i], bid[i], chance[i])
    curve = which.reshape(curves.shape[:2]).astype(np.int64)
    return WinTable(
        curve, value, bid, chance, _below(bid, chance), len(rows), np.zeros(SHARED + 1, np.float32), (0.0, 0.0)
    )


def _laid_out(rows: int) -> tuple[F64, F64, F64]:
    """(value, bid, chance), empty."""
    return np.full((rows, CELLS), np.inf), np.full((rows, CELLS), np.inf), np.zeros((rows, CELLS))


def _lay_out(mass: F64, grid: F64, value: F64, bid: F64, chance: F64) -> None:
    """Fill one row with the envelope of a mass over a grid of bids."""
    found = envelope(mass, grid, bid, chance, value)
    bid[found:] = np.inf
    chance[found:] = chance[found - 1]


def _below(bid: F64, chance: F64) -> F64:
    """The integral of the chance from 0 to each bid, between bids by straight lines."""
    finite = np.isfinite(bid)
    upto = np.where(finite, bid, 0.0)
    width = np.where(finite, np.diff(upto, axis=1, prepend=0.0), 0.0)
    before = np.concatenate((np.zeros((len(chance), 1)), chance[:, :-1]), axis=1)
    return np.cumsum(width * (chance + before) / 2, axis=1)


@inlined
def scale_of(features: F32, weights: F32, low: float, high: float) -> float:
    """What an auction with ``features`` float32[F] goes for, CPM micros of USD."""
    n = weights.shape[0] - 1
    total = weights[n]
    for k in range(n):
        total += features[k] * weights[k]
    return math.exp(min(max(np.float64(total), low), high))


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


@inlined
def below_of(bid: F64, chance: F64, below: F64, price: float) -> float:
    """The integral of the chance of winning up to ``price`` by one row of the table."""
    at = place(bid, price)
    if at < 0:
        return 0.5 * price * chance[0] * price / bid[0]
    return below[at] + 0.5 * (price - bid[at]) * (chance[at] + chance_of(bid, chance, price))
