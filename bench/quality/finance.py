"""What risk is worth: two public tables joined into a market of people who may buy a loan and may not pay it back.

Everyone is a caller of the bank table (does this person convert once they click?) with the accounts of a client of the
credit table (the loan is the credit limit; does this person default?). The two are joined by a Gaussian copula over the
pipeline's out-of-fold scores: `RISK`, the knob, is how strongly those who want money are those who don't pay. Prices
are log-normal, and `RIVALS` says how far they follow the same intent. A click is drawn from a propensity of its own.

Every bidder gets the same budget per 1,000 auctions, pays second price and spends through `dsp.control.dual`; they
differ in what they call an impression's value. What is scored is what really came of the impressions they won:

    converted * (MARGIN * loan - defaulted * LGD * loan)

The knobs were fixed before the first run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from bench.quality.bootstrap import drawn_sums, sum_difference
from bench.quality.heads import out_of_fold
from bench.quality.ipinyou import REPLAN, replay
from bench.quality.page import INK, Page
from bench.quality.streams import EPISODE, HIGHEST_BID
from bench.quality.tables import load_bank, load_credit
from dsp.control.dual import second_price_cost, values_seen

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

MARGIN, LGD = 0.08, 0.6
RISK, RIVALS = 0.5, 0.5
SEEDS = 20
AUCTIONS = 100_000
CLICK_RATE, CLICK_SPREAD, CLICK_INTENT = 0.05, 0.7, 0.3  # median, of its logarithm, correlation with intent
PRICE, PRICE_SPREAD = 60.0, 0.6  # median and spread of the logarithm
BUDGET_SHARE = 0.1  # of what all the impressions cost
SWEEP = (-0.5, -0.25, 0.0, 0.25, 0.5, 0.75)
BAR = 0.15


@dataclass(frozen=True)
class Scores:
    """Out-of-fold probabilities and labels of the two tables, and the loan in thousands."""

    convert: F64
    converted: F64
    default: F64
    defaulted: F64
    loan: F64


@dataclass(frozen=True)
class Market:
    """Auctions in time order, [n] each: what a bidder is told of them, the price, and what would come of winning."""

    click: F64
    convert: F64
    default: F64
    loan: F64
    price: I64
    outcome: F64
    history: I64  # prices of an earlier period, counted


def load_scores(data: Path) -> Scores:
    """Train on one half of each table, score the other."""
    bank, credit = load_bank(data), load_credit(data)
    with threadpool_limits(1):
        convert, _ = out_of_fold(bank, 2)
        default, _ = out_of_fold(credit, 2)
    loan = np.asarray(credit.columns["LIMIT_BAL"], np.float64) / 1_000
    return Scores(convert, bank.y, default, credit.y, loan)


def make_market(scores: Scores, seed: int, risk: float = RISK, rivals: float = RIVALS) -> Market:
    """One seed's auctions."""
    rng = np.random.default_rng(seed)
    n = AUCTIONS

    def beside(z: F64, correlation: float) -> F64:
        return np.asarray(correlation * z + np.sqrt(1 - correlation**2) * rng.normal(size=n))

    by_intent, by_risk = np.argsort(scores.convert, kind="stable"), np.argsort(scores.default, kind="stable")
    at = rng.integers(0, len(by_intent), n)
    intent = ndtri((at + 0.5) / len(by_intent))
    caller = by_intent[at]
    client = by_risk[(ndtr(beside(intent, risk)) * len(by_risk)).astype(np.int64)]
    click = np.minimum(CLICK_RATE * np.exp(CLICK_SPREAD * beside(intent, CLICK_INTENT)), 1.0)
    price = _whole(PRICE * np.exp(PRICE_SPREAD * beside(intent, rivals)))
    clicked = rng.random(n) < click
    loan = scores.loan[client]
    outcome = clicked * scores.converted[caller] * loan * (MARGIN - LGD * scores.defaulted[client])
    history = np.bincount(_whole(PRICE * np.exp(PRICE_SPREAD * rng.normal(size=n))), minlength=HIGHEST_BID + 1)
    return Market(click, scores.convert[caller], scores.default[client], loan, price, outcome, history)


def worth(m: Market) -> dict[str, F64]:
    """What each bidder calls an impression's value."""
    return {
        "risk on": m.click * m.convert * m.loan * (MARGIN - m.default * LGD),
        "margin, risk off": m.click * m.convert * m.loan * MARGIN,
        "conversions": m.click * m.convert,
        "clicks": m.click,
        "value-blind": np.ones(len(m.click)),
    }


def play(m: Market, value: F64) -> tuple[float, float]:
    """(realised value, spend) of bidding on ``value`` with the common budget."""
    budget = int(m.price.mean() * BUDGET_SHARE * EPISODE)
    bids = replay(value, m.price, budget, second_price_cost(m.history), values_seen(), REPLAN, 0.5 ** (1 / 5))
    won = (bids > 0) & (bids >= m.price)
    return float(m.outcome[won].sum()), float(m.price[won].sum())


def hindsight(m: Market) -> float:
    """More than anybody can get: the outcomes with the most value per price, whole budget at once, the last in part."""
    left = m.price.mean() * BUDGET_SHARE * len(m.price)
    order = np.argsort(-m.outcome / m.price, kind="stable")
    order = order[m.outcome[order] > 0]
    share = np.clip((left - np.cumsum(m.price[order]) + m.price[order]) / m.price[order], 0.0, 1.0)
    return float((share * m.outcome[order]).sum())


def results(scores: Scores, risk: float, seeds: int = SEEDS) -> tuple[dict[str, F64], dict[str, F64]]:
    """(value, spend) per bidder, float64[seeds] each; "hindsight" has no spend."""
    value: dict[str, list[float]] = {}
    spend: dict[str, list[float]] = {}
    for seed in range(seeds):
        market = make_market(scores, seed, risk)
        for name, of in worth(market).items():
            got, spent = play(market, of)
            value.setdefault(name, []).append(got)
            spend.setdefault(name, []).append(spent)
        value.setdefault("hindsight", []).append(hindsight(market))
    return {k: np.array(v) for k, v in value.items()}, {k: np.array(v) for k, v in spend.items()}


def _whole(price: F64) -> I64:
    return np.clip(np.rint(price), 1, HIGHEST_BID).astype(np.int64)


def measure(data: Path, row: Callable[[dict[str, Any]], None], page: Page) -> bool:
    """The bar is on risk against conversions at the fixed knobs; the sweep is for the eye."""
    scores = load_scores(data)
    value, spend = results(scores, RISK)
    ours, base = value["risk on"], value["conversions"]
    lines: list[list[object]] = []
    for name, got in value.items():
        per_spend = got.sum() / spend[name].sum() if name in spend else got.sum() / spend["risk on"].sum()
        low, high = sum_difference(ours, got)
        spent = float(spend[name].mean()) if name in spend else None
        row({
            "bidder": name, "value_per_seed": round(float(got.mean()), 1), "spend_per_seed": spent,
            "value_per_1000_spent": round(1_000 * float(per_spend), 3),
            "risk_on_minus_this_per_seed": (round(low / SEEDS, 1), round(high / SEEDS, 1)),
        })  # fmt: skip
        interval = f"{low / SEEDS:+.0f} … {high / SEEDS:+.0f}"
        lines.append([name, float(got.mean()), spent or "-", 1_000 * float(per_spend), interval])
    more = float((ours.sum() - base.sum()) / abs(base.sum()))
    drawn = drawn_sums(np.stack([ours, base], axis=1))
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / np.abs(drawn[:, 1]), [0.025, 0.975])
    least, _ = sum_difference(ours, base)
    even = abs(float(spend["risk on"].sum() / spend["conversions"].sum()) - 1.0)
    held = bool(more >= BAR and least > 0 and even < 0.01)
    row({
        "bar": "risk on at least 15 % over conversions at equal spend, interval excludes 0", "more": round(more, 3),
        "interval": (round(float(low), 3), round(float(high), 3)), "spend_differs_by": round(even, 4), "held": held,
    })  # fmt: skip
    page.text(
        f"{SEEDS} seeds of {AUCTIONS:,} auctions; margin {MARGIN:.0%} of the loan, LGD {LGD}, intent-risk correlation "
        f"{RISK}, price-intent correlation {RIVALS}. Intervals: 95 %, paired bootstrap of seeds."
    )
    head = ["bidder", "value per seed, thousands", "spend per seed", "value per 1,000 spent", "risk on minus this"]
    page.table(head, lines)
    page.text(f"Risk on against conversions: {more:+.0%} of what conversions bring, {low:+.0%} … {high:+.0%}.")
    curves: dict[str, list[float]] = {}
    for risk in SWEEP:
        swept, _ = results(scores, risk, seeds=5)
        row({"sweep_risk": risk, **{name: round(float(got.mean()), 1) for name, got in swept.items()}})
        for name, got in swept.items():
            curves.setdefault(name, []).append(float(got.mean()))

    def draw(axes: Any) -> None:
        for colour, (name, got) in zip(INK, ((k, v) for k, v in curves.items() if k != "hindsight"), strict=False):
            axes.plot(SWEEP, got, marker="o", color=colour, label=name)
        axes.axhline(0.0, color=INK[-1], linewidth=1)
        axes.set_xlabel("correlation of intent and risk")
        axes.set_ylabel("realised value per seed, thousands")
        axes.legend(frameon=False)

    page.plot(draw)
    return held
