"""Progress of work over people: how many, how fast, how many rejected. On stderr, so that output stays clean."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text


class _Rate(ProgressColumn):
    """People a second."""

    def render(self, task: Task) -> Text:
        """The rate since the start of the bar."""
        return Text(f"{(task.finished_speed or task.speed or 0):,.0f}/s")


@contextlib.contextmanager
def people_bar(file: Path, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar that is told (people done, rows rejected); with a Parquet file it knows how many there will be."""
    if quiet:
        yield lambda done, rejected: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:,}"), _Rate(),
               TimeElapsedColumn())  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(file.name, total=_rows(file))

        def tell(done: int, rejected: int) -> None:
            name = f"{file.name}, {rejected:,} rejected" if rejected else file.name
            progress.update(task, completed=done, description=name)

        yield tell


def stderr_console() -> Console:
    """Where bars are drawn."""
    return Console(stderr=True)


def _rows(file: Path) -> int | None:
    """How many rows a Parquet file has; None for anything else."""
    if file.suffix != ".parquet" or not file.exists():
        return None
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int(pq.ParquetFile(file).metadata.num_rows)
    except (OSError, pa.ArrowException):
        return None
