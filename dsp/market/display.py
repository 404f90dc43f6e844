"""What a demo shows while it runs: one live table on a terminal, a log line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from dsp.market.live import Tally
from dsp.market.notices import Books

LINE_EVERY_S = 5.0


def money(usd: float) -> str:
    """US dollars for people."""
    return f"${usd:,.2f}"


def share(part: float, whole: float) -> str:
    """A percentage, or a dash of nothing."""
    return f"{100 * part / whole:.1f} %" if whole else "–"


def per(usd: float, count: int) -> str:
    """Cost of one, or a dash while there is none."""
    return money(usd / count) if count else "–"


class Display:
    """Shows a tally and books; ``advertisers`` maps line item ids to names. ``quiet`` shows nothing."""

    def __init__(self, tally: Tally, books: Books, advertisers: Mapping[int, str], seconds: float, quiet: bool) -> None:
        self.tally, self.books = tally, books
        self._advertisers = advertisers
        self._seconds = seconds
        self._quiet = quiet
        self._console = Console()
        terminal = self._console.is_terminal and not quiet
        self._live = Live(console=self._console, auto_refresh=False) if terminal else None
        self._last = time.monotonic()
        self._last_answered = 0
        self._rate = 0.0

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._live is not None:
            self.show(force=True)
            self._live.stop()

    def show(self, *, force: bool = False) -> None:
        """Bring what is shown up to date; cheap when it is not time yet."""
        now = time.monotonic()
        elapsed = now - self._last
        if not force and elapsed < (0.5 if self._live is not None else LINE_EVERY_S):
            return
        if elapsed > 0.2:
            self._rate = (self.tally.answered - self._last_answered) / elapsed
            self._last, self._last_answered = now, self.tally.answered
        if self._live is not None:
            self._live.update(Group(self._figures(), self._by_advertiser()), refresh=True)
        elif not self._quiet:
            print(self._line(), flush=True)

    def _figures(self) -> Table:
        tally, events = self.tally, self.books.events
        spend = self.books.spend_usd
        p50, p99 = tally.percentiles_ms(recent=True)
        ran = min(time.perf_counter() - tally.started, self._seconds)
        table = Table(title=f"market against bidder, {ran:.0f} of {self._seconds:.0f} s", expand=False)
        for name in ("traffic", "", "money", "", "customers", ""):
            table.add_column(name, justify="left" if name else "right", no_wrap=True)
        left = [
            ("requests/s", f"{self._rate:,.0f}"),
            ("requests", f"{tally.answered:,}"),
            ("bid rate", share(tally.bids, tally.answered)),
            ("p50, p99 ms", f"{p50:.1f}, {p99:.1f}"),
            ("failed", f"{tally.timeouts} + {tally.errors + tally.invalid}"),
        ]
        middle = [
            ("win rate", share(tally.wins, tally.offers)),
            ("impressions", f"{tally.wins:,}"),
            ("spend", money(spend)),
            ("CPM", per(1000 * spend, tally.wins)),
            ("true worth", money(tally.value_usd)),
        ]
        right = [
            ("clicks", f"{events['click']:,}"),
            ("applications", f"{events['applied']:,}"),
            ("approved", f"{events['approved']:,}"),
            ("funded", f"{events['funded']:,}"),
            ("per approved", per(spend, events["approved"])),
        ]
        for row in zip(left, middle, right, strict=True):
            table.add_row(*(cell for pair in row for cell in pair))
        return table

    def _by_advertiser(self) -> Table:
        table = Table(expand=False)
        for name in ("advertiser", "impressions", "spend", "clicks", "applied", "approved", "per approved"):
            table.add_column(name, justify="left" if name == "advertiser" else "right", no_wrap=True)
        for name, (spend, counts) in self.books.by_advertiser(self._advertisers).items():
            table.add_row(
                name, f"{counts['billing']:,}", money(spend), str(counts["click"]), str(counts["applied"]),
                str(counts["approved"]), per(spend, counts["approved"]),
            )  # fmt: skip
        return table

    def _line(self) -> str:
        tally, events = self.tally, self.books.events
        p50, p99 = tally.percentiles_ms(recent=True)
        return (
            f"{time.perf_counter() - tally.started:5.0f} s  {self._rate:6.0f} requests/s  "
            f"bid rate {share(tally.bids, tally.answered)}  win rate {share(tally.wins, tally.offers)}  "
            f"spend {money(self.books.spend_usd)}  clicks {events['click']}  applied {events['applied']}  "
            f"approved {events['approved']}  cost per approved {per(self.books.spend_usd, events['approved'])}  "
            f"p50 {p50:.1f} ms  p99 {p99:.1f} ms  timeouts {tally.timeouts}  errors {tally.errors + tally.invalid}"
        )


class Bar:
    """A progress bar on a terminal, nothing elsewhere; what it is entered as moves it: (done, total)."""

    def __init__(self, title: str, *, quiet: bool) -> None:
        console = Console(stderr=quiet)
        self._progress = Progress(
            TextColumn(f"{title:>9}"), BarColumn(), TextColumn("{task.completed:,.0f} of {task.total:,.0f}"),
            TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        self._task = self._progress.add_task(title, total=1)

    def __enter__(self) -> Callable[[int, int], None]:
        self._progress.start()
        return lambda done, total: self._progress.update(self._task, completed=done, total=total)

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def say(text: str, *, quiet: bool = False) -> None:
    """One line about progress, for people: on stderr when stdout is kept for JSON."""
    print(text, flush=True, file=sys.stderr if quiet else sys.stdout)
