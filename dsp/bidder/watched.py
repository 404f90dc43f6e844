"""What the online correction saw, as gauges: predicted over observed by exchange and head, and how many alerts."""

from __future__ import annotations

from collections.abc import Sequence

from dsp.base.metrics import UNKNOWN_EXCHANGE, Metrics
from dsp.model.context import HEADS
from dsp.model.correction import Watched


def show_watched(watched: Sequence[Watched], exchange_ids: list[int], metrics: Metrics) -> None:
    """Set the gauges; ``exchange_ids`` by exchange index."""
    ratio, alerts = metrics.gauge("dsp_calibration_thousandths"), metrics.gauge("dsp_calibration_alerts")
    ratio[...] = 0
    alerts[...] = 0
    index = {number: i for i, number in enumerate(exchange_ids)}
    for row in watched:
        h = HEADS.index(row.head)
        alerts[h] += row.alert
        if row.of == "exchange" and row.ratio is not None:
            ratio[min(index.get(row.id, UNKNOWN_EXCHANGE), UNKNOWN_EXCHANGE), h] = round(1000 * row.ratio)
