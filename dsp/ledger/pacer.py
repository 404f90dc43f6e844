"""Pacing in the ledger: what was posted becomes the multiplier that workers get with their grants.

`dsp.control.pacing` does the thinking; here its plans are made from budgets and flights, and what it learned is kept in
the books' database. A plan is a local day of the advertiser: its budget is the daily one, or what is left of the total
in proportion to the traffic expected until the flight's end, whichever is less; where a campaign or an advertiser has
less than its line items together, each gets its share. It is made once a day, or when a budget changes: whoever falls
behind it catches up, so a plan must not give way.

A line item without any limit, or with ``pacing: asap``, bids its whole value (multiplier 1).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
from sqlalchemy import bindparam

from dsp.control import pacing as control
from dsp.control.actions import Actions, allowed
from dsp.control.pacing import ASAP, SHAPES, STEP_S, Pacing, Plans
from dsp.ledger.accounts import Account, Line
from dsp.ledger.periods import ALL_TIME
from dsp.ledger.plan import NO_LIMIT
from dsp.ledger.schema import PACING
from dsp.log.outcomes import OUTCOMES

if TYPE_CHECKING:
    from dsp.ledger.grants import Granting
    from dsp.ledger.journal import Journal

F64 = npt.NDArray[np.float64]

KEEP_MS = 600_000  # what was learned is written this often
_NEWS = 0.005  # a multiplier that moved less is not worth telling
_FAR_MS = 400 * 86_400_000  # a flight that ends later has no end to pace towards
_TARGET_CEILING = float(np.log(10.0))
_KAPPA_OF_TARGET = 2.0  # cost per action at m = 1 before anything is known: at half the value the target is met
_REPAY = 0.3  # what missed the target in the last weeks is made good over so much of their spend
_LAG_MAX_S = 300.0


class Pacer:
    """Multipliers of all active line items. Whoever owns it calls `keep` when a transaction is written."""

    def __init__(self, granting: Granting) -> None:
        self.granting = granting
        self.lag_s = 1.0
        self._keep_due = False
        self._kept: dict[int, bytes] = {}
        self._lines: list[Line] = []
        self._row: dict[int, int] = {}
        self._state = Pacing.fresh(0)
        self._actions: Actions | None = None
        self._targets: dict[int, int] = {}  # line item -> row of _actions
        self._spent: dict[int, list[int]] = {}  # since the last step: micros, wins
        self._lag = [0.0, 0]
        self._last_ms = self._keep_ms = 0
        self._budget = self._base = self._start = self._end = np.zeros(0)
        self._shape: npt.NDArray[np.int8] = np.zeros(0, np.int8)
        self._limits: dict[int, tuple[int, ...]] = {}  # what a plan was made from: line item -> budgets and the day

    # --- what happens ------------------------------------------------------------------------------------------------

    def load(self, rows: Iterable[Any]) -> None:
        """Rows of PACING: what was kept."""
        self._kept = {row.line_item: row.state for row in rows if len(row.state) == 4 * control.KEPT}

    def keep(self, journal: Journal) -> None:
        """Write what was learned, where it is time, into the open transaction."""
        if not self._keep_due:
            return
        self._keep_due = False
        states = control.dump(self._state)
        rows = [
            {"line_item": x.id, "time_ms": self._keep_ms, "state": states[i].tobytes()}
            for i, x in enumerate(self._lines)
        ]
        connection = journal.begin()
        connection.execute(
            PACING.delete().where(PACING.c.line_item.in_(bindparam("ids", expanding=True))),
            {"ids": [row["line_item"] for row in rows]},
        )
        connection.execute(PACING.insert(), rows)

    def charged(self, line: Line, bid_s: int, time_ms: int, micros: int) -> None:
        """``micros`` were posted for one impression that was bid at ``bid_s``."""
        sums = self._spent.setdefault(line.id, [0, 0])
        sums[0] += micros
        sums[1] += 1
        self._lag[0] += min(max(time_ms / 1000 - bid_s - 0.5, 0.0), _LAG_MAX_S)
        self._lag[1] += 1
        row = self._targets.get(line.id)
        if row is not None and self._actions is not None:
            self._actions.advance(time_ms // 3_600_000)
            spend = np.zeros(len(self._targets))
            spend[row] = micros
            self._actions.spent(bid_s // 3600, spend, np.full(len(spend), self._state.log_m[self._row[line.id]]))

    def acted(self, line_item: int, kind: int, bid_s: int, time_ms: int) -> None:
        """A click or conversion that is credited to a bid of ``bid_s``."""
        row, line = self._targets.get(line_item), self.granting.lines.get(line_item)
        if row is None or self._actions is None or line is None or line.plan is None:
            return
        if OUTCOMES[kind] == line.plan.target_stage:
            self._actions.advance(time_ms // 3_600_000)
            late_h = np.array([max(time_ms / 1000 - bid_s, 0.0) / 3600])
            self._actions.acted(np.array([row]), np.array([bid_s // 3600]), late_h)

    def tick(self, time_ms: int) -> None:
        """Let time pass; every `STEP_S` the multipliers are made anew."""
        seconds = (time_ms - self._last_ms) / 1000
        if 0 <= seconds < STEP_S:
            return
        first, self._last_ms = self._last_ms == 0 or seconds < 0, time_ms
        self._follow(time_ms)
        if not self._lines or first:
            self._spent.clear()
            return
        self._step(time_ms, min(seconds, 10 * STEP_S))
        if time_ms - self._keep_ms >= KEEP_MS:
            self._keep_ms, self._keep_due = time_ms, True

    # --- plans -------------------------------------------------------------------------------------------------------

    def _follow(self, time_ms: int) -> None:
        """Take the line items that are active now; new plans where day or budgets changed."""
        lines = [x for x in self.granting.lines.values() if x.active and x.plan is not None]
        if [x.id for x in lines] != list(self._row):
            self._regroup(lines, time_ms)
        changed = np.zeros(len(lines), bool)
        for i, line in enumerate(lines):
            limits = _limits(line)
            if self._limits.get(line.id) != limits:
                self._limits[line.id] = limits
                changed[i] = True
        if changed.any():
            self._plan(changed, time_ms)

    def _regroup(self, lines: list[Line], time_ms: int) -> None:
        rows = np.array([self._row.get(x.id, -1) for x in lines], np.int64)
        stay = {x.id for x in lines}
        learned = control.dump(self._state)
        self._kept |= {x: learned[row].tobytes() for x, row in self._row.items() if x not in stay}  # it may come back
        unknown = np.full(control.KEPT, np.nan, np.float32).tobytes()
        kept = b"".join(unknown if x.id in self._row else self._kept.pop(x.id, unknown) for x in lines)
        warm = control.load(np.frombuffer(kept, np.float32).reshape(-1, control.KEPT))
        self._state = control.regroup(self._state, rows, warm)
        for name in ("_budget", "_base", "_start", "_end"):
            before = getattr(self, name)
            setattr(self, name, np.array([before[r] if r >= 0 else 0.0 for r in rows]))
        self._shape = np.array([self._shape[r] if r >= 0 else ASAP for r in rows], np.int8)
        for line in lines:
            if line.id not in self._row:
                self._limits.pop(line.id, None)
        self._lines, self._row = lines, {x.id: i for i, x in enumerate(lines)}
        self._regroup_targets(time_ms)

    def _regroup_targets(self, time_ms: int) -> None:
        wanted = [x.id for x in self._lines if x.plan is not None and x.plan.target_micros]
        hour = time_ms // 3_600_000
        fresh = Actions.fresh(len(wanted), hour)
        if self._actions is not None:
            fresh.hour = self._actions.hour
            for row, line in enumerate(wanted):
                if line in self._targets:
                    for name in ("spend", "exposure", "came", "delays"):
                        getattr(fresh, name)[row] = getattr(self._actions, name)[self._targets[line]]
        self._actions, self._targets = fresh, {line: row for row, line in enumerate(wanted)}

    def _plan(self, changed: npt.NDArray[np.bool_], time_ms: int) -> None:
        """New plans for line items whose day or budgets changed."""
        self._state.replan(changed, time_ms / 1000)
        plans = [x.plan for x in self._lines if x.plan is not None]
        midnights = {zone: _midnight(zone, time_ms) for zone in {plan.timezone for plan in plans}}
        ends = np.array([min(midnights[plan.timezone], plan.end_ms) for plan in plans], np.float64)
        share = self._share(ends, time_ms)
        due = {x.id: _today(x.chain[0], x, share[i]) for i, x in enumerate(self._lines)}
        for account in {a: None for x in self._lines for a in x.chain[1:]}:
            members = [x for x in account.lines.values() if x.id in self._row]
            together = sum(due[x.id] for x in members)
            limit = min(_today(account, x, share[self._row[x.id]]) for x in members)
            if together > limit:
                for x in members:
                    due[x.id] *= max(limit, 0.0) / together
        for i in np.flatnonzero(changed):
            line = self._lines[i]
            assert line.plan is not None
            limited = due[line.id] < NO_LIMIT / 2
            self._shape[i] = SHAPES.index(line.plan.pacing) if limited else ASAP
            self._budget[i] = max(due[line.id], 0.0) if limited else float(NO_LIMIT)
            self._base[i] = line.chain[0].posted.get(ALL_TIME, 0)
            self._start[i], self._end[i] = time_ms / 1000, ends[i] / 1000

    def _share(self, ends: F64, time_ms: int) -> F64:
        """Of what a flight has left, the part that its traffic until ``ends`` (ms) is; 1 where it has no near end."""
        flights = np.array([x.plan.end_ms if x.plan is not None else 0 for x in self._lines], np.float64)
        near = (ends < flights) & (flights < time_ms + _FAR_MS)
        now_s, curve = time_ms / 1000, self._state.curve
        rest = curve.between(now_s, np.where(near, flights, ends) / 1000)
        return np.where(near, curve.between(now_s, ends / 1000) / np.maximum(rest, 1.0), 1.0)

    # --- a step ------------------------------------------------------------------------------------------------------

    def _step(self, time_ms: int, seconds: float) -> None:
        lines, state = self._lines, self._state
        if self._lag[1]:
            self.lag_s += 0.1 * (self._lag[0] / self._lag[1] - self.lag_s)
            self._lag = [0.0, 0]
        sums = [self._spent.get(x.id, (0, 0)) for x in lines]
        spend, wins = np.array(sums, np.float64).reshape(-1, 2).T
        self._spent.clear()
        spent = np.array([x.chain[0].posted.get(ALL_TIME, 0) for x in lines]) - self._base
        live = any(not lease.over for lease in self.granting.leases.values()) and not self.granting.stop
        able = np.array([live and x.room(x.period)[0] > 0 for x in lines], bool)
        allow, kappa, ceiling = self._target(spent, time_ms)
        plans = Plans(self._start, self._end, self._budget, self._shape, ceiling, allow, kappa)
        before = np.array([x.multiplier for x in lines])
        solution = state.step(plans, time_ms / 1000, seconds, spent, spend, wins, able, self.lag_s)
        after = np.exp(solution.log_m)
        for i in np.flatnonzero(np.abs(after / before - 1.0) > _NEWS):
            line = lines[i]
            line.multiplier = float(after[i])
            for lease in self.granting.leases.values():
                slot = lease.slots.get(line.id)
                if slot is not None and not lease.over:
                    lease.touch(slot)

    def _target(self, spent: F64, time_ms: int) -> tuple[F64, F64, F64]:
        """(allowed cost per action, cost per action at m = 1, ceiling), [L]."""
        n = len(self._lines)
        allow, kappa, ceiling = np.full(n, np.inf), np.ones(n), np.zeros(n)
        if self._actions is None or not self._targets:
            return allow, kappa, ceiling
        self._actions.advance(time_ms // 3_600_000)
        rows = np.array([self._row[x] for x in self._targets])
        target = np.array([p.target_micros for r in rows if (p := self._lines[r].plan) is not None], np.float64)
        cost = self._actions.kappa(_KAPPA_OF_TARGET * target)
        past = self._actions.spend.sum(1)
        left = np.maximum(self._budget[rows] - spent[rows], _REPAY * past + 1.0)
        allow[rows] = allowed(target, past, self._actions.expected(cost), left)
        kappa[rows], ceiling[rows] = cost, _TARGET_CEILING
        return allow, kappa, ceiling


def _today(account: Account, line: Line, share: float) -> float:
    """What an account may still spend in a line item's plan, micros; ``share`` of its total is for today."""
    posted, budget = account.posted, account.budget
    left = float(min(budget.total_micros, account.funds) - posted.get(ALL_TIME, 0))
    if left < NO_LIMIT / 2:
        left *= share
    if budget.daily_micros < NO_LIMIT:
        day = line.zone.day if line.zone is not None else 0
        left = min(left, float(budget.daily_micros - posted.get(day, 0)))
    return left


def _limits(line: Line) -> tuple[int, ...]:
    """What a plan depends on: another value of any of it, and a new one is made."""
    plan = line.plan
    assert plan is not None
    day = line.zone.day if line.zone is not None else 0
    budgets = [n for a in line.chain for n in (a.budget.total_micros, a.budget.daily_micros)]
    return (day, *budgets, plan.start_ms, plan.end_ms, plan.target_micros, SHAPES.index(plan.pacing))


def _midnight(zone_name: str, time_ms: int) -> int:
    """When the day ends in a time zone; unix ms."""
    zone = ZoneInfo(zone_name)
    today = datetime.fromtimestamp(time_ms / 1000, zone).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    return int((today + timedelta(days=1)).replace(tzinfo=zone).astimezone(UTC).timestamp() * 1000)
