"""The standard benchmark: one bidder worker on one core, all stages on, at fixed rates and at saturation.

`python -m bench` (`make bench`). The worker has core 0, the generator core 1. Measured in turns with it, with the same
bytes in and out: an echo, the same worker whose engine decides nothing; and the bare server under its front, which
looks at nothing, neither path nor token, and answers each request where it stands (`bench.echo`). Neither core halts
(`bench.cores`). Prints a table,
appends a JSON line with every window to ``bench/results/standard.jsonl`` and writes ``bench/out/standard.html``.
``--quick`` takes a minute and keeps its line in ``bench/out``.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench.cores import Awake
from bench.echo import write_answers
from bench.generator import ceiling
from bench.load import METHOD, GrpcLoad, HttpLoad, Request
from bench.machine import facts, memory_bytes
from bench.mix import Mix, examine
from bench.page import page
from bench.phases import BAR_RATE, Plan, Row, Subject, run_phases
from bench.procs import LOAD_CPU, OUT, SERVER_CPU, Server, free_port, pin
from bench.stages import StageMeter
from bench.worker import answers_path, metrics_path, start_worker
from bench.world import Item, Parameters, World, forget_decisions, make_world

RESULTS = Path(__file__).parent / "results" / "standard.jsonl"
PAGE = OUT / "standard.html"
FRONTS = ("grpc", "http")
SATURATION_BAR = {"grpc": 12_000, "http": 8_000}
IN_FLIGHT = {"grpc": 128, "http": 64}
NAMES = {"grpc": "gRPC", "http": "HTTP JSON"}


@dataclass(frozen=True)
class Options:
    """What a run is to do."""

    fronts: tuple[str, ...] = FRONTS
    parameters: Parameters = field(default_factory=Parameters)
    plan: Plan = field(default_factory=Plan)
    quick: bool = False


QUICK = Options(
    parameters=Parameters(people=100_000, requests=3_000),
    plan=Plan(seconds=1.0, warm_s=2.0, alone=1, saturation=5, saturation_s=0.5, per_rate=4, rates=(0.3, BAR_RATE)),
    quick=True,
)


class Bars:
    """Progress on the terminal. Drawn only between windows: drawing takes the generator's core."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description:<44}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
        self.progress = Progress(*columns, TimeElapsedColumn(), console=console, auto_refresh=False)

    def task(self, what: str, total: int) -> TaskID:
        """Begin a bar."""
        task = self.progress.add_task(what, total=total)
        self.progress.refresh()
        return task

    def step(self, task: TaskID, what: str | None = None, by: float = 1) -> None:
        """Go on, perhaps with another text."""
        self.progress.update(task, advance=by, description=what)
        self.progress.refresh()


def requests_of(front: str, items: list[Item], tokens: dict[str, str]) -> list[Request]:
    """The mix as the front's requests, each from its own exchange."""
    out = []
    for item in items:
        token = (("authorization", f"Bearer {tokens[item.exchange]}"),)
        if front == "grpc":
            out.append(Request(item.pb, METHOD, token))
        else:
            out.append(Request(item.json, f"/bid/{item.exchange}", token))
    return out


def make_load(front: str, address: tuple[str, int], requests: list[Request]) -> GrpcLoad | HttpLoad:
    """The generator, pointed at a server."""
    if front == "grpc":
        return GrpcLoad(address, requests)
    return HttpLoad(address, requests, connections=IN_FLIGHT["http"])


def run_front(front: str, world: World, mix: Mix, plan: Plan, bars: Bars) -> Row:
    """All phases of one front: summary, windows and the worker's memory."""
    answers = answers_path(front)
    write_answers(answers, mix.answers[front])
    requests = requests_of(front, world.items, world.tokens)
    port = free_port()
    task = bars.task(f"{NAMES[front]}: starting", plan.steps())
    bare_args = [front, "--port", str(port), "--answers", str(answers)]
    with (
        Awake(),
        start_worker(world.config, front, cpu=SERVER_CPU, noon=True) as bidder_server,
        start_worker(world.config, front, cpu=SERVER_CPU, noon=True, echo=True) as echo_server,
        Server(f"bare-{front}", "bench.echo", bare_args, port) as bare_server,
    ):
        servers = bidder_server, echo_server, bare_server
        loads = [make_load(front, server.address, requests) for server in servers]
        bidder = Subject("bidder", bidder_server.pid, loads[0], StageMeter.of_file(metrics_path(world.config, front)))
        echo, bare = Subject("echo", echo_server.pid, loads[1]), Subject("bare", bare_server.pid, loads[2])
        before = memory_bytes(bidder.pid)
        summary = run_phases(bidder, echo, bare, plan, lambda what: bars.step(task, f"{NAMES[front]}: {what}"))
        memory = {"before": before, "after": memory_bytes(bidder.pid)}
        for load in loads:
            load.close()
    return {"summary": summary, "memory": memory, "windows": [*bidder.rows, *echo.rows, *bare.rows]}


def judge(result: Row) -> list[Row]:
    """Every bar with what was measured; a quick run is judged alike, but says less."""
    bars: list[Row] = []

    def bar(what: str, limit: str, measured: str, ok: bool) -> None:
        bars.append({"what": what, "bar": limit, "measured": measured, "ok": bool(ok)})

    for front, row in result["fronts"].items():
        key = "grpc" if front == NAMES["grpc"] else "http"
        summary = row["summary"]
        peak, ratio = summary["saturation_per_s"], summary["echo_ratio"]
        least = SATURATION_BAR[key]
        bar(f"{front}: requests/s on one core", f"≥ {least:,}", _spread(peak, "{:,.0f}"), peak["median"] >= least)
        at_bar = summary["levels"].get(f"{BAR_RATE:.0%}")
        if at_bar:
            p99 = {name: value / 1e3 for name, value in at_bar["p99"].items()}
            bar(f"{front}: p99 at {BAR_RATE:.0%}", "≤ 10 ms", _spread(p99, "{:.2f}"), p99["median"] <= 10)
        p50 = {name: value / 1e3 for name, value in summary["alone"]["p50"].items()}
        bar(f"{front}: alone p50", "≤ 0.5 ms", _spread(p50, "{:.3f}"), p50["median"] <= 0.5)
        bar(f"{front}: of an empty echo's rate", "≥ 0.45", _spread(ratio, "{:.3f}"), ratio["median"] >= 0.45)
        anon = row["memory"]["after"]["rss_anon"] / 2**20
        bare = summary["bare_ratio"]
        bar(f"{front}: of the bare server's rate", "≥ 0.45", _spread(bare, "{:.3f}"), bare["median"] >= 0.45)
        bar(f"{front}: anonymous RSS", "≤ 600 MB", f"{anon:.0f} MB", anon <= 600)
        bar(f"{front}: errors", "0", f"{summary['errors']:,}", summary["errors"] == 0)
        limit = result["generator"][key]["ceiling_per_s"]
        busy = summary["generator_busy_max"]
        bar(
            f"{front}: generator not the limit", "≥ 2 x",
            f"{limit / max(1.0, peak['best']):.1f} x, busy {busy:.0%}", limit >= 2 * peak["best"],
        )  # fmt: skip
    bar("request mix", "as issued", "; ".join(result["mix_wrong"]) or "holds", not result["mix_wrong"])
    return bars


def _spread(values: dict[str, float], text: str) -> str:
    return f"{text.format(values['median'])} ({text.format(values['worst'])} to {text.format(values['best'])})"


def run(options: Options, console: Console) -> Row:
    """The whole benchmark; the result as it goes into the JSON line."""
    bars = Bars(console)
    with bars.progress:
        task = bars.task("making the world", 6)
        world = make_world(options.parameters, lambda what: bars.step(task, f"making the world: {what}"))
        task = bars.task("examining the mix", 2 * len(world.items))
        mix = examine(world, lambda done: bars.step(task, by=done))
        pin(LOAD_CPU)
        task = bars.task("the generator's ceiling", len(options.fronts))
        generator = {}
        for front in options.fronts:
            generator[front] = ceiling(front, options.plan.seconds / 2, 3)
            bars.step(task)
        forget_decisions()
        fronts = {NAMES[front]: run_front(front, world, mix, options.plan, bars) for front in options.fronts}
    forget_decisions()
    result: Row = {
        "kind": "standard", "quick": options.quick, "machine": facts(), "parameters": asdict(options.parameters),
        "plan": asdict(options.plan), "mix": mix.facts, "mix_wrong": mix.wrong, "generator": generator,
        "fronts": fronts,
    }  # fmt: skip
    result["bars"] = judge(result)
    return result


def show(result: Row, console: Console) -> None:
    """A table per front, its stages, and the bars."""
    console.print(f"Standard benchmark, one core of {result['machine']['cpu']}; times in ms", style="bold")
    console.print("of the core: steal is other machines', other is other processes'")
    for front, row in result["fronts"].items():
        summary = row["summary"]
        levels = {"one in flight": summary["alone"], **summary["levels"], "saturated": summary["saturated"]}
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for name in (front, "req/s", "p50", "p90", "p99", "p99.9", "CPU µs", "bids", "err", "steal", "other"):
            table.add_column(name, justify="left" if name == front else "right", no_wrap=True)
        for name, level in levels.items():
            table.add_row(
                name, f"{level['rate']:,.0f}",
                *(_ms(level[key]["median"]) for key in ("p50", "p90", "p99", "p999")),
                f"{level['server_cpu_us']:.0f}", f"{level['bid_rate']:.0%}", f"{level['errors']:,}",
                f"{level['steal_server']['median']:.0%}", f"{level['others']:.0%}",
            )  # fmt: skip
        console.print(table)
        stages = summary["saturated"]["stages_us"]
        told = ", ".join(f"{name} {us:.1f}" for name, us in stages.items() if name != "batch")
        console.print(f"saturated, µs per request: {told}; batch {stages.get('batch', 0):.1f}\n")
    bars = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("what", "bar", "median (worst to best)", ""):
        bars.add_column(name, no_wrap=name != "what")
    for bar in result["bars"]:
        bars.add_row(bar["what"], bar["bar"], bar["measured"], "[green]held[/]" if bar["ok"] else "[red]missed[/]")
    console.print(bars)


def _ms(us: float) -> str:
    """Three digits or so."""
    ms = us / 1e3
    return f"{ms:.2f}" if ms < 10 else f"{ms:.1f}" if ms < 100 else f"{ms:,.0f}"


def keep(result: Row) -> Path:
    """Append the JSON line, write the page; where the line went."""
    path = OUT / "quick.jsonl" if result["quick"] else RESULTS
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(result, separators=(",", ":")) + "\n")
    PAGE.write_text(page(result))
    return path


def main(argv: list[str] | None = None) -> int:
    """Run from the command line; 1 where a bar was missed."""
    parser = argparse.ArgumentParser(prog="bench standard", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a minute: 100,000 people, few and short windows")
    parser.add_argument("--json", action="store_true", help="print the JSON line instead of the table")
    parser.add_argument("--front", action="append", choices=FRONTS, help="only this one (may be repeated)")
    args = parser.parse_args(argv)
    options = QUICK if args.quick else Options()
    if args.front:
        options = replace(options, fronts=tuple(args.front))
    console = Console(stderr=args.json)
    result = run(options, console)
    path = keep(result)
    if args.json:
        json.dump(result, sys.stdout, separators=(",", ":"))
        print()
    else:
        show(result, console)
        console.print(f"every window: {path}\npage: {PAGE}", soft_wrap=True)
    return 0 if all(bar["ok"] for bar in result["bars"]) else 1
