"""Loading what may not be there yet: the caller goes on with what it has, and tries again until it works.

A model on a shared volume can arrive after the file that names it, and a disk can fail for a while; neither may end a
worker, nor keep it from a model that loads a minute later. Each reason is reported once, not at every try.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from dsp.model.registry import ModelError

log = logging.getLogger(__name__)

EVERY_NS = 5_000_000_000  # between two tries of what failed: a try may cost some milliseconds


class Retry:
    """One thing to load; ``what`` names it in the log."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._reason = ""
        self._tried_ns = 0

    def attempt(self, load: Callable[[], None], now_ns: int) -> None:
        """Call ``load`` unless it failed less than EVERY_NS ago; a `ModelError` is reported and kept here."""
        if self._reason and 0 <= now_ns - self._tried_ns < EVERY_NS:  # a clock set back delays nothing
            return
        try:
            load()
        except ModelError as error:
            if str(error) != self._reason:
                log.warning("%s: %s; going on without it, and trying again", self._what, error)
            self._reason, self._tried_ns = str(error), now_ns
        else:
            self._reason = ""
