"""What a line item would do on recent traffic: how far each request gets, what it would bid, what it leaves out.

The bidder keeps a scrubbed request a second (`dsp.bidder.sample`). They are decided again by the engine itself, over a
snapshot of this one line item alone with money to spend, so that each no-bid reason is its own and no second
implementation of targeting can be wrong. Who the person is isn't in the sample: segments, age, income, caps and
suppression are left out and said to be.
"""

from __future__ import annotations

import dataclasses
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from dsp.base.config import Config
from dsp.base.metrics import Metrics
from dsp.bidder.engine import Engine, NotReadyError
from dsp.bidder.gate import GO, Q_CURRENCY, Q_NBR, Q_REASON
from dsp.bidder.price import B_PRICE
from dsp.bidder.reason import REASONS
from dsp.bidder.sample import Sampled, read_sample
from dsp.bidder.slices import Slices
from dsp.catalog.compile import compile_catalog
from dsp.catalog.records import FOREVER_S, Catalog, LineItem
from dsp.catalog.snapshot import Snapshot, write_snapshot
from dsp.catalog.types import Targeting
from dsp.console.errors import ApiError
from dsp.model.registry import ModelError
from dsp.openrtb.codes import nbr_text
from dsp.openrtb.columns import FMT_JSON

MOST = 400  # requests replayed
PERSONAL = ("segments", "age", "income")  # of targeting: need to know who the person is
_ANY = Targeting()
_LOCK = threading.Lock()  # one replay at a time: it is the console's dearest work
_PATIENCE_S = 5.0  # for the one before


@dataclass(frozen=True)
class Reach:
    """``requests`` replayed, standing for ``daily`` a day; ``reached`` of them by stage; ``left_out`` by dimension.

    ``stages``: (words of the no-bid reason, how many requests ended there), in the order of the checks; ``bids``: how
    many were bid on; ``cpm``: the mean bid, in ``currency``; ``left_out``: (targeting field, requests that only it
    keeps out, of those the rest of the targeting wants); ``unknown``: fields that were left out.
    """

    requests: int = 0
    daily: float = 0.0
    wanted: int = 0
    stages: tuple[tuple[str, int], ...] = ()
    bids: int = 0
    cpm: float = 0.0
    currency: str = ""
    left_out: tuple[tuple[str, int], ...] = ()
    unknown: tuple[str, ...] = ()
    seconds: float = field(default=0.0, compare=False)

    @property
    def bids_a_day(self) -> float:
        """What it would bid on in a day."""
        return self.daily * self.bids / max(1, self.requests)

    @property
    def most_a_day(self) -> float:
        """What it would cost a day to win everything it would bid on, in ``currency``."""
        return self.bids_a_day * self.cpm / 1000


def reach_of(config: Config, catalog: Catalog, line_item: int) -> Reach:
    """Of a line item of ``catalog``, on the newest of the sample. Raises 503 without a model, a sample or a turn."""
    sample = read_sample(config.path("log", "requests"), MOST)
    if not sample:
        raise ApiError(503, "sample", "no traffic has been seen yet; it shows a minute after an exchange sends some")
    begun = time.perf_counter()
    if not _LOCK.acquire(timeout=_PATIENCE_S):
        raise ApiError(503, "busy", "another forecast is being made; try again in a moment", retry_s=2)
    try:
        found = _replayed(config, catalog, line_item, sample)
    except (NotReadyError, ModelError):
        raise ApiError(503, "model", "there is no model yet; run `dsp train --bootstrap`") from None
    finally:
        _LOCK.release()
    return dataclasses.replace(found, seconds=time.perf_counter() - begun)


def _replayed(config: Config, catalog: Catalog, line_item: int, sample: list[Sampled]) -> Reach:
    item = next(one for one in catalog.line_items if one.id == line_item)
    plain, unknown = _impersonal(item)
    used = [name for name in Targeting.__struct_fields__ if getattr(plain.targeting, name) != getattr(_ANY, name)]
    without = [_without(plain, name) for name in used]
    alone = _engine(config, catalog, [plain])
    stages: Counter[int] = Counter()
    wanted, prices, currencies = 0, [], Counter[str]()
    wants: list[bool] = []
    try:
        for body, at in _bodies(alone, sample):
            alone.decide([body], [FMT_JSON], [at])
            work = alone.work
            code, bids = int(work.q[0, Q_NBR]), int(work.first_bid[1])
            wants.append(code == GO and bool(int(work.matched[0][0]) & 1))
            wanted += wants[-1]
            if bids:
                prices.append(float(work.bids[0][B_PRICE]) / 1e6)
                currencies[alone.plan.snapshot.meta["currencies"][int(work.q[0, Q_CURRENCY])]] += 1
            else:
                stages[int(REASONS[work.q[0, Q_REASON]]) if code == GO else code] += 1
    finally:
        alone.close()
    return Reach(
        len(wants), _daily(sample), wanted, tuple((nbr_text(n), k) for n, k in stages.most_common()), len(prices),
        sum(prices) / max(1, len(prices)), currencies.most_common(1)[0][0] if currencies else "",
        _left_out(config, catalog, used, without, sample, wants), tuple(unknown),
    )  # fmt: skip


def _left_out(
    config: Config, catalog: Catalog, used: list[str], without: list[LineItem], sample: list[Sampled], wants: list[bool]
) -> tuple[tuple[str, int], ...]:
    """How many requests each field of the targeting keeps out by itself."""
    if not without:
        return ()
    engine, lost = _engine(config, catalog, without), Counter[str]()
    try:
        for (body, at), wanted in zip(_bodies(engine, sample), wants, strict=True):
            engine.decide([body], [FMT_JSON], [at])
            if wanted or int(engine.work.q[0, Q_NBR]) != GO:
                continue
            bits = int(engine.work.matched[0][0])
            lost.update(name for i, name in enumerate(used) if bits >> i & 1)
    finally:
        engine.close()
    return tuple(lost.most_common())


def _bodies(engine: Engine, sample: list[Sampled]) -> Iterable[tuple[bytes, int]]:
    for one in sample:
        at = engine.exchange_of(one.exchange)
        if at >= 0:
            yield msgspec.json.encode(one.body), at


def _impersonal(item: LineItem) -> tuple[LineItem, list[str]]:
    """The line item running, without what needs to know the person; and what that was."""
    unknown = [name for name in PERSONAL if getattr(item.targeting, name) != getattr(_ANY, name)]
    targeting = replace(item.targeting, **{name: getattr(_ANY, name) for name in PERSONAL})
    changes: dict[str, Any] = {"targeting": targeting, "status": "active", "start_s": 0, "end_s": FOREVER_S}
    return replace(item, **changes, frequency=(), suppress=(), allow_uncapped=True), unknown


def _without(item: LineItem, name: str) -> LineItem:
    return replace(item, targeting=replace(item.targeting, **{name: getattr(_ANY, name)}))


def _engine(config: Config, catalog: Catalog, items: list[LineItem]) -> Engine:
    """An engine whose catalog is these alone: each with the ads of the line item it is a variant of."""
    ads = [c for c in catalog.creatives if c.line_item_id == items[0].id]
    numbered = [replace(item, id=n) for n, item in enumerate(items, 1)]
    creatives = [
        replace(c, id=n * len(ads) + k, line_item_id=n) for n in range(1, len(items) + 1) for k, c in enumerate(ads)
    ]
    campaigns = [
        replace(c, status="active", start_s=0, end_s=FOREVER_S, frequency=())
        for c in catalog.campaigns
        if c.id == items[0].campaign_id
    ]
    small = replace(
        catalog, line_items=numbered, creatives=creatives, campaigns=campaigns,
        exchanges=[replace(x, qps=0) for x in catalog.exchanges],
        advertisers=[replace(a, frequency=(), product_frequency={}) for a in catalog.advertisers],
    )  # fmt: skip
    arrays, meta = compile_catalog(small, 1, config.ledger.public_url, time.time())
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "1.snap"
        write_snapshot(path, arrays, meta)
        snapshot = Snapshot.load(path)
    bidder = replace(config.bidder, log_decisions=False, profile_reads=False, sample_s=0.0)
    slices = Slices.fixed(snapshot.li_i[:, 0].copy())
    metrics = Metrics.memory("reach")
    return Engine.open(replace(config, bidder=bidder), snapshot=snapshot, slices=slices, metrics=metrics)


def _daily(sample: list[Sampled]) -> float:
    """Requests a day that the sample stands for."""
    span_ms = max(1000, sample[0].time_ms - sample[-1].time_ms)
    return sum(one.stands_for for one in sample) / span_ms * 86_400_000
