"""Opens the engine that a worker serves, waiting for what it needs: a worker may start before the first catalog."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from dsp.base.config import Config
from dsp.base.logs import logger
from dsp.base.metrics import Metrics
from dsp.base.trace import open_tracer
from dsp.bidder.artf import ArtfEngine
from dsp.bidder.duplicates import open_duplicates
from dsp.bidder.engine import Engine, NotReadyError
from dsp.bidder.plan import PlanError
from dsp.bidder.rta import RtaEngine
from dsp.bidder.shape import open_shaping
from dsp.ingress.decider import Decider

log = logger(__name__)

RETRY_S = 0.25


E = TypeVar("E", Engine, RtaEngine, ArtfEngine)


def open_engine(config: Config, metrics: Metrics, worker: str, stopping: Callable[[], bool]) -> Decider | None:
    """The bidder's engine, warm; None when told to stop while there was no snapshot or model yet."""

    def opened() -> Engine:
        engine = Engine.open(config, metrics=metrics, worker=worker)
        if config.shaping.mode != "none":
            engine.shaping = open_shaping(config, metrics, worker)
        engine.duplicates = open_duplicates(config)
        return engine

    engine = _when_ready(opened, stopping)
    if engine is not None:
        engine.tracer = open_tracer(config.traces, "bidder", worker)
    return engine


def open_rta(config: Config, metrics: Metrics, worker: str, stopping: Callable[[], bool]) -> RtaEngine | None:
    """The RTA engine, likewise."""
    return _when_ready(lambda: RtaEngine.open(config, metrics=metrics, worker=worker), stopping)


def open_artf(config: Config, metrics: Metrics, worker: str, stopping: Callable[[], bool]) -> ArtfEngine | None:
    """The ARTF agent's engine, likewise."""
    return _when_ready(lambda: ArtfEngine.open(config, metrics=metrics), stopping)


def _when_ready(open_: Callable[[], E], stopping: Callable[[], bool]) -> E | None:
    told = ""
    while not stopping():
        try:
            engine = open_()
        except (NotReadyError, PlanError) as error:
            if str(error) != told:
                told = str(error)
                log.warning("waiting", why=told)
            time.sleep(RETRY_S)
        else:
            engine.warm()
            return engine
    return None
