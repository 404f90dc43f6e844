"""What an experiment shows, for the console and `dsp experiment report` alike: read from the logs, compared by arms.

A reading goes through all the decisions there are and draws its intervals a thousand times, which is dear: the console
does one at a time, keeps its answer for a minute, and tells others to come again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

from dsp.base.config import Config
from dsp.catalog.current import current_path
from dsp.catalog.snapshot import Snapshot, SnapshotError
from dsp.console.errors import ApiError
from dsp.control.experiment import LEVEL, Compared, compare
from dsp.log.decisions import read_experiment
from dsp.log.outcomes import read_outcomes
from dsp.model.trial import Arm, Conversions, arms_of

KEPT_S = 60.0
_MOST_KEPT = 64
_DAY_S = 86_400
Interval = tuple[float | None, float | None]


class ArmTotals(msgspec.Struct):
    """What one arm's people got and did; None where it is not known, as of people who were shown nothing."""

    name: str
    control: bool
    people: int
    bids: int
    ghost_bids: int
    erased_bids: int
    shown: int
    spent_usd: float
    clicks: int
    applications: int | None
    funded: int | None
    value_usd: float | None


class Comparison(msgspec.Struct):
    """One figure of an arm beside the base's: the difference, the lift (arm / base - 1) and their intervals."""

    base: float | None
    arm: float | None
    difference: float | None
    difference_interval: Interval
    lift: float | None
    lift_interval: Interval
    significant: bool


class Results(msgspec.Struct):
    """Per arm what came of it, and every other arm ``compared`` with ``base`` by the name of the figure."""

    level: float
    arms: list[ArmTotals]
    base: str
    compared: dict[str, dict[str, Comparison]]


def results_of(
    config: Config,
    snapshot: Snapshot,
    experiment: dict[str, Any],
    since_ms: int | None,
    came: Conversions | None = None,
) -> tuple[list[Arm], Results]:
    """The arms of ``experiment`` (of the snapshot's meta) and what they show.

    The base is the held-out arm; where what its people did is not known and others can be compared, the first of those.
    """
    decisions = read_experiment(config.path("log", "decisions"), int(experiment["id"]), since_ms)
    outcomes = read_outcomes(config.path("log", "outcomes"), since_ms, decisions["bid_id"])
    arms = arms_of(decisions, outcomes, snapshot, experiment, came)
    control, told = next((arm for arm in arms if arm.control), arms[0]), [arm for arm in arms if arm.told]
    base = control if control.told or len(told) < 2 else told[0]
    compared = {
        arm.name: {metric: _row(compare(base.ratios(arm)[metric], of)) for metric, of in arm.ratios(base).items()}
        for arm in arms
        if arm is not base
    }
    totals = [ArmTotals(**arm.totals()) for arm in arms]
    return arms, Results(LEVEL, totals, base.name, compared)


def _row(row: Compared) -> Comparison:
    return Comparison(
        row.a, row.b, row.difference, (row.low, row.high), row.lift, (row.lift_low, row.lift_high), row.significant
    )


class Trials:
    """Reads one experiment at a time."""

    def __init__(self, config: Config, clock: Callable[[], float] = time.time) -> None:
        self._config, self._clock = config, clock
        self._busy = threading.Lock()
        self._kept: dict[tuple[int, int], tuple[float, Results]] = {}  # by experiment and days

    def read(self, experiment: int, days: int = 0) -> Results | None:
        """What it shows, of the last ``days`` (0: of all time), at most `KEPT_S` old; None before it is published.

        Raises 503 while others are being read.
        """
        known = self._fresh(experiment, days)
        if known is not None:
            return known
        if not self._busy.acquire(blocking=False):
            raise ApiError(503, "busy", "other experiments are still being read; try again soon", retry_s=5)
        try:
            snapshot = self._published()
            found = [] if snapshot is None else [e for e in snapshot.meta["experiments"] if e["id"] == experiment]
            if snapshot is None or not found:
                return None
            since_ms = int((self._clock() - days * _DAY_S) * 1000) if days else None
            _, results = results_of(self._config, snapshot, found[0], since_ms)
            while len(self._kept) >= _MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[experiment, days] = self._clock(), results
            return results
        finally:
            self._busy.release()

    def _fresh(self, experiment: int, days: int) -> Results | None:
        at_s, results = self._kept.get((experiment, days), (0.0, None))
        return results if abs(self._clock() - at_s) < KEPT_S else None

    def _published(self) -> Snapshot | None:
        published = current_path(self._config)
        try:
            return None if published is None else Snapshot.load(published)
        except (SnapshotError, FileNotFoundError):  # replaced meanwhile
            raise ApiError(503, "busy", "the catalog is being published; try again soon", retry_s=1) from None
