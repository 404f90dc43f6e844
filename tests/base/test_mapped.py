"""Files on huge pages: asked for, right, and only where all of a file can stay in memory."""

import os
import subprocess
from pathlib import Path

import pytest

from dsp.base import mapped
from dsp.base.mapped import map_file, uncache

SIZE = 5 << 20


def flags(path: Path) -> set[str]:
    """The kernel's flags of this process's mapping of ``path``."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.endswith(str(path)))
    return set(next(line for line in lines[start:] if line.startswith("VmFlags:")).split()[1:])


def cached_bytes(path: Path) -> int:
    shown = subprocess.run(["fincore", "-bnro", "RES", path], capture_output=True, text=True, check=True)
    return int(shown.stdout)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="this kernel has no transparent huge pages"
)
@pytest.mark.parametrize(("memory_pages", "wanted"), [(1 << 20, True), (2 * SIZE // 4096 - 1, False)])
def test_huge_pages_are_asked_for_unless_the_file_is_larger_than_half_the_memory(
    file: Path, memory_pages: int, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped, "_PAGE_BYTES", 4096)
    monkeypatch.setattr(mapped.os, "sysconf", lambda name: memory_pages)
    with file.open("rb") as opened:
        view = map_file(opened)
    assert ("hg" in flags(file)) is wanted
    assert view[:] == file.read_bytes()
    view.close()


def test_a_written_file_is_dropped_from_the_cache_and_reads_the_same(file: Path) -> None:
    if subprocess.run(["stat", "-fc", "%T", file], capture_output=True, text=True, check=True).stdout == "tmpfs\n":
        pytest.skip("a temporary directory in memory has no cache to be dropped from")
    content = file.read_bytes()
    assert cached_bytes(file) > 0
    uncache(file)
    assert cached_bytes(file) == 0
    assert file.read_bytes() == content


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with (tmp_path / "empty").open("rb") as opened, pytest.raises(ValueError, match="empty"):
        map_file(opened)
