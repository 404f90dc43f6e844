"""First price on the iPinYou streams: what shading keeps of the surplus, bidding as `dsp.control.landscape` learns.

Every impression is worth its pCTR times the training period's cost per click, and there is no budget: the score is the
surplus, the sum of value less bid over the auctions won. Our bidder starts from the training period's prices and learns
one curve per octave of the value, each held by the curve of all auctions; it is told only whether it won, unless the
row says that the exchange reports the minimum to win. Its settings were fixed beforehand.

The oracle is the best unchanging curve in hindsight: for every value the bid that maximises the surplus expected under
all prices of the stream. The clairvoyant knows each price and pays it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt

from bench.quality.bootstrap import sum_ratio
from bench.quality.page import INK, Page
from bench.quality.streams import EPISODE, HIGHEST_BID, Stream, load_streams
from dsp.control.landscape import LOST, PRICE, WON, envelope, learn, shade, told

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

RELEARN = 500  # auctions between two updates of the curves
STEPS = 10  # of each update, which starts where the last one ended
KEEP = 0.5 ** (RELEARN / 10_000)  # what was told loses half its weight in ten episodes
POOLED_STRENGTH = 1_000.0  # auctions that the training prices weigh
OCTAVE_STRENGTH = 300.0  # auctions that the curve of all values weighs against one octave's own
OCTAVES = 12  # values from 1 to 4,096
BAR = 0.97


@nb.njit(cache=True)
def octave(value: float) -> int:
    """Which of the curves is for a value."""
    return min(max(int(math.log2(max(value, 1.0))), 0), OCTAVES - 1)


@nb.njit(cache=True)
def replay(value: F64, price: I64, history: F64, reports_price: bool, heard: F64) -> F64:
    """The bids on auctions in time order; ``history`` float64[cells + 1] is the mass of the training prices, ``heard``
    (`told`) has a key per octave and one for everything.

    After each bid the bidder hears won or lost; with ``reports_price``, and having bid, also the price to win.
    """
    cells = len(history) - 1
    grid = np.arange(1, cells + 1).astype(np.float64)
    mass = np.empty((OCTAVES + 1, cells + 1))
    bids, chances, starts = np.empty((3, OCTAVES, cells))
    for key in range(OCTAVES + 1):
        mass[key] = history
    out = np.zeros(len(value))
    for i in range(len(value)):
        if i % RELEARN == 0:
            heard *= KEEP
            learn(heard[OCTAVES], history, POOLED_STRENGTH, STEPS, mass[OCTAVES])
            for key in range(OCTAVES):
                learn(heard[key], mass[OCTAVES], OCTAVE_STRENGTH, STEPS, mass[key])
                envelope(mass[key], grid, bids[key], chances[key], starts[key])
        key = octave(value[i])
        bid = shade(value[i], 0.0, bids[key], starts[key])
        out[i] = bid
        if bid < 1.0:
            continue
        row, cell = (WON if bid >= price[i] else LOST), int(bid) - 1
        if reports_price:
            row, cell = PRICE, max(price[i], 1) - 1
        if cell < cells:
            heard[key, row, cell] += 1.0
            heard[OCTAVES, row, cell] += 1.0
    return out


def history_mass(stream: Stream) -> F64:
    """The training prices as a mass over bids 1 … 300, and none beyond."""
    counts = stream.train_prices.astype(np.float64)
    counts[1] += counts[0]
    return np.append(counts[1:], 0.0) / counts.sum()


def value_of(stream: Stream) -> F64:
    """What each impression is worth."""
    return stream.pctr * stream.click_worth


def bid(stream: Stream, reports_price: bool = False) -> F64:
    """Our bids on a stream."""
    heard = told(OCTAVES + 1, HIGHEST_BID)
    return np.asarray(replay(value_of(stream), stream.price, history_mass(stream), reports_price, heard))


def best_curve_bids(stream: Stream, prices: I64) -> F64:
    """For every value the whole bid up to 300 with the most surplus expected under ``prices`` (counts per price)."""
    chance = np.cumsum(prices) / prices.sum()
    mass = np.append(np.diff(chance, prepend=0.0)[1:], 0.0)
    mass[0] += chance[0]
    cells = len(mass) - 1
    bids, chances, starts = np.empty((3, cells))
    n = envelope(mass, np.arange(1.0, cells + 1), bids, chances, starts)
    at = np.searchsorted(starts[:n], value_of(stream), side="right") - 1
    return np.where(at >= 0, bids[np.maximum(at, 0)], 0.0)


def surplus(stream: Stream, bids: F64) -> F64:
    """Value less bid of the auctions won, summed per episode."""
    won = (bids > 0) & (bids >= stream.price)
    return np.add.reduceat(np.where(won, value_of(stream) - bids, 0.0), np.arange(0, len(won), EPISODE))


def bidders(stream: Stream) -> dict[str, F64]:
    """Surplus per episode of everybody who is compared."""
    value = value_of(stream)
    clairvoyant = np.where(value > stream.price, value - stream.price, 0.0)
    in_hindsight = np.bincount(stream.price, minlength=HIGHEST_BID + 1)
    return {
        "ours": surplus(stream, bid(stream)),
        "ours, minimum to win reported": surplus(stream, bid(stream, reports_price=True)),
        "oracle shade": surplus(stream, best_curve_bids(stream, in_hindsight)),
        "training prices only": surplus(stream, best_curve_bids(stream, stream.train_prices)),
        "half the value": surplus(stream, np.minimum(value / 2, HIGHEST_BID)),
        "the value": surplus(stream, np.minimum(value, HIGHEST_BID)),
        "clairvoyant": np.add.reduceat(clairvoyant, np.arange(0, len(value), EPISODE)),
    }


def measure(data: Path, row: Callable[[dict[str, Any]], None], page: Page) -> bool:
    """All campaigns; the bar is on the sum, and on the sum of shares so that no campaign's outliers decide alone."""
    streams = load_streams(data / "ipinyou")
    results = [bidders(stream) for stream in streams]
    names = list(results[0])
    shares = np.array([[r[name].sum() / r["oracle shade"].sum() for name in names] for r in results])
    for stream, share in zip(streams, shares, strict=True):
        row({"campaign": stream.name, "of_oracle": dict(zip(names, share.round(4).tolist(), strict=True))})
    whole = {name: np.concatenate([r[name] for r in results]) for name in names}
    table: list[list[object]] = []
    for k, name in enumerate(names):
        low, high = sum_ratio(whole[name], whole["oracle shade"])
        total, mean = float(whole[name].sum() / whole["oracle shade"].sum()), float(shares[:, k].mean())
        row({"bidder": name, "of_oracle": round(total, 4), "interval": (low, high), "mean_share": round(mean, 4)})
        table.append([name, f"{total:.1%}", f"{low:.1%} … {high:.1%}", f"{mean:.1%}"])
    ours, half = whole["ours"].sum(), whole["half the value"].sum()
    least = min(ours / whole["oracle shade"].sum(), shares[:, 0].mean())
    held = bool(least >= BAR and ours > half)
    row({"bar": "at least 97 % of the oracle's surplus and more than half the value", "held": held})
    page.text("Surplus as a share of the best unchanging curve in hindsight; intervals: 95 %, bootstrap of episodes.")
    page.table(["bidder", "all campaigns", "interval", "mean of the campaigns' shares"], table)
    shown = [names.index(name) for name in ("ours", "training prices only", "half the value")]

    def draw(axes: Any) -> None:
        for offset, (k, colour) in enumerate(zip(shown, INK, strict=False)):
            axes.bar(np.arange(len(streams)) + 0.27 * (offset - 1), shares[:, k], 0.25, color=colour, label=names[k])
        axes.axhline(1.0, color=INK[-1], linewidth=1)
        axes.set_xticks(range(len(streams)), [stream.name for stream in streams])
        axes.set_ylabel("surplus, of the oracle shade's")
        axes.legend(frameon=False, ncols=3, loc="lower center")

    page.plot(draw)
    return held
