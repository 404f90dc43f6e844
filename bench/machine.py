"""Facts about the machine, and meters for what a benchmark must not hide: stolen time, the server's own CPU, memory.

Linux only (`/proc`). On a shared machine neighbours take time ("steal"); a throughput without it is half a fact. CPU
seconds per request, which leave stolen time out, are the figure that survives noise.
"""

from __future__ import annotations

import os
import platform
import subprocess
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")


def facts() -> dict[str, Any]:
    """Date, commit, CPU, core count and versions; nothing that names the machine."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "commit": _commit(),
        "cpu": model,
        "mhz": _mhz(),
        "cores": os.cpu_count(),
        "virtual": "hypervisor" in Path("/proc/cpuinfo").read_text(),
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
        "versions": {
            name: metadata.version(name) for name in ("numpy", "numba", "onnxruntime", "granian", "pygrpc-native")
        },
    }


def _mhz() -> float:
    speeds = [
        float(line.split(":")[1])
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("cpu MHz")
    ]
    return max(speeds, default=0.0)


def _commit() -> str:
    """The commit, with a + where tracked files differ from it; "" outside git."""

    def git(*args: str) -> str:
        done = subprocess.run(["git", *args], capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = git("rev-parse", "--short=12", "HEAD")
    return commit + ("+" if commit and git("status", "--porcelain", "--untracked-files=no") else "")


def core_ticks() -> list[tuple[int, int, int]]:
    """Per core, ticks since boot: stolen by other machines, busy with ours, and in all."""
    rows = []
    for line in Path("/proc/stat").read_text().splitlines()[1:]:
        if not line.startswith("cpu"):
            break
        user, nice, system, idle, wait, irq, soft, steal = (int(value) for value in line.split()[1:9])
        busy = user + nice + system + irq + soft
        rows.append((steal, busy, busy + idle + wait + steal))
    return rows


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, all its threads, in steps of a clock tick (10 ms)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def memory_bytes(pid: int) -> dict[str, int]:
    """Resident memory: in all, and of that anonymous (not file mappings)."""
    out = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        key = {"VmRSS": "rss", "RssAnon": "rss_anon"}.get(line.split(":")[0])
        if key:
            out[key] = int(line.split()[1]) * 1024
    return out


@dataclass
class Meter:
    """What a server process and the machine did between `start` and `read`; ``core`` is the server's."""

    pid: int
    core: int = 0

    def start(self) -> None:
        """Begin."""
        self._at, self._cpu, self._ticks = time.monotonic(), cpu_seconds(self.pid), core_ticks()

    def read(self) -> dict[str, Any]:
        """CPU seconds of the server, seconds in all, the share of each core that was stolen, and the share of the
        server's core that other processes had.
        """
        passed = [
            tuple(b - a for a, b in zip(*pair, strict=True)) for pair in zip(self._ticks, core_ticks(), strict=True)
        ]
        cpu_s = cpu_seconds(self.pid) - self._cpu
        _, busy, total = passed[self.core]
        return {
            "server_cpu_s": round(cpu_s, 3),
            "elapsed_s": round(time.monotonic() - self._at, 3),
            "steal": [round(stolen / max(1, ticks), 4) for stolen, _, ticks in passed],
            "others": round(max(0.0, busy - cpu_s / _TICK_S) / max(1, total), 4),
        }
