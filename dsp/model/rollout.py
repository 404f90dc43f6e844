"""How a new model comes into service: it shadows, then scores a share of the traffic, then all of it; and the way back.

Beside ``CURRENT`` (`dsp.model.registry`) two files in the models' directory say the rest: ``CHALLENGER`` names a second
version and its share of the batches (0: it shadows, its scores are counted and thrown away), ``FORMER`` lists what was
current before, newest last. Each is replaced in one step; bidders look at them between batches, so no request waits or
is dropped. A version enters by `shadow` or `promote` only past the gates of `dsp.model.admission`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import msgspec

from dsp.base.config import Config
from dsp.model.registry import ModelError, current_dir, existing_dir, make_current, models_dir

CHALLENGER_FILE = "CHALLENGER"
FORMER_FILE = "FORMER"
_REMEMBERED = 20


class Challenger(NamedTuple):
    """A second version: its directory, and which share of the batches it scores (0: none, it shadows)."""

    path: Path
    share: float


class _File(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    share: float


def challenger(config: Config) -> Challenger | None:
    """The version that stands beside the current one; None without. Raises `ModelError` for a file that is wrong."""
    path = config.path("models", CHALLENGER_FILE)
    try:
        file = msgspec.json.decode(path.read_bytes(), type=_File)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise ModelError(f"{path}: {error}; `dsp model rollback` removes it") from error
    return Challenger(existing_dir(config, file.version), min(max(file.share, 0.0), 1.0))


def shadow(config: Config, version: int) -> None:
    """Let a version score beside the current one without effect."""
    _write_challenger(config, version, 0.0)


def promote(config: Config, version: int, share: float = 1.0) -> None:
    """Let a version score ``share`` of the batches; with 1 it is the current one, and the former is remembered."""
    if not 0.0 < share <= 1.0:
        raise ModelError(f"a share of {share} is not between 0 and 1; use `dsp model shadow` for none")
    if share < 1.0:
        _write_challenger(config, version, share)
        return
    path, now = existing_dir(config, version), current_dir(config)
    if now is not None and now != path:
        _write(config, FORMER_FILE, "".join(f"{name}\n" for name in [*former(config), now.name][-_REMEMBERED:]))
    make_current(config, path)
    config.path("models", CHALLENGER_FILE).unlink(missing_ok=True)


def rollback(config: Config) -> Path:
    """Undo the last step: a challenger leaves; without one the former version is current again. Returns what serves.

    Raises `ModelError` where there is nothing to go back to.
    """
    now = current_dir(config)
    standing = config.path("models", CHALLENGER_FILE)
    if standing.exists() and now is not None:
        standing.unlink()
        return now
    names = [name for name in former(config) if config.path("models", name).is_dir()]
    if not names:
        raise ModelError(f"{config.path('models')}: no former version to go back to; `dsp model list` shows them all")
    make_current(config, config.path("models", names[-1]))
    _write(config, FORMER_FILE, "".join(f"{name}\n" for name in names[:-1]))
    return config.path("models", names[-1])


def former(config: Config) -> list[str]:
    """Directory names of the versions that were current, newest last."""
    try:
        return config.path("models", FORMER_FILE).read_text().split()
    except FileNotFoundError:
        return []


def _write_challenger(config: Config, version: int, share: float) -> None:
    if current_dir(config) == existing_dir(config, version):
        raise ModelError(f"version {version} is the current model already")
    _write(config, CHALLENGER_FILE, msgspec.json.encode(_File(version, share)).decode() + "\n")


def _write(config: Config, name: str, text: str) -> None:
    aside = models_dir(config) / f".{name}-{os.getpid()}"
    aside.write_text(text)
    os.replace(aside, config.path("models", name))
