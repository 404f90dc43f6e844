"""One bidder worker as production runs it, but with a generous ledger and a clock that starts on a Wednesday at noon.

`python -m bench.worker grpc|http --data-dir DIR --port N`. Decisions are logged, profiles read, budgets reserved
and synced: all stages are on.
"""

from __future__ import annotations

import argparse
import logging
import signal
import time
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from bench.generous import GenerousLedger
from bench.world import NOON_S, PUBLIC_URL
from dsp.base.config import BidderConfig, Config, LedgerConfig
from dsp.base.metrics import Metrics
from dsp.bidder.engine import Engine
from dsp.bidder.slices import Slices
from dsp.catalog.layout import LI_ID
from dsp.catalog.publish import current_path
from dsp.catalog.snapshot import Snapshot
from dsp.ingress.grpc_native import GrpcNativeFront
from dsp.ingress.grpcio_front import GrpcioFront
from dsp.ingress.http import HttpFront

FRONTS: dict[str, Any] = {"grpc": GrpcNativeFront, "grpcio": GrpcioFront, "http": HttpFront}


def metrics_path(data_dir: Path, front: str) -> Path:
    """Where the worker of a front counts."""
    return data_dir / "run" / f"bidder-bench-{front}.metrics"


def open_worker(config: Config, front: str, metrics: Metrics, noon: bool) -> Engine:
    """The engine of one worker; with ``noon`` its clock starts at NOON_S."""
    path = current_path(config)
    if path is None:
        raise SystemExit(f"{config.data_dir}: no snapshot")
    snapshot = Snapshot.load(path)
    line_items = snapshot.li_i[:, LI_ID]
    offset_ns = int(NOON_S * 1e9) - time.time_ns() if noon else 0
    return Engine.open(
        config,
        slices=Slices(config, GenerousLedger(line_items), worker=f"bench-{front}"),
        metrics=metrics,
        clock=lambda: time.time_ns() + offset_ns,
        worker=f"bench-{front}",
    )


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("front", choices=sorted(FRONTS))
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--no-decisions", action="store_true")
    parser.add_argument("--now", action="store_true", help="the real time instead of Wednesday noon")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    bidder = BidderConfig(
        http_port=args.port, grpc_port=args.port, connection_max_age_s=0.0, log_decisions=not args.no_decisions,
        http_workers=int(args.front == "http"), grpc_workers=int(args.front != "http"),
    )  # fmt: skip
    config = replace(Config(), data_dir=str(args.data_dir), bidder=bidder, ledger=LedgerConfig(public_url=PUBLIC_URL))
    metrics = Metrics.create(metrics_path(args.data_dir, args.front), "bidder")
    engine = open_worker(config, args.front, metrics, noon=not args.now)
    engine.warm()
    stopped: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda signum, _: stopped.append(signum))
    front = FRONTS[args.front](engine, config.bidder, metrics)
    front.run(lambda: bool(stopped))
    engine.close()


if __name__ == "__main__":
    main()
