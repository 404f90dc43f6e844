"""The bidder role as a process: workers on one port, metrics added up, crashes, rolling restart, drain."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import httpx
import pytest

import dsp
from dsp.ingress.grpc_side import BID

HERE = Path(__file__).parent
ROLE = """
import sys
from pathlib import Path
from dsp.base.config import load_config
from dsp.ingress.supervisor import Supervisor
from dsp.base.logs import start_logging
read = lambda: load_config(Path(sys.argv[1]))
start_logging(read().logs, "bidder")
sys.exit(Supervisor(read(), "fake_engine:open_engine", read_config=read).run())
"""


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(s.getsockname()[1]) for s in sockets]
    for s in sockets:
        s.close()
    return ports


def until(condition: Callable[[], bool]) -> None:
    """Poll for what another process is about to do; the time is a bound on failure, not part of the test."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.01)


class Role:
    """A supervisor and its workers in a directory of their own."""

    def __init__(self, directory: Path, retention: dict[str, float] | None = None, **bidder: object) -> None:
        self.directory = directory
        http_port, grpc_port, metrics_port = free_ports(3)
        self.url, self.metrics_url = f"http://127.0.0.1:{http_port}", f"http://127.0.0.1:{metrics_port}"
        self.grpc_address = f"127.0.0.1:{grpc_port}"
        settings = {"http_port": http_port, "grpc_port": grpc_port, "metrics_port": metrics_port, "drain_s": 4.0}
        self.file = file = directory / "config.yaml"
        tree = {"data_dir": str(directory), "bidder": {**settings, **bidder}, "retention": retention or {}}
        file.write_text(json.dumps(tree))
        path = os.pathsep.join([str(HERE), str(Path(dsp.__file__).parents[1])])
        self.log = directory / "stderr"
        with self.log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-c", ROLE, str(file)],
                env={**os.environ, "PYTHONPATH": path, "DSP_DATA_DIR": str(directory)},
                stderr=stderr,
            )
        until(self.ready)

    def said(self) -> str:
        return self.log.read_text()

    def ready(self) -> bool:
        assert self.process.poll() is None, "the supervisor ended"
        try:
            return httpx.get(self.metrics_url + "/readyz").status_code == 200
        except httpx.HTTPError:
            return False

    def pids(self) -> set[int]:
        found = set()
        for path in (self.directory / "run").glob("bidder-*-*.json"):
            with contextlib.suppress(FileNotFoundError):  # it drains just now
                found.add(json.loads(path.read_text())["pid"])
        return found

    def metric(self, line: str) -> float:
        text = httpx.get(self.metrics_url + "/metrics").text
        return sum(float(row.split()[-1]) for row in text.splitlines() if row.startswith(line + " "))

    def bid(self, body: bytes = b"bid") -> int:
        return httpx.post(self.url + "/bid/alpha", content=body).status_code

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(60)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Role]]:
    roles: list[Role] = []

    def make(**bidder: object) -> Role:
        roles.append(Role(tmp_path, **bidder))
        return roles[-1]

    yield make
    for role in roles:
        if role.process.poll() is None:
            role.stop()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_workers_share_a_port_their_metrics_add_up_and_a_crash_is_mended(start: Callable[..., Role]) -> None:
    role = start(http_workers=2, grpc_workers=1)
    pids = role.pids()
    assert len(pids) == 3
    assert role.metric("dsp_workers") == 3
    for _ in range(20):
        assert role.bid() == 200
    with grpc.insecure_channel(role.grpc_address) as channel:
        answer = channel.unary_unary(BID)(b"bid", metadata=(("authorization", "Bearer open"),), timeout=30)
    assert answer == b"1 0 bid"
    bids = 'dsp_bid_requests_total{exchange="alpha",outcome="bid"}'
    assert role.metric(bids) == 21

    with pytest.raises(httpx.HTTPError):
        role.bid(b"exit")
    until(lambda: role.ready() and len(role.pids()) == 3 and role.pids() != pids)
    assert role.metric("dsp_worker_restarts_total") == 1
    assert role.metric(bids) == 21
    assert role.bid() == 200
    assert role.metric(bids) == 22

    workers = role.pids()
    assert role.stop() == 0
    assert not any(alive(pid) for pid in workers)
    assert role.pids() == set()


# grpcio loses a call that races with its stop(), which then ends as CANCELLED.
RETRIED = {
    "native": {grpc.StatusCode.UNAVAILABLE},
    "grpcio": {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED},
}


@pytest.mark.parametrize("grpc_front", sorted(RETRIED))
def test_a_rolling_restart_fails_nothing_after_one_retry(start: Callable[..., Role], grpc_front: str) -> None:
    role = start(http_workers=1, grpc_workers=1, grpc_front=grpc_front, drain_s=2.0)
    before = role.pids()
    done = threading.Event()
    failures: list[str] = []
    served = [0, 0]

    def http_load() -> None:
        with httpx.Client(base_url=role.url, timeout=30) as client:
            while not done.is_set():
                for attempt in range(2):
                    try:
                        status = client.post("/bid/alpha", content=b"bid").status_code
                    except httpx.TransportError as error:
                        if attempt:
                            failures.append(f"http {error!r}")
                    else:
                        if status != 200:
                            failures.append(f"http {status}")
                        break
                served[0] += 1

    def grpc_load() -> None:
        with grpc.insecure_channel(role.grpc_address) as channel:
            call = channel.unary_unary(BID)
            while not done.is_set():
                for attempt in range(2):
                    try:
                        call(
                            b"bid", metadata=(("authorization", "Bearer open"),), timeout=30, wait_for_ready=attempt > 0
                        )
                        break
                    except grpc.RpcError as error:
                        if attempt or error.code() not in RETRIED[grpc_front]:
                            failures.append(f"grpc {error!r}")
                            break
                served[1] += 1

    threads = [threading.Thread(target=target) for target in (http_load, grpc_load)]
    for thread in threads:
        thread.start()
    try:
        role.process.send_signal(signal.SIGHUP)
        until(lambda: role.ready() and len(role.pids()) == 2 and not role.pids() & before)
        mark = list(served)
        until(lambda: served[0] > mark[0] + 10 and served[1] > mark[1] + 10)
    finally:
        done.set()  # whatever happens: threads left running would keep the test run from ending
        for thread in threads:
            thread.join(60)
    assert failures == []
    assert role.metric("dsp_worker_restarts_total") == 0


def test_workers_end_when_their_supervisor_is_killed(start: Callable[..., Role]) -> None:
    role = start(http_workers=1, grpc_workers=1)
    pids = role.pids()
    role.process.kill()
    role.process.wait(30)
    until(lambda: not any(alive(pid) for pid in pids))


@pytest.mark.skipif(not Path("/proc").exists(), reason="reads the niceness of threads from /proc")
def test_a_grpc_workers_io_thread_goes_before_the_one_that_decides(start: Callable[..., Role]) -> None:
    role = start(http_workers=0, grpc_workers=1)
    (pid,) = role.pids()
    deciding = os.getpriority(os.PRIO_PROCESS, pid)
    reading = [
        os.getpriority(os.PRIO_PROCESS, int(task.name))
        for task in Path(f"/proc/{pid}/task").iterdir()
        if (task / "comm").read_text() == "grpc-native-io\n"
    ]
    assert reading
    assert max(reading) < deciding


def test_decision_logs_go_when_their_time_is_over(start: Callable[..., Role], tmp_path: Path) -> None:
    logs = tmp_path / "log" / "decisions"
    logs.mkdir(parents=True)
    segments = [logs / f"{k:013d}-grpc0-1-1.arrows" for k in range(4)]
    for days, path in zip((121, 3, 2, 1), segments, strict=True):
        path.write_bytes(b"x" * 1000)
        os.utime(path, (time.time() - days * 86_400,) * 2)
    being_written = logs / "0000000000009-grpc0-1-2.arrows.tmp"
    being_written.touch()
    start(http_workers=0, retention={"decisions_days": 120, "decisions_gb": 2.5e-6})
    until(lambda: len(list(logs.iterdir())) == 3)
    assert set(logs.iterdir()) == {*segments[2:], being_written}, "one was too old, one beyond the size"


def test_sighup_takes_new_settings_and_a_bad_file_changes_nothing(start: Callable[..., Role]) -> None:
    role = start(http_workers=1, grpc_workers=0, drain_s=2.0)
    settings = role.directory / "run" / "bidder.settings.json"
    config, before = json.loads(role.file.read_text()), role.pids()

    def hup(text: str) -> None:
        role.file.write_text(text)
        os.kill(role.process.pid, signal.SIGHUP)

    port = config["bidder"]["http_port"]
    config["bidder"] |= {"queue_delay_ms": 7.5, "http_port": port + 1}
    hup(json.dumps(config))
    until(lambda: len(role.pids()) == 1 and role.pids() != before)
    taken = json.loads(settings.read_text())["bidder"]
    assert taken["queue_delay_ms"] == 7.5
    assert taken["http_port"] == port  # waits for a restart
    until(role.ready)
    assert role.bid() == 200

    assert "wait for a restart" in role.said()
    assert "bidder.http_port" in role.said()

    now, written = role.pids(), settings.stat().st_mtime_ns
    hup("bidder: {queue_delay_ms: soon}")
    until(lambda: "the old one stays" in role.said())
    assert "$.bidder.queue_delay_ms" in role.said()
    assert role.pids() == now
    assert settings.stat().st_mtime_ns == written
    assert role.bid() == 200
