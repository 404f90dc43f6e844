"""What became of the people of an experiment's arms: per person, what they cost and what they brought.

Compared are people who were bid for, or, in a control arm, would have been (their ghost bids): the arm was drawn before
anything else happened, so these groups differ in nothing but the arm. Whether they saw the ad plays no part, as those
who did are not like those who did not.

Our own notices know only what followed an ad. What people of a control arm did without one must come from outside: the
advertiser's list of conversions, by whatever identifier it has, which then counts for every arm alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from dsp.catalog.layout import LI_CURRENCY
from dsp.catalog.snapshot import Snapshot
from dsp.model.compared import brought, fates, rows_of_line_items
from dsp.model.context import HEADS
from dsp.model.labels import TEST_FLAG

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
CLICK_HEAD, APPLY_HEAD, FUND_HEAD = HEADS.index("click"), HEADS.index("apply"), HEADS.index("fund")
STAGES = {b"applied": 1, b"approved": 2, b"funded": 3, b"defaulted": 4}  # as a list of conversions says it


@dataclass(frozen=True)
class Conversions:
    """Conversions by an experiment's hash of the person: ``units`` uint32[k], ``time_ms`` int64[k], ``head`` int64[k]
    the index in HEADS of what came true.
    """

    units: npt.NDArray[np.uint32]
    time_ms: I64
    head: I64


@dataclass(frozen=True)
class Arm:
    """Of one arm's people, float64[people] each: sums over the time of the log, USD ``spent`` and ``value``."""

    name: str
    control: bool
    told: bool  # whether it is known what its people did
    bids: int
    ghosts: int
    erased: int  # bids and ghosts that no longer say whose they were; in nothing else
    spent: F64
    shown: F64
    clicks: F64
    applications: F64
    funded: F64
    value: F64

    @property
    def people(self) -> int:
        """How many."""
        return len(self.spent)

    def totals(self) -> dict[str, Any]:
        """For a report; None where it is not known."""
        out: dict[str, Any] = {"name": self.name, "control": self.control, "people": self.people, "bids": self.bids}
        out |= {"ghost_bids": self.ghosts, "erased_bids": self.erased, "shown": int(self.shown.sum())}
        out |= {"spent_usd": round(float(self.spent.sum()), 6), "clicks": int(self.clicks.sum())}
        told: dict[str, Any] = {"applications": int(self.applications.sum()), "funded": int(self.funded.sum())}
        told["value_usd"] = round(float(self.value.sum()), 6)
        return out | (told if self.told else dict.fromkeys(told))

    def ratios(self, other: Arm) -> dict[str, tuple[F64, F64]]:
        """What can be compared with ``other``: (numerator, denominator) float64[people] by name."""
        each = np.ones(self.people)
        out = {}
        if not (self.control or other.control):
            out["spent per thousand people, USD"] = (1_000 * self.spent, each)
            out["clicks per thousand people"] = (1_000 * self.clicks, each)
        if self.told and other.told:
            out["applications per thousand people"] = (1_000 * self.applications, each)
            out["funded per thousand people"] = (1_000 * self.funded, each)
            out["value per thousand people, USD"] = (1_000 * self.value, each)
            out["value less spend per thousand people, USD"] = (1_000 * (self.value - self.spent), each)
            if not (self.control or other.control):
                out["value per USD spent"] = (self.value, self.spent)
        return out


def arms_of(
    decisions: Mapping[str, Any],
    outcomes: Mapping[str, Any],
    snapshot: Snapshot,
    experiment: Mapping[str, Any],
    conversions: Conversions | None = None,
) -> list[Arm]:
    """The arms of ``experiment`` (of the snapshot's meta) by the logs, ghosts included; test requests left out."""
    mine = (decisions["experiment"] == experiment["id"]) & ((decisions["flags"] & TEST_FLAG) == 0)
    rows = {name: column[mine] for name, column in decisions.items() if isinstance(column, np.ndarray)}
    fate = fates(rows, outcomes, snapshot)
    out = []
    for k, spec in enumerate(experiment["arms"]):
        of_arm = np.flatnonzero((rows["arm"] == k + 1) & fate.known)
        ghost = rows["ghost"][of_arm] == 1
        kept = of_arm[rows["unit"][of_arm] != 0]
        units, person = np.unique(rows["unit"][kept], return_inverse=True)
        stage = np.zeros((len(units), fate.stage.shape[1]))
        np.add.at(stage, person, fate.stage[kept])
        spent: F64 = np.bincount(person, fate.spent[kept], len(units)).astype(np.float64)
        value: F64 = np.bincount(person, fate.value[kept], len(units)).astype(np.float64)
        if conversions is not None:
            came, value = _from_outside(rows, kept, units, person, snapshot, conversions)
            stage[:, 2:] = came[:, 1:]
        out.append(
            Arm(
                spec["name"], spec["control"], conversions is not None or not spec["control"], int((~ghost).sum()),
                int(ghost.sum()), len(of_arm) - len(kept), spent, stage[:, 0], stage[:, 1 + CLICK_HEAD],
                stage[:, 1 + APPLY_HEAD], stage[:, 1 + FUND_HEAD], value,
            )
        )  # fmt: skip
    return out


def _from_outside(
    rows: Mapping[str, Any],
    kept: I64,
    units: npt.NDArray[np.uint32],
    person: npt.NDArray[Any],
    snapshot: Snapshot,
    conversions: Conversions,
) -> tuple[F64, F64]:
    """(float64[people, heads] 1 where a person did it, value float64[people] USD) by a list of conversions.

    What came before a person's first bid is not the experiment's doing; a later stage proves the earlier ones. Worth is
    by the offer that was first bid for.
    """
    first = np.full(len(units), np.iinfo(np.int64).max)
    np.minimum.at(first, person, rows["time_ms"][kept])
    line_item = np.zeros(len(units), np.int64)
    newest_first = np.argsort(rows["time_ms"][kept], kind="stable")[::-1]
    line_item[person[newest_first]] = rows["line_item"][kept][newest_first]
    came = np.zeros((len(units), len(HEADS)))
    if len(units):
        at = np.minimum(np.searchsorted(units, conversions.units), len(units) - 1)
        mine = (units[at] == conversions.units) & (conversions.time_ms >= first[at])
        for head in range(len(HEADS)):
            came[at[mine & (conversions.head >= head)], head] = 1.0
    came[:, CLICK_HEAD] = 0.0  # no click is known of people who were shown nothing
    item, _ = rows_of_line_items(line_item, snapshot)
    worth = brought(came, snapshot.li_v[item]) * snapshot.cur_usd[snapshot.li_i[item, LI_CURRENCY]]
    return came, worth


def stages_of(texts: Sequence[bytes | None]) -> I64:
    """Indices in HEADS int64[n] of STAGES as written. Raises ValueError."""
    for row, text in enumerate(texts, 1):
        if text not in STAGES:
            raise ValueError(f"row {row}: no such stage; write one of {', '.join(s.decode() for s in STAGES)}")
    return np.array([STAGES[text] for text in texts if text is not None], np.int64)


def times_of(texts: Sequence[bytes | None]) -> I64:
    """Unix milliseconds int64[n] of unix seconds or ISO times (UTC without a zone). Raises ValueError."""
    out = np.zeros(len(texts), np.int64)
    for row, text in enumerate(texts):
        plain = (text or b"").decode("utf-8", "replace").strip()
        try:
            if plain.replace(".", "", 1).isdecimal():
                out[row] = round(float(plain) * 1000)
            else:
                moment = datetime.fromisoformat(plain)
                moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
                out[row] = round(moment.timestamp() * 1000)
        except ValueError:
            raise ValueError(f"row {row + 1}: no time; write 2026-03-01T12:00:00Z or unix seconds") from None
    return out
