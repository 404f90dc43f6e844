"""New workers: what a rolling restart under load costs callers, and how soon a new worker is at full speed.

`python -m bench restart`, two parts:

*rolling*: the bidder role with one HTTP and one gRPC worker, each under an open-loop load; then SIGHUP, so that every
worker is replaced by a new one. What failed is asked once more, on a connection of its own. Bar: nothing fails twice.

*first*: a worker is started anew some times; the time until it takes connections (bar 10 s), and the latency of its
first request, from its sending on a connection that is made, against medians of the same worker later (bar: twice):

    steady        traffic at RATE, as in the rolling restart: what the bar is about
    alone         one request after as long a pause, while something else ran on its core, as before the first
    back to back  one after the other without a pause: caches, branch predictors and the core's clock stay hot

Beside them, as a control, the first request of a new connection to a worker that has answered thousands.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import yaml
from rich.console import Console

from bench.echo import write_answers
from bench.load import METHOD, GrpcLoad, HttpLoad, Request
from bench.load.run import C_STATE, CURSOR, DEAD
from bench.load.window import GOOD
from bench.machine import facts
from bench.procs import LOAD_CPU, OUT, SERVER_CPU, Server, free_port, pin
from bench.standard import FRONTS, NAMES, QUICK, Bars, make_load, requests_of
from bench.worker import start_worker
from bench.world import World, forget_decisions, make_world
from dsp.base.config import load_config
from dsp.ingress.supervisor import Supervisor

RESULTS = Path(__file__).parent / "results" / "restart.jsonl"
RATE = 1_500  # requests a second of each front while workers are replaced: both share a core with those that start
WINDOW_S = 1.0
AFTER_WINDOWS = 3  # once every worker is a new one
ALONE = 9  # requests after a pause
STARTS = 10  # the first is the generator's own warm-up
READY_BAR_S, FIRST_BAR = 10.0, 2.0
ANSWER_BYTES = 900
WARM_UP_S, HANDSHAKE_S = 0.2, 0.02
LIMIT_S = 120.0


class Caller:
    """An open-loop load on one front that asks once more for what failed, until told to stop."""

    def __init__(self, front: str, port: int, requests: list[Request]) -> None:
        self.front, self.port, self.requests = front, port, requests
        address = ("127.0.0.1", port)
        self.load = (
            GrpcLoad(address, requests, spin=False)
            if front == "grpc"
            else HttpLoad(address, requests, connections=16, spin=False)
        )
        self.asked = self.retried = 0
        self.failed: Counter[int] = Counter()  # at the first asking, by status
        self.twice: list[str] = []  # what also failed at the second
        self.windows = 0
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        runner = self.load.runner
        while not self.stop.is_set():
            first = int(runner.ctl[CURSOR])
            window = self.load.open_loop(RATE, WINDOW_S)
            status = runner.facts[0]
            self.asked += window.sent
            bad = np.flatnonzero(~np.isin(status, GOOD))
            self.failed.update(status[bad].tolist())
            for k in bad.tolist():
                self._again(self.requests[runner.order[(first + k) % len(runner.order)]])
            self.windows += 1
        self.load.close()

    def _again(self, request: Request) -> None:
        self.retried += 1
        try:
            if self.front == "http":
                headers = {"content-type": "application/json", **dict(request.headers)}
                url = f"http://127.0.0.1:{self.port}{request.path}"
                status = httpx.post(url, content=request.body, headers=headers, timeout=5, trust_env=False).status_code
                if status not in GOOD:
                    self.twice.append(f"http {status}")
            else:
                with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
                    channel.unary_unary(METHOD)(request.body, metadata=request.headers, timeout=5, wait_for_ready=True)
        except (httpx.HTTPError, grpc.RpcError) as error:
            self.twice.append(repr(error)[:200])


def rolling(world: World, bars: Bars) -> dict[str, Any]:
    """One rolling restart of both workers."""
    ports = {name: free_port() for name in ("http", "grpc", "metrics")}
    settings = {
        "data_dir": world.config.data_dir, "ledger": {"public_url": world.config.ledger.public_url},
        "bidder": {f"{name}_port": port for name, port in ports.items()} | {"drain_s": 5.0},
    }  # fmt: skip
    file = world.config.path("run", "role.yaml")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(settings))
    run = world.config.path("run")
    with Server("role", "bench.restart", ["--role", str(file)], ports["metrics"]) as role:
        _until(lambda: httpx.get(f"http://127.0.0.1:{ports['metrics']}/readyz", trust_env=False).status_code == 200)
        before = _pids(run)
        callers = [
            Caller(front, ports[front], requests_of(front, world.items, world.tokens)) for front in ("grpc", "http")
        ]
        task = bars.task("rolling restart", 3)
        try:
            _until(lambda: all(caller.windows >= AFTER_WINDOWS for caller in callers))
            bars.step(task)
            os.kill(role.pid, signal.SIGHUP)
            begun_s = time.monotonic()
            _until(lambda: len(_pids(run)) == len(before) and not _pids(run) & before)
            took_s = time.monotonic() - begun_s
            bars.step(task)
            mark = [caller.windows for caller in callers]
            _until(lambda: all(c.windows >= m + AFTER_WINDOWS for c, m in zip(callers, mark, strict=True)))
            bars.step(task)
        finally:
            for caller in callers:
                caller.stop.set()
            for caller in callers:
                caller.thread.join(60)
    found = {
        caller.front: {
            "asked": caller.asked, "failed_first": sum(caller.failed.values()),
            "by_status": {str(k): n for k, n in sorted(caller.failed.items())}, "failed_twice": len(caller.twice),
            "said": caller.twice[:3],
        }
        for caller in callers
    }  # fmt: skip
    ok = all(row["failed_twice"] == 0 for row in found.values())
    return {"took_s": round(took_s, 1), "rate_per_s": RATE, "fronts": found, "ok": ok}


def first(front: str, world: World, bars: Bars) -> dict[str, Any]:
    """Start a worker `STARTS` times: until it is ready, its first request, and what later ones take.

    The caller has just been calling an echo, and its connections to the worker are made, so that what is measured is
    the worker's part. ``seasoned_us``: the same caller's first request on new connections, afterwards.
    """
    requests = requests_of(front, world.items, world.tokens)
    answers, port, rows = OUT / f"answers-first-{front}.bin", free_port(), []
    write_answers(answers, [b"x" * ANSWER_BYTES])
    echo_args = [front, "--port", str(port), "--answers", str(answers)]
    task = bars.task(f"{NAMES[front]}: new workers", STARTS)
    with Server(f"echo-{front}", "bench.echo", echo_args, port, cpu=SERVER_CPU) as echo:
        load, other = make_load(front, echo.address, requests), make_load(front, echo.address, requests)
        for _ in range(STARTS):
            begun_s = time.monotonic()
            with start_worker(world.config, front, cpu=SERVER_CPU, noon=True) as server:
                ready_s = time.monotonic() - begun_s
                first_us = _first_us(load, echo.address, server.address)
                row = {
                    "ready_s": round(ready_s, 2), "first_us": first_us,
                    "back_to_back_us": load.closed_loop(1, 1.0).row()["p50_us"],
                    "steady_us": load.open_loop(RATE, 1.0).row()["p50_us"], "alone_us": _alone_us(load, other),
                    "seasoned_us": float(np.median([_first_us(load, echo.address, server.address) for _ in range(5)])),
                }  # fmt: skip
                _turn_to(load, echo.address)
            rows.append(row)
            bars.step(task)
        load.close()
        other.close()
    rows = rows[1:]
    ratios = {
        name: sorted(round(row["first_us"] / row[f"{name}_us"], 2) for row in rows)
        for name in ("steady", "alone", "back_to_back", "seasoned")
    }
    ready = max(row["ready_s"] for row in rows)
    medians = {name: float(np.median(each)) for name, each in ratios.items()}
    return {
        "starts": rows, "first_us": float(np.median([row["first_us"] for row in rows])), "first_over": medians,
        "worst": {name: each[-1] for name, each in ratios.items()}, "ready_s_worst": ready,
        "ok": medians["steady"] <= FIRST_BAR and ready <= READY_BAR_S,
    }  # fmt: skip


def _turn_to(load: GrpcLoad | HttpLoad, address: tuple[str, int]) -> None:
    """Connect to another server, and let HTTP/2's settings be exchanged."""
    load.runner.address = address
    load.conn[:, C_STATE] = DEAD
    load.runner.revive()
    end_s = time.monotonic() + HANDSHAKE_S
    while time.monotonic() < end_s:
        load.closed_loop(1, 0.0)


def _first_us(load: GrpcLoad | HttpLoad, echo: tuple[str, int], worker: tuple[str, int]) -> float:
    """The latency of a caller's first request to ``worker``, a caller that is at full speed itself."""
    _turn_to(load, echo)
    load.closed_loop(1, WARM_UP_S)
    _turn_to(load, worker)
    return round(float(load.closed_loop(1, 0.02).latency_us[0]), 1)


def _alone_us(load: GrpcLoad | HttpLoad, other: GrpcLoad | HttpLoad) -> float:
    """The median latency of one request after a pause in which ``other``'s server had the core, then nobody."""
    found = []
    for _ in range(ALONE):
        other.closed_loop(1, WARM_UP_S)
        end_s = time.monotonic() + HANDSHAKE_S
        while time.monotonic() < end_s:
            load.closed_loop(1, 0.0)
        found.append(float(load.closed_loop(1, 0.02).latency_us[0]))
    return round(float(np.median(found)), 1)


def _pids(run: Path) -> set[int]:
    found = set()
    for path in run.glob("bidder-*-*.json"):
        try:
            found.add(int(json.loads(path.read_text())["pid"]))
        except (OSError, ValueError):
            continue  # it drains just now
    return found


def _until(condition: Any) -> None:
    end_s = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > end_s:
            raise TimeoutError("did not happen")
        time.sleep(0.05)


def main(argv: list[str] | None = None) -> int:
    """Run from the command line; 1 where a bar was missed."""
    parser = argparse.ArgumentParser(prog="bench restart", description=__doc__)
    parser.add_argument("--part", choices=("rolling", "first"), action="append", help="one or both")
    parser.add_argument("--role", type=Path, help=argparse.SUPPRESS)  # be the bidder role, with this configuration
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    args = parser.parse_args(argv)
    if args.role is not None:
        return Supervisor(load_config(args.role), "bench.worker:open_at_noon").run()
    console = Console(stderr=args.json)
    bars = Bars(console)
    parts = args.part or ("rolling", "first")
    result: dict[str, Any] = {"kind": "restart", "machine": facts()}
    with bars.progress:
        task = bars.task("making the world", 6)
        world = make_world(QUICK.parameters, lambda what: bars.step(task, f"making the world: {what}"))
        pin(LOAD_CPU)
        forget_decisions()
        if "rolling" in parts:
            result["rolling"] = rolling(world, bars)
        if "first" in parts:
            result["first"] = {front: first(front, world, bars) for front in FRONTS}
        forget_decisions()
    with RESULTS.open("a") as file:
        file.write(json.dumps(result) + "\n")
    if args.json:
        json.dump(result, sys.stdout)
        print()
    else:
        for line in told(result):
            console.print(line)
    judged = [result["rolling"]] if "rolling" in result else []
    return 0 if all(row["ok"] for row in [*judged, *result.get("first", {}).values()]) else 1


def told(result: dict[str, Any]) -> list[str]:
    """The result in words."""
    lines = []
    for front, row in result.get("rolling", {}).get("fronts", {}).items():
        lines.append(
            f"rolling restart, {NAMES[front]}: {row['asked']:,} asked, {row['failed_first']} failed once "
            f"{row['by_status']}, {row['failed_twice']} twice (bar 0)"
        )
    for front, row in result.get("first", {}).items():
        over = row["first_over"]
        lines.append(
            f"new worker, {NAMES[front]}: first request {row['first_us']:,.0f} us, {over['steady']:.2f} times the p50 "
            f"at {RATE:,}/s (bar {FIRST_BAR:g}), {over['alone']:.2f} times one's alone after a pause, "
            f"{over['back_to_back']:.2f} times one's after another, {over['seasoned']:.2f} times a new connection's; "
            f"ready in {row['ready_s_worst']:.1f} s at most (bar {READY_BAR_S:g}): {'held' if row['ok'] else 'MISSED'}"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
