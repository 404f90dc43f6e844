"""One worker process: one front, one engine, one file of metrics.

`python -m dsp.ingress.worker http|grpc|rta|artf SLOT --config FILE`. SIGTERM and SIGINT drain it. What a
supervisor needs to know is in ``run/bidder-<kind>-<slot>.json`` once it serves.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import pkgutil
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from dsp.base.config import Config, load_config
from dsp.base.logs import logger, start_logging
from dsp.base.metrics import Metrics
from dsp.ingress.decider import Decider, poll
from dsp.ingress.rehearsal import rehearse
from dsp.ingress.scheduling import yield_to_threads

log = logger(__name__)

ENGINE = "dsp.ingress.bidding:open_engine"
GC_S = 5.0
GC_FULL_EVERY = 12  # of those: what a swapped snapshot may leave behind
ENGINES = {"rta": "dsp.ingress.bidding:open_rta", "artf": "dsp.ingress.bidding:open_artf"}
KINDS = ("http", "grpc", "rta", "artf")


class Front(Protocol):
    """What serves: `dsp.ingress.http`, `dsp.ingress.grpc_native` or `dsp.ingress.grpcio_front`."""

    port: int

    def run(self, stopping: Any, idle: Any) -> None:
        """Serve until told to stop, then drain."""


class _Stop:
    """Set by a signal, or when the process that started this one is gone."""

    def __init__(self) -> None:
        self._parent = os.getppid()
        self._asked = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def _ask(self, *_: object) -> None:
        self._asked = True

    def __call__(self) -> bool:
        return self._asked or os.getppid() != self._parent


class _Collector:
    """Garbage collection at times of our choosing: what a batch allocates dies by its reference count."""

    def __init__(self) -> None:
        gc.collect()
        gc.freeze()
        gc.disable()
        self._next_s = time.monotonic() + GC_S
        self._runs = 0

    def __call__(self) -> None:
        now_s = time.monotonic()
        if now_s > self._next_s:
            self._next_s = now_s + GC_S
            self._runs += 1
            gc.collect(2 if self._runs % GC_FULL_EVERY == 0 else 0)


def open_front(kind: str, config: Config, engine: Any, metrics: Metrics) -> Front:
    """The front of that kind, listening. Raises OSError when the port is taken."""
    if kind == "rta":
        from dsp.ingress.rta_http import RtaFront

        return RtaFront(engine, config)
    if kind == "artf":
        from dsp.ingress.artf_grpc import ArtfFront

        return ArtfFront(engine, config, metrics)
    if kind == "http":
        from dsp.ingress.http import HttpFront

        return HttpFront(engine, config.bidder, metrics)
    if config.bidder.grpc_front == "grpcio":
        from dsp.ingress.grpcio_front import GrpcioFront

        return GrpcioFront(engine, config.bidder, metrics)
    from dsp.ingress.grpc_native import GrpcNativeFront

    return GrpcNativeFront(engine, config.bidder, metrics)


def run_worker(config: Config, kind: str, slot: int, engine: str = ENGINE) -> None:
    """Serve until told to stop. ``engine`` is ``module:function`` (config, metrics, worker, stopping) -> Decider."""
    stopping = _Stop()
    name = f"bidder-{kind}-{slot}"
    run = config.path("run")
    metrics = Metrics.create(run / f"{name}.metrics", "bidder")
    decider: Decider | None = pkgutil.resolve_name(engine)(config, metrics, f"{kind}{slot}", stopping)
    if decider is None:
        return
    if kind not in ENGINES:
        rehearse(kind, partial(open_front, kind), config, decider)
    poll(decider)
    collector = _Collector()
    front = open_front(kind, config, decider, metrics)
    ready = run / f"{name}.json"
    temporary = ready.with_suffix(".new")
    temporary.write_text(json.dumps({"kind": kind, "pid": os.getpid(), "port": front.port}))
    temporary.replace(ready)
    metrics.gauge("dsp_workers")[0] = 1
    log.info("serving", port=front.port)
    serve: Any = front.run
    if kind == "http" or (kind == "grpc" and config.bidder.grpc_front == "native"):
        serve = partial(serve, fresh=True)
    if kind == "grpc":
        yield_to_threads()  # not earlier: the rehearsal's front is gone, the real one's threads are there
    try:
        serve(stopping, collector)
    finally:
        ready.unlink(missing_ok=True)
        decider.close()
        metrics.clear_gauges()
        log.info("ended")


def main() -> None:
    """The command line of a worker."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("slot", type=int)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--cpu", type=int, default=-1, help="pin to this core")
    parser.add_argument(
        "--engine", default=ENGINE, help="module:function that opens what decides (measurements, tests)"
    )
    args = parser.parse_args()
    if args.engine == ENGINE:
        args.engine = ENGINES.get(args.kind, ENGINE)
    if args.cpu >= 0:
        os.sched_setaffinity(0, {args.cpu})  # before there are threads
    config = load_config(args.config)
    start_logging(config.logs, args.kind if args.kind in ENGINES else "bidder", f"{args.kind}{args.slot}")
    run_worker(config, args.kind, args.slot, args.engine)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # nothing is left to do, and threads of servers that linger must not keep the process


if __name__ == "__main__":
    main()
