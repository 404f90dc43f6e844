"""What traffic shaping did and thinks: the report behind `dsp shaping`, from the workers' own files.

Counts are since the workers' counters began, worth is of what they remember. A cell is a hash: its publisher, format
and geo are named where the sample of requests (`dsp.bidder.sample`) has one of them; the rest stays unnamed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from dsp.base.config import Config
from dsp.base.metrics import render
from dsp.base.scrape import Scrape
from dsp.bidder.plan import Plan
from dsp.bidder.sample import read_sample
from dsp.bidder.shape import USD_CPM_MICROS, Shaping, cell_keys, exchange_key
from dsp.control.worth import W_EXCHANGE, W_KEY, W_PUBLISHER
from dsp.openrtb.columns import BANNER, FMT_JSON, I_MEDIA, NATIVE, OK, R_IMP0, R_STATUS, VIDEO, Batch
from dsp.openrtb.decode import decode_batch
from dsp.openrtb.limits import MAX_BATCH

SAMPLE = 2_000
_MEDIA = ((BANNER, "banner"), (VIDEO, "video"), (4, "audio"), (NATIVE, "native"))


@dataclass(frozen=True)
class Named:
    """What a cell is of."""

    publisher: str
    format: str
    geo: str


def shaping_report(config: Config, plan: Plan, now_ns: int, most: int = 10) -> dict[str, Any]:
    """The report: totals, by exchange, and the ``most`` cells with most requests among those refused. Money in USD."""
    scrape = Scrape(render(config.path("run"), "bidder").decode())
    exchanges = {name: _exchange(scrape, name) for name in plan.exchange_names}
    exchanges = {name: row for name, row in exchanges.items() if row["requests"] or row["refused"]}
    total = {key: sum(row[key] for row in exchanges.values()) for key in _exchange(scrape, "")}
    shaping = Shaping.reading(config.shaping, config.path("run"), now_ns)
    return {
        "mode": config.shaping.mode,
        "least_usd_per_million": shaping.least / USD_CPM_MICROS,
        "total": total,
        "exchanges": exchanges,
        "refused_cells": _refused(shaping, plan, _names(config, plan), most),
    }


def _exchange(scrape: Scrape, name: str) -> dict[str, float]:
    micros = 1e-9  # CPM micro-dollars to dollars for one
    return {
        "requests": scrape.sum("dsp_bid_requests_total", exchange=name),
        "refused": scrape.sum("dsp_shaped_requests_total", exchange=name, what="refused"),
        "explored": scrape.sum("dsp_shaped_requests_total", exchange=name, what="explored"),
        "surplus_usd": scrape.sum("dsp_bid_surplus_micros_total", exchange=name) * micros,
        "lost_usd": scrape.sum("dsp_shaped_lost_micros_total", exchange=name) * micros,
        "saved_usd": scrape.sum("dsp_shaped_saved_micros_total", exchange=name) * micros,
    }


def _refused(shaping: Shaping, plan: Plan, names: dict[int, Named], most: int) -> list[dict[str, Any]]:
    rows, worth = shaping.cells.rows, shaping.worth
    out = np.flatnonzero((rows[:, W_PUBLISHER] != 0) & (worth >= 0.0) & (worth < shaping.least))
    out = out[np.argsort(-shaping.total[out, 2], kind="stable")][:most]
    keys = [int(exchange_key(number)) for number in plan.exchange_ids.tolist()]
    exchanges = dict(zip(keys, plan.exchange_names, strict=False))
    found = []
    for at in out.tolist():
        named = names.get(int(rows[at, W_KEY]))
        found.append(
            {
                "exchange": exchanges.get(int(rows[at, W_EXCHANGE]), ""),
                "publisher": named.publisher if named else "",
                "format": named.format if named else "",
                "geo": named.geo if named else "",
                "requests": float(shaping.total[at, 2]),
                "worth_usd_per_million": float(worth[at]) / USD_CPM_MICROS,
            }
        )
    return found


def _names(config: Config, plan: Plan) -> dict[int, Named]:
    """By cell, of the requests that were sampled."""
    sample = [s for s in read_sample(config.path("log", "requests"), SAMPLE) if s.exchange in plan.by_name]
    names: dict[int, Named] = {}
    batch = Batch()
    for start in range(0, len(sample), MAX_BATCH):
        part = sample[start : start + MAX_BATCH]
        exchanges = [plan.by_name[s.exchange] for s in part]
        decode_batch(
            batch, [msgspec.json.encode(s.body) for s in part], [FMT_JSON] * len(part), exchanges, plan.dialects
        )
        for r, one in enumerate(part):
            if batch.req[r, R_STATUS] == OK:
                number = int(plan.exchange_ids[exchanges[r]])
                key = cell_keys(r, batch.req, batch.imp, batch.pool, number)[-1]
                names[int(key)] = _named(one.body, int(batch.imp[batch.req[r, R_IMP0], I_MEDIA]))
    return names


def _named(body: Any, media: int) -> Named:
    place = body.get("app") or body.get("site") or {}
    publisher = place.get("publisher") or {}
    imp = body["imp"][0]
    size = (imp.get("banner") or {}).get("format") or [imp.get("banner") or imp.get("video") or {}]
    px = f" {size[0]['w']}x{size[0]['h']}" if size[0].get("w") and size[0].get("h") else ""
    return Named(
        str(publisher.get("id") or place.get("bundle") or place.get("domain") or ""),
        "+".join(name for bit, name in _MEDIA if media & bit) + px,
        str(((body.get("device") or {}).get("geo") or {}).get("country", "")),
    )
