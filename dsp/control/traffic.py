"""The traffic curve: how much of a week's opportunity to spend lies in each part of it, learned per line item.

A curve is a product of a day (48 half hours, UTC) and a week (7 days), both with mean 1, so that a handful of days is
enough to learn it and weekdays still differ from Sundays. It is relative: how much traffic there is in all belongs to
`dsp.control.response`. Between the edges of half hours the curve is linear, so what is planned by it has no steps.

Everything is an array over line items ([L, ...]) and a function of its arguments. A half hour's observation is held
within a third and three times of what was expected: one spike must not become tomorrow's plan.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

BIN_S = 1800
DAY_BINS = 48
WEEK_BINS = 7 * DAY_BINS
WEEK_S = WEEK_BINS * BIN_S
_MONDAY_S = 4 * 86_400  # 1970-01-05, a Monday
_LEAST = 1e-3  # a part of the week that never had traffic: what is planned there is nearly nothing
_ODD = 3.0
_DAYS = 10.0  # memory of the day's shape, in days
_WEEKS = 4.0  # memory of a weekday's size, in weeks
_LEAST_PART = 0.25  # of a day, by its usual traffic, that must have been seen to learn from it
_KERNEL = (0.25, 0.5, 0.25)  # a half hour borrows from its neighbours


@dataclass
class Traffic:
    """Curves of L line items: ``day`` [L, 48], ``week`` [L, 7]; ``days`` [L] and ``weeks`` [L, 7] say how often seen.

    ``usual`` [L] is the mean of a half hour, in the unit of what is seen.
    """

    day: F64
    week: F64
    days: F64
    weeks: F64
    usual: F64

    @classmethod
    def flat(cls, n: int) -> Traffic:
        """Nothing learned: every hour alike."""
        return cls(np.ones((n, DAY_BINS)), np.ones((n, 7)), np.zeros(n), np.zeros((n, 7)), np.zeros(n))

    def rows(self, which: npt.NDArray[np.bool_]) -> Traffic:
        """Some of the line items."""
        return Traffic(self.day[which], self.week[which], self.days[which], self.weeks[which], self.usual[which])

    def nodes(self) -> F64:
        """The curve at the edges of the week's half hours, [L, 337]; linear between them."""
        before, here, after = _KERNEL
        day = before * np.roll(self.day, 1, 1) + here * self.day + after * np.roll(self.day, -1, 1)
        bins = (self.week[:, :, None] * day[:, None, :]).reshape(len(day), WEEK_BINS)
        edges = np.maximum(0.5 * (bins + np.roll(bins, 1, 1)), _LEAST)
        return np.concatenate([edges, edges[:, :1]], 1)


@dataclass(frozen=True)
class Curve:
    """Curves made ready to be asked: values at the edges of half hours and what has passed until each, [L, 337]."""

    nodes: F64
    passed: F64

    @classmethod
    def of(cls, nodes: F64) -> Curve:
        """From `Traffic.nodes`."""
        steps = 0.5 * (nodes[:, 1:] + nodes[:, :-1]) * BIN_S
        return cls(nodes, np.concatenate([np.zeros((len(nodes), 1)), np.cumsum(steps, 1)], 1))

    @classmethod
    def flat(cls, n: int) -> Curve:
        """Of nothing learned: 1 all week."""
        return cls(np.ones((n, WEEK_BINS + 1)), np.tile(np.arange(WEEK_BINS + 1) * float(BIN_S), (n, 1)))

    def put(self, which: npt.NDArray[np.bool_], nodes: F64) -> None:
        """Replace some line items' curves."""
        made = Curve.of(nodes)
        self.nodes[which], self.passed[which] = made.nodes, made.passed

    def at(self, time_s: F64 | float) -> F64:
        """Traffic per second at a unix time, [L]; 1 is the week's mean."""
        index, part = _place(time_s, len(self.nodes))
        rows = np.arange(len(self.nodes))
        low, high = self.nodes[rows, index], self.nodes[rows, index + 1]
        value: F64 = low + (high - low) * part
        return value

    def between(self, from_s: F64 | float, until_s: F64 | float) -> F64:
        """Traffic between two unix times, [L], in seconds of the mean; 0 where they are the wrong way round."""
        total: F64 = np.maximum(self._until(until_s) - self._until(from_s), 0.0)
        return total

    def _until(self, time_s: F64 | float) -> F64:
        index, part = _place(time_s, len(self.nodes))
        rows = np.arange(len(self.nodes))
        low, high = self.nodes[rows, index], self.nodes[rows, index + 1]
        weeks = np.floor((np.asarray(time_s) - _MONDAY_S) / WEEK_S)
        inside = (low + 0.5 * (high - low) * part) * part * BIN_S
        total: F64 = weeks * self.passed[:, -1] + self.passed[rows, index] + inside
        return total


def learn(traffic: Traffic, weekday: int, seen: F64) -> None:
    """Move the curves to one finished UTC day: ``seen`` [L, 48] traffic of its half hours, NaN where nobody looked.

    A day is compared with its own mean, so a busy day teaches its shape, and the day of the week its size. Recent days
    weigh about 1/10 each in the shape, recent weeks 1/4 in the size. A line item with less than a quarter of the day
    seen learns nothing.
    """
    known = np.isfinite(seen)
    expected = traffic.week[:, weekday, None] * traffic.day
    part = np.where(known, traffic.day, 0.0).sum(1) / traffic.day.sum(1)
    total = np.where(known, seen, 0.0).sum(1)
    enough = (part >= _LEAST_PART) & (total > 0)
    size = np.divide(total, np.where(known, expected, 0.0).sum(1), out=np.ones(len(seen)), where=enough)
    rows = np.where(enough & (traffic.days == 0), True, False)
    shape = np.where(known, seen, 0.0) / np.where(size > 0, size, 1.0)[:, None] / traffic.week[:, weekday, None]
    held = np.clip(shape, traffic.day / _ODD, traffic.day * _ODD)
    held = np.where(rows[:, None], np.maximum(shape, _LEAST), held)
    gain = np.maximum(1.0 / (traffic.days + 1.0), 1.0 / _DAYS)[:, None]
    moved = traffic.day + gain * (held - traffic.day)
    traffic.day[:] = np.where(enough[:, None] & known, np.maximum(moved, _LEAST), traffic.day)
    traffic.day /= traffic.day.mean(1, keepdims=True)
    # The size of this day against the usual one: what the scale says beyond the day of the week.
    absolute = size * traffic.week[:, weekday]
    usual = np.where(traffic.usual > 0, traffic.usual, absolute)
    ratio = np.clip(np.divide(absolute, usual, out=np.ones(len(seen)), where=usual > 0), 1 / _ODD, _ODD)
    gain_w = np.maximum(1.0 / (traffic.weeks[:, weekday] + 1.0), 1.0 / _WEEKS)
    week = traffic.week[:, weekday] + gain_w * (ratio - traffic.week[:, weekday])
    settled = enough & (traffic.days >= 7)  # before a week is known, no day is compared with another
    traffic.week[:, weekday] = np.where(settled, np.clip(week, 0.1, 10.0), traffic.week[:, weekday])
    traffic.usual = np.where(
        enough, usual + np.maximum(1.0 / (traffic.days + 1.0), 1.0 / 14.0) * (absolute - usual), traffic.usual
    )
    traffic.weeks[:, weekday] += settled
    traffic.days += enough


def _place(time_s: F64 | float, n: int) -> tuple[I64, F64]:
    position = (np.broadcast_to(np.asarray(time_s, np.float64), (n,)) - _MONDAY_S) % WEEK_S / BIN_S
    index = np.minimum(position.astype(np.int64), WEEK_BINS - 1)
    return index, position - index
