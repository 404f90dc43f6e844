"""A sick audience store under load: the server killed, frozen, slowed to 50 ms and restarted while requests come in.

`python -m bench audience faults --asd PATH` starts the Aerospike server at PATH on loopback, with data in a file so
that it outlives a kill, behind a small proxy that can delay its answers. A bidder worker answers an open-loop stream of
market requests through its gRPC or HTTP front; latency runs from a request's intended time. Told per fault: p99 against
the deadline, errors, bids while the store was away, and how long after recovery until people are known again as often
as before. The worker has one core, load, server and proxy the other.
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
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from bench.load import Window
from bench.procs import LOAD_CPU, SERVER_CPU, free_port, pin
from bench.procs import Server as Worker
from bench.standard import make_load, requests_of
from bench.worker import metrics_path, start_worker
from bench.world import POPULATION, Parameters, World, forget_decisions, make_world
from dsp.audience.aerospike_store import AerospikeWriter, connect
from dsp.audience.store import StoreError
from dsp.base.config import AudienceConfig, Config
from dsp.base.metrics import Metrics
from dsp.bidder.count import FOUND, MISSING
from dsp.market.people import People
from dsp.market.profiles import keyed_profiles

PARAMETERS = Parameters(line_items=1_000, people=20_000, requests=2_000)
DEADLINE_MS = 100.0  # an exchange's tmax
RESUME_BAR_S = 5.0
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


class Load:
    """A bidder worker under an open-loop stream through its gRPC or HTTP front."""

    def __init__(self, world: World, config: Config, front: str, rate: int, worker: Worker) -> None:
        self.rate = rate
        self._load = make_load(front, worker.address, requests_of(front, world.items, world.tokens))
        path = metrics_path(config, front)
        self._profiles = Metrics(np.memmap(path, np.int64, mode="r"), "bench", path).counter("dsp_profiles_total")
        self.seen: list[tuple[float, int, int]] = []  # when, people known so far, people asked for so far
        self._stop = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()

    def _look(self) -> None:
        while not self._stop.wait(0.05):
            found, missing = int(self._profiles[FOUND]), int(self._profiles[MISSING])
            self.seen.append((time.perf_counter(), found, found + missing))

    def run(self, seconds: float) -> Window:
        """Requests for so long; latency runs from the intended time of sending."""
        return self._load.open_loop(self.rate, seconds)

    def known_rate(self, start_s: float, end_s: float) -> float:
        """Of the people asked for within a span, how many were known."""
        rows = [row for row in self.seen if start_s <= row[0] <= end_s]
        asked = rows[-1][2] - rows[0][2] if len(rows) > 1 else 0
        return round((rows[-1][1] - rows[0][1]) / asked, 3) if asked else 0.0

    def resumed_s(self, since_s: float, healthy: float) -> float:
        """Seconds after ``since_s`` until a fifth of a second's people are known as often as before (9/10 of it)."""
        for at, _, _ in self.seen:
            if at >= since_s and self.known_rate(at, at + 0.25) >= 0.9 * healthy:
                return round(at - since_s, 2)
        return float("inf")

    def close(self) -> None:
        """End it."""
        self._stop.set()
        self._watch.join()
        self._load.close()


def main(argv: list[str]) -> int:
    """Run the faults and print JSON lines; 1 where a bar was missed."""
    parser = argparse.ArgumentParser(prog="bench audience faults", description=__doc__)
    parser.add_argument("--asd", type=Path, required=True, help="the Aerospike server's binary")
    parser.add_argument("--rate", type=int, default=1_500, help="requests a second")
    parser.add_argument("--cache", type=int, default=0, help="hot profiles kept; 0 shows the store alone")
    parser.add_argument("--front", choices=("grpc", "http"), default="grpc")
    args = parser.parse_args(argv)
    pin(LOAD_CPU)
    held = True
    with (
        tempfile.TemporaryDirectory() as root,
        rig(args.asd, Path(root), args.cache, args.rate, args.front) as (server, proxy, load),
    ):
        load.run(2.0)  # connections, page cache
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
            print(json.dumps({**row, "front": args.front, "bar": bar, "held": good}), flush=True)
    forget_decisions()
    return 0 if held else 1


def fault(name: str, load: Load, hurt: Callable[[], None], heal: Callable[[], None]) -> dict[str, Any]:
    """Three healthy seconds, four with the fault, eight after; healing may take a while itself."""
    healed: list[float] = []

    def timed_heal() -> None:
        heal()
        healed.append(time.perf_counter())

    began = time.perf_counter()
    before = load.run(3.0)
    hurt()
    hurt_s = time.perf_counter()
    during = load.run(4.0)
    healer = threading.Thread(target=timed_heal)
    healer.start()
    healing_s = time.perf_counter()
    after = load.run(8.0)
    healer.join()
    windows = (before, during, after)
    late_ms = np.concatenate([window.latency_us for window in windows]) / 1e3
    healthy = load.known_rate(began, hurt_s)
    return {
        "measure": name,
        "requests": sum(window.sent for window in windows),
        "p50_ms": round(float(np.percentile(late_ms, 50)), 2),
        "p99_ms": round(float(np.percentile(late_ms, 99)), 2),
        "max_ms": round(float(late_ms.max()), 1),
        "errors": sum(window.errors for window in windows),
        "p99_ms_healthy": round(before.percentiles()["p99"] / 1e3, 2),
        "p99_ms_during": round(during.percentiles()["p99"] / 1e3, 2),
        "known_rate_healthy": healthy,
        "known_rate_during": load.known_rate(hurt_s + 0.5, healing_s),
        "bid_rate_healthy": round(before.bid_rate(), 3),
        "bid_rate": round(during.bid_rate(), 3),
        "resumed_s": load.resumed_s(healed[0], healthy),
    }


@contextlib.contextmanager
def rig(binary: Path, root: Path, cache: int, rate: int, front: str) -> Iterator[tuple[Server, Proxy, Load]]:
    """Server, proxy, people and a bidder worker."""
    world = make_world(PARAMETERS)
    port = free_port()
    server = Server(binary, root, port)
    server.start()
    proxy = Proxy(port, server.port)
    try:
        hosts = (f"127.0.0.1:{port}",)
        fill(world, hosts)
        audience = AudienceConfig(store="aerospike", aerospike_hosts=hosts, cache_people=cache)
        config = replace(world.config, audience=audience)
        with start_worker(config, front, cpu=SERVER_CPU, noon=True, log_decisions=False) as worker:
            load = Load(world, config, front, rate, worker)
            yield server, proxy, load
            load.close()
    finally:
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
