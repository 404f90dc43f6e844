"""Read-only mappings of files that are read at random, on huge pages where the kernel has them.

A profile or a line item is found by a handful of reads spread over hundreds of megabytes. On 4 KiB pages nearly each of
them also misses the TLB, and under a hypervisor such a miss walks two page tables. Linux keeps a file in 2 MiB pages
and maps it so (ext4 from 6.16, XFS and tmpfs earlier) if it is *read* through a mapping that asks for them, but not
once small pages of it are cached, which is what writing leaves. So who writes a file calls `uncache` when done, and
who reads it maps it with `map_file`. Neither is needed for a right answer: elsewhere they change nothing.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

_PAGE_BYTES: int = os.sysconf("SC_PAGE_SIZE")


def map_file(file: BinaryIO) -> mmap.mmap:
    """The whole of ``file``, read-only. Raises OSError or, for an empty file, ValueError.

    A page that isn't cached is then read 2 MiB at a time, so a file of more than half the machine's memory, of which
    not all can stay cached, is left on small pages.
    """
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if len(mapped) <= os.sysconf("SC_PHYS_PAGES") * _PAGE_BYTES // 2:
        with contextlib.suppress(OSError):  # a kernel without huge pages
            mapped.madvise(mmap.MADV_HUGEPAGE)
    return mapped


def shared_words(path: Path, n: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint64]]:
    """A table of ``n`` uint64 that all processes of a host share through the file ``path``; new ones are 0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        if file.seek(0, 2) != n * 8:
            file.truncate(n * 8)  # same size whoever comes first
        return np.frombuffer(mmap.mmap(file.fileno(), n * 8), np.uint64)


def touch(array: np.ndarray[tuple[int, ...], np.dtype[Any]], most_bytes: int = 1 << 62) -> int:
    """Read a mapped array page by page, at most ``most_bytes``, so that nobody waits for the disk later."""
    flat = array.reshape(-1).view(np.uint8)[:most_bytes]
    return int(flat[::_PAGE_BYTES].sum(dtype=np.int64)) if flat.size else 0


def uncache(path: Path) -> None:
    """Write ``path`` to disk and drop what is cached of it, unless mapped by someone. Raises OSError."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
