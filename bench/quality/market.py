"""The win curve learned from logs in the synthetic market: prices by context against one fitted curve per exchange.

The bidder explores the market, `dsp train` learns from its logs alone, and the model it writes buys the same auctions,
which nobody learned from, twice: with what it learned of prices by context (`dsp.control.winscale`), and with the
parametric curves of the very same model. Surplus is the true expected worth of what was bought less what it cost.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.quality.bootstrap import sum_difference
from bench.quality.page import INK, Page
from dsp.base.config import Config, LedgerConfig
from dsp.catalog.publish import catalog_path, publish
from dsp.catalog.snapshot import Snapshot
from dsp.catalog.store import apply_file, load_catalog, open_catalog
from dsp.control.wincurve import fit_win_curve
from dsp.control.winscale import fit_win_scale
from dsp.market.demo import LEARN_EXPLORE, example_catalog
from dsp.market.people import People
from dsp.market.profiles import write_profiles
from dsp.market.simulate import simulate
from dsp.market.world import World
from dsp.model.bootstrap import bootstrap_model
from dsp.model.manifest import MODEL_FILE, Manifest
from dsp.model.score import Scorer
from dsp.model.train import train

F64 = npt.NDArray[np.float64]

END_S = 1_780_000_000.0
LEARNING = 30_000  # auctions to learn from
BLOCKS, BLOCK = 24, 500  # auctions that are bought twice
FIRST = 1 << 23
PEOPLE = 20_000
NAMES = ("prices by context", "one curve per exchange")


def surplus(config: Config, world: World, snapshot: Snapshot, scorer: Scorer, block: int) -> tuple[float, float, float]:
    """(surplus, worth, cost) in USD of a block of auctions."""
    bought = simulate(
        config, world, snapshot, BLOCK, first=FIRST + block * BLOCK, end_s=END_S + 86_400, log=False, scorer=scorer
    )  # fmt: skip
    return bought.value_usd - bought.spend_usd, bought.value_usd, bought.spend_usd


def measure(data: Path, row: Callable[[dict[str, Any]], None], page: Page) -> bool:
    """Needs no data. The bar: learned prices leave no less surplus than the curves."""
    del data
    logging.getLogger("dsp").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as directory:
        config = Config(data_dir=directory, seed=1, ledger=LedgerConfig(public_url="https://notices.example"))
        engine = open_catalog(catalog_path(config))
        apply_file(engine, example_catalog())
        snapshot, catalog = Snapshot.load(publish(config)), load_catalog(engine)
        engine.dispose()
        people = People.generate(PEOPLE, config.seed)
        write_profiles(config, people)
        world = World.make(people, config.seed, snapshot, catalog, config.bidder.vendor_id)
        bootstrap_model(config)
        simulate(config, world, snapshot, LEARNING, explore=LEARN_EXPLORE, end_s=END_S)
        path = train(config, snapshot=snapshot, fit_win_curve=fit_win_curve, fit_win_scale=fit_win_scale)
        learned, graph = Scorer.load(path), path.joinpath(MODEL_FILE).read_bytes()
        if learned.win_scale is None:
            row({"held": False, "reason": "prices by context said no more than the curves on held-out auctions"})
            return False
        curves = Scorer(Manifest.load(path), graph, learned.win_curve)
        results = np.array(
            [[surplus(config, world, snapshot, scorer, b) for scorer in (learned, curves)] for b in range(BLOCKS)]
        )  # [block, bidder, (surplus, worth, cost)]
    total = results.sum(axis=0)
    low, high = sum_difference(results[:, 0, 0], results[:, 1, 0])
    for name, (left, worth, cost) in zip(NAMES, total.tolist(), strict=True):
        row({"bidder": name, "surplus_usd": round(left, 2), "worth_usd": round(worth, 2), "cost_usd": round(cost, 2)})
    held = bool(total[0, 0] >= total[1, 0])
    gain = float(total[0, 0] / total[1, 0] - 1.0)
    row({"gain": round(gain, 4), "difference_usd": (round(low, 2), round(high, 2)), "held": held})
    page.text(
        f"{BLOCKS * BLOCK:,} auctions bought twice, after {LEARNING:,} to learn from: {gain:+.1%} surplus, 95 % "
        f"interval of the difference {low:+.2f} … {high:+.2f} USD (paired bootstrap of blocks of {BLOCK})."
    )
    page.table(
        ["bidder", "surplus, USD", "worth, USD", "cost, USD"], [[n, *t] for n, t in zip(NAMES, total, strict=True)]
    )

    def draw(axes: Any) -> None:
        for name, colour, k in zip(NAMES, INK, range(2), strict=False):
            axes.plot(np.cumsum(results[:, k, 0]), color=colour, label=name)
        axes.set_xlabel(f"blocks of {BLOCK} auctions")
        axes.set_ylabel("surplus so far, USD")
        axes.legend(frameon=False)

    page.plot(draw)
    return held
