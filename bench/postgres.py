"""A PostgreSQL server of our own, from the binaries of Debian's ``postgresql`` package, for tests and faults.

A new cluster in a temporary directory, on a free loopback port, as durable as the server's defaults; never the
machine's own cluster. As root it runs as the user ``postgres``, because the server refuses root.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

START_S = 60


def binaries() -> Path | None:
    """Where ``initdb`` and ``postgres`` are; None where no server is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3].split(".")[0]))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).resolve().parent if on_path else None


class Postgres:
    """One server. ``url(name)`` is what `ledger.database` takes; `kill` is ``kill -9`` of all its processes."""

    def __init__(self, **settings: Any) -> None:
        where = binaries()
        if where is None:
            raise FileNotFoundError("no PostgreSQL server is installed; on Debian: apt-get install postgresql")
        self._bin, self._settings = where, settings
        self._user: dict[str, Any] = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
        self.root = Path(tempfile.mkdtemp(prefix="dsp-postgres-"))
        if self._user:
            shutil.chown(self.root, "postgres", "postgres")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self._run("initdb", "-D", str(self.data), "-U", "dsp", "--auth=trust", "--no-locale", "--no-sync", "-E", "UTF8")
        self.start()

    @property
    def data(self) -> Path:
        """The cluster's directory."""
        return self.root / "data"

    def _run(self, name: str, *arguments: str) -> None:
        subprocess.run(
            [str(self._bin / name), *arguments],
            check=True,
            capture_output=True,
            cwd=self.root,
            timeout=120,
            **self._user,
        )

    def url(self, name: str = "postgres") -> str:
        """The address of a database."""
        return f"postgresql://dsp@127.0.0.1:{self.port}/{name}"

    def create(self) -> str:
        """A new empty database; its address."""
        self._databases += 1
        name = f"d{self._databases}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.url(name)

    def start(self) -> None:
        """Start, and wait until it answers (after a crash: until it has recovered)."""
        settings = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": "", **self._settings}
        command = [str(self._bin / "postgres"), "-D", str(self.data)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:  # memory of killed processes may linger
                with (self.root / "log").open("ab") as log:
                    self._process = subprocess.Popen(
                        command, stdout=log, stderr=log, cwd=self.root, start_new_session=True, **self._user
                    )
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(self.url(), connect_timeout=2).close()
                return
            time.sleep(0.05)
        raise RuntimeError(f"PostgreSQL did not start:\n{(self.root / 'log').read_text()[-2000:]}")

    def kill(self) -> None:
        """``kill -9`` of the server and everything it has started."""
        self._end(signal.SIGKILL)

    def freeze(self, frozen: bool) -> None:
        """Stop all its processes where they are, or let them go on: a database that is there and does not answer."""
        self._signal_all(signal.SIGSTOP if frozen else signal.SIGCONT)

    def _signal_all(self, number: int) -> None:
        """To the server first, so that it starts no more; its children have left its process group."""
        if self._process is None:
            return
        family = [self._process.pid]
        family += map(int, Path(f"/proc/{family[0]}/task/{family[0]}/children").read_text().split())
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _end(self, number: int) -> None:
        if self._process is not None:
            if number == signal.SIGKILL:
                self._signal_all(number)
            else:
                self._process.send_signal(number)
            self._process.wait(60)
            self._process = None

    def close(self) -> None:
        """Stop and remove the cluster."""
        self._end(signal.SIGQUIT)  # nothing of it is kept
        shutil.rmtree(self.root, ignore_errors=True)
