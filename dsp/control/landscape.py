"""The price to win as a table: learned from what auctions tell, and the best first-price bid read off it.

A grid of bids g_0 < g_1 < …; mass p_j is the chance that g_j is the lowest of them that wins, p_n that none does, and
F_j = p_0 + … + p_j. An auction tells one of three things: the price itself (an exchange that reports the minimum to
win), won at g_j (the price lies in cells 0 … j) or lost at g_j (it lies above). The estimate is the self-consistent one
of B. W. Turnbull (1976) for censored data, with a Dirichlet prior that weighs ``strength`` auctions: it starts at the
prior (a history, a parametric curve, the pooled curve of many keys) and goes where the auctions say, lumps at floors
and at round prices included. A smooth two-parameter curve (`dsp.control.wincurve`) needs far fewer auctions and misses
those lumps: on public streams it leaves 2 to 4 % of the surplus.

The bid for a value v maximises F_j (v - g_j). Each grid point is a line in v, so the best bids are those on the upper
envelope of the lines; between two corners of the envelope one bid is best. `envelope` finds it once per curve, `shade`
looks it up.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dsp.base.kernel import inlined, kernel

F64 = npt.NDArray[np.float64]

PRICE, WON, LOST = range(3)  # rows of what was told


def told(keys: int, cells: int) -> F64:
    """What auctions told so far: float64[keys, 3, cells], all zero."""
    return np.zeros((keys, 3, cells), np.float64)


@kernel
def learn(heard: F64, prior: F64, strength: float, steps: int, mass: F64) -> None:
    """Improve ``mass`` float64[cells + 1] (sums to 1; a start, changed in place) by ``steps`` rounds of expectation and
    maximisation. ``heard`` float64[3, cells]; ``prior`` float64[cells + 1] sums to 1 and weighs ``strength`` auctions.

    A cell is never given less than the prior leaves it, so no price that was thought possible becomes impossible.
    """
    cells = heard.shape[1]
    for _ in range(steps):
        # Each won row j shares its count over cells 0 … j, each lost row over those above, in proportion to the mass.
        below = 0.0  # F_j
        lost = 0.0  # sum of lost_j / (1 - F_j) over j < k
        won = 0.0  # sum of won_j / F_j over j >= k
        for j in range(cells):
            below += mass[j]
            if heard[WON, j] > 0.0:
                won += heard[WON, j] / max(below, 1e-12)
        below = 0.0
        total = 0.0
        for k in range(cells + 1):
            share = mass[k]
            new = strength * prior[k] + share * (won + lost)
            if k < cells:
                new += heard[PRICE, k]
                below += share
                if heard[WON, k] > 0.0:
                    won -= heard[WON, k] / max(below, 1e-12)
                if heard[LOST, k] > 0.0:
                    lost += heard[LOST, k] / max(1.0 - below, 1e-12)
            mass[k] = new
            total += new
        for k in range(cells + 1):
            mass[k] /= total


@kernel
def envelope(mass: F64, grid: F64, bids: F64, chances: F64, from_value: F64) -> int:
    """The bids worth making, in rising order: how many there are.

    Fills ``bids``, ``chances`` (F at the bid) and ``from_value`` (the value from which it is the best), float64[cells]
    each; the rest of ``from_value`` is infinite. ``mass`` as of `learn`, ``grid`` float64[cells] rising, above 0.
    """
    n = 0
    chance = 0.0
    for j in range(len(grid)):
        chance += mass[j]
        if chance <= 0.0 or (n > 0 and chance <= chances[n - 1]):
            continue
        start = grid[j]
        while n > 0:
            last_f, last_g = chances[n - 1], bids[n - 1]
            start = (chance * grid[j] - last_f * last_g) / (chance - last_f)
            if start > from_value[n - 1]:
                break
            n -= 1
            start = grid[j]
        bids[n], chances[n], from_value[n] = grid[j], chance, start
        n += 1
    for j in range(n, len(from_value)):
        from_value[j] = np.inf
    return n


@inlined
def place(from_value: F64, value: float) -> int:
    """Index of the best bid for ``value`` in an envelope; -1 below the lowest."""
    low, high = 0, len(from_value)
    while low < high:
        middle = (low + high) >> 1
        if from_value[middle] <= value:
            low = middle + 1
        else:
            high = middle
    return low - 1


@kernel
def shade(value: float, floor: float, bids: F64, from_value: F64) -> float:
    """The first-price bid in [floor, value] for ``value`` (the unit of the grid); 0.0: do not bid.

    Where the best bid lies below the floor, the floor: on an envelope the surplus only falls beyond its best bid.
    """
    if not value > 0.0 or not value >= floor:
        return 0.0
    at = place(from_value, value)
    if at < 0:
        return floor
    return min(max(bids[at], floor), value)
