"""What an action costs, from actions that come late: the cost curve and the target that `dsp.control.dual` works with.

Spend is known at once, actions (applications, approvals, funded loans) days later. Spend is kept by the hour it was bid
in, with the actions that came of it; how many are still to come follows from the delays seen so far. Delays are
truncated (of yesterday's actions only the quick ones are known), so their distribution is estimated backwards: of the
actions known at age k, the share that came in the last step, over all hours that are old enough to tell. That is the
chain-ladder method of loss reserving, and the nonparametric maximum likelihood for right-truncated data (Lagakos,
Barraj, De Gruttola 1988). Where no hour is old enough to tell, exponential delays of several means stand in, weighed by
how likely they make what was seen: instant actions soon look instant, and slow ones slow.

Cost per action at multiplier m is ``kappa · m``: a bid is m times the value, a price a part of the bid. Actions are
Poisson, so kappa's estimate is spend (at m = 1, as far as it is ripe) per action, with a prior that weighs ``PRIOR``
actions. Old hours fade.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

HOURS = 30 * 24
EDGES_H = np.array(
    [0.25, 1, 2, 4, 8, 16, 24, 48, 96, 168, 336, HOURS], np.float64
)  # ages at which delays are told apart
PRIOR = 8.0
FADE_H = 14 * 24.0
CORRECT = 1.5  # a past above or below target moves what is allowed by no more than this
MEANS_H = np.array([0.1, 0.5, 2, 6, 12, 24, 48, 96])  # of the exponential delays that are thought of before data tell
_PRIOR_DELAYS = 6.0  # actions that these weigh against the delays as seen
_POOL = 20.0  # actions that the delays of all line items weigh for one of them


@dataclass
class Actions:
    """Hours of L line items, newest at ``hour % HOURS``: ``spend`` and ``exposure`` (spend / m) [L, HOURS], ``came``
    [L, HOURS] actions of bids of that hour, ``delays`` [L, HOURS, len(EDGES_H)] the same by age.

    A line item's own delays count as far as there are many; before, those of all line items together.
    """

    spend: F64
    exposure: F64
    came: F64
    delays: npt.NDArray[np.float32]
    hour: int

    @classmethod
    def fresh(cls, n: int, hour: int) -> Actions:
        """Nothing spent; ``hour`` is the unix hour."""
        spend, exposure, came = (np.zeros((n, HOURS)) for _ in range(3))
        return cls(spend, exposure, came, np.zeros((n, HOURS, len(EDGES_H)), np.float32), hour)

    def advance(self, hour: int) -> None:
        """Time has come to ``hour``: rows of hours that are over 30 days old are emptied."""
        for k in range(max(self.hour + 1, hour - HOURS + 1), hour + 1):
            for table in (self.spend, self.exposure, self.came):
                table[:, k % HOURS] = 0.0
            self.delays[:, k % HOURS] = 0.0
        self.hour = max(self.hour, hour)

    def spent(self, hour: int, spend: F64, log_m: F64) -> None:
        """``spend`` [L] micros on bids of ``hour`` at a multiplier."""
        if self.hour - HOURS < hour <= self.hour:
            self.spend[:, hour % HOURS] += spend
            self.exposure[:, hour % HOURS] += spend * np.exp(-log_m)

    def acted(self, line: I64, hour: I64, delay_h: F64) -> None:
        """Actions, one per row: line item row, hour of its bid, hours from bid to action."""
        known = (self.hour - HOURS < hour) & (hour <= self.hour) & (delay_h < HOURS)
        row = hour[known] % HOURS
        np.add.at(self.came, (line[known], row), 1.0)
        age = np.searchsorted(EDGES_H, np.maximum(delay_h[known], 0.0), "right")
        np.add.at(self.delays, (line[known], row, age), np.float32(1.0))

    def ripe(self) -> F64:
        """Share of the actions of each hour that have come by now, [L, HOURS] by ring position."""
        age = (self.hour - np.arange(HOURS)) % HOURS + 0.5
        at = np.concatenate([[0.0], EDGES_H])
        share = np.concatenate([np.zeros((len(self.came), 1)), self._by_edge()], 1)
        k = np.minimum(np.searchsorted(at, age, "right") - 1, len(EDGES_H) - 1)
        part = (age - at[k]) / (at[k + 1] - at[k])
        ripe: F64 = share[:, k] + (share[:, k + 1] - share[:, k]) * part
        return ripe

    def _by_edge(self) -> F64:
        """Share of actions that came by each of EDGES_H, [L, len(EDGES_H)]."""
        age = ((self.hour - np.arange(HOURS)) % HOURS)[:, None]
        old = age >= EDGES_H[None, :]  # hours that have lived through the step
        late = np.einsum("lha,ha->la", self.delays, old, dtype=np.float64)
        all_of = np.einsum("lha,ha->la", np.cumsum(self.delays, 2), old, dtype=np.float64)
        usual = self._likely()
        step = usual - np.concatenate([np.zeros((len(usual), 1)), usual[:, :-1]], 1)
        hazard = (late + _PRIOR_DELAYS * step / usual) / (all_of + _PRIOR_DELAYS)
        tail = np.cumprod((1.0 - hazard[:, :0:-1]), 1)[:, ::-1]
        return np.concatenate([tail, np.ones((len(tail), 1))], 1)

    def _likely(self) -> F64:
        """The same from exponential delays of several means, weighed by their likelihood (truncated at today)."""
        share = 1.0 - np.exp(-EDGES_H[None, :] / MEANS_H[:, None])
        log_step = np.log(np.maximum(share - np.concatenate([np.zeros((len(MEANS_H), 1)), share[:, :-1]], 1), 1e-12))
        age = (self.hour - np.arange(HOURS)) % HOURS + 0.5
        log_known = np.log1p(-np.exp(-age[None, :] / MEANS_H[:, None]))
        by_age, by_hour = self.delays.sum(1, dtype=np.float64), self.delays.sum(2, dtype=np.float64)
        likelihood = by_age @ log_step.T - by_hour @ log_known.T
        together = likelihood.sum(0) * min(1.0, _POOL / max(float(by_age.sum()), 1.0))
        likelihood = likelihood + together
        weight = np.exp(likelihood - likelihood.max(1, keepdims=True))
        return np.asarray(weight / weight.sum(1, keepdims=True) @ share)

    def kappa(self, prior: F64) -> F64:
        """Cost per action at m = 1, [L]; ``prior`` is what it is thought to be without data."""
        age = (self.hour - np.arange(HOURS)) % HOURS
        weight = np.exp(-age / FADE_H)
        ripe = (self.exposure * (self.ripe() * weight)).sum(1)
        came = (self.came * weight).sum(1)
        cost: F64 = (ripe + PRIOR * prior) / (came + PRIOR)
        return cost

    def expected(self, kappa: F64) -> F64:
        """Actions of all spend so far, [L]: those that came and those that will."""
        to_come: F64 = (self.exposure * (1.0 - self.ripe())).sum(1) / kappa
        return self.came.sum(1) + to_come


def allowed(target: F64, spent: F64, expected: F64, left: F64) -> F64:
    """The cost per action that what is ``left`` to spend may have so that all of it meets the target, [L].

    ``spent`` micros have brought ``expected`` actions. Within `CORRECT` of the target: nobody is served by a frantic
    end. inf where there is no target.
    """
    needed = (spent + left) / target - expected
    cost = np.divide(left, needed, out=np.full(len(target), np.inf), where=needed > 0)
    held: F64 = np.clip(cost, target / CORRECT, target * CORRECT)
    return np.where(np.isfinite(target), held, np.inf)
