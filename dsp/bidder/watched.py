"""What the online correction saw, as gauges: predicted over observed by exchange, line item and head, and alerts."""

from __future__ import annotations

from collections.abc import Sequence

from dsp.base.metrics import LINE_ITEMS, UNKNOWN_EXCHANGE, Metrics
from dsp.model.context import HEADS
from dsp.model.correction import Watched


def show_watched(watched: Sequence[Watched], exchange_ids: list[int], metrics: Metrics) -> None:
    """Set the gauges; ``exchange_ids`` by exchange index."""
    ratio, alerts = metrics.gauge("dsp_calibration_thousandths"), metrics.gauge("dsp_calibration_alerts")
    of_items = metrics.gauge("dsp_line_item_calibration_thousandths")
    for gauge in (ratio, alerts, of_items):
        gauge[...] = 0
    exchange = {number: i for i, number in enumerate(exchange_ids)}
    item = {number: i for i, number in enumerate(_busiest(watched))}
    metrics.name_labels(LINE_ITEMS.name, [str(number) for number in item])
    for row in watched:
        h = HEADS.index(row.head)
        alerts[h] += row.alert
        if row.ratio is None:
            continue
        thousandths = round(1000 * row.ratio)
        if row.of == "exchange":
            ratio[min(exchange.get(row.id, UNKNOWN_EXCHANGE), UNKNOWN_EXCHANGE), h] = thousandths
        elif row.of == "line item" and row.id in item:
            of_items[item[row.id], h] = thousandths


def _busiest(watched: Sequence[Watched]) -> list[int]:
    """The line items with the most outcomes, as many as the gauge has room for, by id."""
    outcomes: dict[int, int] = {}
    for row in watched:
        if row.of == "line item":
            outcomes[row.id] = outcomes.get(row.id, 0) + row.outcomes
    return sorted(sorted(outcomes, key=lambda number: (-outcomes[number], number))[: LINE_ITEMS.size - 1])
