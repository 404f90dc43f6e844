"""What a candidate costs: the ONNX heads at a batch of 256 rows, and the pricing kernel with its shading.

The model has the size of a trained one (linear part and the shared hidden layer, all five heads); its exported graph is
run as a bidder runs it and compared with the trainer's own arithmetic. Times are medians over repeats on one core.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.quality.page import Page
from dsp.bidder.gate import Q_CURRENCY, Q_WIDTH
from dsp.bidder.price import price
from dsp.bidder.rank import C_AT, C_FLOOR, C_IMP, C_LI, C_WIDTH
from dsp.bidder.wintable import win_table
from dsp.catalog.layout import LIV_EAD, LIV_LGD, LIV_MARGIN, LIV_PAYOUT_CLICK, LIV_WIDTH
from dsp.model.context import HEADS
from dsp.model.curves import MEDIA_SLOTS, X_EXCHANGES, prior_curves, save_curves
from dsp.model.deep import UNITS
from dsp.model.export import to_onnx
from dsp.model.features import FEATURES, SHARED, SPEC_HASH, F
from dsp.model.manifest import MODEL_FILE, Manifest
from dsp.model.network import Network
from dsp.model.score import Scorer
from dsp.model.winscale import KEYS, WinScale
from dsp.openrtb.columns import I_REQ, I_WIDTH, R_WIDTH

ROWS = 256
REPEATS = 2_000
PARITY_BAR, SCORE_BAR_US, PRICE_BAR_US = 1e-5, 1.0, 0.3


def median_us(run: Callable[[], object]) -> float:
    """µs of one call, median."""
    for _ in range(50):
        run()
    spent = []
    for _ in range(REPEATS):
        began = time.perf_counter_ns()
        run()
        spent.append(time.perf_counter_ns() - began)
    return float(np.median(spent)) / 1e3


def random_network(rng: np.random.Generator) -> Network:
    """Weights of the size that training gives."""
    heads = len(HEADS)
    return Network(
        rng.normal(0, 0.3, (F, heads)), rng.normal(-2, 1, heads), rng.normal(0, (2 / F) ** 0.5, (F, UNITS)),
        rng.normal(0, 0.1, UNITS), rng.normal(0, 0.2, (UNITS, heads)),
    )  # fmt: skip


def saved(network: Network, directory: Path) -> Scorer:
    """The network, exported and loaded as a bidder does."""
    directory.joinpath(MODEL_FILE).write_bytes(to_onnx(network, "bench"))
    save_curves(directory, prior_curves())
    Manifest(1, "bench", "trained", "2026-01-01T00:00:00+00:00", SPEC_HASH, FEATURES, HEADS).save(directory)
    return Scorer.load(directory)


def random_scale(rng: np.random.Generator) -> WinScale:
    """What auctions go for by context, for every exchange and medium: the dearer way to a bid."""
    log_ratio = np.linspace(-3.0, 3.0, 320)
    mass = rng.dirichlet(np.full(321, 3.0), 8)
    weights = np.append(rng.normal(0, 0.1, SHARED), np.log(1.5e6))
    return WinScale(weights, (12.0, 16.0), np.exp(log_ratio), mass, rng.integers(0, 8, KEYS))


def price_call(rng: np.random.Generator) -> Callable[[], object]:
    """The pricing kernel on ROWS first-price candidates of 64 requests."""
    line_items, requests = 500, 64
    cand = np.zeros((ROWS, C_WIDTH), np.int64)
    cand[:, C_IMP] = np.sort(rng.integers(0, requests, ROWS))
    cand[:, C_LI] = rng.integers(0, line_items, ROWS)
    cand[:, C_AT] = 1
    cand[:, C_FLOOR] = rng.choice([0, 200_000, 900_000], ROWS)
    imp = np.zeros((requests, I_WIDTH), np.int64)
    imp[:, I_REQ] = np.arange(requests)
    q = np.zeros((requests, Q_WIDTH), np.int64)
    q[:, Q_CURRENCY] = 0
    li_v: npt.NDArray[np.float64] = np.zeros((line_items, LIV_WIDTH))
    li_v[:, LIV_MARGIN] = rng.uniform(50, 900, line_items)
    li_v[:, LIV_LGD], li_v[:, LIV_EAD] = 0.6, rng.uniform(500, 9_000, line_items)
    li_v[:, LIV_PAYOUT_CLICK] = 0.05
    p = np.column_stack([rng.uniform(lo, hi, ROWS) for lo, hi in ((1e-3, 0.01), (0.02, 0.2), (0.3, 0.6), (0.6, 0.9), (0.01, 0.05))]).astype(np.float32)  # fmt: skip  # noqa: E501
    curves = np.stack(
        [rng.uniform(1, 4, (X_EXCHANGES, MEDIA_SLOTS)), rng.uniform(3e5, 4e6, (X_EXCHANGES, MEDIA_SLOTS))], 2
    )
    wins = win_table(curves, random_scale(rng))
    features = np.clip(rng.normal(0, 1, (ROWS, F)), -4, 4).astype(np.float32)
    value, bid, surplus = np.zeros(ROWS), np.zeros(ROWS, np.int64), np.zeros(ROWS)
    args = (
        ROWS, cand, p, imp, np.zeros((requests, R_WIDTH), np.int64), q, li_v, np.full(line_items, 2e7),
        np.ones(line_items), np.zeros(line_items, np.uint8), np.ones(1), rng.uniform(0.3, 1.2, line_items),
        np.arange(1, 4), wins.curve, wins.value, wins.bid, wins.chance, wins.below, wins.scaled, wins.weights,
        *wins.reach, features, 10_000, np.ones((line_items, 5), np.float32), value, bid, surplus,
    )  # fmt: skip
    price(*args)
    if (bid > 0).mean() < 0.5:
        raise AssertionError("most candidates must be priced, or the time says nothing")
    return lambda: price(*args)


def measure(data: Path, row: Callable[[dict[str, Any]], None], page: Page) -> bool:
    """Needs no data."""
    del data
    rng = np.random.default_rng(1)
    network = random_network(rng)
    x = np.clip(rng.normal(0, 1, (20 * ROWS, F)), -4, 4).astype(np.float32)
    with tempfile.TemporaryDirectory() as directory:
        scorer = saved(network, Path(directory))
    worst = max(
        float(np.abs(scorer.score(x[at : at + ROWS]) - network.predict(x[at : at + ROWS])).max())
        for at in range(0, len(x), ROWS)
    )
    scored = median_us(lambda: scorer.run(ROWS)) / ROWS
    priced = median_us(price_call(rng)) / ROWS
    lines = (
        ("ONNX against the trainer, largest difference", worst, PARITY_BAR),
        (f"score, µs per row of {ROWS}", scored, SCORE_BAR_US),
        ("shade and price, µs per candidate", priced, PRICE_BAR_US),
    )
    for what, measured, bar in lines:
        row({"what": what, "measured": float(f"{measured:.3g}"), "bar": bar, "held": measured <= bar})
    page.table(["what", "measured", "bar", ""], [[w, m, b, m <= b] for w, m, b in lines])
    return all(measured <= bar for _, measured, bar in lines)
