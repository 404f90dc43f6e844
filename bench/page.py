"""The HTML page of a standard benchmark: tables and plots in one file, nothing loaded from anywhere."""

from __future__ import annotations

import html
import io
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

Row = dict[str, Any]
INK, SOFT, GRID = "#1f2933", "#66727f", "#e4e8ec"
LINES = {"p50": "#2f6db3", "p90": "#2a9d8f", "p99": "#d98324", "p999": "#b5373f"}
LABELS = {"p50": "p50", "p90": "p90", "p99": "p99", "p999": "p99.9"}
STAGE_COLOURS = ("#2f6db3", "#7fa8d4", "#2a9d8f", "#8fcfc6", "#d98324", "#efbf86", "#b5373f", "#d99298", "#7a6aa8")
CSS = """
body{font:15px/1.5 system-ui,sans-serif;color:#1f2933;max-width:1040px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.2rem;margin-top:2.2rem}
table{border-collapse:collapse;margin:.6rem 0}
td,th{padding:.25rem .8rem;text-align:right;border-bottom:1px solid #e4e8ec}
td:first-child,th:first-child{text-align:left}.ok{color:#1d7a4f}.bad{color:#b5373f;font-weight:600}
p.note{color:#66727f}svg{max-width:100%;height:auto}
"""


def figure(draw: Callable[[Axes], None], height: float = 3.6) -> str:
    """An inline SVG of one plot."""
    with mpl.rc_context(
        {
            "svg.fonttype": "none", "svg.hashsalt": "dsp", "font.size": 10, "font.family": "sans-serif",
            "axes.edgecolor": SOFT, "axes.labelcolor": INK, "xtick.color": SOFT, "ytick.color": SOFT,
            "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": GRID,
            "axes.axisbelow": True,
        }
    ):  # fmt: skip
        figure, axes = plt.subplots(figsize=(9, height), layout="constrained")
        draw(axes)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
        plt.close(figure)
    text = out.getvalue()
    return text[text.index("<svg") :]


def latency_plot(summary: Row) -> str:
    """Percentiles against the arrival rate; the band reaches from the best window to the worst."""

    def draw(axes: Axes) -> None:
        levels = list(summary["levels"].values())
        rates = [level["rate"] for level in levels]
        for key, colour in LINES.items():
            middle = [level[key]["median"] / 1e3 for level in levels]
            low = [level[key]["best"] / 1e3 for level in levels]
            high = [level[key]["worst"] / 1e3 for level in levels]
            axes.fill_between(rates, low, high, color=colour, alpha=0.12, linewidth=0)
            axes.plot(rates, middle, color=colour, marker="o", markersize=4, label=LABELS[key])
        axes.axvline(summary["saturation_per_s"]["median"], color=SOFT, linestyle="--", linewidth=1)
        axes.annotate(
            "saturation", (summary["saturation_per_s"]["median"], 1), xycoords=("data", "axes fraction"),
            xytext=(-4, -4), textcoords="offset points", ha="right", va="top", color=SOFT, fontsize=9,
        )  # fmt: skip
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda ms, _: f"{ms:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xlim(left=0)
        axes.set_xlabel("requests a second, Poisson arrivals")
        axes.set_ylabel("latency, ms (from the intended time)")
        axes.legend(frameon=False, ncols=4, loc="upper left")

    return figure(draw)


def stage_plot(summary: Row) -> str:
    """µs per request by stage, at one in flight, at each rate and at saturation."""
    bars = {"one in flight": summary["alone"], **summary["levels"], "saturated": summary["saturated"]}
    bars = {name: level["stages_us"] for name, level in bars.items() if level["stages_us"]}
    if not bars:
        return "<p class=note>The server told no stages.</p>"

    def draw(axes: Axes) -> None:
        names = list(bars)[::-1]
        stages = [stage for stage in bars[names[0]] if stage not in ("total", "batch")]
        left = [0.0] * len(names)
        for stage, colour in zip(stages, STAGE_COLOURS, strict=False):
            widths = [bars[name].get(stage, 0.0) for name in names]
            axes.barh(names, widths, left=left, color=colour, label=stage, height=0.62)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        for y, name in enumerate(names):
            text = f"{left[y]:.0f} µs, batch {bars[name]['batch']:.1f}"
            axes.annotate(text, (left[y], y), xytext=(5, 0), textcoords="offset points", va="center", color=SOFT)
        axes.set_xlim(right=max(left) * 1.22)
        axes.set_xlabel("µs of the engine's time per request")
        axes.grid(axis="y", visible=False)
        axes.legend(frameon=False, ncols=5, loc="lower center", bbox_to_anchor=(0.45, 1.0))

    return figure(draw, 4.0)


def echo_plot(rows: Sequence[Row], summary: Row) -> str:
    """Every saturation window of the bidder, of the echo and of the bare server, in the order they were run."""

    def draw(axes: Axes) -> None:
        for server, colour in (("bare", SOFT), ("echo", LINES["p99"]), ("bidder", LINES["p50"])):
            values = [row["answered_per_s"] for row in rows if row["server"] == server and row["phase"] == "saturation"]
            axes.plot(range(1, len(values) + 1), values, marker="o", color=colour, label=server)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("window, in turns")
        axes.set_ylabel("requests a second")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(f"ratio {summary['echo_ratio']['median']:.2f}", loc="left", color=INK, fontsize=11)
        axes.legend(frameon=False)

    return figure(draw, 3.0)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{cells}</tr>{body}</table>"


def _bars_table(bars: Sequence[Row]) -> str:
    rows = [
        [
            html.escape(bar["what"]), html.escape(bar["bar"]), html.escape(bar["measured"]),
            "<span class=ok>held</span>" if bar["ok"] else "<span class=bad>missed</span>",
        ]
        for bar in bars
    ]  # fmt: skip
    return _table(["what", "bar", "measured", ""], rows)


def _levels_table(summary: Row) -> str:
    named = {"one in flight": summary["alone"], **summary["levels"], "saturated": summary["saturated"]}
    rows = [
        [
            html.escape(name), f"{level['rate']:,.0f}",
            *(f"{level[key]['median'] / 1e3:.2f}" for key in LINES),
            f"{level['p99']['best'] / 1e3:.2f}-{level['p99']['worst'] / 1e3:.2f}",
            f"{level['server_cpu_us']:.1f}", f"{level['errors']:,}", f"{level['steal_server']['median']:.1%}",
            f"{level['others']:.1%}",
        ]
        for name, level in named.items()
    ]  # fmt: skip
    head = [
        "load",
        "requests/s",
        "p50 ms",
        "p90",
        "p99",
        "p99.9",
        "p99 best-worst",
        "CPU µs",
        "errors",
        "steal",
        "others",
    ]
    return _table(head, rows)


def page(result: Row) -> str:
    """The page of one result (`bench.standard`)."""
    machine, mix = result["machine"], result["mix"]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>Standard benchmark</title>",
        f"<style>{CSS}</style><h1>Standard benchmark</h1>",
        f"<p>{machine['date']}, commit {machine['commit'] or 'unknown'}, one core of {html.escape(machine['cpu'])} ",
        f"({machine['cores']} cores). Latency counts from the intended send time; figures are medians over windows, ",
        "with the best and worst window beside them.</p><h2>Bars</h2>",
        _bars_table(result["bars"]),
        "<h2>Request mix</h2>",
        _table(["what", "value"], [[html.escape(str(k)), html.escape(str(v))] for k, v in mix.items()]),
    ]
    for name, front in result["fronts"].items():
        summary = front["summary"]
        parts += [
            f"<h2>{html.escape(name)}</h2>", _levels_table(summary), "<h3>Latency against load</h3>",
            latency_plot(summary), "<h3>Stages</h3>", stage_plot(summary), "<h3>Against an empty echo</h3>",
            echo_plot(front["windows"], summary),
        ]  # fmt: skip
    parts.append("<p class=note>Every window, with steal and CPU times: bench/results/standard.jsonl.</p></html>")
    return "".join(parts)
