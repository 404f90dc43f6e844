"""Where the command line meets its user: the global options, and errors as one clear line and exit status 2."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import typer

from dsp.base.config import Config, ConfigError, load_config

USAGE = 2  # exit status of what the user can mend
PARENT = "DSP_PARENT"  # environment: the process whose end is this one's too
_PR_SET_PDEATHSIG = 1


def fail(message: str) -> NoReturn:
    """Say what is wrong on stderr and end with status 2."""
    print(f"error: {message}", file=sys.stderr)
    raise typer.Exit(USAGE)


@contextlib.contextmanager
def refusing(*errors: type[BaseException]) -> Iterator[None]:
    """Inside it these errors, and files that can't be read or written, are the user's to mend."""
    mendable: tuple[type[BaseException], ...] = (*errors, OSError)
    try:
        yield
    except mendable as error:
        fail(str(error))


def config_of(context: typer.Context) -> Config:
    """The configuration that --config names, or the defaults."""
    file = context.find_root().obj
    with refusing(ConfigError):
        return load_config(file)


def remember_config(context: typer.Context, file: Path | None) -> None:
    """Keep --config for `config_of`."""
    context.obj = file


def print_json(value: Any) -> None:
    """One JSON document."""
    print(json.dumps(msgspec.to_builtins(value, str_keys=True), ensure_ascii=False))


def write_config(config: Config, path: Path) -> Path:
    """The whole configuration as a file (JSON is YAML) for a child process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(config))
    return path


def end_with_parent() -> None:
    """Started by `dsp serve`: have the kernel end this process too, should that one be killed (Linux only)."""
    parent = os.environ.get(PARENT)
    if parent is None:
        return
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # it was faster
        sys.exit(1)
