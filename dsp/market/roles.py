"""The demo's roles as child processes: started, watched until ready, and surely stopped.

Each runs ``python -m dsp.cli.main --config FILE <role>``, its output in a log file under the data directory. Only
processes started here are ever signalled, by their own handle.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import httpx

STOP_S = 15.0
LOG_TAIL = 2000


class RoleError(Exception):
    """A role that did not start or died; the message names it and ends with its last output."""


@dataclass
class Role:
    """One child process."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    output: IO[bytes]

    def tail(self) -> str:
        """The end of what it wrote."""
        return self.log.read_text(errors="replace")[-LOG_TAIL:]


@dataclass
class Roles:
    """All child processes of a demo; leaving the context stops them, last started first."""

    config_file: Path
    directory: Path
    running: list[Role] = field(default_factory=list)

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def start(self, name: str, arguments: Sequence[str]) -> Role:
        """Start ``dsp <arguments>`` as a child process."""
        log = self.directory / f"{name}.log"
        output = log.open("wb")
        command = [sys.executable, "-m", "dsp.cli.main", "--config", str(self.config_file), *arguments]
        environment = {name: value for name, value in os.environ.items() if name != "DSP_DATA_DIR"}  # the file says it
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment,
            start_new_session=True,  # Ctrl-C reaches the demo alone, which then ends the roles in order
        )  # fmt: skip
        role = Role(name, process, log, output)
        self.running.append(role)
        return role

    def wait_ready(self, role: Role, url: str, timeout_s: float) -> None:
        """Return when ``url`` answers 200. Raises `RoleError` when the role dies or time runs out."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self.check()
            try:
                if httpx.get(url, timeout=1.0).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.1)
        raise RoleError(f"{role.name} was not ready within {timeout_s:.0f} s ({url}):\n{role.tail()}")

    def check(self) -> None:
        """Raise `RoleError` when a role has died."""
        for role in self.running:
            status = role.process.poll()
            if status is not None:
                raise RoleError(f"{role.name} ended with status {status}:\n{role.tail()}")

    def stop(self) -> dict[str, int]:
        """End them, last started first: SIGTERM, and SIGKILL where that does not help; exit status by name."""
        statuses: dict[str, int] = {}
        while self.running:
            role = self.running.pop()
            role.process.terminate()
            try:
                statuses[role.name] = role.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                role.process.kill()
                statuses[role.name] = role.process.wait()
            role.output.close()
        return statuses


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on at the moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [int(s.getsockname()[1]) for s in sockets]
    finally:
        for s in sockets:
            s.close()
