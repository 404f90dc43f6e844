"""`Engine.decide` alone, no sockets: µs per request by batch size and stage, and A against B in turns.

`python -m bench engine`. With ``--tree-b PATH`` (another checkout, say a git worktree of the commit before) or
``--set-b name=value`` (a setting of the bidder) two processes measure in turns on the same core, so that whatever the
machine does meets both; reported is the ratio B/A of the pairs of turns: median and bootstrap confidence interval.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np
from msgspec.structs import replace

from bench.mix import open_engine
from bench.procs import SERVER_CPU, pin
from bench.stages import StageMeter
from bench.world import Parameters, World, forget_decisions, make_world
from dsp.base.metrics import Metrics
from dsp.bidder.slices import Slices
from dsp.catalog.profile import shipped
from dsp.openrtb.columns import FMT_JSON, FMT_PROTOBUF
from dsp.openrtb.dialect import Dialects, compile_dialects

BATCHES = (1, 8, 32, 64)
ROOT = Path(__file__).resolve().parents[1]
PARAMETERS = Parameters(people=100_000, requests=2_000)
FORMATS = {"json": FMT_JSON, "protobuf": FMT_PROTOBUF}
Row = dict[str, Any]


class Bench:
    """An engine and the world's requests in one format, measured in short turns."""

    def __init__(self, world: World, fmt: str, slices: Slices | None = None) -> None:
        self.metrics = Metrics.memory("bidder")
        self.engine = open_engine(world, self.metrics, log_decisions=True, slices=slices)
        self.engine.warm()
        self.format = FORMATS[fmt]
        self.nbr = fmt == "protobuf"  # as gRPC answers
        self.bodies = [item.pb if fmt == "protobuf" else item.json for item in world.items]
        self.exchanges = [self.engine.exchange_of(item.exchange) for item in world.items]
        self.stages = StageMeter(self.metrics)
        self._at = 0

    def turn(self, batch: int, seconds: float) -> Row:
        """Decide batches of one size for so long: the median over batches and the mean, µs per request."""
        decide, bodies, exchanges = self.engine.decide, self.bodies, self.exchanges
        formats = [self.format] * batch
        clock_ns = time.perf_counter_ns
        spent: list[int] = []
        cpu_s = time.process_time()
        self.stages.start()
        until = clock_ns() + int(seconds * 1e9)
        while clock_ns() < until:
            at = self._at
            self._at = at + batch if at + 2 * batch <= len(bodies) else 0
            part, asked = bodies[at : at + batch], exchanges[at : at + batch]
            began = clock_ns()
            decide(part, formats, asked, None, self.nbr)
            spent.append(clock_ns() - began)
        cpu_s = time.process_time() - cpu_s
        us = np.array(spent) / 1e3 / batch
        return {
            "batch": batch,
            "requests": len(spent) * batch,
            "us": round(float(np.median(us)), 2),
            "cpu_us": round(cpu_s * 1e6 / (len(spent) * batch), 3),  # all threads
            "mean_us": round(float(us.mean()), 2),
            "p99_batch_us": round(float(np.percentile(us, 99)) * batch, 1),
            "stages_us": self.stages.read(),
        }

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()


def serve(args: argparse.Namespace) -> None:
    """A child: build once, then answer each line "batch seconds" on standard input with a JSON line."""
    pin(SERVER_CPU)
    world = make_world(PARAMETERS)
    bidder: dict[str, Any] = {}
    for setting in args.set:
        name, _, value = setting.partition("=")
        bidder[name] = msgspec.json.decode(value.encode())
    if bidder:
        config = replace(world.config, bidder=replace(world.config.bidder, **bidder))
        world = World(config, world.catalog, world.items)
    bench = Bench(world, args.format)
    plan = bench.engine.plan
    plain = spoken = plan.dialects
    if args.profile:
        spoken = Dialects(*compile_dialects([(shipped(args.profile).request, {})] * len(plan.exchange_names)))
    print("ready", flush=True)
    for line in sys.stdin:
        batch, seconds, *in_dialect = line.split()
        plan.dialects = spoken if in_dialect else plain
        print(json.dumps(bench.turn(int(batch), float(seconds))), flush=True)
    bench.close()


class Child:
    """`serve` in another process, of this tree or another."""

    def __init__(self, tree: Path, fmt: str, settings: Sequence[str], profile: str = "") -> None:
        command = [sys.executable, "-m", "bench.engine", "--serve", "--format", fmt]
        for setting in settings:
            command += ["--set", setting]
        if profile:
            command += ["--profile", profile]
        environment = {**os.environ, "PYTHONPATH": str(tree)}
        self._process = subprocess.Popen(
            command, cwd=tree, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if self._line() != "ready":
            raise SystemExit(f"the engine of {tree} did not start")

    def _line(self) -> str:
        out: IO[str] | None = self._process.stdout
        assert out is not None
        return out.readline().strip()

    def turn(self, batch: int, seconds: float, dialect: bool = False) -> Row:
        """One turn; with ``dialect`` every exchange speaks as the child's profile says."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{batch} {seconds}{' dialect' if dialect else ''}\n")
        self._process.stdin.flush()
        row: Row = json.loads(self._line())
        return row

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


def summarise(turns: list[Row]) -> Row:
    """Medians over the turns of one batch size."""
    names = list(turns[0]["stages_us"])
    return {
        "batch": turns[0]["batch"],
        "us": round(float(np.median([turn["us"] for turn in turns])), 2),
        "best_us": min(turn["us"] for turn in turns),
        "worst_us": max(turn["us"] for turn in turns),
        "stages_us": {
            name: round(float(np.median([turn["stages_us"][name] for turn in turns])), 2)
            for name in names
            if name != "batch"
        },
    }


def ratio(a: Sequence[float], b: Sequence[float], seed: int = 1, draws: int = 4000) -> Row:
    """B/A of paired turns: the median, and its 95 % bootstrap interval."""
    pairs = np.asarray(b, float) / np.asarray(a, float)
    picks = np.random.default_rng(seed).integers(0, len(pairs), (draws, len(pairs)))
    low, high = np.percentile(np.median(pairs[picks], axis=1), [2.5, 97.5])
    return {"ratio": round(float(np.median(pairs)), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def main(argv: list[str] | None = None) -> int:
    """Measure one tree, or two in turns."""
    parser = argparse.ArgumentParser(prog="bench engine", description=__doc__)
    parser.add_argument("--format", choices=sorted(FORMATS), default="protobuf")
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=0.5, help="of a turn")
    parser.add_argument("--batch", type=int, action="append", help=f"default {BATCHES}")
    parser.add_argument("--tree-b", type=Path, help="another checkout to compare with")
    parser.add_argument("--set-b", action="append", default=[], metavar="NAME=VALUE", help="a bidder setting of B")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a bidder setting of A")
    parser.add_argument("--profile", default="", help=argparse.SUPPRESS)  # spoken when a turn asks for it
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.serve:
        serve(args)
        return 0
    forget_decisions()
    children = [Child(ROOT, args.format, args.set)]
    if args.tree_b is not None or args.set_b:
        children.append(Child((args.tree_b or ROOT).resolve(), args.format, args.set_b))
    for batch in args.batch or BATCHES:
        turns: list[list[Row]] = [[] for _ in children]
        for number in range(args.turns):
            order = range(len(children)) if number % 2 == 0 else reversed(range(len(children)))
            for k in order:
                turns[k].append(children[k].turn(batch, args.seconds))
        row: Row = {name: summarise(each) for name, each in zip("AB", turns, strict=False)}
        if len(children) == 2:
            row |= ratio([turn["us"] for turn in turns[0]], [turn["us"] for turn in turns[1]])
        print(json.dumps(row), flush=True)
    for child in children:
        child.close()
    forget_decisions()
    return 0


if __name__ == "__main__":
    sys.exit(main())
