"""The model card is one self-contained page that says what it must, whatever the data."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import msgspec
import numpy as np
import pytest

from dsp.base.config import Config
from dsp.model.bootstrap import prior_network
from dsp.model.card import CARD_FILE, render_card
from dsp.model.context import HEADS
from dsp.model.evaluate import Judged
from dsp.model.features import FEATURES, SPEC_HASH
from dsp.model.manifest import Manifest
from dsp.model.train import train

MANIFEST = Manifest(3, "model-000003", "trained", "2025-10-09T08:00:00+00:00", SPEC_HASH, FEATURES, HEADS, rows=4_000)


def judged(n: int, rate: float) -> Judged:
    rng = np.random.default_rng(1)
    p = rng.beta(2, 2 / rate, n)
    y = (rng.random(n) < p).astype(np.float64)
    return Judged(5 * n, int(5 * y.sum()), rate, p, y)


def page_of(parts: list[Judged], **changes: Any) -> str:
    metrics = {head: part.metrics("linear") for head, part in zip(HEADS, parts, strict=True)}
    return render_card(msgspec.structs.replace(MANIFEST, metrics=metrics, **changes), prior_network(), parts)


def test_every_head_has_its_numbers_and_plots() -> None:
    page = page_of([judged(500, 0.2)] * 5)
    assert page.count("<svg") == 5
    for head in HEADS:
        assert f"<h2>p({head})</h2>" in page
    assert "model-000003" in page
    assert "Passed its gates" in page


def test_it_loads_nothing_from_anywhere() -> None:
    class Links(HTMLParser):
        found: list[str] = []  # noqa: RUF012

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.found += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]

    links = Links()
    page = page_of([judged(500, 0.2)] * 5)
    links.feed(page)
    assert all(link.startswith("#") for link in links.found)
    assert "<script" not in page
    assert "@import" not in page


@pytest.mark.parametrize("n", [0, 1, 7])
def test_heads_with_hardly_any_labels_say_so(n: int) -> None:
    empty = replace(judged(n, 0.2), y=np.zeros(n))
    page = page_of([empty] * 5)
    assert page.count("<svg") == 0
    assert "Too few outcomes" in page


def test_value_by_decile_is_drawn_where_offers_are_known() -> None:
    parts = [judged(500, 0.2)] * 5
    metrics = {head: part.metrics("linear") for head, part in zip(HEADS, parts, strict=True)}
    worth = (np.linspace(0.001, 0.01, 300), np.linspace(0.0, 0.012, 300))
    page = render_card(msgspec.structs.replace(MANIFEST, metrics=metrics), prior_network(), parts, worth)
    assert "Value by decile" in page
    assert page.count("<svg") == 6
    assert "Value by decile" not in page_of(parts)


def test_a_refused_model_says_why_first() -> None:
    page = page_of([judged(100, 0.2)] * 5, refused=("click: 200 positives predicted, <b> came",))
    assert "Refused" in page
    assert "&lt;b&gt; came" in page
    assert page.index("Refused") < page.index("<table")


def test_training_leaves_a_card_beside_the_model(config: Config, log_world: Any) -> None:
    log_world(config, 500)
    page = train(config).joinpath(CARD_FILE).read_text()
    assert "500 bids" in page
