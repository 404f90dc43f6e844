"""One writer of profiles at a time: bulk loads and match tables keep out of each other's way by a lock file."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def profiles_lock(root: Path, *, wait: bool) -> Iterator[bool]:
    """Inside it nobody else writes profiles; yields False where somebody does and ``wait`` is false."""
    path = root / "profiles.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
