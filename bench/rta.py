"""RTA on one core: rate against an empty echo of the same front, latency at 70 % and under three times too much.

`python -m bench rta`. A synthetic population's hashed ids (or strangers'), 50 strategies over ten offers, every stage
on; the server has core 0, the generator core 1. `python -m bench rta overload` measures three times the rate alone,
from twice as many connections as the worker lets wait: latency counts from the moment a request was sent, and what
found no connection free for 60 ms, which is how long the platform waits, is given up there and never reached the
server. A default is known by its length, which no other answer has. What was on its way while a core stood still, which
no program on it can help (`bench.cores`), is counted apart.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable
from hashlib import md5
from typing import Any

import msgspec
import numpy as np
import yaml
from rich.console import Console
from rich.table import Table

from bench.cores import Awake, Stalls
from bench.echo import write_answers
from bench.generous import GenerousLedger
from bench.load import HttpLoad, Request
from bench.load.run import DONE, SENT
from bench.load.window import UNSENT
from bench.procs import LOAD_CPU, OUT, SERVER_CPU, Server, free_port, pin
from bench.world import publish, write_model
from dsp.audience.identity import KIND_DPIDMD5, identity_key_many, load_pepper
from dsp.audience.load import people_writer
from dsp.base.config import BidderConfig, Config, PlatformConfig, RtaConfig
from dsp.base.metrics import Metrics
from dsp.bidder.rta import RtaEngine
from dsp.bidder.slices import Slices
from dsp.catalog.current import current_path
from dsp.catalog.layout import LI_ID
from dsp.catalog.snapshot import Snapshot
from dsp.catalog.synthetic import synthetic_catalog
from dsp.market.people import People
from dsp.market.profiles import profile_blocks
from dsp.pb.tencent.ad.rta.rta_pb2 import RtaRequest, RtaResponse

STRATEGIES = 50
OFFERS = 10
PEOPLE = 100_000
CONNECTIONS = 48
TOO_MANY = 192
SEED = 20_260_107
KIND = "application/x-protobuf"
PATIENCE_S = 0.06
OK, BAR_MS = 200, 10.0
DEFAULT_BYTES = 24  # an id of 20 bytes, the code, nothing else


def open_engine(config: Config, metrics: Metrics, worker: str, stopping: Callable[[], bool]) -> RtaEngine:
    """Production's engine with a ledger that grants everything."""
    path = current_path(config)
    assert path is not None
    ids = Snapshot.load(path).li_i[:, LI_ID]
    engine = RtaEngine.open(config, metrics=metrics, slices=Slices(config, GenerousLedger(ids), worker=worker))
    engine.warm()
    return engine


def make_config() -> Config:
    """Catalog, model and people in a directory of their own."""
    catalog = synthetic_catalog(2_000, SEED)
    exchange = catalog.exchanges[0].name
    config = Config(
        data_dir=str(OUT / "rta"),
        bidder=BidderConfig(),
        rta=RtaConfig(
            platforms=(PlatformConfig(exchange=exchange, country="USA", currency="USD", default_accept=True),)
        ),
    )
    offers = {offer.id for offer in catalog.offers[:OFFERS]}
    chosen = [item for item in catalog.line_items if item.offer_id in offers][:STRATEGIES]
    if len(chosen) < STRATEGIES:
        chosen += [item for item in catalog.line_items if item not in chosen][: STRATEGIES - len(chosen)]
    wanted = {item.id: k for k, item in enumerate(chosen)}
    items = []
    for item in catalog.line_items:
        target = msgspec.structs.replace(item.targeting, exchanges=())
        if item.id in wanted:  # by segment alone, each by another; a tenth by nothing
            k = wanted[item.id]
            segments = () if k % 10 == 0 else (catalog.segments[k % len(catalog.segments)].name,)
            include = type(item.targeting.segments)(include=segments)
            target = type(item.targeting)(exchanges=(exchange,), segments=include)
        else:
            target = msgspec.structs.replace(item.targeting, exchanges=(catalog.exchanges[1].name,))
        items.append(msgspec.structs.replace(item, targeting=target))
    catalog = msgspec.structs.replace(catalog, line_items=items)
    publish(config, catalog)
    write_model(config, SEED)
    return config


def make_people(config: Config) -> list[str]:
    """Load PEOPLE profiles under the MD5 of their device ids; the ids."""
    people = People.generate(PEOPLE, SEED)
    pepper = load_pepper(config.path("secrets", "pepper.json"))
    known: list[str] = []
    with people_writer(config.root) as writer:
        for persons, records in profile_blocks(people, int(time.time()) // 86_400):
            ids = [md5(ifa.encode(), usedforsecurity=False).hexdigest() for ifa in people.ifas(persons)]
            keys = identity_key_many(KIND_DPIDMD5, ids, pepper)
            writer.write(records, keys[:, None, :])
            known += ids
    return known


def make_bodies(known: list[str], n: int) -> list[bytes]:
    """Requests as the platform sends them: 95 bytes or so, seven in ten about somebody we know."""
    rng = np.random.default_rng(SEED)
    bodies = []
    for i in range(n):
        stranger = md5(b"stranger %d" % i, usedforsecurity=False).hexdigest()
        who = known[int(rng.integers(len(known)))] if rng.random() < 0.7 else stranger
        device = RtaRequest.Device(os="OS_ANDROID", oaid_md5sum=who, cached_deviceid_type="NIL")
        bodies.append(RtaRequest(id=f"{i:020x}", device=device, siteset_id=21).SerializeToString())
    return bodies


def start(config: Config) -> tuple[Server, str]:
    """A worker, and the path it answers at."""
    port = free_port()
    settings = msgspec.to_builtins(msgspec.structs.replace(config, rta=msgspec.structs.replace(config.rta, port=port)))
    file = config.path("run", "rta.yaml")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(settings))
    args = ["rta", "0", "--config", str(file), "--engine", "bench.rta:open_engine", "--cpu", str(SERVER_CPU)]
    return Server("rta", "dsp.ingress.worker", args, port), f"/rta/{config.rta.platforms[0].exchange}"


def from_send_ms(load: HttpLoad, stalls: Stalls) -> dict[str, float]:
    """Latency of what was answered, from the moment each request was sent, milliseconds.

    ``max`` and ``late`` leave out what was on its way while a core stood still; ``stopped_max`` is the slowest of it.
    """
    times = load.runner.times
    answered = (load.runner.facts[0] == OK) & (times[DONE] > 0)
    sent, done = times[SENT][answered], times[DONE][answered]
    each = (done - sent) / 1e6
    stopped = stalls.touched(sent, done)
    return {
        "p50": float(np.median(each)),
        "p99": float(np.percentile(each, 99)),
        "max": float(each[~stopped].max()),
        "late": float((each[~stopped] > BAR_MS).sum()),
        "stopped": float(stopped.sum()),
        "stopped_max": float(each[stopped].max(initial=0.0)),
    }


def overload(address: tuple[str, int], requests: list[Request], rate: float, seconds: float) -> dict[str, Any]:
    """Three times ``rate``: how what was sent was answered and how soon, how much was the default."""
    load = HttpLoad(address, requests, content_type=KIND, connections=TOO_MANY)
    load.closed_loop(TOO_MANY, 1.0)
    with Stalls((SERVER_CPU, LOAD_CPU)) as stalls:
        window = load.open_loop(3 * rate, seconds, patience_s=PATIENCE_S)
    sent = from_send_ms(load, stalls)
    status, size = load.runner.facts[0], load.runner.facts[1]
    given_up = int((status == UNSENT).sum())
    load.close()
    return {
        "offered": 3 * rate, "seconds": seconds, "given_up": given_up, "sent": len(status) - given_up,
        "statuses": {code: n for code, n in window.statuses.items() if code != UNSENT},
        "defaults": int(((status == OK) & (size == DEFAULT_BYTES)).sum()), "per_s": window.answered_per_s,
        "from_send_ms": sent,
        "generator_gap_ms": round(window.longest_gap_ms, 1),
    }  # fmt: skip


def run(console: Console, only_overload: bool = False) -> dict[str, Any]:
    """Everything, as one row."""
    shutil.rmtree(OUT / "rta", ignore_errors=True)
    config = make_config()
    known = make_people(config)
    bodies = make_bodies(known, 20_000)
    engine = open_engine(config, Metrics.memory("bidder"), "bench", lambda: False)
    answers: list[bytes] = []
    sizes = {}
    for size in (1, 8, 32, 64):
        t0, n = time.perf_counter(), 0
        while n < 6_400:
            said = engine.decide(0, bodies[n : n + size])
            answers = said if size == 64 and not answers else answers
            n += size
        sizes[size] = (time.perf_counter() - t0) / n * 1e6
    parsed = [RtaResponse.FromString(a) for i in range(0, 6_400, 64) for a in engine.decide(0, bodies[i : i + 64])]
    answers = [a.SerializeToString() for a in parsed]
    facts = {
        "engine_us": sizes, "accepted": float(np.mean([a.code == 0 for a in parsed])),
        "strategies": float(np.mean([len(a.out_target_id) for a in parsed])),
        "bytes_in": float(np.mean([len(b) for b in bodies])), "bytes_out": float(np.mean([len(a) for a in answers])),
        "of": len(engine.platforms[0].strategies), "groups": engine.platforms[0].groups,
    }  # fmt: skip
    engine.close()
    write_answers(OUT / "answers-rta.bin", answers)
    pin(LOAD_CPU)
    port = free_port()
    echo_args = ["http", "--port", str(port), "--answers", str(OUT / "answers-rta.bin")]
    token = (("authorization", f"Bearer {synthetic_catalog(1, SEED).exchanges[0].token}"),)
    worker, path = start(config)
    with Awake(), worker, Server("echo-rta", "bench.echo", echo_args, port) as echo:
        requests = [Request(body, path, token) for body in bodies]
        ours = HttpLoad(worker.address, requests, content_type=KIND, connections=CONNECTIONS)
        theirs = HttpLoad(echo.address, requests, content_type=KIND, connections=CONNECTIONS)
        ours.closed_loop(CONNECTIONS, 2.0)
        theirs.closed_loop(CONNECTIONS, 1.0)
        rates, echoes, errors = [], [], 0
        for _ in range(2 if only_overload else 10):
            window = ours.closed_loop(CONNECTIONS, 1.0)
            rates.append(window.answered_per_s)
            errors += window.errors
            echoes.append(theirs.closed_loop(CONNECTIONS, 1.0).answered_per_s)
        rate = float(np.median(rates))
        p99 = []
        for _ in range(0 if only_overload else 7):
            window = ours.open_loop(0.7 * ours.closed_loop(CONNECTIONS, 0.5).answered_per_s, 2.0)  # why: bench.phases
            p99.append(window.percentiles()["p99"] / 1e3)
            errors += window.errors
        over = overload(worker.address, requests, rate, 3.0)
        ours.close()
        theirs.close()
    return {
        "kind": "rta", **facts, "rate": rate, "rates": rates, "echo": float(np.median(echoes)),
        "ratio": float(np.median([a / b for a, b in zip(rates, echoes, strict=True)])),
        "p99_ms": float(np.median(p99)) if p99 else None, "p99s_ms": p99, "errors": errors,
        "overload": over,
    }  # fmt: skip


def show(row: dict[str, Any], console: Console) -> None:
    """Bars beside what was measured."""
    table = Table("what", "bar", "measured", "ok")
    over = row["overload"]
    all_200 = set(over["statuses"]) == {200}
    times = over["from_send_ms"]
    for what, bar, measured, ok in (
        ("requests/s on one core", "12,000", f"{row['rate']:,.0f}", row["rate"] >= 12_000),
        ("of an empty echo", "0.55", f"{row['ratio']:.2f} of {row['echo']:,.0f}", row["ratio"] >= 0.55),
        *((("p99 at 70 %", "5 ms", f"{row['p99_ms']:.2f} ms", row["p99_ms"] <= 5),) if row["p99_ms"] else ()),
        ("errors and timeouts", "0", str(row["errors"]), row["errors"] == 0),
        ("3x overload: all 200", "yes", f"{over['statuses']}, {over['defaults']:,} of them the default; "
         f"{over['given_up']:,} never sent", all_200),
        ("3x overload: slowest from its sending", "10 ms", f"{times['max']:.1f} ms ({times['late']:.0f} over 10 ms; "
         f"p50 {times['p50']:.1f}, p99 {times['p99']:.1f} ms); {times['stopped']:,.0f} while a core stood still: "
         f"{times['stopped_max']:.1f} ms", times["max"] <= 10),
    ):  # fmt: skip
        table.add_row(what, bar, measured, "ok" if ok else "missed")
    console.print(table)
    each = ", ".join(f"{size}: {us:.1f}" for size, us in row["engine_us"].items())
    console.print(f"engine alone, us per request by batch: {each}; {row['accepted']:.0%} taken, "
                  f"{row['strategies']:.1f} of {row['of']} strategies each ({row['groups']} groups), "
                  f"{row['bytes_in']:.0f} B in, {row['bytes_out']:.0f} B out")  # fmt: skip


def main(args: list[str]) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m bench rta", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("all", "overload"), default="all")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(args)
    console = Console(stderr=options.json)
    with console.status("half a minute: catalog, people, windows of two seconds"):
        row = run(console, options.what == "overload")
    if options.json:
        print(json.dumps(row))
    else:
        show(row, console)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
