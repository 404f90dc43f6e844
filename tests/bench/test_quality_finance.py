"""The semi-synthetic market on made-up tables: its knobs do what they say, and knowing the risk pays."""

from __future__ import annotations

import numpy as np
import pytest

from bench.quality import finance


@pytest.fixture(scope="module")
def scores() -> finance.Scores:
    rng = np.random.default_rng(8)
    convert, default = rng.beta(1, 8, 8_000), rng.beta(1.2, 4, 6_000)
    return finance.Scores(
        convert, (rng.random(8_000) < convert) * 1.0, default, (rng.random(6_000) < default) * 1.0,
        rng.gamma(2, 80, 6_000),
    )  # fmt: skip


@pytest.mark.parametrize("risk", [-0.5, 0.0, 0.5])
def test_the_knob_sets_how_risk_goes_with_intent(scores: finance.Scores, risk: float) -> None:
    market = finance.make_market(scores, 1, risk)
    rank = [np.argsort(np.argsort(x)) for x in (market.convert, market.default)]
    spearman = float(np.corrcoef(rank[0], rank[1])[0, 1])
    assert spearman == pytest.approx(6 / np.pi * np.arcsin(risk / 2), abs=0.02)


def test_outcomes_are_what_the_scores_promise(scores: finance.Scores) -> None:
    markets = [finance.make_market(scores, seed) for seed in range(3)]
    promised = np.mean([finance.worth(m)["risk on"].mean() for m in markets])
    came = [m.outcome.mean() for m in markets]
    spread = np.mean([m.outcome.std() for m in markets]) / np.sqrt(3 * finance.AUCTIONS)
    assert abs(np.mean(came) - promised) < 5 * spread


def test_risk_on_beats_conversions_at_the_same_spend_and_nobody_beats_hindsight(scores: finance.Scores) -> None:
    value, spend = finance.results(scores, risk=0.5, seeds=3)
    assert value["risk on"].sum() > value["conversions"].sum() + 0.15 * abs(value["conversions"].sum())
    assert spend["risk on"].sum() == pytest.approx(spend["conversions"].sum(), rel=0.02)
    assert all((value["hindsight"] >= got).all() for got in value.values())
