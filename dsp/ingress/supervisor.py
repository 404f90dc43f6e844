"""The bidder role: starts the workers, restarts those that die, replaces them one by one, adds up their metrics.

Signals: SIGTERM and SIGINT drain every worker and end; SIGHUP reads the configuration again and is a rolling restart:
for each worker a new one starts and is ready before the old one drains, so the port is never without a listener. A
configuration that can't be read changes nothing; settings in `dsp.base.reload.BIDDER_FIXED` wait for a restart.

A worker is known by its slot: a number that its metrics file carries, free again when it has ended. A worker that dies
is started again after a wait that doubles up to BACK_OFF_MAX_S while it keeps dying.

The workers' decision logs are kept as `retention` says, here, since nobody else may reach this machine's files.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from dsp.base.config import Config, ConfigError
from dsp.base.logs import logger
from dsp.base.metrics import Metrics, clear_gauges
from dsp.base.reload import BIDDER_FIXED, reloaded
from dsp.bidder.retain import delete_old_decisions
from dsp.ingress.metrics_http import MetricsServer
from dsp.ingress.worker import ENGINE

log = logger(__name__)

TICK_S = 0.05
BACK_OFF_S = 0.25
BACK_OFF_MAX_S = 30.0
HEALTHY_S = 60.0  # a worker that lived so long starts anew without a wait
READY_S = 180.0  # a first start compiles the kernels
GRACE_S = 5.0  # beyond drain_s, before SIGKILL
RETAIN_S = 60.0  # segments of the decision log are closed as often


@dataclass
class Worker:
    """One process and its place: ``position`` decides the core, ``slot`` the files."""

    kind: str
    position: int
    slot: int
    process: subprocess.Popen[bytes]
    started_s: float
    leaving: bool = False


class Supervisor:
    """See the module. `run` blocks until a signal ends the role."""

    def __init__(
        self,
        config: Config,
        engine: str = ENGINE,
        clock_s: Callable[[], float] = time.monotonic,
        read_config: Callable[[], Config] | None = None,
    ) -> None:
        """``read_config`` reads the configuration anew; it may raise `ConfigError`."""
        self._config = config
        self._read_config = read_config
        self._engine = engine
        self._clock_s = clock_s
        self._run = config.path("run")
        self.workers: list[Worker] = []
        self._due: list[tuple[float, str, int]] = []  # when to start, kind, position
        self._back_off_s: dict[tuple[str, int], float] = {}
        self._stopping = False
        self._rolling = False
        self._retain_s = clock_s()  # when to look for old decision logs

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; the exit status."""
        self._run.mkdir(parents=True, exist_ok=True)
        for old in [*self._run.glob("bidder-*.metrics"), *self._run.glob("bidder-*.json")]:
            old.unlink()
        self._settings = self._run / "bidder.settings.json"
        self._settings.write_bytes(msgspec.json.encode(self._config))
        self._restarts = Metrics.create(self._run / "bidder-supervisor.metrics", "bidder").counter(
            "dsp_worker_restarts_total"
        )
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        signal.signal(signal.SIGHUP, self._roll)
        bidder = self._config.bidder
        metrics = MetricsServer(bidder.http_host, bidder.metrics_port, self._run, "bidder", self.ready)
        try:
            counts = self._counts()
            places = [(kind, n) for kind, count in counts.items() for n in range(count)]
            for k, (kind, position) in enumerate(places):
                worker = self._start(kind, position)
                if k == 0:  # it compiles what is not compiled yet, for all of them
                    self._wait(lambda w=worker: self._stopping or self._serves(w) or w not in self.workers, READY_S)  # type: ignore[misc]
            while not self._stopping:
                time.sleep(TICK_S)
                self._tend()
                self._retain()
                if self._rolling:
                    self._rolling = False
                    if self._reload():
                        self._replace_all()
        finally:
            self._end_all()
            metrics.close()
        return 0

    def ready(self) -> bool:
        """Whether every place has a worker that serves."""
        wanted = sum(self._counts().values())
        serving = {(w.kind, w.position) for w in list(self.workers) if not w.leaving and self._serves(w)}
        return not self._stopping and len(serving) == wanted

    def _counts(self) -> dict[str, int]:
        """How many workers of each kind, in the order in which they get cores."""
        config = self._config
        return {
            "http": config.bidder.http_workers, "grpc": config.bidder.grpc_workers, "rta": config.rta.workers,
            "artf": config.artf.workers,
        }  # fmt: skip

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _roll(self, *_: object) -> None:
        self._rolling = True

    def _reload(self) -> bool:
        """Read the configuration again, for the workers to come; False where it is not one."""
        if self._read_config is None:
            return True
        try:
            config, taken, waiting = reloaded(self._config, self._read_config(), BIDDER_FIXED)
        except ConfigError as error:
            log.error("the configuration is not valid; the old one stays and no worker is replaced", why=str(error))
            return False
        if waiting:
            log.warning("these settings wait for a restart of the role", settings=waiting)
        log.info("configuration read again", changed=taken)
        self._config = config
        self._settings.write_bytes(msgspec.json.encode(config))
        return True

    def _path(self, worker: Worker, suffix: str) -> Path:
        return self._run / f"bidder-{worker.kind}-{worker.slot}.{suffix}"

    def _serves(self, worker: Worker) -> bool:
        return worker.process.poll() is None and self._path(worker, "json").exists()

    def _start(self, kind: str, position: int) -> Worker:
        used = {worker.slot for worker in self.workers if worker.kind == kind}
        slot = next(n for n in range(len(used) + 1) if n not in used)
        command = [sys.executable, "-m", "dsp.ingress.worker", kind, str(slot), "--config", str(self._settings)]
        cpus = self._config.bidder.cpus
        if cpus:
            counts = self._counts()
            first = sum(counts[before] for before in list(counts)[: list(counts).index(kind)])
            command += ["--cpu", str(cpus[(first + position) % len(cpus)])]
        if self._engine != ENGINE and kind in ("http", "grpc"):
            command += ["--engine", self._engine]
        # A session of its own: Ctrl-C reaches the supervisor alone, which then drains the workers.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        worker = Worker(kind, position, slot, process, self._clock_s())
        self.workers.append(worker)
        return worker

    def _tend(self) -> None:
        """Notice workers that ended, and start what is due."""
        now_s = self._clock_s()
        for worker in list(self.workers):
            status = worker.process.poll()
            if status is None:
                continue
            self.workers.remove(worker)
            self._path(worker, "json").unlink(missing_ok=True)
            clear_gauges(self._path(worker, "metrics"))
            if worker.leaving or self._stopping:
                continue
            place = (worker.kind, worker.position)
            wait_s = BACK_OFF_S if now_s - worker.started_s > HEALTHY_S else self._back_off_s.get(place, BACK_OFF_S)
            self._back_off_s[place] = min(2 * wait_s, BACK_OFF_MAX_S)
            self._due.append((now_s + wait_s, *place))
            self._restarts[0] += 1
            log.error("a worker ended", which=f"{place[0]}{place[1]}", status=status, again_s=wait_s)
        for due in [due for due in self._due if due[0] <= now_s]:
            self._due.remove(due)
            self._start(due[1], due[2])

    def _retain(self) -> None:
        """Delete decision logs past their days or size, once a RETAIN_S."""
        now_s = self._clock_s()
        if now_s < self._retain_s:
            return
        self._retain_s = now_s + RETAIN_S
        try:
            files, size = delete_old_decisions(self._config)
        except OSError as error:
            log.error("old decision logs could not be deleted; trying again", why=str(error), again_s=RETAIN_S)
        else:
            if files:
                log.info("old decision logs deleted", files=files, bytes=size)

    def _replace_all(self) -> None:
        for old in [worker for worker in self.workers if not worker.leaving]:
            if old.process.poll() is not None:
                continue
            new = self._start(old.kind, old.position)
            new.leaving = True  # until it serves: should it die, nobody misses it
            if not self._wait(lambda new=new: self._serves(new) or new.process.poll() is not None, READY_S):  # type: ignore[misc]
                log.error("a new worker was not ready in time; the old one stays", which=f"{old.kind}{old.position}")
                new.process.kill()
                return
            if not self._serves(new):
                log.error("a new worker did not start; the old one stays", which=f"{old.kind}{old.position}")
                return
            new.leaving, old.leaving = False, True
            old.process.terminate()
            self._wait(lambda old=old: old.process.poll() is not None, self._config.bidder.drain_s + GRACE_S)  # type: ignore[misc]
            if old.process.poll() is None:
                old.process.kill()
            if self._stopping:
                return

    def _wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        end_s = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end_s:
                return False
            time.sleep(TICK_S)
            self._tend()
        return True

    def _end_all(self) -> None:
        self._stopping = True
        for worker in self.workers:
            worker.process.terminate()
        self._wait(lambda: not self.workers, self._config.bidder.drain_s + GRACE_S)
        for worker in self.workers:
            worker.process.kill()
            worker.process.wait()


def run_bidder(config: Config, read_config: Callable[[], Config] | None = None) -> int:
    """The bidder role in this process, blocking; its exit status. ``read_config``: see `Supervisor`."""
    return Supervisor(config, read_config=read_config).run()
