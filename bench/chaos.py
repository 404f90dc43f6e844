"""`kill -9` of ledger, workers and database at random moments under load; then books and market are compared.

`python -m bench chaos [--kills 200] [--backend sqlite|postgresql] [--seed 1]`. Two workers hold real slices and bid
with real tokens; an exchange that never dies decides, and repeats each notice until it is acknowledged, some several
times, some after expiry, some charging more than was bid. What must hold afterwards: `bench.stage`.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import Progress

from bench.ledgers import BACKENDS, MAX_BID
from bench.stage import LINES, WORKERS, Stage, play

MEAN_GAP_S, QUIET = 0.3, 0.25


def budgets_of(seed: int, kills: int) -> list[int]:
    """Some are gone early, some last."""
    rng = random.Random(seed)
    return [int(MAX_BID * rng.uniform(15, max(60, kills * (i % 4 + 1) * 0.3))) for i in range(LINES)]


def run(backend: str, kills: int, seed: int, progress: Progress | None = None) -> dict[str, Any]:
    """Kill something ``kills`` times."""
    rng = random.Random(seed)
    task = progress.add_task(f"{backend}: kill -9", total=kills) if progress is not None else None

    def act(stage: Stage) -> dict[str, Any]:
        done = {"ledger": 0, "worker": 0, "database": 0}
        while sum(done.values()) < kills:
            # Mostly in the middle of a recovery, now and then after some quiet.
            time.sleep(rng.uniform(2.0, 3.5) if rng.random() < QUIET else rng.expovariate(1 / MEAN_GAP_S))
            done[kill_one(stage, rng)] += 1
            if progress is not None and task is not None:
                progress.advance(task)
        return {"kills": done}

    return play(backend, seed, budgets_of(seed, kills), act)


def kill_one(stage: Stage, rng: random.Random) -> str:
    """End something the hard way, and start it again."""
    victim = rng.choice(["ledger", "ledger", "worker"] + (["database"] * 2 if stage.server is not None else []))
    if victim == "worker":
        stage.restart_worker(rng.randrange(WORKERS))
    elif victim == "ledger":
        stage.kill_ledger()
        time.sleep(rng.uniform(0, 0.2))
        stage.start_ledger()
    elif stage.server is not None:
        stage.server.kill()
        time.sleep(rng.uniform(0, 0.5))
        stage.server.start()
    return victim


def main(args: list[str]) -> int:
    """Run on each backend, print, fail where something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="on each backend")
    parser.add_argument("--backend", choices=BACKENDS, action="append")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="JSON lines only")
    options = parser.parse_args(args)
    fine = True
    with Progress(console=Console(stderr=True)) as progress:
        for backend in options.backend or BACKENDS:
            result = run(backend, options.kills, options.seed, progress)
            fine = fine and not result["wrong"]
            if options.json:
                print(json.dumps(result), flush=True)
            else:
                print(f"{'WRONG' if result['wrong'] else 'right'}: " + ", ".join(f"{k} {v}" for k, v in result.items()))
    return int(not fine)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
