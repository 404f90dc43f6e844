"""What grants and sync cost a bidder: CPU per request with a real ledger against fixed budgets, in turns.

`python -m bench grants [--turns 20]`. Two processes decide the standard mix in batches of 32 on core 0, one after the
other: A with budgets that never end and nobody to ask, B with slices of a real ledger (core 1) that it syncs with over
gRPC four times a second. CPU is of all threads of the process. Reported is B/A of the pairs of turns, median and 95 %
bootstrap interval, and that B bids as often as A. Bar: the interval's upper end at most 1.03.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np

from bench.engine import PARAMETERS, Bench, Row, ratio
from bench.procs import LOAD_CPU, SERVER_CPU, Server, free_port, pin
from bench.world import World, forget_decisions, make_world, publish
from dsp.base.config import Config
from dsp.bidder.slices import Slices

BAR = 1.03
BATCH = 32
BIDS_BAR = 0.98  # of A's bid rate
WARM_TURNS = 2
AGAIN_S = 1.0


def serve(config_file: str) -> None:
    """A child: build once, then answer each line "seconds" with a JSON line. With a configuration: a real ledger."""
    pin(SERVER_CPU)
    world = make_world(PARAMETERS)
    slices = None
    if config_file:
        config = msgspec.json.decode(Path(config_file).read_bytes(), type=Config)
        slices = Slices(config, worker="bench")
    bench = Bench(world, "protobuf", slices)
    print("ready", flush=True)
    bids = bench.metrics.counter("dsp_bids_total")
    for line in sys.stdin:
        bench.turn(BATCH, AGAIN_S)  # slices have shrunk while the other one had the core
        before = int(np.asarray(bids).sum())
        row = bench.turn(BATCH, float(line))
        row["bids"] = int(np.asarray(bids).sum()) - before
        row |= {"syncs": bench.engine.slices.syncs, "errors": bench.engine.slices.errors}
        print(json.dumps(row), flush=True)
    bench.close()


class Child:
    """`serve` in another process."""

    def __init__(self, config_file: str) -> None:
        command = [sys.executable, "-m", "bench.grants", "--serve", config_file]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "ready":
            raise SystemExit("the engine did not start")

    def turn(self, seconds: float) -> Row:
        """One turn."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        row: Row = json.loads(self._process.stdout.readline())
        return row

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


def ledger_for(world: World, root: Path) -> Config:
    """A configuration whose ledger has the world's line items and keys, and a directory of its own.

    Its line items are not paced: pacing would change what is bid, and so what is compared.
    """
    source = Path(world.config.data_dir)
    if (source / "secrets").exists():
        shutil.copytree(source / "secrets", root / "secrets")
    ledger = msgspec.structs.replace(world.config.ledger, port=free_port(), grpc_port=free_port())
    config = Config(data_dir=str(root), bidder=world.config.bidder, ledger=ledger)
    items = [msgspec.structs.replace(item, pacing="asap") for item in world.catalog.line_items]
    publish(config, msgspec.structs.replace(world.catalog, line_items=items))
    (root / "config.json").write_bytes(msgspec.json.encode(config))
    return config


def measure(turns: int, seconds: float) -> dict[str, Any]:
    """All turns."""
    world = make_world(PARAMETERS)
    root = Path(tempfile.mkdtemp(prefix="dsp-grants-"))
    try:
        config = ledger_for(world, root)
        file = str(root / "config.json")
        with Server("ledger", "dsp.ledger", [file], config.ledger.port, cpu=LOAD_CPU):
            url = f"http://127.0.0.1:{config.ledger.port}/readyz"
            while httpx.get(url, trust_env=False).status_code != 200:
                time.sleep(0.05)
            children = [Child(""), Child(file)]
            rows: list[list[Row]] = [[], []]
            for number in range(turns + WARM_TURNS):
                for k in (0, 1) if number % 2 == 0 else (1, 0):
                    row = children[k].turn(seconds)
                    if number >= WARM_TURNS:
                        rows[k].append(row)
            for child in children:
                child.close()
    finally:
        shutil.rmtree(root, ignore_errors=True)
        forget_decisions()
    a, b = rows
    cpu = [[row["cpu_us"] for row in each] for each in (a, b)]
    rate = [sum(row["bids"] for row in each) / sum(row["requests"] for row in each) for each in (a, b)]
    return {
        **ratio(cpu[0], cpu[1]),
        "bar": BAR,
        "a_cpu_us": round(float(np.median(cpu[0])), 2),
        "b_cpu_us": round(float(np.median(cpu[1])), 2),
        "bid_rate_ratio": round(rate[1] / rate[0], 4),
        "syncs": b[-1]["syncs"] - b[0]["syncs"],
        "sync_errors": b[-1]["errors"],
        "turns": turns,
    }


def main(args: list[str]) -> int:
    """Measure, print, fail above the bar."""
    parser = argparse.ArgumentParser(prog="python -m bench grants", description=__doc__)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a turn")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args(args)
    if options.serve is not None:
        serve(options.serve)
        return 0
    result = measure(options.turns, options.seconds)
    print(json.dumps(result))
    return int(result["high"] > BAR or result["bid_rate_ratio"] < BIDS_BAR or result["sync_errors"] > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
