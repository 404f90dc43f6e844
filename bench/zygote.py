"""A process that has imported everything and forks ready children on demand, so that a restart costs no imports.

It must be started before the caller has threads. Children are killed by their pid; the zygote reaps them.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping

Role = Callable[[str], None]


class Zygote:
    """``roles`` by name; `fork` runs one in a new process. ``prepare`` imports what they need."""

    def __init__(self, roles: Mapping[str, Role], prepare: Callable[[], None]) -> None:
        self._end, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            self._end.close()
            try:  # nothing of the caller's stack may run in here
                _serve(theirs, roles, prepare)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        theirs.close()

    def fork(self, role: str, argument: str = "") -> int:
        """The pid of a new process that runs ``roles[role](argument)``."""
        self._end.sendall(f"{role} {argument}\n".encode())
        answer = b""
        while not answer.endswith(b"\n"):
            part = self._end.recv(64)
            if not part:
                raise RuntimeError("the zygote has died")
            answer += part
        return int(answer)

    def close(self) -> None:
        """End it."""
        self._end.close()
        os.waitpid(self.pid, 0)


def _serve(end: socket.socket, roles: Mapping[str, Role], prepare: Callable[[], None]) -> None:
    prepare()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with end.makefile("r") as lines:
        for line in lines:
            role, _, argument = line.rstrip("\n").partition(" ")
            pid = os.fork()
            if pid == 0:
                _run(end, roles[role], argument)
            end.sendall(f"{pid}\n".encode())
    os._exit(0)


def _run(end: socket.socket, role: Role, argument: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    end.close()
    try:
        role(argument)
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    os._exit(code)
