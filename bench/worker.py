"""What a benchmark's worker decides with: production's worker and engine, a generous ledger, and if wanted a set clock.

Handed to `dsp.ingress.worker` as ``--engine``. Decisions are logged, profiles read, budgets reserved and synced: all
stages are on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import msgspec
import yaml

from bench.echo import read_answers
from bench.generous import GenerousLedger
from bench.procs import OUT, Server, free_port
from bench.world import NOON_S
from dsp.base.config import Config
from dsp.base.metrics import Metrics
from dsp.bidder.answer import BID, NO_BID
from dsp.bidder.duplicates import open_duplicates
from dsp.bidder.engine import Engine
from dsp.bidder.slices import Slices
from dsp.catalog.current import current_path
from dsp.catalog.layout import LI_ID
from dsp.catalog.snapshot import Snapshot
from dsp.ingress.decider import Decider

SLOT = 0


def open_now(config: Config, metrics: Metrics, worker: str, stopping: Callable[[], bool]) -> Decider:
    """The engine by the real clock."""
    return _open(config, metrics, worker, 0)


def open_at_noon(config: Config, metrics: Metrics, worker: str, stopping: Callable[[], bool]) -> Decider:
    """The engine by a clock that starts on a Wednesday at noon, so that dayparts do not tell runs apart."""
    return _open(config, metrics, worker, int(NOON_S * 1e9) - time.time_ns())


def open_echo(config: Config, metrics: Metrics, worker: str, stopping: Callable[[], bool]) -> Decider:
    """Production's engine that decides nothing: request i gets the i-th answer of `answers_path`."""
    engine = _open(config, metrics, worker, 0)
    answers = read_answers(answers_path(worker.rstrip("0123456789")))
    turn = cycle([(BID, answer) if answer else (NO_BID, b"") for answer in answers])
    engine.decide = lambda bodies, *_: list(islice(turn, len(bodies)))  # type: ignore[method-assign]
    return engine


def answers_path(front: str) -> Path:
    """Where the answers that an echo gives lie."""
    return OUT / f"answers-{front}.bin"


def _open(config: Config, metrics: Metrics, worker: str, offset_ns: int) -> Engine:
    path = current_path(config)
    if path is None:
        raise SystemExit(f"{config.data_dir}: no snapshot")
    slices = Slices(config, GenerousLedger(Snapshot.load(path).li_i[:, LI_ID]), worker=worker)
    engine = Engine.open(
        config, slices=slices, metrics=metrics, clock=lambda: time.time_ns() + offset_ns, worker=worker
    )
    engine.duplicates = open_duplicates(config)
    engine.warm()
    return engine


def metrics_path(config: Config, front: str) -> Path:
    """Where the worker of a front ("grpc" or "http") counts."""
    return config.path("run", f"bidder-{front}-{SLOT}.metrics")


def start_worker(
    config: Config, front: str, *, cpu: int | None, noon: bool, echo: bool = False, **bidder: Any
) -> Server:
    """A worker for ``front`` ("grpc", "grpcio" or "http") on a free port; ``bidder`` are settings of its config."""
    port = free_port()
    kind = "http" if front == "http" else "grpc"
    settings = {
        "data_dir": config.data_dir,
        "ledger": {"public_url": config.ledger.public_url},
        "audience": msgspec.to_builtins(config.audience),
        "bidder": {
            f"{kind}_port": port,
            "grpc_front": "grpcio" if front == "grpcio" else "native",
            "http_workers": int(kind == "http"),
            "grpc_workers": int(kind == "grpc"),
            "connection_max_age_s": 0.0,
            **bidder,
        },
    }
    file = config.path("run", f"{'echo' if echo else 'worker'}-{front}.yaml")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(settings))
    engine = f"bench.worker:{'open_echo' if echo else 'open_at_noon' if noon else 'open_now'}"
    args = [kind, str(SLOT + 1 if echo else SLOT), "--config", str(file), "--engine", engine]
    if cpu is not None:
        args += ["--cpu", str(cpu)]
    return Server(f"{'echo' if echo else 'worker'}-{front}-{port}", "dsp.ingress.worker", args, port, cpu=cpu)
