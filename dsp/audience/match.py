"""Match tables: which of an exchange's user ids is which of our cookies, kept as identity keys of one profile.

A match makes three keys lead to one person: our cookie, the same cookie as the exchange will send it (``buyeruid``,
where it keeps the table) and the exchange's own id (``user.id``, where we do). All three are hashed like every other
identifier; the raw ids are in memory for a moment only. Who isn't known yet gets a profile that says nothing, for later
loads to fill.

Matches are written in batches by whoever calls `flush`, one process at a time: a lock file keeps them and bulk loads
apart. What doesn't fit into the bounded queue is dropped and counted.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from dsp.audience.columns import Rejects, records_of
from dsp.audience.identity import KIND_BUYERUID, KIND_USER_ID, identity_key, load_peppers
from dsp.audience.load import open_writer, pad_keys
from dsp.audience.lock import profiles_lock
from dsp.audience.profile import PROFILE_BYTES
from dsp.base.config import Config

OURS = 0  # the scope of our own cookie
QUEUE = 10_000
AT_ONCE = 1_000
Keys = tuple[bytes, bytes, bytes]


class MatchTable:
    """Matches on their way into the store. `add` never blocks; `flush` does."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._pepper = load_peppers(config.path("secrets", "pepper.json")).current
        self._waiting: deque[Keys] = deque()
        self.dropped = 0

    def keys(self, exchange: int, cookie: str, theirs: str) -> Keys:
        """The keys of a match; empty where an id is nobody's. ``exchange`` is its stable number."""
        return (
            identity_key(KIND_BUYERUID, cookie, self._pepper, OURS),
            identity_key(KIND_BUYERUID, cookie, self._pepper, exchange),
            identity_key(KIND_USER_ID, theirs, self._pepper, exchange) if theirs else b"",
        )

    def add(self, exchange: int, cookie: str, theirs: str) -> bool:
        """Take a match; False where one of its ids is nobody's or the queue is full. ``theirs`` may be empty."""
        keys = self.keys(exchange, cookie, theirs)
        if not keys[0] or (theirs and not keys[2]):
            return False
        if len(self._waiting) >= QUEUE:
            self.dropped += 1
            return False
        self._waiting.append(keys)
        return True

    def flush(self) -> int:
        """Write what waits, up to `AT_ONCE`; how many. 0 while a load has the store. Raises `StoreError`."""
        count = min(len(self._waiting), AT_ONCE)
        if not count:
            return 0
        with profiles_lock(self._config.root, wait=False) as free:
            if not free:
                return 0
            people: dict[bytes, dict[bytes, None]] = {}  # by our cookie: into an empty store each row is a new person
            for k in range(count):
                keys = self._waiting[k]
                people.setdefault(keys[0], {}).update(dict.fromkeys(key for key in keys if key))
            n = len(people)
            writer = open_writer(self._config)
            try:
                packed = pad_keys([list(keys) for keys in people.values()])
                writer.write(records_of({}, n, Rejects(n)), packed, np.zeros(PROFILE_BYTES, np.uint8))
                writer.finish()
            finally:
                writer.close()
        for _ in range(count):  # only what is on disk is forgotten here
            self._waiting.popleft()
        return count

    def __len__(self) -> int:
        return len(self._waiting)
