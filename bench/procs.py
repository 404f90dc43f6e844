"""Server processes of a benchmark: started on one core, waited for, always stopped again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Self

SERVER_CPU = 0
LOAD_CPU = 1
OUT = Path(__file__).parent / "out"


class ServerError(Exception):
    """A server that did not start or died; the message ends with what it wrote."""


def free_port() -> int:
    """A TCP port nobody listens on right now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def pin(cpu: int) -> None:
    """Keep this process on one core, where there are at least two."""
    if (os.cpu_count() or 1) > cpu:
        os.sched_setaffinity(0, {cpu})


class Server:
    """``python -m module args``, ready when its port accepts. Use as a context manager."""

    def __init__(
        self,
        name: str,
        module: str,
        args: Sequence[str],
        port: int,
        *,
        cpu: int | None = SERVER_CPU,
        ready_s: float = 90,
    ) -> None:
        self.name, self.address = name, ("127.0.0.1", port)
        OUT.mkdir(parents=True, exist_ok=True)
        self._log_path = OUT / f"{name}.log"
        self._log: IO[bytes] = self._log_path.open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *args],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            cwd=Path(__file__).parent.parent,
        )
        if cpu is not None and (os.cpu_count() or 1) > cpu:
            os.sched_setaffinity(self._process.pid, {cpu})  # before it has any other thread
        try:
            self._wait(ready_s)
        except ServerError:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def log(self) -> str:
        """The end of what it wrote."""
        return self._log_path.read_text(errors="replace")[-3000:]

    def _wait(self, ready_s: float) -> None:
        until = time.monotonic() + ready_s
        while time.monotonic() < until:
            if self._process.poll() is not None:
                raise ServerError(f"{self.name} ended with {self._process.returncode}:\n{self.log()}")
            try:
                socket.create_connection(self.address, timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise ServerError(f"{self.name} does not listen on port {self.address[1]} after {ready_s:.0f} s:\n{self.log()}")

    def stop(self) -> int:
        """SIGTERM, and SIGKILL after ten seconds; its exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._log.close()
        code = int(self._process.returncode)
        if code in (0, -signal.SIGTERM):
            self._log_path.unlink(missing_ok=True)  # of interest only where something went wrong
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
