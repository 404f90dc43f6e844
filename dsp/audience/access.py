"""Who may do what with profiles, and the log of it.

``audience.access`` in the settings lists users of the machine and what they may do: load, read, export, erase. Without
it the owner of the data directory may do all, and nobody else anything. Every attempt is a line in
``log/access.jsonl``: when, who, what, allowed or not, how many people, and a reference number that the person who asked
is shown. The line never says whom: a record about somebody's erasure must not be a trace of them.
"""

from __future__ import annotations

import json
import os
import pwd
import secrets
from datetime import UTC, datetime
from typing import Literal

from dsp.base.config import Config

Action = Literal["load", "read", "export", "erase"]
ACTIONS: tuple[Action, ...] = ("load", "read", "export", "erase")
LOG = ("log", "access.jsonl")


class AccessError(PermissionError):
    """A user who may not do this; the message says who may, and where it is set."""


def user_name(uid: int | None = None) -> str:
    """The user of the machine whom this process acts for."""
    number = os.geteuid() if uid is None else uid
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def allow(config: Config, action: Action, *, people: int = 1, user: str | None = None) -> str:
    """Note the attempt and return its reference number. Raises `AccessError` where it isn't allowed."""
    name = user if user is not None else user_name()
    rules = config.audience.access
    allowed = any(r.user == name and action in r.may for r in rules) if rules else _is_owner(config, user)
    reference = secrets.token_hex(4)
    line = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "user": name,
        "action": action,
        "allowed": allowed,
        "people": people,
        "reference": reference,
    }
    path = config.path(*LOG)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    if not allowed:
        who = ", ".join(sorted(r.user for r in rules if action in r.may)) or "nobody"
        raise AccessError(f"{name} may not {action} people; {who} may (audience.access in the settings)")
    return reference


def _is_owner(config: Config, user: str | None) -> bool:
    """Whether the data directory is this user's (or root's, or not there yet)."""
    if user is not None:
        return user == user_name(config.root.stat().st_uid if config.root.exists() else None)
    return not config.root.exists() or os.geteuid() in (0, config.root.stat().st_uid)
