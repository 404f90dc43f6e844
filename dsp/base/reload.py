"""What of a changed configuration may take effect while a role runs, and what needs it to be restarted."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import msgspec

from dsp.base.config import Config

# Of the bidder role: what its supervisor has bound or counted by. Everything else comes with the next worker.
BIDDER_FIXED = frozenset(
    {"data_dir", "rta.host", "rta.port", "rta.workers"}
    | {f"bidder.{name}" for name in ("http_host", "http_port", "grpc_host", "grpc_port", "metrics_port")}
    | {f"bidder.{name}" for name in ("http_workers", "grpc_workers", "cpus")}
)


def changes(old: msgspec.Struct, new: msgspec.Struct, prefix: str = "") -> Iterator[str]:
    """Dotted names of the settings that differ."""
    for name in old.__struct_fields__:
        before, after = getattr(old, name), getattr(new, name)
        if isinstance(before, msgspec.Struct) and isinstance(after, msgspec.Struct):
            yield from changes(before, after, f"{prefix}{name}.")
        elif before != after:
            yield f"{prefix}{name}"


def reloaded(old: Config, new: Config, fixed: Collection[str]) -> tuple[Config, list[str], list[str]]:
    """(the configuration to go on with, settings that take effect, settings that wait for a restart)."""
    changed = list(changes(old, new))
    waiting = [name for name in changed if name in fixed]
    return _keep(old, new, waiting), [name for name in changed if name not in fixed], waiting


def _keep(old: Any, new: Any, names: list[str]) -> Any:
    """``new`` with ``names`` as in ``old``."""
    kept: dict[str, Any] = {}
    for name in names:
        head, _, rest = name.partition(".")
        kept[head] = (
            _keep(getattr(old, head), kept.get(head, getattr(new, head)), [rest]) if rest else getattr(old, head)
        )
    return msgspec.structs.replace(new, **kept)
