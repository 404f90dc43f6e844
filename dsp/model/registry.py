"""Model versions on disk: ``data_dir/models/NNNNNN/`` with a ``CURRENT`` file naming the one that serves.

Invariant: a version's directory is complete before it has its name (it is written aside and renamed), and ``CURRENT``
is replaced in one step, so a reader sees either model whole. Versions are never reused.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from dsp.base.config import Config

_VERSION = re.compile(r"^\d{6}$")


class ModelError(Exception):
    """A model that cannot be used; the message says which, why, and what to do."""


def models_dir(config: Config) -> Path:
    """Where the versions lie; made on first use."""
    path = config.path("models")
    path.mkdir(parents=True, exist_ok=True)
    return path


def versions(config: Config) -> list[int]:
    """The versions there are, oldest first."""
    root = config.path("models")
    if not root.is_dir():
        return []
    return sorted(int(path.name) for path in root.iterdir() if _VERSION.match(path.name))


def version_dir(config: Config, version: int) -> Path:
    """The directory of one version (which need not exist)."""
    return config.path("models", f"{version:06d}")


def existing_dir(config: Config, version: int) -> Path:
    """The directory of one version. Raises `ModelError` where there is none."""
    path = version_dir(config, version)
    if not path.is_dir():
        raise ModelError(f"there is no model version {version} in {path.parent}; `dsp model list` shows them all")
    return path


def current_dir(config: Config) -> Path | None:
    """The directory of the model that serves; None before any model was made current.

    Raises `ModelError` where ``CURRENT`` names a model that is not there.
    """
    try:
        name = config.path("models", "CURRENT").read_text().strip()
    except FileNotFoundError:
        return None
    path = config.path("models", name)
    if not _VERSION.match(name) or not path.is_dir():
        raise ModelError(f"{path.parent / 'CURRENT'} names {name!r}, which is not a model there; run `dsp train`")
    return path


def save_version(config: Config, write: Callable[[Path, int], None]) -> Path:
    """Let ``write(directory, version)`` fill a new version's directory, then give it its name. Returns the path."""
    root = models_dir(config)
    while True:
        version = max(versions(config), default=0) + 1
        aside = root / f".new-{version:06d}-{os.getpid()}"
        aside.mkdir()
        try:
            write(aside, version)
            aside.rename(version_dir(config, version))
            return version_dir(config, version)
        except FileExistsError:  # another trainer took the number meanwhile
            continue
        except OSError as error:
            if not version_dir(config, version).is_dir():
                raise
            del error
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def make_current(config: Config, path: Path) -> None:
    """Let ``path`` (a version's directory) serve from now on: bidders notice and swap between batches."""
    target = config.path("models", "CURRENT")
    aside = target.with_name(f".CURRENT-{os.getpid()}")
    aside.write_text(path.name + "\n")
    os.replace(aside, target)
