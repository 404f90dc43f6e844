"""`dsp top`: a running system live in the terminal, from the /metrics of its roles; it changes nothing.

Rates and delays are of the time between two looks. A role that doesn't answer is said to be away, and the rest goes on.
"""

from __future__ import annotations

import math
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table

from dsp.base.config import Config
from dsp.base.metrics import STAGES
from dsp.base.scrape import Scrape, fetch, quantile
from dsp.cli.edge import config_of, fail, print_json

Figures = dict[str, Any]


@dataclass(frozen=True)
class Look:
    """What the roles said at one moment; None of a role that did not answer."""

    at_s: float
    bidder: Scrape | None
    ledger: Scrape | None


def top(
    context: typer.Context,
    every: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.1)] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Two looks, print, end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document per look, on a line.")] = False,
) -> None:
    """Show a running system live: requests, bids, delays, stages, exchanges, money. Ctrl-C ends it."""
    config = config_of(context)
    before = look(config)
    if before.bidder is None and before.ledger is None:
        fail("neither bidder nor ledger answers; start them with `dsp serve`, or name theirs with --config")
    console = Console()
    screen = not once and not as_json and console.is_terminal
    with suppress(KeyboardInterrupt), Live(console=console, auto_refresh=False, screen=screen) as live:
        if not screen:
            live.stop()
        while True:
            time.sleep(every)
            now = look(config)
            shown = figures(before, now)
            if as_json:
                print_json(shown)
            elif screen:
                live.update(render(shown), refresh=True)
            else:
                console.print(render(shown))
            if once:
                return
            before = now


def look(config: Config) -> Look:
    """Ask both roles once."""
    ledger = config.ledger.worker_host or config.ledger.host
    return Look(
        time.monotonic(),
        _scrape(config.bidder.http_host, config.bidder.metrics_port),
        _scrape(ledger, config.ledger.port),
    )


def _scrape(host: str, port: int) -> Scrape | None:
    try:
        return Scrape(fetch("127.0.0.1" if host == "0.0.0.0" else host, port))
    except (OSError, ValueError):
        return None


def figures(before: Look, now: Look) -> Figures:
    """Everything that is shown, rates per second, delays in milliseconds, None where nothing is known."""
    seconds = max(now.at_s - before.at_s, 1e-9)
    return {
        "bidder": _bidder(before.bidder, now.bidder, seconds) if now.bidder is not None else None,
        "ledger": _ledger(before.ledger, now.ledger, seconds) if now.ledger is not None else None,
    }


def _rate(before: Scrape | None, now: Scrape, seconds: float, name: str, **labels: str) -> float | None:
    """Per second; None for a role that was away at the last look."""
    if before is None:
        return None
    return max(now.sum(name, **labels) - before.sum(name, **labels), 0.0) / seconds


def _bidder(before: Scrape | None, now: Scrape, seconds: float) -> Figures:
    def rate(name: str, **labels: str) -> float | None:
        return _rate(before, now, seconds, name, **labels)

    def delay_ms(name: str, q: float) -> float | None:
        found = quantile(now.buckets(name), before.buckets(name), q) if before is not None else None
        return None if found is None or math.isinf(found) else 1e3 * found

    batches = rate("dsp_batch_size_count")
    total = rate("dsp_stage_seconds_sum", stage="total")
    stages = {
        stage: None if not total else (rate("dsp_stage_seconds_sum", stage=stage) or 0.0) / total
        for stage in STAGES
        if stage != "total"
    }
    exchanges = {
        name: {
            "requests": rate("dsp_bid_requests_total", exchange=name),
            **{
                outcome: rate("dsp_bid_requests_total", exchange=name, outcome=outcome)
                for outcome in ("bid", "bad", "shed", "unauthorized")
            },
        }
        for name in sorted(now.by("dsp_bid_requests_total", "exchange"))
    }
    return {
        "workers": int(now.sum("dsp_workers")),
        "restarts": int(now.sum("dsp_worker_restarts_total")),
        "snapshot": int(now.sum("dsp_snapshot_version")),
        "model": int(now.sum("dsp_model_version")),
        "queue": int(now.sum("dsp_queue_depth")),
        "requests": rate("dsp_bid_requests_total"),
        "bids": rate("dsp_bid_requests_total", outcome="bid"),
        "shed": rate("dsp_shed_total"),
        "bad": rate("dsp_bad_requests_total"),
        "errors": rate("dsp_engine_errors_total"),
        "store_errors": rate("dsp_store_errors_total"),
        "rta": rate("dsp_rta_requests_total"),
        "batch": None if not batches else (rate("dsp_batch_size_sum") or 0.0) / batches,
        "p50_ms": delay_ms("dsp_request_seconds", 0.5),
        "p99_ms": delay_ms("dsp_request_seconds", 0.99),
        "queue_p99_ms": delay_ms("dsp_queue_seconds", 0.99),
        "stages": stages,
        "exchanges": exchanges,
    }


def _ledger(before: Scrape | None, now: Scrape, seconds: float) -> Figures:
    events = sorted(now.by("dsp_ledger_events_total", "kind"))
    return {
        "leases": int(now.sum("dsp_ledger_leases")),
        "stopped": int(now.sum("dsp_ledger_stopped")),
        "queue": int(now.sum("dsp_ledger_queue_depth")),
        "spooled": int(now.sum("dsp_ledger_spooled")),
        "snapshot": int(now.sum("dsp_ledger_snapshot_version")),
        "posted": now.sum("dsp_ledger_posted_micros") / 1e6,
        "outstanding": now.sum("dsp_ledger_outstanding_micros") / 1e6,
        "overspend": now.sum("dsp_ledger_overspend_micros") / 1e6,
        "disputed": now.sum("dsp_ledger_disputed_micros") / 1e6,
        "spend_rate": _rate(before, now, seconds * 1e6, "dsp_ledger_posted_micros"),
        "commit_failures": _rate(before, now, seconds, "dsp_ledger_commit_failures_total"),
        "events": {kind: _rate(before, now, seconds, "dsp_ledger_events_total", kind=kind) for kind in events},
    }


def render(shown: Figures) -> RenderableType:
    """The figures as panels and a table."""
    bidder, ledger = shown["bidder"], shown["ledger"]
    panels = [_panel("bidder", _bidder_rows(bidder)), _panel("ledger", _ledger_rows(ledger))]
    if bidder is None:
        return Columns(panels)
    panels.append(_panel("share of the engine's time", _stage_rows(bidder["stages"])))
    return Group(Columns(panels), _exchange_table(bidder["exchanges"]))


def _panel(title: str, rows: list[tuple[str, str]] | None) -> Panel:
    if rows is None:
        return Panel("[red]away: does not answer[/]", title=title)
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(justify="right")
    for row in rows:
        grid.add_row(*row)
    return Panel(grid, title=title)


def _bidder_rows(b: Figures | None) -> list[tuple[str, str]] | None:
    if b is None:
        return None
    bid = b["bids"] / b["requests"] if b["requests"] else None
    rows = [
        ("requests/s", _n(b["requests"])),
        ("with a bid", "–" if bid is None else f"{100 * bid:.1f} %"),
        ("p50, p99", f"{_ms(b['p50_ms'])}, {_ms(b['p99_ms'])}"),
        ("p99 of the queue", _ms(b["queue_p99_ms"])),
        ("requests per batch", "–" if b["batch"] is None else f"{b['batch']:.1f}"),
        ("waiting", _n(b["queue"])),
        ("shed/s", _n(b["shed"], bad=True)),
        ("malformed/s", _n(b["bad"], bad=True)),
        ("engine errors/s", _n(b["errors"], bad=True)),
        ("store errors/s", _n(b["store_errors"], bad=True)),
        ("workers, restarts", f"{b['workers']}, {b['restarts']}"),
        ("snapshot, model", f"{b['snapshot']}, {b['model']}"),
    ]
    return [*rows, ("RTA requests/s", _n(b["rta"]))] if b["rta"] else rows


def _ledger_rows(b: Figures | None) -> list[tuple[str, str]] | None:
    if b is None:
        return None
    return [
        ("posted", f"{b['posted']:,.2f}"),
        ("posted/s", "–" if b["spend_rate"] is None else f"{b['spend_rate']:,.4f}"),
        ("granted, not spent", f"{b['outstanding']:,.2f}"),
        ("disputed", f"{b['disputed']:,.2f}"),
        ("overspend", _n(b["overspend"], bad=True)),
        ("stopped", _n(b["stopped"], bad=True)),
        ("leases", _n(b["leases"])),
        ("waiting, spooled", f"{_n(b['queue'])}, {_n(b['spooled'], bad=True)}"),
        ("failed commits/s", _n(b["commit_failures"], bad=True)),
        *((f"{kind}/s", _n(rate)) for kind, rate in b["events"].items()),
    ]


def _stage_rows(stages: dict[str, float | None]) -> list[tuple[str, str]]:
    return [
        (stage, "–" if part is None else f"{'█' * round(20 * part)} {100 * part:4.1f} %")
        for stage, part in stages.items()
    ]


def _exchange_table(exchanges: dict[str, dict[str, float | None]]) -> Table:
    table = Table("exchange", title="per second", expand=True)
    columns = ("requests", "bid", "bad", "shed", "unauthorized")
    for name in columns:
        table.add_column(name, justify="right")
    for name, of in sorted(exchanges.items(), key=lambda each: -(each[1]["requests"] or 0.0)):
        table.add_row(name, *(_n(of[column], bad=column not in ("requests", "bid")) for column in columns))
    return table


def _n(value: float | None, *, bad: bool = False) -> str:
    if value is None:
        return "–"
    text = f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"
    return f"[red]{text}[/]" if bad and value > 0 else text


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} ms"
