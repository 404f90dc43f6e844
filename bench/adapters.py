"""What exchange profiles cost a bidder: CPU per request with a dialect against none, in turns.

`python -m bench adapters [--tree-a PATH]`. One process decides the standard mix in batches of 64 on one core, in turns
A on plain OpenRTB and B with every exchange in a profile's dialect, so that each key which OpenRTB doesn't know is
looked up in it. Turns are short, so that both of a pair meet one state of a shared core. With ``--tree-a`` A is another
process on another checkout, the commit before say, and both speak plain OpenRTB. Reported is B/A of the pairs of turns,
median and 95 % bootstrap interval. Bar: the upper end at most 1.03.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from bench.engine import ROOT, Child, Row, ratio
from bench.world import forget_decisions
from dsp.catalog.profile import shipped, shipped_names

BAR = 1.03
BATCH = 64
WARM_TURNS = 2


def measure(tree_a: Path, profile: str, fmt: str, turns: int, seconds: float) -> Row:
    """One comparison."""
    ours = Child(ROOT, fmt, (), profile)
    children = [ours if profile else Child(tree_a, fmt, ()), ours]
    cpu_us: list[list[float]] = [[], []]
    for number in range(WARM_TURNS + turns):
        for k in (0, 1) if number % 2 == 0 else (1, 0):
            row = children[k].turn(BATCH, seconds, dialect=bool(profile) and k == 1)
            if number >= WARM_TURNS:
                cpu_us[k].append(row["cpu_us"])
    for child in dict.fromkeys(children):
        child.close()
    a, b = (round(float(np.median(each)), 2) for each in cpu_us)
    named = {"bench": "adapters", "profile": profile or "none", "format": fmt, "tree_a": str(tree_a != ROOT)}
    return {**named, **ratio(cpu_us[0], cpu_us[1]), "bar": BAR, "a_cpu_us": a, "b_cpu_us": b, "turns": turns}


def main(args: list[str] | None = None) -> int:
    """Measure, print, fail above the bar."""
    parser = argparse.ArgumentParser(prog="python -m bench adapters", description=__doc__)
    parser.add_argument("--turns", type=int, default=450)
    parser.add_argument("--seconds", type=float, default=0.1, help="of a turn")
    parser.add_argument("--profile", action="append", choices=shipped_names(), help="default: those with a dialect")
    parser.add_argument("--tree-a", type=Path, help="another checkout to compare plain OpenRTB with")
    options = parser.parse_args(args)
    forget_decisions()
    if options.tree_a:
        jobs = [("", "json"), ("", "protobuf")]
    else:
        wanted = options.profile or [n for n in shipped_names() if shipped(n).request != shipped("openrtb").request]
        jobs = [(name, shipped(name).wire) for name in wanted]
    failed = False
    for profile, fmt in jobs:
        row = measure((options.tree_a or ROOT).resolve(), profile, fmt, options.turns, options.seconds)
        print(json.dumps(row), flush=True)
        failed = failed or row["high"] > BAR
    forget_decisions()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
