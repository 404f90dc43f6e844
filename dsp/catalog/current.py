"""Which snapshot file is the current one: all that who reads snapshots needs to know of publishing."""

from __future__ import annotations

from pathlib import Path

from dsp.base.config import Config

CURRENT = "CURRENT"  # the file beside the snapshots that names it


def current_path(config: Config) -> Path | None:
    """The snapshot file that workers should use, or None while nothing is published."""
    try:
        name = config.path("snapshots", CURRENT).read_text().strip()
    except FileNotFoundError:
        return None
    return config.path("snapshots", name) if name else None
