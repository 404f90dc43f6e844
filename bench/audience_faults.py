"""A sick audience store under load: the server killed, frozen, slowed to 50 ms and restarted while requests come in.

`python -m bench audience faults --asd PATH` starts the Aerospike server at PATH on loopback, with data in a file so
that it outlives a kill, behind a small proxy that can delay its answers. The engine decides an open-loop stream of
market requests (they arrive by the clock, whether it keeps up or not); latency runs from a request's arrival. Told per
fault: p99 against the deadline, errors, bids while the store was away, and how long after recovery until people are
known again as often as before. The engine and the load run in this process on one core, server and proxy on the other.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from bench.procs import LOAD_CPU, SERVER_CPU, free_port, pin
from bench.world import NOON_S, POPULATION, Parameters, World, forget_decisions, make_world
from dsp.audience.aerospike_store import AerospikeWriter, connect
from dsp.audience.open import open_audience
from dsp.audience.store import StoreError
from dsp.base.config import AudienceConfig
from dsp.base.metrics import Metrics
from dsp.bidder.answer import BID, NO_BID
from dsp.bidder.engine import Engine
from dsp.bidder.slices import Slices
from dsp.catalog.publish import current_path
from dsp.catalog.snapshot import Snapshot
from dsp.market.people import People
from dsp.market.profiles import keyed_profiles
from dsp.openrtb.columns import FMT_PROTOBUF

PARAMETERS = Parameters(line_items=1_000, people=20_000, requests=2_000)
DEADLINE_MS = 100.0  # an exchange's tmax
RESUME_BAR_S = 5.0
MAX_BATCH = 32
SLOW_MS = 50
CONFIG = """\
service {{
	run-as-daemon false
	work-directory {root}
	cluster-name bench
	proto-fd-max 1024
}}
mod-lua {{
	user-path {root}/usr/udf/lua
}}
logging {{
	console {{
		context any warning
	}}
}}
network {{
	service {{
		address 127.0.0.1
		port {port}
		access-address 127.0.0.1
		access-port {proxy}
	}}
	heartbeat {{
		mode mesh
		address 127.0.0.1
		port {heartbeat}
		interval 150
		timeout 10
	}}
	fabric {{
		address 127.0.0.1
		port {fabric}
	}}
	admin {{
		address 127.0.0.1
		port {admin}
	}}
}}
namespace dsp {{
	replication-factor 1
	nsup-period 10
	storage-engine device {{
		file {root}/dsp.dat
		filesize 512M
	}}
}}
"""


class Server:
    """The Aerospike server, started, frozen, thawed, killed and started again."""

    def __init__(self, binary: Path, root: Path, proxy: int) -> None:
        self.port = free_port()
        root.joinpath("smd").mkdir(parents=True)
        root.joinpath("usr/udf/lua").mkdir(parents=True)
        self._config = root / "server.conf"
        ports = {name: free_port() for name in ("heartbeat", "fabric", "admin")}
        self._config.write_text(CONFIG.format(root=root, port=self.port, proxy=proxy, **ports))
        self._binary, self._log = binary, (root / "server.log").open("wb")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until it takes connections."""
        self._process = subprocess.Popen(
            [str(self._binary), "--foreground", "--config-file", str(self._config)],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        os.sched_setaffinity(self._process.pid, {LOAD_CPU})
        ends = time.monotonic() + 60
        while time.monotonic() < ends:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 0.2):
                return
            if self._process.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError(f"the server did not start: {Path(self._log.name).read_text()[-2000:]}")

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """End it for good."""
        self.kill()
        self._log.close()


PROXY = """
import asyncio, sys
port, target = int(sys.argv[1]), int(sys.argv[2])
delay = [0.0]
async def pump(reader, writer, late):
    loop = asyncio.get_running_loop()
    try:
        while data := await reader.read(65536):
            if late and delay[0]:
                loop.call_later(delay[0], writer.write, data)
            else:
                writer.write(data)
                await writer.drain()
    except (OSError, ConnectionError):
        pass
    finally:
        writer.close()
async def serve(reader, writer):
    try:
        other, onward = await asyncio.open_connection("127.0.0.1", target)
    except OSError:
        writer.close()
        return
    await asyncio.gather(pump(reader, onward, False), pump(other, writer, True))
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print("ready", flush=True)
    while line := await reader.readline():
        delay[0] = float(line) / 1000
asyncio.run(main())
"""


class Proxy:
    """In front of the server; can hold its answers back."""

    def __init__(self, port: int, target: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", PROXY, str(port), str(target)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        os.sched_setaffinity(self._process.pid, {LOAD_CPU})
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def delay(self, ms: float) -> None:
        """Hold every answer back by so much from now on."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{ms}\n")
        self._process.stdin.flush()

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


@dataclass
class Seen:
    """What the load saw, per decided batch: when, how late its oldest request, and of its requests how many what."""

    at_s: list[float] = field(default_factory=list)
    late_ms: list[np.ndarray[Any, Any]] = field(default_factory=list)
    requests: list[int] = field(default_factory=list)
    errors: list[int] = field(default_factory=list)
    bids: list[int] = field(default_factory=list)
    known: list[int] = field(default_factory=list)

    def between(self, start_s: float, end_s: float) -> dict[str, Any]:
        """The requests decided within a span."""
        rows = [i for i, at in enumerate(self.at_s) if start_s <= at < end_s]
        late = np.concatenate([self.late_ms[i] for i in rows]) if rows else np.zeros(1)
        n = max(1, sum(self.requests[i] for i in rows))
        return {
            "requests": n,
            "p50_ms": round(float(np.percentile(late, 50)), 2),
            "p99_ms": round(float(np.percentile(late, 99)), 2),
            "max_ms": round(float(late.max()), 1),
            "errors": sum(self.errors[i] for i in rows),
            "bid_rate": round(sum(self.bids[i] for i in rows) / n, 3),
            "known_rate": round(sum(self.known[i] for i in rows) / n, 3),
        }

    def resumed_s(self, since_s: float, healthy: float) -> float:
        """Seconds after ``since_s`` until a fifth of a second's requests are known as often as before (9/10 of it)."""
        ends = self.at_s[-1] if self.at_s else since_s
        at = since_s
        while at < ends - 0.2:
            if self.between(at, at + 0.2)["known_rate"] >= 0.9 * healthy:
                return round(at - since_s, 2)
            at += 0.05
        return float("inf")


class Load:
    """The engine under an open-loop stream."""

    def __init__(self, world: World, engine: Engine, rate: int) -> None:
        self.engine, self.rate, self.seen = engine, rate, Seen()
        self._items = [(item.pb, engine.exchange_of(item.exchange)) for item in world.items]
        self._at = 0

    def run(self, seconds: float, events: list[tuple[float, Callable[[], None]]]) -> float:
        """Decide what arrives for so long; ``events`` (second, call) happen in a thread beside. When it began."""
        began = time.perf_counter()
        timers = [threading.Timer(at, call) for at, call in events]
        for timer in timers:
            timer.start()
        due, polled = 0, began
        work = self.engine.work
        while (now := time.perf_counter()) < began + seconds:
            waiting = min(MAX_BATCH, int((now - began) * self.rate) - due)
            if now - polled > 0.25:
                self.engine.poll()
                polled = now
            if waiting <= 0:
                time.sleep(0.0002)
                continue
            part = [self._items[(self._at + k) % len(self._items)] for k in range(waiting)]
            self._at += waiting
            arrived = began + (due + np.arange(waiting)) / self.rate
            ahead = time.monotonic_ns() - int(time.perf_counter() * 1e9)
            answers = self.engine.decide(
                [body for body, _ in part], [FMT_PROTOBUF] * waiting, [x for _, x in part],
                [int(a * 1e9) + ahead for a in arrived],
            )  # fmt: skip
            due += waiting
            done = time.perf_counter()
            seen = self.seen
            seen.at_s.append(done)
            seen.late_ms.append((done - arrived) * 1e3)
            seen.requests.append(waiting)
            seen.errors.append(sum(kind not in (BID, NO_BID) for kind, _ in answers))
            seen.bids.append(sum(kind == BID for kind, _ in answers))
            seen.known.append(int(work.found[:waiting].sum()))
        for timer in timers:
            timer.join()
        return began


def main(argv: list[str]) -> int:
    """Run the faults and print JSON lines; 1 where a bar was missed."""
    parser = argparse.ArgumentParser(prog="bench audience faults", description=__doc__)
    parser.add_argument("--asd", type=Path, required=True, help="the Aerospike server's binary")
    parser.add_argument("--rate", type=int, default=1_500, help="requests a second")
    parser.add_argument("--cache", type=int, default=0, help="hot profiles kept; 0 shows the store alone")
    args = parser.parse_args(argv)
    pin(SERVER_CPU)
    held = True
    with (
        tempfile.TemporaryDirectory() as root,
        rig(args.asd, Path(root), args.cache, args.rate) as (server, proxy, load),
    ):
        load.run(2.0, [])  # connections, page cache
        for name, hurt, heal in (
            ("slow 50 ms", lambda: proxy.delay(SLOW_MS), lambda: proxy.delay(0)),
            ("frozen", lambda: server.signal(signal.SIGSTOP), lambda: server.signal(signal.SIGCONT)),
            ("killed and restarted", server.kill, server.start),
        ):
            row = fault(name, load, hurt, heal)
            good = row["p99_ms"] <= DEADLINE_MS and row["errors"] == 0 and row["bid_rate"] > 0
            good &= row["resumed_s"] <= RESUME_BAR_S
            held &= good
            bar = f"p99 ≤ {DEADLINE_MS:.0f} ms, no errors, bids go on, known again ≤ {RESUME_BAR_S:.0f} s"
            print(json.dumps({**row, "bar": bar, "held": good}), flush=True)
    forget_decisions()
    return 0 if held else 1


def fault(name: str, load: Load, hurt: Callable[[], None], heal: Callable[[], None]) -> dict[str, Any]:
    """Three healthy seconds, four with the fault, eight after; healing may take a while itself."""
    healed: list[float] = []

    def timed_heal() -> None:
        heal()
        healed.append(time.perf_counter())

    began = load.run(15.0, [(3.0, hurt), (7.0, timed_heal)])
    seen = load.seen
    before, during = seen.between(began + 0.5, began + 3.0), seen.between(began + 3.0, began + 7.0)
    whole = seen.between(began, began + 15.0)
    return {
        "measure": name,
        **whole,
        "p99_ms_healthy": before["p99_ms"],
        "p99_ms_during": during["p99_ms"],
        "known_rate_healthy": before["known_rate"],
        "known_rate_during": during["known_rate"],
        "bid_rate_healthy": before["bid_rate"],
        "bid_rate": during["bid_rate"],
        "resumed_s": seen.resumed_s(healed[0], before["known_rate"]),
    }


@contextlib.contextmanager
def rig(binary: Path, root: Path, cache: int, rate: int) -> Iterator[tuple[Server, Proxy, Load]]:
    """Server, proxy, people and engine."""
    world = make_world(PARAMETERS)
    port = free_port()
    server = Server(binary, root, port)
    server.start()
    proxy = Proxy(port, server.port)
    hosts = (f"127.0.0.1:{port}",)
    fill(world, hosts)
    audience = AudienceConfig(store="aerospike", aerospike_hosts=hosts, cache_people=cache)
    config = replace(world.config, audience=audience, bidder=replace(world.config.bidder, log_decisions=False))
    path = current_path(config)
    assert path is not None
    snapshot = Snapshot.load(path)
    engine = Engine.open(
        config, snapshot=snapshot, store=open_audience(config).store, slices=Slices.fixed(snapshot.li_i[:, 0]),
        metrics=Metrics.memory("bidder"), clock=lambda: NOON_S * 1_000_000_000,
    )  # fmt: skip
    engine.warm()
    try:
        yield server, proxy, Load(world, engine, rate)
    finally:
        engine.close()
        proxy.close()
        server.close()


def fill(world: World, hosts: tuple[str, ...]) -> None:
    """Everybody of the world into the server."""
    writer = AerospikeWriter(hosts, client=_patiently(hosts))
    people = People.generate(PARAMETERS.people, PARAMETERS.seed, POPULATION)
    exchanges = {exchange.name: exchange.id for exchange in world.catalog.exchanges}
    for records, keys in keyed_profiles(world.config, people, exchanges):
        writer.write(records, keys)
    writer.close()


def _patiently(hosts: tuple[str, ...]) -> Any:
    """A client, once the server is ready for one."""
    ends = time.monotonic() + 30
    while True:
        try:
            return connect(hosts, 10_000)
        except StoreError:
            if time.monotonic() > ends:
                raise
            time.sleep(0.25)
