"""Pacing: from what was spent so far to the multiplier of every line item, step by step. Pure; time is an argument.

A plan says how much of a budget is to be spent by when: in proportion to the line item's own traffic (``EVEN``), more
of it early (``FRONT``), or all of it as it comes (``ASAP``). The rate that is due is the plan's, plus what it takes to
be back on it soon; `dsp.control.dual` turns rate and target cost per action into a multiplier with the spend curve that
`dsp.control.response` has learned. An even line item therefore bids at one steady price all day, whatever the hour,
and only news moves it.

Steps come every `STEP_S` or so. Notices tell of bids made some time ago (``lag_s``): each observation is held against
the multiplier of then, and what must be under way is counted as spent.

All state is in `Pacing`, arrays over L line items; whoever keeps them (`dump`, `load`) starts warm.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from dsp.control.dual import Solution, solve
from dsp.control.response import Response, observe
from dsp.control.traffic import BIN_S, DAY_BINS, Curve, Traffic, learn

F64 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int8]
Bool = npt.NDArray[np.bool_]

EVEN, FRONT, ASAP = range(3)
SHAPES = ("even", "front", "asap")
STEP_S = 10.0
LAG_STEPS = 64  # multipliers remembered
FLOOR = float(np.log(0.01))
FRONT_TILT = 0.5  # a front-loaded plan begins at 1 + this times the even rate and ends at 1 - this
_CATCH_UP_S = 300.0  # a small error is worked off in this time
_CATCH_UP_WINS = 25.0  # ... or in that of so many wins: one impression more or less is no error
_SURGE = 3.5  # catching up is never faster than so many times the plan
_TRICKLE = 0.03  # ahead of plan, spending goes on at this part of it: to go dark is to go blind
_MOVE = 0.5  # the most that a log multiplier moves in a step; more than enough for a threefold spike
_COMMON_S = 7200.0
_SEEK = 1e-4  # per second: a third more in an hour


@dataclass(frozen=True)
class Plans:
    """What each line item shall spend, [L]: ``budget`` micros from ``start_s`` until ``end_s`` (unix), by ``shape``.

    ``ceiling`` log multiplier; ``allowed`` micros per action (inf: no target) and ``kappa`` of `dual.solve`.
    """

    start_s: F64
    end_s: F64
    budget: F64
    shape: I8
    ceiling: F64
    allowed: F64
    kappa: F64


@dataclass
class Pacing:
    """What is known of L line items, and their multipliers."""

    traffic: Traffic
    response: Response
    log_m: F64
    common: F64  # log multiplier of the last hours, on average
    history: F64  # [LAG_STEPS, L] log multipliers of the last steps, newest first
    seen: F64  # [L, 48] traffic of this UTC day's half hours, as spend at m = 1
    watched: F64  # [L, 48] seconds of them that were observed
    curve: Curve  # what plans go by: `traffic` as it was when they were made
    day: int = -1  # the UTC day that ``seen`` is of

    @classmethod
    def fresh(cls, n: int) -> Pacing:
        """Nothing known."""
        start = np.full(n, np.log(0.5))
        return cls(
            *(Traffic.flat(n), Response.prior(n), start, start.copy()),
            *(np.tile(start, (LAG_STEPS, 1)), *np.zeros((2, n, DAY_BINS)), Curve.flat(n)),
        )

    def __len__(self) -> int:
        return len(self.log_m)

    def replan(self, rows: Bool, now_s: float) -> None:
        """New plans begin for ``rows``: only now what was learned of traffic changes what a plan says."""
        if not rows.any():
            return
        before = self.curve.at(now_s)
        self.curve.put(rows, self.traffic.rows(rows).nodes())
        self.response.level += np.log(before / self.curve.at(now_s))  # the same traffic, said by another curve

    def planned(self, plans: Plans, time_s: float) -> F64:
        """What should have been spent by ``time_s``, [L] micros; for ``ASAP`` the whole budget."""
        done = self._weight(plans, np.full(len(self), time_s))
        whole = self._weight(plans, plans.end_s)
        part = np.divide(done, whole, out=np.ones(len(self)), where=whole > 0)
        return np.where(plans.shape == ASAP, plans.budget, plans.budget * np.clip(part, 0.0, 1.0))

    def step(self, plans: Plans, now_s: float, seconds: float, spent: F64, spend: F64, wins: F64, able: Bool,
             lag_s: float = 0.0) -> Solution:  # fmt: skip
        """One step: learn from the last ``seconds``, say what to bid now.

        ``spent`` [L] micros of the plan so far; of it ``spend`` with ``wins`` impressions since the last step. ``able``
        [L]: had money and was in flight. ``lag_s``: how long ago those bids were made, on average.
        """
        then_s = now_s - lag_s - 0.5 * seconds
        was = self._was(lag_s / seconds)
        self._watch(then_s, seconds, spend, able, was)
        observe(self.response, spend, wins, self.curve.at(then_s), was, seconds, able)
        curve = self.curve.at(now_s)
        under_way = self.response.rate(curve, was) * lag_s
        rate = self._due(plans, now_s, spent + np.where(able, under_way, 0.0), curve)
        reach = np.where(self.response.known, np.exp(np.clip(self.response.level, -50, 50)) * curve, 0.0)
        solution = solve(
            rate, reach, self.response.elasticity, plans.allowed, plans.kappa, np.full(len(self), FLOOR), plans.ceiling
        )  # fmt: skip
        target = np.where(
            self.response.known | (plans.shape == ASAP), solution.log_m, np.minimum(self.log_m, plans.ceiling)
        )
        moved = np.clip(target, self.log_m - _MOVE, self.log_m + _MOVE)
        dark = self.response.dark
        self.common = np.where(dark, self.common, self.common + seconds / _COMMON_S * (self.log_m - self.common))
        # In the dark: back to what was common, then slowly up, so that the market is found again whatever it costs now.
        seek = np.where(self.log_m < self.common, 20.0, 1.0) * _SEEK * seconds
        moved = np.where(dark, np.minimum(self.log_m + seek, plans.ceiling), moved)
        self.log_m = np.where(plans.shape == ASAP, np.minimum(target, plans.ceiling), moved)
        self.history = np.roll(self.history, 1, 0)
        self.history[0] = self.log_m
        return solution._replace(log_m=self.log_m.copy())

    # --- inside -------------------------------------------------------------------------------------------------------

    def _was(self, steps: float) -> F64:
        """The log multiplier that the bids of the last observation were made with: those of ``steps`` ago, blended."""
        steps = min(steps, LAG_STEPS - 2.0)
        back = int(steps)
        part = steps - back
        blend: F64 = (1.0 - part) * self.history[back] + part * self.history[back + 1]
        return blend

    def _weight(self, plans: Plans, until_s: F64) -> F64:
        """Weight of a plan from its start until a time: traffic, tilted where it is front-loaded."""
        until = np.clip(until_s, plans.start_s, plans.end_s)
        traffic = self.curve.between(plans.start_s, until)
        if not (plans.shape == FRONT).any():
            return traffic
        length = np.maximum(plans.end_s - plans.start_s, 1.0)
        part = (until - plans.start_s) / length
        mean_tilt = 1.0 + FRONT_TILT * (1.0 - part)  # of 1 + tilt (1 - 2 x), x from 0 to part
        return np.where(plans.shape == FRONT, traffic * mean_tilt, traffic)

    def _due(self, plans: Plans, now_s: float, spent: F64, curve: F64) -> F64:
        """Micros per second that should be spent now."""
        ahead_s = 60.0
        plan_rate = (self.planned(plans, now_s + ahead_s) - self.planned(plans, now_s)) / ahead_s
        # In the last minute the plan ends inside the look-ahead: its rate is that of the time that is left.
        left_s = np.maximum(plans.end_s - now_s, 1.0)
        plan_rate *= ahead_s / np.minimum(ahead_s, left_s)
        short = self.planned(plans, now_s) - spent
        price = np.maximum(self.response.price, 1.0)
        patience = np.clip(_CATCH_UP_WINS * price / np.maximum(plan_rate, 1e-9), _CATCH_UP_S, 24 * _CATCH_UP_S)
        patience = np.minimum(patience, np.maximum(left_s, STEP_S))
        rate = plan_rate + short / patience
        last = left_s < 2 * _CATCH_UP_S  # at the end what is left is what counts
        surge = np.where(last, 10.0, _SURGE)
        rate = np.clip(rate, _TRICKLE * plan_rate, surge * np.maximum(plan_rate, 1e-9))
        live = (now_s >= plans.start_s) & (now_s < plans.end_s) & (spent < plans.budget)
        return np.where(live, np.where(plans.shape == ASAP, np.inf, rate), 1e-9)

    def _watch(self, then_s: float, seconds: float, spend: F64, able: Bool, log_m: F64) -> None:
        """Gather this day's traffic; when it is over, learn from it."""
        day, half = divmod(int(then_s // BIN_S), DAY_BINS)
        if day != self.day:
            if self.day >= 0:
                seen = self.seen * BIN_S / np.maximum(self.watched, 1.0)
                learn(self.traffic, (self.day + 3) % 7, np.where(self.watched >= 0.5 * BIN_S, seen, np.nan))
            self.day = day
            self.seen[:] = 0.0
            self.watched[:] = 0.0
        counted = able & self.response.known & ~self.response.dark
        self.seen[:, half] += np.where(counted, spend * np.exp(-self.response.elasticity * log_m), 0.0)
        self.watched[:, half] += np.where(counted, seconds, 0.0)


# What of a line item is worth keeping over a restart: `dump` row layout, float32.
KEPT = DAY_BINS + 7 + 1 + 7 + 1 + 8


def dump(pacing: Pacing) -> npt.NDArray[np.float32]:
    """What was learned, [L, KEPT]; today's half hours and the last minutes' multipliers are not in it."""
    t, r = pacing.traffic, pacing.response
    columns = [t.day, t.week, t.days[:, None], t.weeks, t.usual[:, None], r.level[:, None], r.elasticity[:, None], r.p]
    columns += [r.price[:, None], pacing.log_m[:, None], pacing.common[:, None]]
    return np.concatenate(columns, 1).astype(np.float32)


def load(kept: npt.NDArray[np.float32]) -> Pacing:
    """The inverse of `dump`; a row of NaN is a line item that nothing is known of."""
    n = len(kept)
    known = np.asarray(np.isfinite(kept).all(axis=1), bool)
    fresh = Pacing.fresh(n)
    rows = np.where(known[:, None], kept.astype(np.float64), dump(fresh).astype(np.float64))
    day, week, days, weeks, usual, level, elasticity, p, price, log_m, common = np.split(
        rows, np.cumsum([DAY_BINS, 7, 1, 7, 1, 1, 1, 3, 1, 1]), 1
    )
    traffic = Traffic(day, week, days[:, 0], weeks, usual[:, 0])
    response = fresh.response
    response.level, response.elasticity, response.p = level[:, 0], elasticity[:, 0], p
    response.price = price[:, 0]
    response.known = known & (price[:, 0] > 0)
    response.p[:, 0] = np.where(
        response.known, np.minimum(p[:, 0] + 0.25, 9.0), p[:, 0]
    )  # the world moved on meanwhile
    history = np.tile(log_m[:, 0], (LAG_STEPS, 1))
    seen, watched = np.zeros((n, DAY_BINS)), np.zeros((n, DAY_BINS))
    out = Pacing(traffic, response, log_m[:, 0], common[:, 0], history, seen, watched, Curve.flat(n))
    out.curve.put(known, traffic.rows(known).nodes())
    return out


def regroup(pacing: Pacing, rows: npt.NDArray[np.int64], others: Pacing) -> Pacing:
    """The same for other line items: row i is what row ``rows[i]`` was, or row i of ``others`` where that is < 0."""
    old = rows >= 0
    if not old.any():
        others.day = pacing.day
        return others
    source = np.where(old, rows, 0)

    def move(new: npt.NDArray[Any], before: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.where(old.reshape(-1, *[1] * (new.ndim - 1)), before[source], new)

    def move_all(new: Any, before: Any) -> Any:
        names = [f.name for f in fields(new)]
        return type(new)(**{name: move(getattr(new, name), getattr(before, name)) for name in names})

    return Pacing(
        move_all(others.traffic, pacing.traffic),
        move_all(others.response, pacing.response),
        move(others.log_m, pacing.log_m),
        move(others.common, pacing.common),
        np.where(old, pacing.history[:, source], others.history),
        move(others.seen, pacing.seen),
        move(others.watched, pacing.watched),
        Curve(move(others.curve.nodes, pacing.curve.nodes), move(others.curve.passed, pacing.curve.passed)),
        pacing.day,
    )
