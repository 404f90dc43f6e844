"""ARTF on one core: latency at 5,000 requests/s, what saturates it, and whether anything comes after ``tmax``.

`python -m bench artf` (half a minute once the people are there). The quick standard benchmark's catalog and people;
half of the requests ask about a bid request, half about the bids of a response, each with some of the intents. Every
answer's bytes are looked at by a client of its own: an intent that wasn't asked for counts. Late is a good answer more
than ``tmax`` after its sending, by the generator's clock. Where a core stood still meanwhile, which no program on it
can help (`bench.cores`), the answer is counted apart.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import grpc
import msgspec
import numpy as np
import yaml
from rich.console import Console
from rich.table import Table

from bench.cores import I64, Awake, Stalls
from bench.load import GrpcLoad, Request
from bench.load.run import DONE, SENT
from bench.load.window import GOOD, Window
from bench.machine import facts
from bench.procs import LOAD_CPU, OUT, SERVER_CPU, Server, free_port, pin
from bench.standard import QUICK
from bench.world import NOON_S, World, make_world
from dsp.base.config import ArtfConfig, Config
from dsp.base.metrics import Metrics
from dsp.bidder.artf import ArtfEngine
from dsp.ingress.artf_grpc import GET_MUTATIONS
from dsp.openrtb.artf import INTENTS
from dsp.pb.com.iabtechlab.bidstream.mutation.v1 import mutation_pb2 as pb
from dsp.pb.com.iabtechlab.openrtb.v2 import openrtb_pb2

RATE = 5_000.0
TMAX_MS = 5
P99_BAR_MS = 3.0
SEED = 20_260_108
IN_FLIGHT = 64


def open_engine(config: Config, metrics: Metrics, worker: str, stopping: Callable[[], bool]) -> ArtfEngine:
    """Production's engine by a clock that starts on a Wednesday at noon."""
    offset_ns = int(NOON_S * 1e9) - time.time_ns()
    engine = ArtfEngine.open(config, metrics=metrics, clock=lambda: time.time_ns() + offset_ns)
    engine.warm()
    return engine


def settings_of(world: World, port: int) -> Config:
    """The agent of the exchange that most requests are of, which is told of every segment."""
    exchange = Counter(item.exchange for item in world.items).most_common(1)[0][0]
    segments = {segment.name: f"s-{segment.number}" for segment in world.catalog.segments}
    return msgspec.structs.replace(
        world.config, artf=ArtfConfig(port=port, workers=1, exchange=exchange, segments=segments)
    )


def make_bodies(world: World, exchange: str) -> list[bytes]:
    """One RTBRequest per bid request of the exchange, some 1 to 3 bids on each imp."""
    rng = np.random.default_rng(SEED)
    every = [value.name for value in pb.Intent.DESCRIPTOR.values if value.number]
    bodies = []
    for n, item in enumerate(item for item in world.items if item.exchange == exchange):
        request = openrtb_pb2.BidRequest.FromString(item.pb)
        intents = [name for name in every if rng.random() < 0.7]
        asked = pb.RTBRequest(id=f"artf-{n}", tmax=TMAX_MS, bid_request=request, applicable_intents=intents)
        asked.lifecycle = pb.LIFECYCLE_PUBLISHER_BID_REQUEST
        if n % 2:
            asked.lifecycle = pb.LIFECYCLE_DSP_BID_RESPONSE
            response = asked.bid_response
            response.id, response.cur = request.id, "USD"
            seat = response.seatbid.add(seat="other")
            for imp in request.imp:
                for k in range(int(rng.integers(1, 4))):
                    price = round(imp.bidfloor + float(rng.exponential(3.0)), 3)
                    seat.bid.add(id=f"{imp.id}-{k}", impid=imp.id, price=price, crid="c", adomain=["other.example"])
        bodies.append(asked.SerializeToString())
    return bodies


def late(load: GrpcLoad) -> I64:
    """Good answers more than tmax after their sending: when each was sent and came, int64[n, 2]."""
    times = load.runner.times
    good = np.isin(load.runner.facts[0], GOOD) & (times[DONE] > 0)
    after = good & (times[DONE] - times[SENT] > TMAX_MS * 1e6)
    return np.stack([times[SENT][after], times[DONE][after]], axis=1)


def look(address: tuple[str, int], bodies: list[bytes]) -> dict[str, Any]:
    """Mutations by intent of all ``bodies``, and how many were not asked for or have no place in the lifecycle."""
    places = {pb.LIFECYCLE_PUBLISHER_BID_REQUEST: {1, 2, 3, 4, 5, 7, 8}, pb.LIFECYCLE_DSP_BID_RESPONSE: {6}}
    made: Counter[str] = Counter()
    foreign = 0
    with grpc.insecure_channel(f"{address[0]}:{address[1]}") as channel:
        call = channel.unary_unary(GET_MUTATIONS)
        for body in bodies:
            asked = pb.RTBRequest.FromString(body)
            asked.tmax = 1_000  # what is said is looked at here, not when
            answer = pb.RTBResponse.FromString(call(asked.SerializeToString(), timeout=5))
            made.update(INTENTS[mutation.intent] for mutation in answer.mutations)
            allowed = set(asked.applicable_intents) & places[asked.lifecycle]
            foreign += sum(mutation.intent not in allowed for mutation in answer.mutations)
    return {"looked_at": len(bodies), "mutations": dict(made), "not_applicable": foreign}


def engine_us(config: Config, bodies: list[bytes]) -> dict[int, float]:
    """Microseconds per request of the engine alone, by batch."""
    engine, out = open_engine(config, Metrics.memory("bidder"), "bench", lambda: False), {}
    for size in (1, 8, 32):
        best = float("inf")
        for _ in range(3):
            t0, n = time.perf_counter(), 0
            while n + size <= min(len(bodies), 1_600):
                far = [time.monotonic_ns() + 10**12] * size
                engine.decide(bodies[n : n + size], far, [0] * size, lambda i, outcome, payload: None)
                n += size
            best = min(best, (time.perf_counter() - t0) / n * 1e6)
        out[size] = round(best, 1)
    engine.close()
    return out


def row_of(window: Window, after: I64, stalls: Stalls) -> dict[str, Any]:
    """A window and its late answers: how many, and how many while a core stood still."""
    stopped = int(stalls.touched(after[:, 0], after[:, 1]).sum())
    return {**window.row(), "after_tmax": len(after) - stopped, "after_tmax_stopped": stopped}


def run(seconds: float, windows: int, console: Console) -> dict[str, Any]:
    """Everything, as one row."""
    world = make_world(QUICK.parameters, lambda what: console.print(f"making the world: {what}"))
    port = free_port()
    config = settings_of(world, port)
    bodies = make_bodies(world, config.artf.exchange)
    alone = engine_us(config, bodies)
    file = config.path("run", "artf.yaml")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(msgspec.to_builtins(config)))
    pin(LOAD_CPU)
    args = ["artf", "0", "--config", str(file), "--engine", "bench.artf:open_engine", "--cpu", str(SERVER_CPU)]
    with Awake(), Server("artf", "dsp.ingress.worker", args, port) as server:
        seen = look(server.address, bodies)
        load = GrpcLoad(server.address, [Request(body, GET_MUTATIONS) for body in bodies])
        load.closed_loop(8, 2.0)
        with Stalls((SERVER_CPU, LOAD_CPU)) as stalls:
            found = [(load.open_loop(RATE, seconds), late(load)) for _ in range(windows)]
            peaks = [load.closed_loop(IN_FLIGHT, 1.0).answered_per_s for _ in range(3)]
            over = load.open_loop(2 * float(np.median(peaks)), 2.0), late(load)
        rows = [row_of(*each, stalls) for each in found]
        overload = row_of(*over, stalls)
        load.close()
    return {
        "kind": "artf", "machine": facts(), "requests": len(bodies), "engine_us": alone, **seen,
        "bytes_in": round(float(np.mean([len(body) for body in bodies]))), "tmax_ms": TMAX_MS,
        "p99_ms": round(float(np.median([row["p99_us"] for row in rows])) / 1e3, 3),
        "p99s_ms": [round(row["p99_us"] / 1e3, 3) for row in rows],
        "errors": sum(row["errors"] for row in rows), "sent": sum(row["sent"] for row in rows),
        "after_tmax": sum(row["after_tmax"] for row in rows),
        "after_tmax_stopped": sum(row["after_tmax_stopped"] for row in rows), "stalls_seen": stalls.able,
        "windows": rows, "saturation_per_s": round(float(np.median(peaks))), "overload": overload,
    }  # fmt: skip


def show(row: dict[str, Any], console: Console) -> bool:
    """Bars beside what was measured; whether all are met."""
    over = row["overload"]
    lines = (
        (f"p99 at {RATE:,.0f}/s", f"{P99_BAR_MS:g} ms", f"{row['p99_ms']:.2f} ms ({row['p99s_ms']})",
         row["p99_ms"] <= P99_BAR_MS),
        ("intents not applicable", "0", f"{row['not_applicable']} of {sum(row['mutations'].values()):,} mutations",
         row["not_applicable"] == 0),
        (f"answers after tmax ({row['tmax_ms']} ms)", "0", f"{row['after_tmax']} of {row['sent']:,}, and "
         f"{row['after_tmax_stopped']} while a core stood still", row["after_tmax"] == 0),
        ("the same, offered twice what saturates", "0", f"{over['after_tmax']} of {over['sent']:,}, and "
         f"{over['after_tmax_stopped']} while a core stood still", over["after_tmax"] == 0),
    )  # fmt: skip
    table = Table("what", "bar", "measured", "ok")
    for what, bar, measured, ok in lines:
        table.add_row(what, bar, measured, "ok" if ok else "missed")
    console.print(table)
    each = ", ".join(f"{size}: {us}" for size, us in row["engine_us"].items())
    console.print(
        f"engine alone, us per request by batch: {each}; {row['saturation_per_s']:,}/s saturated; "
        f"{row['bytes_in']:,} B in; mutations of {row['looked_at']:,} requests: {row['mutations']}; "
        f"not answered in time: {row['errors']} of {row['sent']:,}; overload's statuses {over['statuses']}"
    )
    return all(ok for *_, ok in lines)


def main(args: list[str]) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m bench artf", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="of a window")
    parser.add_argument("--windows", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(args)
    console = Console(stderr=options.json)
    row = run(options.seconds, options.windows, console)
    OUT.mkdir(parents=True, exist_ok=True)
    with (OUT / "artf.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    if options.json:
        print(json.dumps(row))
        return 0
    return 0 if show(row, console) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
