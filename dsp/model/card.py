"""The model card: one HTML page beside the model, for a marketer or an auditor; it loads nothing from anywhere.

What it learned from, how good each head is on rows it never saw, calibration and ROC plots, lift by decile, and which
features weigh most. Plots are inline SVG; text follows the reader's light or dark setting.
"""

from __future__ import annotations

import datetime as dt
import html
import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.figure import Figure

from dsp.model.context import HEADS
from dsp.model.evaluate import Judged
from dsp.model.manifest import HeadMetrics, Manifest
from dsp.model.network import Network
from dsp.model.quality import calibration_bins

F64 = npt.NDArray[np.float64]
CARD_FILE = "card.html"
DECILES = 10
_TOP = 12  # features named per head
_BARS = 8  # and drawn
_INK, _LINE, _GUIDE = "#888888", "#2a78d6", "#b0b0b0"  # read on white and on black

_STYLE = """
:root { color-scheme: light dark; --edge: #8884; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.1rem; margin-top: 2.2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; } .wide { overflow-x: auto; }
th, td { padding: .25rem .8rem .25rem 0; text-align: right; border-bottom: 1px solid var(--edge); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } svg { max-width: 100%; height: auto; }
.bad { border-left: 4px solid #c33; padding-left: .8rem; } .note { opacity: .75; }
"""


def render_card(
    manifest: Manifest, network: Network, judged: Sequence[Judged], worth: tuple[F64, F64] | None = None
) -> str:
    """The page as HTML text. ``worth``: value per held-out impression in USD, (predicted, what came), float64[n]."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>{html.escape(manifest.name)}</title><style>{_STYLE}</style>",
        f"<h1>{html.escape(manifest.name)}</h1>",
        f"<p class=note>{manifest.created} &middot; {manifest.rows:,} bids from {_time(manifest.first_ms)} to "
        f"{_time(manifest.last_ms)} &middot; seed {manifest.seed} &middot; feature spec {manifest.spec_hash[:12]}</p>",
        _verdict(manifest.refused),
        "<h2>On held-out bids</h2><p class=note>A fifth of the bids, chosen by a hash of their id, seen by no fit. "
        "ECE is the mean gap between prediction and outcome over ten groups; predicted / observed is 1 when right.</p>",
        _table(manifest),
    ]
    if any(m.effective > 0 for m in manifest.metrics.values()):
        parts += [
            "<h2>For all that was bid on</h2><p class=note>Only what was won is labelled, and it is no fair sample of "
            "what was bid on. Each row learned from counts one over its chance to be won and to show its creative, up "
            "to the clip; so weighted, so many equal rows would say as much. Predicted / observed is weighted "
            "likewise.</p>",
            _weights_table(manifest),
        ]
    if worth is not None and len(worth[0]) >= DECILES:
        parts += [
            "<h2>Value by decile</h2><p class=note>Held-out impressions by predicted value, best first: what they were "
            "predicted to bring per thousand, and what they brought.</p>",
            _value_plot(*worth),
        ]
    for h, head in enumerate(HEADS):
        p, y = judged[h].p, judged[h].y
        parts.append(f"<h2>p({head})</h2>")
        if 0 < y.sum() < len(y):
            parts.append(_plots(p, y, manifest.features, network.linear[:, h]))
        else:
            parts.append("<p class=note>Too few outcomes among the held-out bids to draw anything.</p>")
        parts.append(_weights(manifest.features, network.linear[:, h]))
    return "\n".join(parts) + "\n"


def _verdict(refused: Sequence[str]) -> str:
    if not refused:
        return "<p>Passed its gates.</p>"
    reasons = "".join(f"<li>{html.escape(reason)}</li>" for reason in refused)
    return f"<div class=bad><p>Refused, does not serve:</p><ul>{reasons}</ul></div>"


def _table(manifest: Manifest) -> str:
    titles = ("head", "family", "rows", "positives", "rate", "AUC", "log loss", "of base rate", "ECE", "pred. / obs.")
    head = "".join(f"<th>{title}</th>" for title in titles)
    rows = "".join(_row(name, metrics) for name, metrics in manifest.metrics.items())
    return f"<div class=wide><table><tr>{head}</tr>{rows}</table></div>"


def _weights_table(manifest: Manifest) -> str:
    """What the weights against winner's bias came to."""
    titles = ("head", "rows learned from", "as many as", "clip, times the average", "pred. / obs. of all bids")
    head = "".join(f"<th>{title}</th>" for title in titles)
    rows = []
    for name, m in manifest.metrics.items():
        ratio = "-" if m.weighted_ratio is None else f"{m.weighted_ratio:.4f}"
        cells = (name, f"{m.rows - m.holdout_rows:,}", f"{m.effective:,.0f}", f"{m.clip:.1f}", ratio)
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return f"<div class=wide><table><tr>{head}</tr>{''.join(rows)}</table></div>"


def _row(name: str, m: HeadMetrics) -> str:
    rate = f"{m.base_rate:.3%}" if m.positives else "-"
    cells = [name, m.family, f"{m.holdout_rows:,}", f"{m.holdout_positives:,}", rate]
    numbers = (m.auc, m.log_loss, m.base_log_loss, m.ece, m.calibration_ratio)
    cells += ["-" if value is None else f"{value:.4f}" for value in numbers]
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _plots(p: F64, y: F64, names: Sequence[str], weights: F64) -> str:
    """Calibration, ROC, lift by decile and the heaviest features, side by side."""
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "dsp", "font.size": 9.0, "text.color": _INK}):
        figure = Figure(figsize=(13.0, 3.0))
        calibration, roc, lift, heaviest = figure.subplots(1, 4)
        figure.subplots_adjust(left=0.05, right=0.99, bottom=0.17, top=0.9, wspace=0.42)
        bins = calibration_bins(p, y)
        top = float(bins[:, 1:].max()) * 1.08
        error = np.sqrt(np.maximum(bins[:, 2] * (1 - bins[:, 2]), 0.25 / bins[:, 0]) / bins[:, 0])
        calibration.plot([0, top], [0, top], color=_GUIDE, linewidth=1)
        calibration.errorbar(bins[:, 1], bins[:, 2], yerr=error, fmt="o-", color=_LINE, markersize=3, linewidth=1)
        calibration.set(title="calibration", xlabel="predicted", ylabel="observed (± 1 s.e.)")
        order = np.argsort(-p, kind="stable")
        hits = np.concatenate([[0.0], np.cumsum(y[order])]) / y.sum()
        misses = np.concatenate([[0.0], np.cumsum(1 - y[order])]) / (1 - y).sum()
        thin = np.unique(np.linspace(0, len(y), 200).astype(int))
        roc.plot([0, 1], [0, 1], color=_GUIDE, linewidth=1)
        roc.plot(misses[thin], hits[thin], color=_LINE, linewidth=1.5)
        roc.set(title="ROC", xlabel="false positives", ylabel="true positives")
        lift.bar(np.arange(1, len(bins) + 1), bins[::-1, 2] / y.mean(), color=_LINE)
        lift.axhline(1.0, color=_GUIDE, linewidth=1)
        lift.set(title="lift by decile", xlabel="decile, best first", ylabel="rate over average")
        top_features = np.argsort(-np.abs(weights))[:_BARS][::-1]
        heaviest.barh([names[k] for k in top_features], weights[top_features], color=_LINE)
        heaviest.axvline(0.0, color=_GUIDE, linewidth=1)
        heaviest.set(title="heaviest features", xlabel="log odds per unit")
        return _svg(figure)


def _value_plot(predicted: F64, came: F64) -> str:
    """Mean value per thousand by decile of the predicted one."""
    parts = np.array_split(np.argsort(-predicted, kind="stable"), DECILES)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "dsp", "font.size": 9.0, "text.color": _INK}):
        figure = Figure(figsize=(7.0, 3.0), layout="constrained")
        axes = figure.subplots()
        decile = np.arange(1, DECILES + 1)
        means = [[1_000 * float(x[part].mean()) for part in parts] for x in (predicted, came)]
        error = [1_000 * float(came[part].std() / np.sqrt(len(part))) for part in parts]
        axes.bar(decile - 0.2, means[0], 0.38, color=_GUIDE, label="predicted")
        axes.bar(decile + 0.2, means[1], 0.38, color=_LINE, label="came (± 1 s.e.)", yerr=error, ecolor=_INK)
        axes.set(xlabel="decile of predicted value, best first", ylabel="USD per thousand")
        axes.legend(frameon=False, labelcolor=_INK)
        return _svg(figure)


def _svg(figure: Figure) -> str:
    """The figure as inline SVG that reads on white and on black."""
    for axes in figure.axes:
        axes.tick_params(colors=_INK)
        axes.xaxis.label.set_color(_INK)
        axes.yaxis.label.set_color(_INK)
        axes.patch.set_alpha(0.0)
        for side, spine in axes.spines.items():
            spine.set_color(_INK)
            spine.set_visible(side in ("left", "bottom"))
    figure.patch.set_alpha(0.0)
    target = io.StringIO()
    figure.savefig(target, format="svg", metadata={"Date": None})
    text = target.getvalue()
    return text[text.index("<svg") :]


def _weights(names: Sequence[str], weights: F64) -> str:
    order = np.argsort(-np.abs(weights))[:_TOP]
    listed = ", ".join(f"{html.escape(names[k])} {weights[k]:+.2f}" for k in order if weights[k] != 0)
    return f"<p class=note>Heaviest features (log odds per unit): {listed or 'none'}.</p>"


def _time(ms: int) -> str:
    return dt.datetime.fromtimestamp(ms / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
