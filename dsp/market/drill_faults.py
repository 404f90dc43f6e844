"""The faults of a drill: what is done to the running system, and how it is seen that it has come back by itself.

Only processes of the system under drill are signalled: a worker by the pid in its own file under ``run``, the ledger by
who listens on its port. Whatever was frozen is thawed, also when the drill is broken off.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import httpx
import msgspec

from dsp.audience.lmdb_frequency import frequency_path, hold_writes
from dsp.base.config import Config
from dsp.catalog.publish import publish
from dsp.model.manifest import Manifest
from dsp.model.registry import current_dir, make_current, save_version

WAIT_S = 30.0
POLL_S = 0.05
_LISTEN = "0A"  # state of a socket in /proc/net/tcp


@dataclass
class Fault:
    """One fault: seconds since the drill's start; ``healed_s`` -1 while it has not."""

    name: str
    says: str
    at_s: float
    ended_s: float = -1.0  # when we stopped inflicting it
    healed_s: float = -1.0  # when the part that was hurt worked again
    failed: str = ""  # why it could not be inflicted, or did not heal

    @property
    def recovery_s(self) -> float:
        """How long the part took to come back once it was let go."""
        return max(0.0, self.healed_s - self.ended_s) if self.healed_s >= 0 else -1.0


class Grip:
    """Hands on the system: its processes, its ports, its files."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def workers(self) -> dict[str, int]:
        """Pids of the bidder's workers by the name of their file."""
        found = {}
        for path in sorted(self.config.path("run").glob("bidder-*-*.json")):
            try:
                found[path.stem] = int(json.loads(path.read_text())["pid"])
            except (OSError, ValueError, KeyError):
                continue  # it ends just now
        return found

    async def wait(self, condition: Callable[[], Awaitable[bool]], what: str) -> None:
        """Until it holds. Raises `TimeoutError`."""
        end_s = time.monotonic() + WAIT_S
        while not await condition():
            if time.monotonic() > end_s:
                raise TimeoutError(f"{what} within {WAIT_S:.0f} s")
            await asyncio.sleep(POLL_S)

    async def text(self, port: int, path: str, host: str = "127.0.0.1") -> str:
        """What an address of the system says, "" where it doesn't answer 200."""
        try:
            async with httpx.AsyncClient(timeout=2.0, trust_env=False) as client:
                answer = await client.get(f"http://{host}:{port}{path}")
        except httpx.HTTPError:
            return ""
        return answer.text if answer.status_code == 200 else ""

    async def metric(self, name: str) -> float:
        """The largest value of a metric of the bidder, over its workers and labels; -1 where there is none."""
        text = await self.text(self.config.bidder.metrics_port, "/metrics", self.config.bidder.http_host)
        values = [float(line.split()[-1]) for line in text.splitlines() if line.startswith((name + " ", name + "{"))]
        return max(values, default=-1.0)


def listener(port: int) -> int:
    """The process that listens on a TCP port of this machine. Raises `LookupError` where none (of ours) does."""
    wanted = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:] if Path(table).exists() else []:
            cells = line.split()
            if cells[3] == _LISTEN and int(cells[1].rpartition(":")[2], 16) == port:
                wanted.add(f"socket:[{cells[9]}]")
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                if any(os.readlink(each) in wanted for each in (process / "fd").iterdir()):
                    return int(process.name)
            except OSError:
                continue  # gone, or another user's
    raise LookupError(f"no process of this user listens on port {port}")


async def _kill_worker(grip: Grip, fault: Fault, seconds: float, now: Callable[[], float]) -> None:
    before = grip.workers()
    name = next((each for each in before if "-http-" in each), next(iter(before), ""))
    if not name:
        raise LookupError("no worker has a file under run: is this the system's data directory?")
    os.kill(before[name], signal.SIGKILL)
    fault.ended_s = now()

    async def back() -> bool:
        return len(grip.workers()) == len(before) and grip.workers().get(name, before[name]) != before[name]

    await grip.wait(back, "the worker was not started again")
    fault.healed_s = now()


async def _freeze_store(grip: Grip, fault: Fault, seconds: float, now: Callable[[], float]) -> None:
    audience = grip.config.audience
    if audience.store == "aerospike":
        pid = listener(int(audience.aerospike_hosts[0].rpartition(":")[2]))
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            os.kill(pid, signal.SIGCONT)
    else:
        path = frequency_path(grip.config.root)
        if not (path / "data.mdb").exists():
            raise LookupError(f"{path} is not there: no frequency was counted yet")
        await asyncio.to_thread(hold_writes, path, seconds)
    fault.ended_s = fault.healed_s = now()  # nothing has to come back: bids and notices are judged by the callers


async def _stop_ledger(grip: Grip, fault: Fault, seconds: float, now: Callable[[], float]) -> None:
    ledger = grip.config.ledger
    pid = listener(ledger.port)
    os.kill(pid, signal.SIGKILL)
    fault.ended_s = now()

    async def back() -> bool:
        return bool(await grip.text(ledger.port, "/readyz", ledger.worker_host or ledger.host))

    await grip.wait(back, "the ledger was not ready again")
    fault.healed_s = now()


async def _swap_model(grip: Grip, fault: Fault, seconds: float, now: Callable[[], float]) -> None:
    current = current_dir(grip.config)
    if current is None:
        raise LookupError("there is no model")

    def copy(directory: Path, version: int) -> None:
        for file in current.iterdir():
            if file.is_file():
                directory.joinpath(file.name).write_bytes(file.read_bytes())
        manifest = msgspec.structs.replace(Manifest.load(directory), version=version, name=f"drill-{version:06d}")
        manifest.save(directory)

    before = await grip.metric("dsp_model_version")
    make_current(grip.config, await asyncio.to_thread(save_version, grip.config, copy))
    fault.ended_s = now()

    async def taken() -> bool:
        return await grip.metric("dsp_model_version") > before

    await grip.wait(taken, "no worker took the new model")
    fault.healed_s = now()


async def _swap_snapshot(grip: Grip, fault: Fault, seconds: float, now: Callable[[], float]) -> None:
    before = await grip.metric("dsp_snapshot_version")
    await asyncio.to_thread(publish, grip.config)
    fault.ended_s = now()

    async def taken() -> bool:
        return await grip.metric("dsp_snapshot_version") > before

    await grip.wait(taken, "no worker took the new snapshot")
    fault.healed_s = now()


class Kind(NamedTuple):
    """What a fault is called in the report, and how it is inflicted."""

    says: str
    inflict: Callable[[Grip, Fault, float, Callable[[], float]], Awaitable[None]]


FAULTS = {
    "worker": Kind("kill -9 of a worker", _kill_worker),
    "store": Kind("the audience store freezes", _freeze_store),
    "ledger": Kind("kill -9 of the ledger", _stop_ledger),
    "model": Kind("another model is made current", _swap_model),
    "snapshot": Kind("another snapshot is published", _swap_snapshot),
}
