"""What each RTA strategy was asked and answered, by the platform's days; `dsp rta` reports it, with cost and results.

A worker adds up in memory and keeps its day's sums in ``rta/DAY-WORKER.json`` of the data directory, replaced as a
whole every KEEP_S seconds and at its end; one that starts again goes on with them. What a killed worker loses is KEEP_S
seconds of a report: money is in the ledger. A directory that can't be written to is said in the log, and tried again.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from dsp.base.logs import logger

log = logger(__name__)

F64 = npt.NDArray[np.float64]
KEEP_S = 10

# --- sums of a strategy: float64[S, T_WIDTH] --------------------------------------------------------------------------
(
    T_WANTED,  # requests whose person it targets and may have
    T_ACCEPTED,
    T_WEIGHT,  # of the accepted: user weight factors
    T_CPC,  # prices of a click, hundredths of the platform's currency
    T_CPA,  # prices of an application
    T_PCVR,  # applications expected of as many clicks
) = range(6)
T_WIDTH = 6
_EPOCH = date(1970, 1, 1)


class StrategySums(msgspec.Struct):
    """A strategy's sums of one day; `T_WANTED` and the columns after it say which."""

    line_item: int
    sums: list[float]


Day = dict[str, dict[str, StrategySums]]  # by platform and strategy


class Tallies:
    """One worker's sums. One thread uses it."""

    def __init__(self, directory: Path, worker: str) -> None:
        self._directory, self._worker = directory, worker
        self._days: dict[date, Day] = {}  # not written yet
        self._kept_s = 0

    def add(self, day: int, platform: str, strategies: Sequence[tuple[str, int]], sums: F64) -> None:
        """Take ``sums`` float64[S, T_WIDTH] over, leaving zeros. ``strategies``: id, line item; ``day`` since 1970."""
        rows = np.flatnonzero(sums[:, T_WANTED])
        if not len(rows):
            return
        when = _EPOCH + timedelta(days=day)
        if when not in self._days:
            self._days[when] = _read(self._file(when))
        of = self._days[when].setdefault(platform, {})
        for row in rows.tolist():
            name, line_item = strategies[row]
            before = of.get(name)
            total = sums[row] if before is None else sums[row] + before.sums
            of[name] = StrategySums(line_item, [round(value, 6) for value in total.tolist()])
        sums[:] = 0.0

    def due(self, now_s: int) -> bool:
        """Whether it is time to `keep` again."""
        return now_s - self._kept_s >= KEEP_S or now_s < self._kept_s

    def keep(self, now_s: int) -> None:
        """Write what has changed; what can't be written stays for the next time."""
        self._kept_s = now_s
        for day in sorted(self._days):
            path = self._file(day)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary = path.with_suffix(".new")
                temporary.write_bytes(msgspec.json.encode(self._days[day]))
                temporary.replace(path)
            except OSError as error:
                log.warning("could not keep the strategies' sums", file=str(path), why=str(error))
                return
            if day != max(self._days):
                del self._days[day]

    def _file(self, day: date) -> Path:
        return self._directory / f"{day}-{self._worker}.json"


def _read(path: Path) -> Day:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Day)
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError) as error:
        log.warning("a day's sums of strategies can't be read; they begin anew", file=str(path), why=str(error))
        return {}


def read_days(directory: Path, first: date, last: date) -> dict[date, Day]:
    """All workers' sums of the days ``first`` to ``last``, added up."""
    out: dict[date, Day] = {}
    for path in sorted(directory.glob("????-??-??-*.json")):
        day = date.fromisoformat(path.name[:10])
        if not first <= day <= last:
            continue
        total = out.setdefault(day, {})
        for platform, strategies in _read(path).items():
            of = total.setdefault(platform, {})
            for name, each in strategies.items():
                before = of.get(name)
                sums = each.sums if before is None else [a + b for a, b in zip(before.sums, each.sums, strict=True)]
                of[name] = StrategySums(each.line_item, sums)
    return out
