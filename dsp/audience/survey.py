"""What the audience store holds, estimated from a sample of its profiles: segments' sizes, overlaps, consent.

A count over every profile would read gigabytes for a page; 20,000 of them, evenly spread over the store, say a share of
10 % to within 0.4 points (two standard errors). Nothing that tells a person leaves this module.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import lmdb
import numpy as np
import numpy.typing as npt

from dsp.audience.lmdb_store import MAP_BYTES, PEOPLE, SLOT_BYTES, profiles_path
from dsp.audience.profile import PROFILE, PROFILE_BYTES
from dsp.base.config import Config

SAMPLE = 20_000
KEEP_S = 60.0
PROFILING, FINANCIAL = 1, 2  # bits of a profile's consent
_LOCK = threading.Lock()  # LMDB opens a file once in a process
_KNOWN: dict[Path, tuple[float, Sample]] = {}


@dataclass(frozen=True)
class Sample:
    """``people`` in all; of ``n`` looked at, how many carry each segment and each pair, and have which consent."""

    people: int = 0
    n: int = 0
    segments: dict[int, int] = field(default_factory=dict)
    pairs: dict[tuple[int, int], int] = field(default_factory=dict)  # ascending
    profiling: int = 0
    financial: int = 0
    expired: int = 0  # consent whose last day is over
    unknown: int = 0  # day of consent not on record

    def estimate(self, counted: int) -> float:
        """People, from how many of the sample."""
        return self.people * counted / self.n if self.n else 0.0


def look(config: Config, now_s: float | None = None) -> Sample:
    """The sample, up to `KEEP_S` old; empty without a store."""
    path = profiles_path(config.root)
    with _LOCK:
        known = _KNOWN.get(path)
        if known is not None and known[0] > time.monotonic() - KEEP_S:
            return known[1]
        found = _count(*_read(path), int((time.time() if now_s is None else now_s) // 86_400))
        _KNOWN[path] = (time.monotonic(), found)
        return found


def _read(path: Path) -> tuple[int, npt.NDArray[np.void]]:
    """(people, profiles of some of them)."""
    nobody = np.zeros(0, PROFILE)
    if not (path / "data.mdb").exists():
        return 0, nobody
    try:
        env = lmdb.open(str(path), readonly=True, create=False, max_dbs=4, map_size=MAP_BYTES)
    except lmdb.Error:
        return 0, nobody
    try:
        with env.begin(buffers=True) as txn:
            people = env.open_db(PEOPLE, txn, create=False, integerkey=True)
            total = int(txn.stat(people)["entries"])
            cursor = txn.cursor(people)
            if not cursor.last():
                return 0, nobody
            last = int.from_bytes(cursor.key(), "little")
            raw = bytearray()
            for slot in np.unique(np.linspace(0, last, min(SAMPLE, last + 1)).astype(np.int64)).tolist():
                record = txn.get(int(slot).to_bytes(SLOT_BYTES, "little"), db=people)
                if record is not None and len(record) == PROFILE_BYTES:
                    raw += record
            return total, np.frombuffer(bytes(raw), PROFILE)
    except lmdb.Error:  # a loader has just begun
        return 0, nobody
    finally:
        env.close()


def _count(people: int, profiles: npt.NDArray[np.void], today: int) -> Sample:
    if not len(profiles):
        return Sample(people)
    width = profiles["segments"].shape[1]
    held = (np.arange(width) < profiles["n_segments"][:, None]) & (profiles["segment_expiry_d"] >= today)
    rows, columns = np.nonzero(held)
    numbers, at = np.unique(profiles["segments"][rows, columns], return_inverse=True)
    has = np.zeros((len(profiles), len(numbers)), np.float32)
    has[rows, at] = 1
    both = (has.T @ has).astype(np.int64)
    ids = numbers.tolist()
    pairs = {(ids[i], ids[j]): int(both[i, j]) for i, j in zip(*np.nonzero(np.triu(both, 1)), strict=True)}
    consent, until = profiles["consent"], profiles["consent_until_d"]
    return Sample(
        people, len(profiles), {n: int(both[i, i]) for i, n in enumerate(ids)}, pairs,
        int(((consent & PROFILING) > 0).sum()), int(((consent & FINANCIAL) > 0).sum()),
        int(((until > 0) & (until < today)).sum()), int((profiles["consent_from_d"] == 0).sum()),
    )  # fmt: skip
