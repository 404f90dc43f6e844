"""Second price under a budget: clicks won on the iPinYou streams, bidding as `dsp.control.dual` says.

Every impression is worth its pCTR times the training period's cost per click; the offer is that value times the
multiplier, solved again every REPLAN auctions from the training prices and the values seen so far, which lose half
their weight in HALF_LIFE auctions. Both numbers were set beforehand and are the same for every campaign and budget;
nothing of a stream is known to the bidder before it has happened.

Beside it the ledger's own pacing (`dsp.control.pacing`) as it stands, a step of it every REPLAN auctions: it knows
nothing beforehand, no prices and no values, and hears only what was spent and won.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from bench.quality.bootstrap import sum_difference, sum_interval
from bench.quality.page import INK, Page
from bench.quality.streams import BUDGETS, EPISODE, HIGHEST_BID, Stream, load_streams
from dsp.control.dual import forget, observe, second_price_cost, solve_seen, values_seen
from dsp.control.pacing import EVEN, STEP_S, Pacing, Plans

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

REPLAN = 20
HALF_LIFE = 5 * EPISODE
BEGIN_S = 1_700_006_400.0  # some midnight; the streams say no time
CEILING = 3.0  # log multiplier: a click is worth what it takes to spend the budget

BARS = {2: 1330, 4: 978, 8: 718, 16: 533, 32: 400}
STATIC = "best static multiplier in hindsight"
PUBLISHED = {  # clicks summed over the nine campaigns, same protocol
    "linear, published b0": {2: 1147, 4: 737, 8: 630, 16: 452, 32: 342},
    "RLB, dynamic programme": {8: 671, 16: 483, 32: 339},
}


@nb.njit(cache=True)
def replay(value: F64, price: I64, budget: int, cost: F64, seen: F64, replan: int, keep: float) -> I64:
    """The bids int64[n] on auctions in time order; ``price`` is looked at only after the bid on it is made."""
    bids = np.zeros(len(value), np.int64)
    left, multiplier = 0, 0.0
    for i in range(len(value)):
        t = i % EPISODE
        if t == 0:
            left = budget
            forget(seen, keep)
        observe(seen, value[i])
        if t % replan == 0:
            multiplier = solve_seen(seen, cost, left / (EPISODE - t))
        bids[i] = min(int(min(multiplier * value[i], HIGHEST_BID)), left)
        if bids[i] > 0 and bids[i] >= price[i]:
            left -= price[i]
    return bids


@nb.njit(cache=True)
def static(value: F64, price: I64, budget: int, multiplier: float) -> I64:
    """The bids int64[n] of a multiplier that never changes: truthful at 1, Lin at another."""
    bids = np.zeros(len(value), np.int64)
    left = 0
    for i in range(len(value)):
        if i % EPISODE == 0:
            left = budget
        bids[i] = min(int(min(multiplier * value[i], HIGHEST_BID)), left)
        if bids[i] > 0 and bids[i] >= price[i]:
            left -= price[i]
    return bids


def bid(stream: Stream, c: int) -> I64:
    """Our bids on a stream with the budget 1/c."""
    cost = second_price_cost(stream.train_prices)
    keep = 0.5 ** (EPISODE / HALF_LIFE)
    value = stream.pctr * stream.click_worth
    return np.asarray(replay(value, stream.price, stream.budget(c), cost, values_seen(), REPLAN, keep))


@nb.njit(cache=True)
def stretch(value: F64, price: I64, multiplier: F64, left: I64, bids: I64, spend: F64, wins: F64) -> None:
    """Bid on auctions [streams, n] for a line item per stream and budget: ``multiplier``, ``left``, ``spend``, ``wins``
    [streams * budgets]; fills ``bids`` int64[streams * budgets, n], takes from ``left`` and adds to the last two.
    """
    budgets = len(multiplier) // len(value)
    for k in range(len(multiplier)):
        s = k // budgets
        for i in range(value.shape[1]):
            bid = min(int(min(multiplier[k] * value[s, i], HIGHEST_BID)), left[k])
            bids[k, i] = bid
            if bid > 0 and bid >= price[s, i]:
                left[k] -= price[s, i]
                spend[k] += price[s, i]
                wins[k] += 1.0


def bids_as_the_ledger_paces(streams: Sequence[Stream]) -> list[I64]:
    """Per stream the bids int64[len(BUDGETS), n] of one even line item per budget, an episode being its flight."""
    n, lines = max(len(stream.price) for stream in streams), len(streams) * len(BUDGETS)
    value, price = np.zeros((len(streams), n)), np.zeros((len(streams), n), np.int64)
    for row, stream in enumerate(streams):  # behind a stream's end nothing is worth a bid
        value[row, : len(stream.price)], price[row, : len(stream.price)] = (
            stream.pctr * stream.click_worth,
            stream.price,
        )
    budget = np.array([stream.budget(c) for stream in streams for c in BUDGETS])
    bids = np.zeros((lines, n), np.int64)
    pacing, everyone, left = Pacing.fresh(lines), np.ones(lines, bool), budget.copy()
    spend, wins = np.zeros((2, lines))
    for episode in range(0, n, EPISODE):
        begin_s = BEGIN_S + STEP_S * episode / REPLAN
        plans = Plans(
            np.full(lines, begin_s), np.full(lines, begin_s + STEP_S * EPISODE / REPLAN), budget.astype(np.float64),
            np.full(lines, EVEN, np.int8), np.full(lines, CEILING), np.full(lines, np.inf), np.ones(lines),
        )  # fmt: skip
        pacing.replan(everyone, begin_s)
        left = budget.copy()
        for at in range(episode, min(episode + EPISODE, n), REPLAN):
            able = everyone if at == episode else left > 0
            now_s = BEGIN_S + STEP_S * at / REPLAN
            step = pacing.step(plans, now_s, STEP_S, (budget - left).astype(np.float64), spend, wins, able)
            part = slice(at, min(at + REPLAN, episode + EPISODE))
            spend, wins = np.zeros((2, lines))
            stretch(value[:, part], price[:, part], np.exp(step.log_m), left, bids[:, part], spend, wins)
    return [part[:, : len(s.price)] for part, s in zip(np.split(bids, len(streams)), streams, strict=True)]


def episodes(stream: Stream, bids: I64, amount: npt.NDArray[Any]) -> F64:
    """``amount`` [n] of the auctions won, summed per episode."""
    won = (bids > 0) & (bids >= stream.price)
    return np.add.reduceat(np.where(won, amount, 0).astype(np.float64), np.arange(0, len(won), EPISODE))


def best_static(stream: Stream, c: int) -> F64:
    """Clicks per episode of the best unchanging multiplier, chosen in hindsight from 120 between 1/300 and 10."""
    value = stream.pctr * stream.click_worth
    tried = (
        episodes(stream, static(value, stream.price, stream.budget(c), m), stream.click)
        for m in np.geomspace(1 / 300, 10, 120)
    )
    return max(tried, key=lambda clicks: float(clicks.sum()))


def measure(data: Path, row: Callable[[dict[str, Any]], None], page: Page) -> bool:
    """Every campaign at every budget; the bars are on the sums."""
    streams = load_streams(data / "ipinyou")
    held = True
    table: list[list[object]] = []
    series: dict[str, list[float]] = {name: [] for name in ("ours", "as the ledger paces", STATIC, "truthful")}
    by_ledger = bids_as_the_ledger_paces(streams)
    for k, c in enumerate(BUDGETS):
        ours, spent, hindsight, truthful, ledger = [], [], [], [], []
        for stream, paced in zip(streams, by_ledger, strict=True):
            bids = bid(stream, c)
            ours.append(episodes(stream, bids, stream.click))
            spent.append(episodes(stream, bids, stream.price))
            hindsight.append(best_static(stream, c))
            plain = static(stream.pctr * stream.click_worth, stream.price, stream.budget(c), 1.0)
            truthful.append(episodes(stream, plain, stream.click))
            ledger.append(episodes(stream, paced[k], stream.click))
            if spent[-1].max() > stream.budget(c):
                raise AssertionError(f"{stream.name}: an episode overspent")
        a, e, b, d = (np.concatenate(part) for part in (ours, ledger, hindsight, truthful))
        clicks, ok = int(a.sum()), bool(a.sum() >= BARS[c])
        budget = sum(stream.budget(c) * len(part) for stream, part in zip(streams, spent, strict=True))
        low, high = sum_difference(a, b)
        result: dict[str, Any] = {
            "c0": f"1/{c}", "clicks": clicks, "bar": BARS[c], "held": ok,
            "spent_share": round(float(np.concatenate(spent).sum()) / budget, 4),
            "best_static_in_hindsight": int(b.sum()), "truthful": int(d.sum()), "as_the_ledger_paces": int(e.sum()),
            "interval": sum_interval(a), "as_the_ledger_paces_minus_ours": sum_difference(e, a),
            "minus_best_static": (low, high), "minus_truthful": sum_difference(a, d),
            "by_campaign": {s.name: int(part.sum()) for s, part in zip(streams, ours, strict=True)},
        }  # fmt: skip
        row(result)
        held &= ok
        for name, part in zip(series, (a, e, b, d), strict=True):
            series[name].append(float(part.sum()))
        published = [str(PUBLISHED[name].get(c, "-")) for name in PUBLISHED]
        share = f"{result['spent_share']:.1%}"
        table.append(
            [
                f"1/{c}",
                clicks,
                BARS[c],
                ok,
                share,
                int(e.sum()),
                int(b.sum()),
                f"{low:+.0f} … {high:+.0f}",
                int(d.sum()),
                *published,
            ]
        )
    page.text(
        f"{len(streams)} campaigns of {len(streams[0].click):,} auctions; intervals: 95 %, bootstrap of episodes."
    )
    head = [
        "c0",
        "clicks",
        "bar",
        "",
        "spent",
        "as the ledger paces",
        "best static",
        "ours minus that",
        "truthful",
        *PUBLISHED,
    ]
    page.table(head, table)
    page.plot(lambda axes: _draw(axes, series))
    return held


def _draw(axes: Axes, series: dict[str, list[float]]) -> None:
    for colour, (name, clicks) in zip(INK, (series | _published()).items(), strict=False):
        shown = [c for c, n in zip(BUDGETS, clicks, strict=True) if n]
        axes.plot(shown, [n for n in clicks if n], marker="o", color=colour, label=name)
    axes.set_xscale("log", base=2)
    axes.set_xticks(BUDGETS, [f"1/{c}" for c in BUDGETS])
    axes.set_xlabel("budget, of what the training period spent per auction")
    axes.set_ylabel("clicks, nine campaigns")
    axes.legend(frameon=False)


def _published() -> dict[str, list[float]]:
    return {name: [float(clicks.get(c, 0)) for c in BUDGETS] for name, clicks in PUBLISHED.items()}
