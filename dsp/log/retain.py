"""How long the logs are kept: closed segments older than their days, or beyond their size, are deleted, oldest first.

A segment that is being written is never touched. Its age is that of its last row: the file's time of change.
"""

from __future__ import annotations

from pathlib import Path

from dsp.log.segments import SUFFIX

DAY_S = 86_400.0


def old_segments(directory: Path, days: float, max_bytes: int, now_s: float) -> list[tuple[Path, int]]:
    """(file, bytes) of what is past ``days`` (0: none) or, of the rest, beyond ``max_bytes`` (0: none)."""
    if not directory.is_dir():
        return []
    files: list[tuple[Path, int]] = []
    old: list[tuple[Path, int]] = []
    for path in sorted(directory.glob(f"*{SUFFIX}")):  # by the moment they were opened
        try:
            facts = path.stat()
        except FileNotFoundError:
            continue
        too_old = days > 0 and facts.st_mtime < now_s - days * DAY_S
        (old if too_old else files).append((path, facts.st_size))
    surplus = sum(size for _, size in files) - max_bytes if max_bytes else 0
    for path, size in files:
        if surplus <= 0:
            break
        old.append((path, size))
        surplus -= size
    return old


def delete_old(directory: Path, days: float, max_bytes: int, now_s: float) -> tuple[int, int]:
    """Delete `old_segments`; how many files and bytes went."""
    found = old_segments(directory, days, max_bytes, now_s)
    for path, _ in found:
        path.unlink(missing_ok=True)
    return len(found), sum(size for _, size in found)
