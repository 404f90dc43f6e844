"""A snapshot of 100,000 line items: how long it takes to load, and the index look-up per request.

`python -m bench snapshot`. Loading is what a worker does when a new snapshot appears: map the file, build the plan,
touch the index. Matching is the target stage (bitmaps for every request and imp, and the ranking of what they leave)
measured in the engine on market requests, beside the same at 5,000 line items.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np

from bench.engine import Bench
from bench.procs import SERVER_CPU, pin
from bench.world import Parameters, forget_decisions, make_world
from dsp.base.mapped import touch
from dsp.bidder.plan import Plan
from dsp.catalog.current import current_path
from dsp.catalog.snapshot import Snapshot

PARAMETERS = Parameters(people=100_000, requests=2_000)
LOAD_BAR_S = 5.0
MATCH_BAR_US = 60.0


def load_seconds(path: Any, repeats: int) -> list[float]:
    """Map, plan and touch, as often as asked."""
    out = []
    for _ in range(repeats):
        began = time.perf_counter()
        plan = Plan(Snapshot.load(path))
        touch(plan.rows)
        touch(plan.dim_keys)
        out.append(time.perf_counter() - began)
    return out


def measure(line_items: int, turns: int, seconds: float) -> dict[str, Any]:
    """One size of catalog."""
    began = time.perf_counter()
    world = make_world(replace(PARAMETERS, line_items=line_items))
    made_s = time.perf_counter() - began
    path = current_path(world.config)
    assert path is not None
    loads = load_seconds(path, 5)
    bench = Bench(world, "protobuf")
    rows = [bench.turn(32, seconds) for _ in range(turns)]
    bench.close()
    return {
        "line_items": line_items,
        "file_mb": round(path.stat().st_size / 2**20, 1),
        "made_s": round(made_s, 1),
        "first_load_s": round(loads[0], 3),
        "load_s": round(float(np.median(loads)), 3),
        "target_us": round(float(np.median([row["stages_us"]["target"] for row in rows])), 2),
        "decide_us": round(float(np.median([row["us"] for row in rows])), 2),
    }


def main(argv: list[str] | None = None) -> int:
    """Measure and print JSON lines; 1 where a bar was missed."""
    parser = argparse.ArgumentParser(prog="bench snapshot", description=__doc__)
    parser.add_argument("--line-items", type=int, default=100_000)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5)
    args = parser.parse_args(argv)
    pin(SERVER_CPU)
    small = measure(5_000, args.turns, args.seconds)
    print(json.dumps(small), flush=True)
    large = measure(args.line_items, args.turns, args.seconds)
    held = large["first_load_s"] <= LOAD_BAR_S and large["target_us"] <= MATCH_BAR_US
    print(json.dumps({**large, "bar": f"load ≤ {LOAD_BAR_S:.0f} s, match ≤ {MATCH_BAR_US:.0f} µs", "held": held}))
    forget_decisions()
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
