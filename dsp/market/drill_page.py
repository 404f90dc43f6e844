"""A drill on one page: the verdict, every objective with its bar, and what happened when; it loads nothing."""

from __future__ import annotations

import html
import io
import time
from collections.abc import Sequence

from matplotlib import rc_context
from matplotlib.figure import Figure

from dsp.market.drill import Outcome

_STYLE = """
:root { color-scheme: light dark; --edge: #8884; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem 1rem .25rem 0; text-align: left; border-bottom: 1px solid var(--edge); }
svg { max-width: 100%; height: auto; } .ok { color: #1d7a4f; } .bad { color: #c33; font-weight: 600; }
"""
_INK, _ASKED, _BIDS, _BAD = "#888888", "#2a78d6", "#2a9d8f", "#c33"


def render(outcome: Outcome) -> str:
    """The page as HTML text."""
    plan, f = outcome.plan, outcome.figures
    verdict = _mark(outcome.ok, "passed", "failed")
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    rows = [[each.what, each.bar, each.measured, _mark(each.ok, "held", "missed")] for each in outcome.objectives]
    faults = [
        [fault.says, f"{fault.at_s:.1f} s", "" if fault.ended_s < 0 else f"{fault.ended_s:.1f} s",
         fault.failed or f"{fault.healed_s:.1f} s"]
        for fault in outcome.faults
    ]  # fmt: skip
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>Drill</title><style>{_STYLE}</style><h1>Drill: {verdict}</h1>",
        f"<p>{when}. {plan.rate:,.0f} bid requests a second, then {plan.times:g} times that with ",
        f"{len(outcome.faults)} faults on the way: {f['asked']:,} requests, {f['bids']:,} bids, {f['wins']:,} wins, ",
        f"{f['notices']:,} notices, {f['console_reads']:,} reads of the console.</p>",
        "<h2>Objectives</h2>", _table(["what", "bar", "measured", ""], rows),
        "<h2>What happened when</h2>", _plot(outcome),
        _table(["fault", "from", "to", "well again"], faults),
        "<p>Half a second a point. Latency is the callers', who share the machine with the system.</p></html>",
    ]  # fmt: skip
    return "".join(parts)


def _mark(ok: bool, good: str, bad: str) -> str:
    return f"<span class=ok>{good}</span>" if ok else f"<span class=bad>{bad}</span>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def cell(text: str) -> str:
        return text if text.startswith("<span") else html.escape(text)

    names = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{cell(text)}</td>" for text in row) + "</tr>" for row in rows)
    return f"<table><tr>{names}</tr>{body}</table>"


def _plot(outcome: Outcome) -> str:
    """Requests, bids and failures a second, and p99 below; faults as bands."""
    at = [sample.at_s for sample in outcome.samples]
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "dsp", "font.family": "sans-serif", "font.size": 9}):
        figure = Figure(figsize=(9, 5), layout="constrained")
        top, bottom = figure.subplots(2, 1, sharex=True)
        for values, colour, label in (
            ([2 * s.asked for s in outcome.samples], _ASKED, "requests/s"),
            ([2 * s.bids for s in outcome.samples], _BIDS, "bids/s"),
            ([2 * s.bad for s in outcome.samples], _BAD, "unanswered or failed/s"),
        ):
            top.plot(at, values, color=colour, linewidth=1.2, label=label)
        bottom.plot(at, [s.p99_ms for s in outcome.samples], color=_ASKED, linewidth=1.2, label="p99, ms")
        bottom.plot(at, [s.pending for s in outcome.samples], color=_BIDS, linewidth=1.2, label="notices under way")
        for axes in (top, bottom):
            axes.patch.set_alpha(0)
            axes.set_ylim(bottom=0)
            axes.tick_params(colors=_INK)
            axes.spines[["top", "right"]].set_visible(False)
            axes.spines[["left", "bottom"]].set_color(_INK)
            for fault in outcome.faults:
                end_s = max(fault.healed_s, fault.ended_s, fault.at_s + 0.2)
                axes.axvspan(fault.at_s, end_s, color=_BAD, alpha=0.12, linewidth=0)
            axes.legend(frameon=False, ncols=3, loc="upper left", labelcolor=_INK)
        for fault in outcome.faults:
            top.annotate(fault.name, (fault.at_s, top.get_ylim()[1]), color=_INK, fontsize=8, va="bottom")
        bottom.set_xlabel("seconds", color=_INK)
        figure.patch.set_alpha(0)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
