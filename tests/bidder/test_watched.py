"""What the correction saw, as a scrape of the bidder shows it."""

from __future__ import annotations

from pathlib import Path

from dsp.base.metrics import LINE_ITEMS, Metrics, render
from dsp.base.scrape import Scrape
from dsp.bidder.watched import show_watched
from dsp.model.correction import Watched

CALIBRATION = "dsp_line_item_calibration_thousandths"


def row(of: str, number: int, outcomes: int = 1_000, observed: int = 100, predicted: float = 80.0) -> Watched:
    return Watched("apply", of, number, outcomes, observed, predicted, predicted)


def scraped(directory: Path, *watched: Watched) -> Scrape:
    metrics = Metrics.create(directory / "bidder-0.metrics", "bidder")
    metrics.name_labels("exchange", ["alpha", "beta"])
    show_watched(watched, [1, 2], metrics)
    return Scrape(render(directory, "bidder").decode())


def test_predicted_over_observed_is_told_by_exchange_and_line_item(tmp_path: Path) -> None:
    seen = scraped(
        tmp_path, row("all", 0), row("exchange", 2, predicted=150.0), row("line item", 7), row("line item", 9)
    )
    assert seen.sum("dsp_calibration_thousandths", exchange="beta", head="apply") == 1_500
    assert seen.sum(CALIBRATION, line_item="7", head="apply") == 800
    assert seen.sum(CALIBRATION, line_item="7", head="click") == 0


def test_line_items_and_totals_out_of_their_band_are_counted(tmp_path: Path) -> None:
    seen = scraped(
        tmp_path, row("line item", 7, predicted=10.0), row("exchange", 1, predicted=10.0), row("line item", 8)
    )
    assert seen.sum("dsp_calibration_alerts", head="apply") == 2
    assert scraped(tmp_path).sum("dsp_calibration_alerts") == 0


def test_of_many_line_items_the_busiest_are_shown(tmp_path: Path) -> None:
    many = [row("line item", 1_000 + k, outcomes=k) for k in range(3 * LINE_ITEMS.size)]
    shown = scraped(tmp_path, *many).by(CALIBRATION, "line_item")
    assert len(shown) == LINE_ITEMS.size - 1
    assert min(int(number) for number in shown) == 1_000 + 2 * LINE_ITEMS.size + 1
