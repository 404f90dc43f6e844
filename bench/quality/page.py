"""One bench's HTML page: paragraphs, tables and inline plots in the order they were added; it loads nothing."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes

from bench.page import CSS, figure

INK = ("#2f6db3", "#d98324", "#2a9d8f", "#b5373f", "#7a6aa8", "#66727f")


class Page:
    """Collects what a bench has to show."""

    def __init__(self, title: str, kind: str = "Quality: ") -> None:
        self._title = kind + title
        self._parts: list[str] = []

    def heading(self, text: str) -> None:
        """A section begins."""
        self._parts.append(f"<h2>{html.escape(text)}</h2>")

    def text(self, text: str) -> None:
        """A paragraph of plain words."""
        self._parts.append(f"<p>{html.escape(text)}</p>")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table; floats are shown with four digits."""
        cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
        body = "".join("<tr>" + "".join(f"<td>{_cell(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        self._parts.append(f"<table><tr>{cells}</tr>{body}</table>")

    def plot(self, draw: Callable[[Axes], None], height: float = 3.6) -> None:
        """``draw`` fills the axes of one plot."""
        self._parts.append(figure(draw, height))

    def render(self) -> str:
        """The page as HTML text."""
        title = html.escape(self._title)
        start = f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{CSS}</style>"
        return f"{start}<h1>{title}</h1>{''.join(self._parts)}</html>\n"


def _cell(cell: object) -> str:
    if isinstance(cell, bool):
        return "<span class=ok>held</span>" if cell else "<span class=bad>missed</span>"
    return html.escape(f"{cell:.4g}" if isinstance(cell, float) else str(cell))
