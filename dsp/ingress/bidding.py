"""Opens the engine that a worker serves, waiting for what it needs: a worker may start before the first catalog."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from dsp.base.config import Config
from dsp.base.metrics import Metrics
from dsp.bidder.engine import Engine, NotReadyError
from dsp.ingress.decider import Decider

log = logging.getLogger(__name__)

RETRY_S = 0.25


def open_engine(config: Config, metrics: Metrics, worker: str, stopping: Callable[[], bool]) -> Decider | None:
    """The bidder's engine, warm; None when told to stop while there was no snapshot or model yet."""
    told = ""
    while not stopping():
        try:
            engine = Engine.open(config, metrics=metrics, worker=worker)
        except NotReadyError as error:
            if str(error) != told:
                told = str(error)
                log.warning("waiting: %s", told)
            time.sleep(RETRY_S)
        else:
            engine.warm()
            return engine
    return None
