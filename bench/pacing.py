"""Pacing and target cost per action in a synthetic market on a simulated clock, over a real diurnal curve.

`python -m bench pacing`. Traffic is that of ``bench/data/requests_5min.csv``: HTTP requests of a real service, two
weeks of April 2014 by five minutes (AWS load balancer request counts, Numenta Anomaly Benchmark, MIT licence). Its
hours are what the day looks like; within an hour traffic goes in straight lines (``raw``: the five minutes as they are,
which vary eighteenfold from one to the next).

The market: values log-normal, the price to win log-normal and correlated with value, second price or first. Wins are
Poisson draws; a line item sees nothing but its own spend, wins and actions, each after its delay. The first week only
teaches the traffic curve. Then, per day:

- hourly spend against the plan made at midnight, after hour 1, on plain days, with a 3x spike of two hours, and with an
  outage of two hours (there the hours before it and those from one hour after its end count);
- what part of the budget was delivered;
- on how many days an outage was made good within the hour after it, and on how many it could be: to catch up takes
  three times the plan, and on a quiet day the whole market, bought from the outage's end on at multiplier 1 (bids of
  the whole value: the ceiling), is less. Both are printed, and for each day by how much of an hour's plan pacing was
  short, and buying everything would be. Hours of a day on which that falls short, too, are late by no fault of pacing:
  the worst hour is given without and with them.

Target cost per action: 20 markets, each with its own rivals, miscalibration, delays and drift, 10 days.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dsp.control.actions import Actions, allowed
from dsp.control.pacing import EVEN, Pacing, Plans
from dsp.control.traffic import learn as teach

F64 = npt.NDArray[np.float64]

DATA = Path(__file__).parent / "data" / "requests_5min.csv"
FIRST_S = 1_397_088_000.0  # 2014-04-10 00:00 UTC, the first day of the data
DAY_S = 86_400
LEARN_DAYS = 7
BACK = 0.05  # of an hour's plan: so near is back on it
GRID = np.linspace(np.log(0.005), np.log(5.0), 160)


def traffic(raw: bool, step_s: float) -> F64:
    """Traffic of the two weeks by step, mean 1."""
    rows = [line.split(",")[1:] for line in DATA.read_text().splitlines()]
    five = np.array(rows, np.float64)
    at = (np.arange(int(14 * DAY_S / step_s)) + 0.5) * step_s
    if raw:
        out = five.ravel()[(at // 300).astype(int)]
    else:
        hours = five.reshape(-1, 12).sum(1)
        out = np.interp(at, (np.arange(len(hours)) + 0.5) * 3600, hours)
    curve: F64 = out / out.mean()
    return curve


@dataclass(frozen=True)
class Rivals:
    """A market: spread of values and prices, how much prices follow value, their level, first or second price."""

    value_sd: float = 0.8
    price_sd: float = 0.5
    follow: float = 0.4
    level: float = 0.7
    at: int = 2


class Market:
    """L markets side by side; by log multiplier: chance to win, mean and mean square of the cost, value won."""

    def __init__(self, rivals: list[Rivals], auctions: int = 200_000, seed: int = 5) -> None:
        rng = np.random.default_rng(seed)
        tables = []
        for r in rivals:
            z = rng.normal(size=auctions)
            value = 1000.0 * np.exp(r.value_sd * z)
            price = 1000.0 * r.level * np.exp(r.follow * z + r.price_sd * rng.normal(size=auctions))
            wins_from = np.log(price / value)  # sums over auctions in this order are the curves
            order = np.argsort(wins_from)
            count = np.searchsorted(wins_from[order], GRID, "right")

            def upto(x: F64, order: Any = order, count: Any = count) -> F64:
                return np.asarray(np.concatenate([[0.0], np.cumsum(x[order])])[count] / auctions)

            m = np.exp(GRID) if r.at == 1 else np.ones(len(GRID))
            cost, square = (value, value * value) if r.at == 1 else (price, price * price)
            tables.append((upto(np.ones(auctions)), m * upto(cost), m * m * upto(square), upto(value)))
        self.win, self.cost, self.square, self.value = (np.array(t) for t in zip(*tables, strict=True))
        self._rng = rng

    def at(self, table: F64, log_m: F64) -> F64:
        """A curve's values at log multipliers, [L]."""
        position = np.clip((log_m - GRID[0]) / (GRID[1] - GRID[0]), 0, len(GRID) - 1.001)
        k = position.astype(int)
        rows = np.arange(len(table))
        found: F64 = table[rows, k] + (table[rows, k + 1] - table[rows, k]) * (position - k)
        return found

    def sell(self, auctions: F64, log_m: F64, left: F64) -> tuple[F64, F64, F64]:
        """(spend, wins, value won) of ``auctions`` [L], expected number; no more is spent than is ``left``."""
        win = self.at(self.win, log_m)
        wins = self._rng.poisson(auctions * win).astype(np.float64)
        some = np.maximum(win, 1e-12)
        mean, square, value = (self.at(t, log_m) / some for t in (self.cost, self.square, self.value))
        noise = np.sqrt(wins * np.maximum(square - mean * mean, 0.0)) * self._rng.normal(size=len(wins))
        spend = np.where(wins > 0, np.maximum(wins * mean + noise, 0.0), 0.0)
        kept = np.minimum(1.0, np.divide(np.maximum(left, 0.0), spend, out=np.ones(len(spend)), where=spend > 0))
        return spend * kept, wins * kept, wins * value * kept


@dataclass(frozen=True)
class Case:
    """One line item: opportunities per second, part of what could be spent that is its budget, and what befalls it."""

    per_s: float = 20.0
    part: float = 0.25
    spike_h: tuple[float, float] | None = None
    outage_h: tuple[float, float] | None = None
    shape: int = EVEN


class Delay:
    """Spend and wins are heard of ``lag`` steps (whole and part) after the bid."""

    def __init__(self, n: int, lag: float) -> None:
        self._whole, self._part = int(lag), lag - int(lag)
        self._queue = [np.zeros((2, n)) for _ in range(self._whole + 2)]

    def __call__(self, spend: F64, wins: F64) -> tuple[F64, F64]:
        """What is heard now, (spend, wins)."""
        self._queue.append(np.array([spend, wins]))
        self._queue.pop(0)
        heard = self._part * self._queue[0] + (1 - self._part) * self._queue[1]
        return heard[0], heard[1]


def pace(cases: list[Case], days: int, *, raw: bool = False, step_s: float = 10.0, lag_s: float = 5.0, seed: int = 1,
         learn: int = LEARN_DAYS, told: int = 0) -> dict[str, F64]:  # fmt: skip
    """Run ``learn`` + ``days`` days: hourly spend, plan and all there was to buy [days, 24, L], delivered [days, L].

    ``told``: so many days of traffic before the first are taught without being run.
    """
    n = len(cases)
    x, market = traffic(raw, step_s), Market([Rivals()] * n, seed=seed)
    per_s = np.array([c.per_s for c in cases])
    budget = market.at(market.cost, np.zeros(n)) * per_s * DAY_S * np.array([c.part for c in cases])
    shape = np.array([c.shape for c in cases], np.int8)
    pacing, delay, able = Pacing.fresh(n), Delay(n, lag_s / step_s), np.ones(n, bool)
    heard = np.zeros(n), np.zeros(n)
    steps = int(DAY_S / step_s)
    for day in range(told):
        halves = x[day * steps : (day + 1) * steps].reshape(48, -1).mean(1)
        teach(pacing.traffic, (int(FIRST_S // DAY_S) + day + 3) % 7, np.tile(halves, (n, 1)))
    hourly, planned, everything = np.zeros((3, learn + days, 24, n))
    for day in range(learn + days):
        start = FIRST_S + DAY_S * (told + day)
        pacing.replan(able, start)
        ones = np.ones(n)
        plans = Plans(start * ones, (start + DAY_S) * ones, budget, shape, 0.0 * ones, np.inf * ones, ones)
        planned[day] = np.diff([pacing.planned(plans, start + 3600 * h) for h in range(25)], axis=0)
        spent, true = np.zeros(n), np.zeros(n)
        for k in range(steps):
            spent = spent + heard[0]
            pacing.step(plans, start + k * step_s, step_s, spent, *heard, able, lag_s)
            hour = k * step_s / 3600
            factor = np.array([factor_of(c, hour) if day >= learn else 1.0 for c in cases])
            auctions = x[(told + day) * steps + k] * per_s * step_s * factor
            everything[day, int(hour)] += auctions * market.at(market.cost, np.zeros(n))
            spend, wins, _ = market.sell(auctions, pacing.log_m, budget - true)
            true += spend
            hourly[day, int(hour)] += spend
            heard = delay(spend, wins)
    return {
        "hourly": hourly[learn:],
        "planned": planned[learn:],
        "everything": everything[learn:],
        "delivered": hourly[learn:].sum(1) / budget,
    }


def factor_of(case: Case, hour: float) -> float:
    """What befalls traffic at an hour of a day that counts."""
    if case.outage_h and case.outage_h[0] <= hour < case.outage_h[1]:
        return 0.0
    return 3.0 if case.spike_h and case.spike_h[0] <= hour < case.spike_h[1] else 1.0


def errors(out: dict[str, F64], cases: list[Case]) -> list[dict[str, Any]]:
    """Per case over its days: worst hour after the first, and delivery. An outage's hours and the next do not count."""
    found = []
    for i, case in enumerate(cases):
        planned = np.maximum(out["planned"][:, :, i], 1.0)
        error = np.abs(out["hourly"][:, :, i] / planned - 1.0)
        counted = np.arange(24) >= 1
        able, back = np.ones(len(error), bool), {}
        if case.outage_h:
            counted &= (np.arange(24) < case.outage_h[0]) | (np.arange(24) >= case.outage_h[1] + 1)
            short, least = _short(out, i, int(case.outage_h[1]))
            able = least <= BACK
            back = {
                "days": len(short),
                "days_back_on_plan": int((np.abs(short) <= BACK).sum()),
                "days_possible": int(able.sum()),
                "back_whenever_possible": bool((np.abs(short[able]) <= BACK).all()),
                "short_by_day": short.round(2).tolist(),
                "short_if_everything_were_bought": least.round(2).tolist(),
                "worst_hour_of_all_days": round(float(error[:, counted].max()), 4),
            }
        error = error[able] if able.any() else error
        found.append(
            {
                "worst_hour": round(float(error[:, counted].max()), 4),
                "mean_hour": round(float(error[:, counted].mean()), 4),
                "delivered": round(float(out["delivered"][:, i].min()), 4),
                **back,
                "wins_per_hour": round(float(case.per_s * case.part * 3600 * 0.45)),
            }
        )
    return found


def _short(out: dict[str, F64], i: int, end: int) -> tuple[F64, F64]:
    """What is missing by the end of the hour after an outage that ends at ``end``, [days], in hours of plan then.

    And what would be if from the outage's end on everything there was had been bought, the plan's sum at most.
    """
    planned, hourly = out["planned"][:, : end + 1, i], out["hourly"][:, : end + 1, i]
    behind = planned.sum(1) - hourly[:, :end].sum(1)
    hour = planned[:, end]
    return (behind - hourly[:, end]) / hour, np.maximum(behind - out["everything"][:, end, i], 0.0) / hour


CASES = {
    "plain": Case(),
    "plain, a tenth of the market": Case(part=0.1),
    "3x spike, 10-12 h": Case(spike_h=(10.0, 12.0)),
    "outage, 10-12 h": Case(outage_h=(10.0, 12.0)),
    "outage, a tenth of the market": Case(part=0.1, outage_h=(10.0, 12.0)),
    "small, plain": Case(per_s=2.0),
    "small, 3x spike": Case(per_s=2.0, spike_h=(10.0, 12.0)),
    "small, outage": Case(per_s=2.0, outage_h=(10.0, 12.0)),
}


def target_cpa(
    seeds: int, *, days: int = 10, step_s: float = 60.0, first: int = 1, part: float = 0.9
) -> list[dict[str, Any]]:
    """Run one market per seed: cost per action over the target, part of the budget spent, actions.

    The budget is ``part`` of what a bidder would spend that knew everything and bid one steady multiplier at which an
    action costs exactly the target; at 1 no controller that has anything to learn can spend all of it.
    """
    rng = np.random.default_rng([first, 0xC9A])
    rivals = [
        Rivals(float(rng.uniform(0.6, 1.0)), float(rng.uniform(0.4, 0.7)), float(rng.uniform(0.2, 0.6)), 0.7, 1 + s % 2)
        for s in range(seeds)
    ]
    market = Market(rivals, seed=first)
    worth = 20e6  # what an action is said to be worth: bids are that times its probability times m
    wrong = np.exp(rng.normal(0.0, 0.3, seeds))  # true probability over predicted
    drift = np.exp(rng.normal(0.0, 0.1, seeds))  # ... and what it is multiplied with by the end
    delay_h = rng.uniform(2.0, 24.0, seeds)
    m_true = np.exp(rng.uniform(np.log(0.4), np.log(0.8), seeds))
    x = traffic(False, step_s)
    span = x[: int(days * DAY_S / step_s)].sum() * step_s

    def cpa(log_m: F64) -> F64:
        return market.at(market.cost, log_m) / (market.at(market.value, log_m) / worth * wrong * np.sqrt(drift))

    target = cpa(np.log(m_true))
    per_s = 1400.0 / (market.at(market.value, np.log(m_true)) / worth * wrong * np.sqrt(drift) * span)
    budget = part * market.at(market.cost, np.log(m_true)) * per_s * span
    ones, able = np.ones(seeds), np.ones(seeds, bool)
    pacing, actions = Pacing.fresh(seeds), Actions.fresh(seeds, int(FIRST_S // 3600))
    total = np.zeros(seeds)
    spent, came = np.zeros(seeds), np.zeros(seeds)
    heard = np.zeros(seeds), np.zeros(seeds)
    arrivals: list[list[tuple[int, float]]] = [[] for _ in range(int(days * 24) + 1)]
    kappa, allow = np.full(seeds, 0.7 * worth), target.copy()
    for k in range(int(days * DAY_S / step_s)):
        now = FIRST_S + k * step_s
        hour = int(now // 3600)
        spent = spent + heard[0]
        actions.advance(hour)
        actions.spent(hour, heard[0], pacing.history[0])
        slot = int((now - FIRST_S) // 3600)
        if k % int(3600 / step_s) == 0 and slot > 0:
            due, arrivals[slot - 1] = arrivals[slot - 1], []
            if due:
                line = np.array([i for i, _ in due])
                bid_s = np.array([t for _, t in due])
                actions.acted(line, (bid_s // 3600).astype(np.int64), (now - bid_s) / 3600)
        if k % 10 == 0:
            kappa = actions.kappa(np.full(seeds, 0.7 * worth))
            left = np.maximum(budget - spent, 0.02 * budget)
            allow = allowed(target, spent, actions.expected(kappa), left)
        plans = Plans(
            FIRST_S * ones,
            (FIRST_S + days * DAY_S) * ones,
            budget,
            np.zeros(seeds, np.int8),
            np.log(4.0) * ones,
            allow,
            kappa,
        )
        pacing.step(plans, now, step_s, spent, *heard, able)
        heard3 = market.sell(x[k] * per_s * step_s * ones, pacing.log_m, budget - total)
        heard = heard3[0], heard3[1]
        total += heard3[0]
        p = heard3[2] / worth * wrong * drift ** ((now - FIRST_S) / (days * DAY_S))
        born = rng.poisson(p)
        came += born
        for i in np.flatnonzero(born):
            for _ in range(int(born[i])):
                at = int((now - FIRST_S + rng.exponential(delay_h[i]) * 3600) // 3600)
                if at < len(arrivals):
                    arrivals[at].append((int(i), now))
    return [
        {
            "seed": i,
            "at": rivals[i].at,
            "actions": int(came[i]),
            "cpa_of_target": round(float(total[i] / came[i] / target[i]), 4),
            "spent": round(float(total[i] / budget[i]), 4),
            "wrong": round(float(wrong[i]), 2),
            "drift": round(float(drift[i]), 2),
            "delay_h": round(float(delay_h[i]), 1),
        }
        for i in range(seeds)
    ]


LEDGER_CASES = ("plain", "3x spike, 10-12 h", "outage, 10-12 h")


def main(args: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench pacing", description=__doc__)
    parser.add_argument("--days", type=int, default=7, help="days that count (at most 7)")
    parser.add_argument("--seeds", type=int, default=20, help="markets of the target cost per action")
    parser.add_argument("--ledger", action="store_true", help="one day through slices, grants, notices and books")
    parser.add_argument("--raw", action="store_true", help="also with traffic by five minutes, as it came")
    parser.add_argument("--part", type=float, default=0.9, help="of what could be spent at the target: the budget")
    options = parser.parse_args(args)
    began = time.perf_counter()
    names, cases = list(CASES), list(CASES.values())
    for raw in () if options.ledger else (False, True) if options.raw else (False,):
        for name, row in zip(names, errors(pace(cases, options.days, raw=raw), cases), strict=True):
            print(json.dumps({"bench": "pacing", "case": name, "raw": raw, "days": options.days, **row}), flush=True)
    if options.ledger:
        from bench.paced_ledger import day_through_ledger

        smaller = {name: replace(CASES[name], per_s=6.0) for name in LEDGER_CASES}
        out = day_through_ledger(list(smaller.values()))
        for name, row in zip(smaller, errors(out, list(smaller.values())), strict=True):
            print(json.dumps({"bench": "pacing through the ledger", "case": name, **row}), flush=True)
        print(json.dumps({"bench": "pacing through the ledger", "overspend_micros": float(out["overspend"].sum())}))
        return 0
    rows = target_cpa(options.seeds, part=options.part)
    for row in rows:
        print(json.dumps({"bench": "target_cpa", **row}))
    off = [abs(row["cpa_of_target"] - 1) for row in rows]
    print(
        json.dumps(
            {
                "bench": "target_cpa",
                "seeds": len(rows),
                "worst_cpa_error": round(max(off), 4),
                "least_spent": min(row["spent"] for row in rows),
                "least_actions": min(row["actions"] for row in rows),
                "seconds": round(time.perf_counter() - began, 1),
            }
        )
    )
    return 0
