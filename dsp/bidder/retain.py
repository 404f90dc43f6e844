"""The decision logs of this machine's workers, kept as `retention` says."""

from __future__ import annotations

import time

from dsp.base.config import Config
from dsp.log.retain import delete_old


def delete_old_decisions(config: Config) -> tuple[int, int]:
    """Delete what is past its days or beyond its size; how many files and bytes went. Raises OSError."""
    rules = config.retention
    return delete_old(config.path("log", "decisions"), rules.decisions_days, int(rules.decisions_gb * 1e9), time.time())
