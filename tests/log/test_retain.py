"""Old segments go, by age and by size, oldest first; one that is being written stays."""

import os
from pathlib import Path

from dsp.log.retain import DAY_S, delete_old, old_segments
from dsp.log.segments import SUFFIX, TEMPORARY

NOW_S = 1_000 * DAY_S


def segment(directory: Path, days_ago: float, size: int = 100, suffix: str = SUFFIX) -> Path:
    moment_s = NOW_S - days_ago * DAY_S
    path = directory / f"{int(moment_s * 1000):013d}-w-1-1{suffix}"
    path.write_bytes(b"x" * size)
    os.utime(path, (moment_s, moment_s))
    return path


def test_what_is_past_its_days_goes_and_nothing_else(tmp_path: Path) -> None:
    old, new = segment(tmp_path, 121), segment(tmp_path, 119)
    writing = segment(tmp_path, 200, suffix=SUFFIX + TEMPORARY)
    other = tmp_path / "notes.txt"
    other.write_text("mine")
    assert old_segments(tmp_path, 120, 0, NOW_S) == [(old, 100)]
    assert delete_old(tmp_path, 120, 0, NOW_S) == (1, 100)
    assert set(tmp_path.iterdir()) == {new, writing, other}
    assert delete_old(tmp_path, 0, 0, NOW_S) == (0, 0), "0 is for ever"
    assert delete_old(tmp_path / "nothing", 1, 1, NOW_S) == (0, 0)


def test_beyond_their_size_the_oldest_go_first(tmp_path: Path) -> None:
    files = [segment(tmp_path, days) for days in (5, 4, 3, 2)]
    assert delete_old(tmp_path, 120, 250, NOW_S) == (2, 200)
    assert sorted(tmp_path.iterdir()) == files[2:]
