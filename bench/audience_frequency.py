"""What frequency costs the engine: every line item capped against none, in turns in one process.

`python -m bench audience frequency`. The same world twice, 2,000 line items; in one of them every line item has two
caps
and 20,000 of the people have a state of ten impressions. Microseconds a request at a batch of 64, median of turns.
"""

from __future__ import annotations

import argparse
import json
import shutil
from typing import Any

import numpy as np

import bench.world as world_module
from bench.engine import Bench
from bench.procs import SERVER_CPU, pin
from bench.world import NOON_S, Parameters, forget_decisions, make_world
from dsp.audience.frequency import Shown
from dsp.audience.lmdb_frequency import LmdbFrequencyWriter, frequency_path, person_subject
from dsp.catalog.synthetic import synthetic_catalog
from dsp.catalog.types import Cap

BATCH = 64
PEOPLE = 20_000
CAPS = (Cap(3, "day"), Cap(8, "week"))


def main(argv: list[str]) -> int:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(prog="bench audience frequency", description=__doc__)
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=1.0)
    args = parser.parse_args(argv)
    pin(SERVER_CPU)
    plain = _bench(0)
    setattr(world_module, "synthetic_catalog", _capped)  # noqa: B010 (a module's name, for this bench alone)
    capped = _bench(PEOPLE)
    rows = [(plain.turn(BATCH, args.seconds), capped.turn(BATCH, args.seconds)) for _ in range(args.turns)]
    us = np.array([[a["us"], b["us"]] for a, b in rows])
    print(
        json.dumps(
            {
                "measure": "frequency",
                "batch": BATCH,
                "us_uncapped": round(float(np.median(us[:, 0])), 2),
                "us_capped": round(float(np.median(us[:, 1])), 2),
                "ratio": round(float(np.median(us[:, 1] / us[:, 0])), 4),
            }
        )
    )
    plain.close()
    capped.close()
    forget_decisions()
    return 0


def _capped(*args: Any, **kwargs: Any) -> Any:
    catalog = synthetic_catalog(*args, **kwargs)
    for item in catalog.line_items:
        item.frequency = CAPS
    return catalog


def _bench(people: int) -> Bench:
    world = make_world(Parameters(line_items=2_000, people=100_000 + people, requests=2_000))
    path = frequency_path(world.config.root)
    shutil.rmtree(path, ignore_errors=True)
    if people:
        writer = LmdbFrequencyWriter(path)
        for number in range(1, people + 1):
            shown = [Shown(NOON_S - 3_600 * k - 60, k + 1, 2_000_000 + k, 1, 1, 0) for k in range(10)]
            writer.count([(person_subject(number), one) for one in shown])
        writer.close()
    return Bench(world, "protobuf")
