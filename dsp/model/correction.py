"""The online correction of the model that serves: what `dsp.model.drift` learned from the logs, as a file for bidders.

It is worked out anew from the logs each time, so it has no state to lose: of every bid the serving version scored
recently, the label of each head as soon as it is ripe (a positive when its outcome came, a negative when its horizon
has passed), in the order in which they became known. What the log says was predicted is always the model's own word,
uncorrected, so nothing is corrected twice. A new version starts without correction.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from dsp.base.config import Config
from dsp.catalog.current import current_path
from dsp.catalog.layout import CR_H, CR_ID, CR_LINE_ITEM, CR_MEDIA, CR_W
from dsp.catalog.snapshot import Snapshot
from dsp.log.decisions import read_decisions
from dsp.log.outcomes import read_outcomes
from dsp.log.segments import segment_files
from dsp.model.context import HEADS
from dsp.model.drift import Drift
from dsp.model.features import SPEC_HASH
from dsp.model.labels import join_labels, label_times, learned_horizons
from dsp.model.registry import ModelError, current_dir

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

CORRECTION_FILE = "CORRECTION"
WINDOW_MS = 7 * 86_400_000  # how far back it looks
_MOST_BYTES = 1 << 28  # of decisions read at a time: with more the window is halved, and halved again
_SHORTEST_MS = 600_000
BAND = (0.8, 1.25)  # predicted over observed
_SIGNIFICANT = 3.0  # standard deviations of the observed count
_LEARNED = (HEADS.index("click"), HEADS.index("apply"))  # what tells creatives apart; later stages are the offer's
_MEMORY_ENDS = 20.0  # positives in all before an offset is used


class Watched(msgspec.Struct, frozen=True):
    """Predictions against what came, of one head and all, one line item or one exchange (``of``)."""

    head: str
    of: str  # "all", "line item" or "exchange"
    id: int
    outcomes: int
    observed: int
    predicted: float  # by the model alone
    corrected: float  # as the correction of the moment had it

    @property
    def ratio(self) -> float | None:
        """Predicted over observed, by the model alone; None while nothing was observed."""
        return self.predicted / self.observed if self.observed else None

    @property
    def alert(self) -> bool:
        """Whether the corrected prediction left its band by more than chance."""
        low, high = BAND
        inside = low * self.observed <= self.corrected <= high * self.observed
        return not inside and abs(self.corrected - self.observed) > _SIGNIFICANT * max(self.corrected, 1.0) ** 0.5


class Correction(msgspec.Struct, frozen=True):
    """Offsets on the log odds: ``whole`` per head for line items not listed, ``own`` per head and line item."""

    version: int = 0
    made_ms: int = 0
    line_items: list[int] = []  # rising
    whole: tuple[float, ...] = (0.0,) * len(HEADS)
    own: list[list[float]] = []  # per line item, per head; `whole` included
    watched: list[Watched] = []
    creatives: list[int] = []  # rising
    shares: list[float] = []  # and how they share their line item's impressions

    def factors(self, ids: I64) -> F32:
        """exp(offset) float32[len(ids), heads] for line items by public id."""
        out = np.tile(np.exp(np.array(self.whole)), (len(ids), 1))
        if self.line_items:
            known = np.array(self.line_items, np.int64)
            at = np.minimum(np.searchsorted(known, ids), len(known) - 1)
            found = known[at] == ids
            out[found] = np.exp(np.array(self.own)[at[found]])
        return out.astype(np.float32)

    def creative_shares(self, ids: I64) -> F32:
        """float32[len(ids)]: by public id; one that isn't listed counts as the average of those that are."""
        out = np.full(len(ids), float(np.mean(self.shares)) if self.shares else 1.0)
        if self.creatives:
            known = np.array(self.creatives, np.int64)
            at = np.minimum(np.searchsorted(known, ids), len(known) - 1)
            found = known[at] == ids
            out[found] = np.array(self.shares)[at[found]]
        return out.astype(np.float32)


ShareOut = Callable[[I64, F64, F64, int], F64]
"""`dsp.control.bandit.shares`; handed in, because `model` may not import `control`."""


def work_out(config: Config, now_ms: int, share_out: ShareOut | None = None) -> Correction:
    """The correction of the current model by the logs as they are."""
    path = current_dir(config)
    if path is None:
        raise ModelError("no model yet: run `dsp train` (or `dsp train --bootstrap` without logs)")
    version, since = int(path.name), now_ms - WINDOW_MS
    log, came = config.path("log", "decisions"), config.path("log", "outcomes")
    if not (log.is_dir() and came.is_dir()):
        return Correction(version, now_ms)
    while (
        since < now_ms - _SHORTEST_MS and sum(file.stat().st_size for file in segment_files(log, since)) > _MOST_BYTES
    ):
        since = (since + now_ms) // 2
    decisions, outcomes = read_decisions(log, since, SPEC_HASH), read_outcomes(came, since)
    correction = correct(decisions, outcomes, version, now_ms)
    if share_out is None or not len(decisions["bid_id"]):
        return correction
    published = current_path(config)
    slots = slots_of(Snapshot.load(published)) if published is not None else None
    creatives, shares = creative_shares(decisions, outcomes, share_out, now_ms, slots)
    return msgspec.structs.replace(correction, creatives=creatives.tolist(), shares=shares.tolist())


def creative_shares(
    decisions: Mapping[str, Any],
    outcomes: Mapping[str, Any],
    share_out: ShareOut,
    seed: int,
    slots: tuple[I64, I64] | None = None,
) -> tuple[I64, F64]:
    """(creative ids, their shares of a slot) by clicks, and applications of those who clicked, that came and that were
    expected.

    ``slots``: ids of all creatives, and numbers that are equal where two compete (`slots_of`); without, a line item's
    creatives that were ever bid do.
    """
    labels = join_labels(decisions, outcomes, learned_horizons(decisions, outcomes))
    shown = decisions["creative"].astype(np.int64)
    ids = np.unique(shown if slots is None else np.concatenate([shown, slots[0]]))
    which = np.searchsorted(ids, shown)
    group = np.zeros(len(ids), np.int64)
    group[which] = -1 - decisions["line_item"].astype(np.int64)  # apart from the numbers of slots
    if slots is not None:
        group[np.searchsorted(ids, slots[0])] = slots[1]
    came, expected = np.zeros((len(ids), len(_LEARNED))), np.zeros((len(ids), len(_LEARNED)))
    for k, head in enumerate(_LEARNED):
        at, label = labels.of(head)
        np.add.at(came[:, k], which[at], label)
        np.add.at(expected[:, k], which[at], decisions["p"][at, head].astype(np.float64))
    return ids, share_out(group, came, expected, seed)


def slots_of(snapshot: Snapshot) -> tuple[I64, I64]:
    """(creative ids int64[C], number int64[C] of what each competes for): its line item, medium and size."""
    key = snapshot.cr_i[:, [CR_LINE_ITEM, CR_MEDIA, CR_W, CR_H]]
    if not len(key):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    _, number = np.unique(key, axis=0, return_inverse=True)
    return snapshot.cr_i[:, CR_ID].astype(np.int64), number.reshape(-1).astype(np.int64)


def correct(decisions: Mapping[str, Any], outcomes: Mapping[str, Any], version: int, now_ms: int) -> Correction:
    """As `work_out`, from the columns of the logs; rows of other versions are left out."""
    keep = decisions["model"] == version
    rows = {name: column[keep] for name, column in decisions.items() if isinstance(column, np.ndarray)}
    if not len(rows["bid_id"]):
        return Correction(version, now_ms)
    horizons = learned_horizons(rows, outcomes)
    labels = join_labels(rows, outcomes)
    times = label_times(rows, outcomes, horizons)
    items, key = np.unique(rows["line_item"].astype(np.int64), return_inverse=True)
    whole, own = [0.0] * len(HEADS), np.zeros((len(items), len(HEADS)))
    watched: list[Watched] = []
    for h, head in enumerate(HEADS):
        at, y = labels.of(h)
        ripe = times[at, h] <= now_ms
        at, y = at[ripe], y[ripe]
        order = np.argsort(times[at, h], kind="stable")
        at, y = at[order], y[order]
        p = rows["p"][at, h].astype(np.float64)
        drift = Drift(len(items))
        followed = drift.follow(p, y, key[at])
        if y.sum() >= _MEMORY_ENDS:
            whole[h], own[:, h] = float(drift.whole[0]), drift.offsets()
        watched += _watch(head, y, p, followed, items[key[at]], rows["exchange"][at].astype(np.int64))
    return Correction(version, now_ms, items.tolist(), tuple(whole), own.tolist(), watched)


def _watch(head: str, y: F64, p: F64, corrected: F64, item: I64, exchange: I64) -> list[Watched]:
    out = []
    for of, group in (("all", np.zeros(len(y), np.int64)), ("line item", item), ("exchange", exchange)):
        ids, which = np.unique(group, return_inverse=True)
        sums = [np.bincount(which, weights=x, minlength=len(ids)) for x in (np.ones(len(y)), y, p, corrected)]
        out += [
            Watched(head, of, int(i), int(n), int(seen), float(a), float(b))
            for i, n, seen, a, b in zip(ids, *sums, strict=True)
        ]
    return out


def save_correction(config: Config, correction: Correction) -> Path:
    """Put it where bidders look, in one step."""
    path = config.path("models", CORRECTION_FILE)
    aside = path.with_name(f".{CORRECTION_FILE}-{os.getpid()}")
    aside.write_bytes(msgspec.json.encode(correction))
    os.replace(aside, path)
    return path


def load_correction(config: Config) -> Correction:
    """What was saved last; one without effect where there is none, or it can't be read."""
    try:
        return msgspec.json.decode(config.path("models", CORRECTION_FILE).read_bytes(), type=Correction)
    except (OSError, msgspec.DecodeError):
        return Correction()


def correction_stamp(config: Config) -> int:
    """Changes when the file does; 0 without one."""
    try:
        return config.path("models", CORRECTION_FILE).stat().st_mtime_ns
    except OSError:
        return 0


def now_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000
