"""`python -m bench NAME …`, the names being `COMMANDS`: see each module."""

from __future__ import annotations

import importlib
import sys

COMMANDS = (
    "standard",
    "generator",
    "engine",
    "rta",
    "artf",
    "snapshot",
    "corpus",
    "badinput",
    "audience",
    "quality",
    "pacing",
    "report",
    "ledger",
    "money",
    "chaos",
    "faults",
    "grants",
    "adapters",
    "shaping",
    "overload",
    "flood",
    "restart",
    "soak",
    "capacity",
    "console",
)


def main() -> int:
    """Hand over to the named bench; without a name, the standard one."""
    args = sys.argv[1:]
    name = args.pop(0) if args and not args[0].startswith("-") else "standard"
    if name not in COMMANDS:
        print(f"no bench named {name!r}; there are: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    module = importlib.import_module(f"bench.{name}")
    return int(module.main(args) or 0)


if __name__ == "__main__":
    sys.exit(main())
