"""Erasure at scale: one person out of many, time to delete and wipe, then a search for traces in every file.

`python -m bench audience erase --people 1000000` loads people with the bench's own file, changes some of them so that
old versions lie about, erases a few one by one, and prints how long each took and what the search found.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time

import numpy as np

from bench.audience import ifas, make_file
from bench.procs import OUT, SERVER_CPU, pin
from dsp.audience.load import load_profiles
from dsp.audience.person import People, keys_of_identifier
from dsp.base.config import Config

PEOPLE = 5


def main(argv: list[str]) -> int:
    """Measure and print JSON lines; 1 where a trace was left."""
    parser = argparse.ArgumentParser(prog="bench audience erase", description=__doc__)
    parser.add_argument("--people", type=int, default=1_000_000)
    args = parser.parse_args(argv)
    pin(SERVER_CPU)
    OUT.mkdir(parents=True, exist_ok=True)
    config = Config(data_dir=str(OUT / "audience-erase"))
    shutil.rmtree(config.root, ignore_errors=True)
    path = OUT / "people-erase.parquet"
    make_file(path, args.people)
    load_profiles(config, path)
    make_file(path, min(20_000, args.people))
    load_profiles(config, path)  # these have an older version now, in freed pages
    traces = 0
    seconds: list[float] = []
    for number in range(PEOPLE):
        text = ifas(np.array([number * 3000 % args.people]))[0].decode()
        keys = keys_of_identifier(config, text, "ifa")
        began = time.perf_counter()
        with People(config) as people:
            done = people.forget(keys, text)
        seconds.append(time.perf_counter() - began)
        assert done.profiles == 1, done
        traces += len(done.traces)
    row = {
        "measure": "erase",
        "people": args.people,
        "erased": PEOPLE,
        "seconds_each": round(float(np.median(seconds)), 2),
        "files": done.files,
        "searched_mb": round(done.bytes / 1e6, 1),
        "traces": traces,
    }
    print(json.dumps({**row, "bar": "no trace", "held": traces == 0}), flush=True)
    shutil.rmtree(config.root, ignore_errors=True)
    path.unlink()
    return 0 if traces == 0 else 1
