"""How many notices the ledger makes durable in a second on one core: singly over HTTP, and in bulk.

`python -m bench ledger [--backend sqlite|postgresql] [--seconds 5]`. Every notice is a billing notice of a bid never
seen before, the dearest kind: an event, an entry, four accounts. The ledger process has core 0; the generator, and
PostgreSQL where that is the backend, share core 1. Every answer is checked, and so is that the books hold what was
acknowledged, to the micro.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
from rich.console import Console
from rich.progress import Progress

from bench.ledgers import BACKENDS, ledger_config, publish, seal
from bench.load import HttpLoad, Request
from bench.machine import Meter, facts
from bench.procs import LOAD_CPU, SERVER_CPU, Server, pin
from dsp.base.config import Config
from dsp.base.token import load_signer

BARS = {"sqlite": 5_000, "postgresql": 3_000}
LINES = 1_000
PRICE_MICROS = 7_500
BULK = 1_000
CONNECTIONS = 64
_BLOCKS = count(1)  # of bid ids


def measure(backend: str, seconds: float, windows: int, progress: Progress) -> list[dict[str, Any]]:
    """Both ways of sending, on one backend."""
    with ledger_config(backend) as (config, _):
        publish(config, [10**12] * LINES)
        file = Path(config.data_dir) / "config.json"
        file.write_bytes(msgspec.json.encode(config))
        with Server("ledger", "dsp.ledger", [str(file)], config.ledger.port, cpu=SERVER_CPU) as server:
            client = httpx.Client(base_url=f"http://127.0.0.1:{config.ledger.port}", timeout=30, trust_env=False)
            while client.get("/readyz").status_code != 200:
                time.sleep(0.05)
            rows = []
            for way, run in (("single", _single), ("bulk", _bulk)):
                rows.append(
                    {"backend": backend, "way": way, **run(config, client, server.pid, seconds, windows, progress)}
                )
            client.close()
    return rows


def _tokens(config: Config, n: int) -> list[str]:
    """Of bids never seen before."""
    signer = load_signer(config.path("secrets", "signing.json"))
    return seal(signer, n, next(_BLOCKS) << 32, line_item=np.arange(n) % LINES + 1)


def _single(
    config: Config, client: httpx.Client, pid: int, seconds: float, windows: int, progress: Progress
) -> dict[str, Any]:
    rates, cpu, errors = [], [], 0
    task = progress.add_task("single notices", total=windows + 1)
    before = client.get("/totals").json()["spend_micros"]
    answered = 0
    for window in range(windows + 1):  # the first warms up
        requests = [Request(b"", f"/b/{t}?p=7.5&c=USD") for t in _tokens(config, int(seconds * 15_000))]
        load = HttpLoad(("127.0.0.1", config.ledger.port), requests, connections=CONNECTIONS, spin=False)
        meter = Meter(pid)
        meter.start()
        result = load.closed_loop(CONNECTIONS, seconds)
        measured = meter.read()
        load.close()
        errors += result.errors
        answered += result.statuses.get(204, 0)
        if window:
            rates.append(result.answered_per_s)
            cpu.append(measured["server_cpu_s"] / max(1, result.sent) * 1e6)
        progress.advance(task)
    booked = client.get("/totals").json()["spend_micros"] - before
    assert booked >= answered * PRICE_MICROS, f"{answered} acknowledged, {booked} micros booked"
    return _summary(rates, cpu, errors)


def _bulk(
    config: Config, client: httpx.Client, pid: int, seconds: float, windows: int, progress: Progress
) -> dict[str, Any]:
    rates, cpu = [], []
    task = progress.add_task("bulk notices", total=windows)
    before = client.get("/totals").json()["spend_micros"]
    sent = 0
    for _ in range(windows):
        bodies = ["\n".join(f"/b/{t}?p=7.5&c=USD" for t in _tokens(config, BULK)) for _ in range(int(seconds * 12))]
        meter = Meter(pid)
        meter.start()
        began, done = time.perf_counter(), 0
        for body in bodies:
            answer = client.post("/notices", content=body).json()
            assert answer["booked"] == BULK, answer
            done += BULK
            if time.perf_counter() - began > seconds:
                break
        elapsed = time.perf_counter() - began
        rates.append(done / elapsed)
        cpu.append(meter.read()["server_cpu_s"] / done * 1e6)
        sent += done
        progress.advance(task)
    booked = client.get("/totals").json()["spend_micros"] - before
    assert booked == sent * PRICE_MICROS, f"{sent} acknowledged, {booked} micros booked"
    return _summary(rates, cpu, 0)


def _summary(rates: list[float], cpu: list[float], errors: int) -> dict[str, Any]:
    return {
        "per_s": round(statistics.median(rates)),
        "best_per_s": round(max(rates)),
        "worst_per_s": round(min(rates)),
        "ledger_cpu_us": round(statistics.median(cpu), 1),
        "errors": errors,
    }


def main(args: list[str]) -> int:
    """Measure, print, fail under the bar."""
    parser = argparse.ArgumentParser(prog="python -m bench ledger", description=__doc__)
    parser.add_argument("--backend", choices=BACKENDS, action="append")
    parser.add_argument("--seconds", type=float, default=4.0, help="of a window")
    parser.add_argument("--windows", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="JSON lines only")
    options = parser.parse_args(args)
    pin(LOAD_CPU)
    rows: list[dict[str, Any]] = []
    with Progress(console=Console(stderr=True)) as progress:
        for backend in options.backend or BACKENDS:
            rows += measure(backend, options.seconds, options.windows, progress)
    missed = False
    for row in rows:
        bar = BARS[row["backend"]]
        missed = missed or row["per_s"] < bar or bool(row["errors"])
        if options.json:
            print(json.dumps({**row, "bar_per_s": bar, **facts()}))
        else:
            verdict = "met" if row["per_s"] >= bar else "MISSED"
            print(
                f"{row['backend']:>10} {row['way']:>6}: {row['per_s']:,} notices/s durable "
                f"({row['worst_per_s']:,}-{row['best_per_s']:,}; bar {bar:,}: {verdict}), "
                f"{row['ledger_cpu_us']} us of the ledger's CPU each, {row['errors']} errors"
            )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
