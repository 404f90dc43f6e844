"""A small world with a known funnel, logged the way bidder and ledger log it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from dsp.audience.profile import MAX_SEGMENTS, PROFILE, PROFILE_BYTES
from dsp.base.config import Config
from dsp.catalog.layout import LI_CURRENCY, LI_FLAGS, LI_ID, LI_PRODUCT, LI_WIDTH, LIF_CREDIT, LIV_WIDTH
from dsp.log.decisions import DECISION_FIELDS, DecisionWriter
from dsp.log.outcomes import APPLIED, APPROVED, BILLING, CLICK, DEFAULTED, FUNDED, LOSS, WIN, OutcomeWriter
from dsp.model.context import (
    CTX_AT,
    CTX_CATEGORY,
    CTX_EXCHANGE,
    CTX_FLOOR,
    CTX_H,
    CTX_HOUR,
    CTX_POS,
    CTX_PROFILE,
    CTX_W,
    CTX_WIDTH,
)
from dsp.model.features import FEATURES, SPEC_HASH, feature_rows
from dsp.model.network import sigmoid

START_MS = 1_760_000_000_000


@dataclass(frozen=True)
class Inputs:
    """What `build_features` takes, for ``n`` candidates."""

    cand_imp: np.ndarray
    cand_li: np.ndarray
    ctx: np.ndarray
    profiles: np.ndarray
    li_i: np.ndarray
    li_v: np.ndarray

    def rows(self) -> np.ndarray:
        return feature_rows(self.cand_imp, self.cand_li, self.ctx, self.profiles, self.li_i, self.li_v)


def make_inputs(n: int, seed: int, per_imp: int = 4) -> Inputs:
    rng = np.random.default_rng(seed)
    m = -(-n // per_imp)
    ctx = np.zeros((m, CTX_WIDTH), np.int64)
    ctx[:, CTX_PROFILE] = np.where(rng.random(m) < 0.1, -1, np.arange(m))
    ctx[:, CTX_HOUR] = rng.integers(0, 24, m)
    ctx[:, CTX_CATEGORY] = rng.integers(0, 27, m)
    ctx[:, CTX_POS] = rng.integers(0, 5, m)
    ctx[:, CTX_EXCHANGE] = rng.integers(0, 3, m)
    ctx[:, CTX_W], ctx[:, CTX_H] = 300, 250
    ctx[:, CTX_FLOOR] = rng.integers(0, 2_000_000, m)
    ctx[:, CTX_AT] = 1
    profiles = np.zeros(m, PROFILE)
    profiles["age_band"] = rng.integers(0, 7, m)
    profiles["income_band"] = rng.integers(0, 7, m)
    profiles["intent"] = rng.integers(0, 256, (m, 5))
    profiles["risk"] = rng.integers(0, 256, (m, 6))
    profiles["lifecycle"] = rng.integers(0, 8, (m, 5))
    profiles["hours"] = rng.integers(0, 256, (m, 3))
    profiles["affinity"] = rng.integers(0, 256, (m, 8))
    profiles["recency_days"] = rng.integers(0, 256, m)
    profiles["activity"] = rng.integers(0, 255, m)
    profiles["segments"] = rng.integers(0, 999, (m, MAX_SEGMENTS))
    li_i = np.zeros((20, LI_WIDTH), np.int64)
    li_i[:, LI_ID] = np.arange(20) + 1
    li_i[:, LI_PRODUCT] = np.arange(20) % 5
    li_i[:, LI_FLAGS] = np.where(li_i[:, LI_PRODUCT] < 2, LIF_CREDIT, 0)
    li_i[:, LI_CURRENCY] = 0
    li_v = rng.uniform(0, 1, (20, LIV_WIDTH)) * [400, 1, 10_000, 1, 20, 50, 100, 1]
    return Inputs(
        (np.arange(n) // per_imp).astype(np.int32),
        rng.integers(0, 20, n).astype(np.int32),
        ctx,
        profiles.view(np.uint8).reshape(m, PROFILE_BYTES),
        li_i,
        li_v,
    )


def true_funnel(x: np.ndarray) -> np.ndarray:
    """p of the five heads, given the stage before; brisk, so that a few thousand rows show every stage."""

    def column(name: str) -> np.ndarray:
        return x[:, FEATURES.index(name)]

    return sigmoid(
        np.stack(
            [
                -2.5 + 2.0 * column("intent") + 0.6 * column("cat_finance"),
                -0.8 + 1.5 * column("intent"),
                0.2 + 0.8 * column("income") - 1.5 * column("risk_lenders"),
                1.0 + 0.5 * column("intent"),
                -2.0 + 1.8 * column("risk_lenders") + 1.0 * column("risk_qualification"),
            ],
            axis=1,
        )
    )


def write_world(config: Config, n: int, seed: int = 5) -> np.ndarray:
    """Log ``n`` bids with their outcomes under ``config``; returns their feature rows."""
    rng = np.random.default_rng(seed)
    inputs = make_inputs(n, seed)
    x = inputs.rows()
    p = true_funnel(x)
    rows = {name: np.zeros((n, width) if width else n, dtype) for name, (dtype, width) in DECISION_FIELDS.items()}
    rows["bid_id"] = rng.permutation(n).astype(np.uint64) + np.uint64(10**12)
    rows["time_ms"] = START_MS + np.arange(n)
    rows["line_item"] = (inputs.li_i[inputs.cand_li, LI_ID]).astype(np.uint32)
    rows["exchange"] = inputs.ctx[inputs.cand_imp, CTX_EXCHANGE].astype(np.uint16)
    rows["media"] = np.ones(n, np.uint8)
    rows["bid_cpm_micros"] = (1e6 * np.exp(rng.normal(0.5, 0.6, n))).astype(np.int64)
    rows["reserve_micros"] = rows["bid_cpm_micros"] // 1000
    won = rng.random(n) < sigmoid(3.0 * np.log(rows["bid_cpm_micros"] / 1.2e6))
    outcomes = []
    for i in range(n):
        kinds = [WIN, BILLING] if won[i] else [LOSS]
        for h, kind in enumerate((CLICK, APPLIED, APPROVED, FUNDED, DEFAULTED)):
            if not won[i] or rng.random() >= p[i, h]:
                break
            kinds.append(kind)
        outcomes += [(int(rows["bid_id"][i]), kind, START_MS + i + 50, 0, 0.0) for kind in kinds]
    decisions = DecisionWriter(config.path("log", "decisions"), "0", SPEC_HASH, "1", threaded=False, chunk_rows=n)
    decisions.append(rows, x)
    decisions.close()
    writer = OutcomeWriter(config.path("log", "outcomes"), "0", threaded=False, chunk_rows=len(outcomes) + 1)
    writer.append(outcomes)
    writer.close()
    return x


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(data_dir=str(tmp_path), seed=7)


@pytest.fixture
def inputs() -> Callable[..., Inputs]:
    return make_inputs


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, np.ndarray]:
    """A config whose logs hold 24,000 bids, and the feature rows they were scored on; read only."""
    config = Config(data_dir=str(tmp_path_factory.mktemp("world")), seed=7)
    return config, write_world(config, 24_000)


@pytest.fixture
def log_world() -> Callable[..., np.ndarray]:
    return write_world


@pytest.fixture
def funnel() -> Callable[[np.ndarray], np.ndarray]:
    return true_funnel
