"""Plots as SVG, drawn on the server: no script, no style of their own, words inside for who can't see them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from markupsafe import Markup, escape

_W, _H, _LEFT, _RIGHT, _TOP, _BOTTOM = 600, 200, 44, 12, 10, 24
_NAME, _SAID = 140, 130  # beside bars: their names, what is written after them
_LONG, _SPAN, _FAR = 260, 165, 3.0  # beside intervals: their names, what is written; larger lifts are drawn as this
_TICKS = 4


def _nice(most: float) -> float:
    """The least 1, 2, 2.5 or 5 times a power of ten that `_TICKS` of reach ``most``."""
    if most <= 0:
        return 1.0
    raw = most / _TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999999)


def lines(
    labels: Sequence[str], series: Sequence[tuple[str, Sequence[float], str]], text: Callable[[float], str], title: str
) -> Markup:
    """Lines over ``labels``. ``series``: (name, values, kind: "now" or "then", dashed); ``text`` writes a value."""
    step = _nice(max((max(values, default=0) for _, values, _ in series), default=0))
    top = step * _TICKS
    n = max(len(labels), 1)
    width, height = _W - _LEFT - _RIGHT, _H - _TOP - _BOTTOM

    def x(i: int) -> float:
        return _LEFT + (width * i / (n - 1) if n > 1 else width / 2)

    def y(value: float) -> float:
        return _TOP + height * (1 - max(value, 0) / top)

    out = [f'<svg class="plot" viewBox="0 0 {_W} {_H}" role="img" aria-label="{escape(title)}">']
    for i in range(_TICKS + 1):
        at = y(step * i)
        out.append(f'<line class="grid" x1="{_LEFT}" x2="{_W - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        out.append(f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{escape(text(step * i))}</text>')
    every = max(1, math.ceil(n / 8))
    for i in range(0, n, every):
        if i < len(labels):
            where = "start" if i == 0 and n > 1 else "middle"
            out.append(f'<text x="{x(i):.1f}" y="{_H - 6}" text-anchor="{where}">{escape(labels[i])}</text>')
    for number, (_, values, kind) in enumerate(series, 1):
        points = " L".join(f"{x(i):.1f} {y(v):.1f}" for i, v in enumerate(values))
        if not points:
            continue
        if number == 1 and len(values) > 1:
            out.append(
                f'<path class="area" d="M{points} L{x(len(values) - 1):.1f} {y(0):.1f} L{x(0):.1f} {y(0):.1f}Z"/>'
            )
        out.append(f'<path class="line s{number} {kind}" d="M{points}"/>')
        if len(values) <= 31 and kind == "now":
            out += [
                f'<circle class="f{number}" cx="{x(i):.1f}" cy="{y(v):.1f}" r="2.5"/>' for i, v in enumerate(values)
            ]
    band = width / n
    for i, label in enumerate(labels):
        said = "; ".join(f"{name} {text(values[i])}" for name, values, _ in series if i < len(values))
        out.append(
            f'<rect class="hit" x="{x(i) - band / 2:.1f}" y="{_TOP}" width="{band:.1f}" height="{height}">'
            f"<title>{escape(label)}: {escape(said)}</title></rect>"
        )
    return Markup("".join(out) + "</svg>")


def bars(rows: Sequence[tuple[str, float, str]], title: str, number: int = 1, *, log: bool = False) -> Markup:
    """Horizontal bars: (name, value, what is written beside it). ``log``: as long as the value has digits."""
    if log:
        rows = [(name, math.log10(1 + max(value, 0)), said) for name, value, said in rows]
    most, row_h, left = max((value for _, value, _ in rows), default=0) or 1, 30, _NAME
    height = max(1, len(rows)) * row_h
    out = [f'<svg class="plot" viewBox="0 0 {_W} {height}" role="img" aria-label="{escape(title)}">']
    for i, (name, value, said) in enumerate(rows):
        at, long = i * row_h, max(1.5, (_W - left - _SAID) * value / most)
        short = name if len(name) <= 22 else name[:21] + "…"
        out.append(f'<text x="{left - 10}" y="{at + 19}" text-anchor="end">{escape(short)}</text>')
        out.append(f'<rect class="track" x="{left}" y="{at + 6}" width="{_W - left - _SAID}" height="18" rx="4"/>')
        out.append(f'<rect class="f{number}" x="{left}" y="{at + 6}" width="{long:.1f}" height="18" rx="4"/>')
        out.append(f'<text class="ink" x="{_W - _SAID + 10}" y="{at + 19}">{escape(said)}</text>')
    return Markup("".join(out) + "</svg>")


def intervals(rows: Sequence[tuple[str, float, float, float, bool]], title: str) -> Markup:
    """Lifts with their intervals about a line at nothing: (name, low, lift, high, whether proven), parts of one."""
    low = max(min(0.0, *(one[1] for one in rows)), -_FAR)
    high = min(max(0.0, *(one[3] for one in rows)), _FAR)
    room, row_h, left = _W - _LONG - _SPAN, 30, _LONG

    def x(value: float) -> float:
        return left + room * (min(max(value, low), high) - low) / (high - low or 1.0)

    height = len(rows) * row_h
    out = [f'<svg class="plot" viewBox="0 0 {_W} {height}" role="img" aria-label="{escape(title)}">']
    for i, (name, least, lift, most, proven) in enumerate(rows):
        at, kind = i * row_h, "f1" if proven else "open"
        said = f"{lift * 100:+.0f} % ({least * 100:+.0f} … {most * 100:+.0f})"
        out.append(f'<text x="{left - 10}" y="{at + 19}" text-anchor="end">{escape(name)}</text>')
        out.append(f'<rect class="track" x="{left}" y="{at + 6}" width="{room}" height="18" rx="4"/>')
        width = max(x(most) - x(least), 1.5)
        out.append(f'<rect class="{kind}" x="{x(least):.1f}" y="{at + 12}" width="{width:.1f}" height="6" rx="3"/>')
        out.append(f'<circle class="{kind}" cx="{x(lift):.1f}" cy="{at + 15}" r="5"/>')
        out.append(f'<text class="ink" x="{_W - _SPAN + 10}" y="{at + 19}">{said}</text>')
    out.append(f'<line class="zero" x1="{x(0):.1f}" x2="{x(0):.1f}" y1="2" y2="{height - 2}"/>')
    return Markup("".join(out) + "</svg>")


def spark(values: Sequence[float], title: str) -> Markup:
    """A small line without axes."""
    most, n = max(values, default=0) or 1, max(len(values) - 1, 1)
    points = " L".join(f"{i * 116 / n + 2:.1f} {28 - 25 * max(v, 0) / most:.1f}" for i, v in enumerate(values))
    return Markup(
        f'<svg class="plot" viewBox="0 0 120 30" role="img" aria-label="{escape(title)}">'
        f'<path class="line s1" d="M{points}"/></svg>'
    )
