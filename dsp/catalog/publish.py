"""Publishing: the catalog of the database as a numbered snapshot file that workers swap in.

``data_dir/snapshots/NNNNNN.snap`` are immutable, ``CURRENT`` beside them names the one to use and is replaced
atomically. A new one is due when the catalog's revision changed, the public URL changed, or a time zone's offset moved
the dayparts. A file lock keeps two publishers (console, ledger) from taking the same number.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import msgspec
from sqlalchemy import Engine

from dsp.base.config import Config
from dsp.catalog.compile import compile_catalog
from dsp.catalog.current import CURRENT, current_path
from dsp.catalog.snapshot import Snapshot, SnapshotError, write_snapshot
from dsp.catalog.store import current_revision, load_catalog, open_catalog

KEEP = 5
POLL_S = 0.25  # how often `publish_if_changed` is worth calling


def catalog_path(config: Config) -> Path:
    """The SQLite file of the embedded catalog."""
    return config.path("catalog.db")


class Publisher:
    """Publishes one data directory's catalog, whenever `poll` finds a reason to."""

    def __init__(self, config: Config, engine: Engine | None = None) -> None:
        self.config = config
        self.engine = engine or open_catalog(catalog_path(config))
        self._published: tuple[Path, int, str, int] | None = None  # path, revision, public URL, valid until

    def poll(self, now_s: float | None = None) -> Path | None:
        """Publish if there is something new; the new file, or None. Else cheap: one row and one small file are read."""
        now_s = time.time() if now_s is None else now_s
        revision = current_revision(self.engine)
        if self._is_current(revision, now_s):
            return None
        with _lock(self.config.path("snapshots")):
            if self._is_current(revision, now_s):  # another process was faster
                return None
            return self._publish(now_s)

    def publish(self, now_s: float | None = None) -> Path:
        """Compile and publish now, whether or not something changed; the new file."""
        with _lock(self.config.path("snapshots")):
            return self._publish(time.time() if now_s is None else now_s)

    def _is_current(self, revision: int, now_s: float) -> bool:
        path = current_path(self.config)
        if path is None:
            return False
        if self._published is None or self._published[0] != path:
            try:
                meta = Snapshot.load(path).meta
            except SnapshotError:
                return False
            self._published = (path, meta["revision"], meta["public_url"], meta["valid_until_s"])
        _, published, url, until_s = self._published
        return published == revision and url == self.config.ledger.public_url.rstrip("/") and now_s < until_s

    def _publish(self, now_s: float) -> Path:
        directory = self.config.path("snapshots")
        catalog = load_catalog(self.engine)
        version = max((int(p.stem) for p in directory.glob("*.snap") if p.stem.isdecimal()), default=0) + 1
        arrays, meta = compile_catalog(catalog, version, self.config.ledger.public_url, now_s)
        path = directory / f"{version:06}.snap"
        write_snapshot(path, arrays, meta)
        temporary = directory / f".{CURRENT}.{os.getpid()}"
        temporary.write_text(path.name + "\n")
        temporary.replace(directory / CURRENT)
        for old in sorted(p for p in directory.glob("*.snap") if p.stem.isdecimal())[:-KEEP]:
            old.unlink()  # a worker that still maps it keeps it
        return path


@contextlib.contextmanager
def _lock(directory: Path) -> Iterator[None]:
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed, also by a crash
        yield


def _publisher(config: Config) -> Publisher:
    return _made(msgspec.json.encode(config))


@lru_cache(maxsize=8)
def _made(config: bytes) -> Publisher:
    return Publisher(msgspec.json.decode(config, type=Config))


def publish(config: Config) -> Path:
    """Compile the catalog of ``config.data_dir`` and publish it; the new snapshot's path."""
    return _publisher(config).publish()


def publish_if_changed(config: Config) -> Path | None:
    """`publish` if the catalog changed or the current snapshot is no longer valid; for polling every `POLL_S`."""
    return _publisher(config).poll()
