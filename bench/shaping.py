"""Traffic shaping on the synthetic market where most supply is worthless: what it refuses, what that loses and saves.

`python -m bench shaping`. In each of several worlds two engines, one with shaping and one without, decide the same
requests, of which 60 % come from supply that nobody here can use. The first part of them only teaches; of the rest:
requests processed, value realised (true expected worth of what was won, and that less its cost), CPU of deciding. What
is lost is what the unshaped engine realised from the requests that the other refused; the plain difference of both is
given beside it (``less_value``), and is noisier, as which creative is shown is a draw. Each
is compared by world, and all by their means with a 95 % interval (Student's t). Appends a JSON line to
``bench/results/shaping.jsonl``; fails where fewer than 50 % of requests are spared or more than 1 % of value is lost.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from bench.machine import facts
from dsp.audience.guard import Guard
from dsp.audience.lmdb_store import open_profiles
from dsp.base.config import Config, LedgerConfig, ShapingConfig
from dsp.base.metrics import Metrics
from dsp.bidder.answer import BID
from dsp.bidder.engine import Engine
from dsp.bidder.gate import Q_NBR
from dsp.bidder.shape import REFUSED, TRIED, Shaping
from dsp.bidder.slices import Slices
from dsp.catalog.layout import LI_ID
from dsp.catalog.publish import catalog_path, publish
from dsp.catalog.snapshot import Snapshot
from dsp.catalog.store import apply_file, load_catalog, open_catalog
from dsp.market.demo import example_catalog
from dsp.market.people import People
from dsp.market.profiles import write_profiles
from dsp.market.world import Sale, World
from dsp.model.bootstrap import bootstrap_model
from dsp.openrtb.codes import NBR_NOT_WORTH
from dsp.openrtb.columns import FMT_JSON

F64 = npt.NDArray[np.float64]

RESULTS = Path(__file__).parent / "results" / "shaping.jsonl"
WORTHLESS = 0.6
BATCH = 64
PEOPLE = 20_000
REQUESTS_PER_S = 2_000.0
END_S = 1_780_000_000
NAMES = ("without", "with")
BAR_FEWER, BAR_LOST = 0.5, 0.01
T95 = {3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}  # two-sided, by worlds


@dataclass
class Tally:
    """What one engine did with the requests that count."""

    cpu_s: float = 0.0
    processed: int = 0
    bids: int = 0
    value_usd: float = 0.0
    spend_usd: float = 0.0


@dataclass
class Twin:
    """One of the two engines of a world."""

    engine: Engine
    tally: Tally = field(default_factory=Tally)
    learning: Tally = field(default_factory=Tally)
    lost: Tally = field(default_factory=Tally)  # what the other one made of the requests that this one refused
    learned_lost: Tally = field(default_factory=Tally)  # while learning

    def decide(self, bodies: list[bytes], exchanges: list[int], tally: Tally) -> list[tuple[int, bytes]]:
        """Answers, with what they took."""
        before, refused = time.process_time(), self.refused()
        answers = self.engine.decide(bodies, [FMT_JSON] * len(bodies), exchanges)
        tally.cpu_s += time.process_time() - before
        tally.processed += len(bodies) - (self.refused() - refused)
        return answers

    def refused(self) -> int:
        """Requests that shaping has refused so far."""
        return int(self.engine.metrics.counter("dsp_shaped_requests_total")[:, REFUSED].sum())


class Clock:
    """The simulated wall clock."""

    now_ns = END_S * 1_000_000_000

    def __call__(self) -> int:
        """Nanoseconds since 1970."""
        return self.now_ns


def run_world(seed: int, learning: int, requests: int, settings: ShapingConfig) -> dict[str, Any]:
    """One world: both engines over the same requests."""
    with tempfile.TemporaryDirectory() as directory:
        config = Config(data_dir=directory, seed=seed, ledger=LedgerConfig(public_url="https://notices.example"))
        config = msgspec.structs.replace(
            config, shaping=settings, bidder=msgspec.structs.replace(config.bidder, log_decisions=False, sample_s=0.0)
        )
        catalog_engine = open_catalog(catalog_path(config))
        apply_file(catalog_engine, example_catalog())
        snapshot, catalog = Snapshot.load(publish(config)), load_catalog(catalog_engine)
        catalog_engine.dispose()
        people = People.generate(PEOPLE, seed)
        write_profiles(config, people)
        world = World.make(people, seed, snapshot, catalog, config.bidder.vendor_id, WORTHLESS)
        bootstrap_model(config)
        clock, twins, store = Clock(), list[Twin](), Guard(open_profiles(config))
        for name in NAMES:
            engine = Engine.open(
                config, snapshot=snapshot, store=store, metrics=Metrics.memory(name),
                slices=Slices.fixed(snapshot.li_i[:, LI_ID]), clock=clock,
            )  # fmt: skip
            if name == "with":
                engine.shaping = Shaping(config.shaping, engine.metrics, seed)
            engine.warm()
            twins.append(Twin(engine))
        drive(world, twins, clock, learning, requests)
        for twin in twins:
            twin.engine.close()
    return compare(seed, twins, requests, learning)


def drive(world: World, twins: list[Twin], clock: Clock, learning: int, requests: int) -> None:
    """The same requests to both engines, in turns first."""
    encoder = msgspec.json.Encoder()
    indices = [twins[0].engine.exchange_of(venue.name) for venue in world.factory.venues]
    for start in range(0, learning + requests, BATCH):
        scenes = [world.factory.scene(i) for i in range(start, start + BATCH)]
        bodies = [encoder.encode(scene.body) for scene in scenes]
        exchanges = [indices[scene.venue] for scene in scenes]
        clock.now_ns += int(BATCH / REQUESTS_PER_S * 1e9)
        sold: dict[str, list[Sale]] = {}
        for twin in twins if start // BATCH % 2 else twins[::-1]:
            answers = twin.decide(bodies, exchanges, twin.learning if start < learning else twin.tally)
            sold[twin.engine.metrics.role] = [
                sale
                for scene, (kind, payload) in zip(scenes, answers, strict=True)
                if kind == BID
                for sale in world.sell(scene, msgspec.json.decode(payload))
            ]
        refused = twins[1].engine.work.q[:BATCH, Q_NBR] == NBR_NOT_WORTH
        of_refused = [sale for sale in sold[NAMES[0]] if refused[sale.scene.index - start]]
        for twin in twins:
            tally = twin.learning if start < learning else twin.tally
            settle(world, sold[twin.engine.metrics.role], clock.now_ns, tally)
        settle(world, of_refused, clock.now_ns, twins[1].learned_lost if start < learning else twins[1].lost)


def settle(world: World, sales: list[Sale], now_ns: int, tally: Tally) -> None:
    """Add what was won and paid."""
    won = [sale for sale in sales if sale.settlement.won]
    tally.bids += len(sales)
    if won:
        p = world.probabilities(won, np.full(len(won), now_ns / 3.6e12 % 24))
        tally.value_usd += float(world.value_cpm_usd(won, p).sum()) / 1000
        tally.spend_usd += sum(sale.settlement.price_micros * sale.venue.usd for sale in won) / 1e9


def compare(seed: int, twins: list[Twin], requests: int, learning: int) -> dict[str, Any]:
    """One world's row."""
    without, shaped = (twin.tally for twin in twins)
    lost = twins[1].lost
    metrics = twins[1].engine.metrics
    tried = int(metrics.counter("dsp_shaped_requests_total")[:, TRIED].sum())
    surplus = [tally.value_usd - tally.spend_usd for tally in (without, shaped)]
    offered = float(metrics.counter("dsp_bid_surplus_micros_total").sum()) / 1e9
    return {
        "seed": seed,
        "fewer": 1 - shaped.processed / without.processed,
        "fewer_while_learning": 1 - twins[1].learning.processed / max(1, learning),
        "lost_value": lost.value_usd / without.value_usd,
        "lost_surplus": (lost.value_usd - lost.spend_usd) / surplus[0],
        "less_value": 1 - shaped.value_usd / without.value_usd,
        "lost_value_with_learning": (lost.value_usd + twins[1].learned_lost.value_usd)
        / (without.value_usd + twins[0].learning.value_usd),
        "cpu": shaped.cpu_s / without.cpu_s,
        "cpu_us": [tally.cpu_s / requests * 1e6 for tally in (without, shaped)],
        "value_usd": [without.value_usd, shaped.value_usd],
        "bids": [without.bids, shaped.bids],
        "explored": tried,
        "said_lost": float(metrics.counter("dsp_shaped_lost_micros_total").sum()) / 1e9 / max(offered, 1e-12),
    }


def interval(values: list[float]) -> tuple[float, float, float]:
    """(mean, lower, upper end of the 95 % interval of the mean)."""
    mean, n = float(np.mean(values)), len(values)
    half = T95.get(n, 2.2) * float(np.std(values, ddof=1)) / n**0.5 if n > 2 else float("nan")
    return mean, mean - half, mean + half


def main(args: list[str] | None = None) -> int:
    """Measure, print, keep; 1 where a bar was missed."""
    parser = argparse.ArgumentParser(prog="python -m bench shaping", description=__doc__)
    parser.add_argument("--worlds", type=int, default=5)
    parser.add_argument("--learning", type=int, default=128_000, help="requests that only teach")
    parser.add_argument("--requests", type=int, default=64_000, help="requests that count")
    parser.add_argument("--cost", type=float, default=ShapingConfig().usd_per_million)
    parser.add_argument("--explore", type=float, default=ShapingConfig().explore)
    parser.add_argument("--dry", action="store_true", help="keep nothing")
    options = parser.parse_args(args)
    logging.getLogger("dsp").setLevel(logging.ERROR)
    settings = ShapingConfig(mode="refuse", usd_per_million=options.cost, explore=options.explore)
    rows = []
    for seed in range(1, options.worlds + 1):
        rows.append(run_world(seed, options.learning, options.requests, settings))
        print(json.dumps(rows[-1]), flush=True)
    means = {}
    for name in (
        "fewer",
        "fewer_while_learning",
        "lost_value",
        "less_value",
        "lost_surplus",
        "lost_value_with_learning",
        "cpu",
    ):
        means[name] = [round(each, 5) for each in interval([row[name] for row in rows])]
    held = means["fewer"][1] >= BAR_FEWER and means["lost_value"][2] <= BAR_LOST
    result = {
        "bench": "shaping", "worthless": WORTHLESS, "worlds": options.worlds, "learning": options.learning,
        "requests": options.requests, "usd_per_million": options.cost, "explore": options.explore, **means,
        "bars": {"fewer": BAR_FEWER, "lost_value": BAR_LOST}, "held": held, "rows": rows, "machine": facts(),
    }  # fmt: skip
    print(json.dumps({k: v for k, v in result.items() if k not in ("rows", "machine")}))
    if not options.dry:
        with RESULTS.open("a") as file:
            file.write(json.dumps(result) + "\n")
    return int(not held)


if __name__ == "__main__":
    sys.exit(main())
