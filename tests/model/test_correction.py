"""The online correction follows what came, waits for ripe labels, and belongs to the model that predicted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dsp.base.config import Config
from dsp.control.bandit import shares
from dsp.log.decisions import DECISION_FIELDS
from dsp.log.outcomes import BILLING, CLICK, FUNDED, WIN
from dsp.model.correction import Correction, correct, creative_shares, load_correction, save_correction
from dsp.model.labels import label_times, learned_horizons

HOUR = 3_600_000
N = 20_000


def logs(times: float, delay_ms: int = 60_000, n: int = N) -> tuple[dict[str, Any], dict[str, Any]]:
    """Bids one second apart, all won; clicks come ``times`` as often as predicted, up to ``delay_ms`` later."""
    rng = np.random.default_rng(3)
    rows: dict[str, Any] = {name: np.zeros((n, w) if w else n, t) for name, (t, w) in DECISION_FIELDS.items()}
    rows["bid_id"] = np.arange(1, n + 1, dtype=np.uint64)
    rows["time_ms"] = np.arange(n) * 1_000 + HOUR
    rows["line_item"] = rng.integers(1, 4, n).astype(np.uint32)
    rows["exchange"][:] = 2
    rows["model"][:] = 5
    rows["p"] = np.tile(np.array([0.04, 0.1, 0.5, 0.5, 0.1], np.float32), (n, 1))
    clicked = np.flatnonzero(rng.random(n) < 0.04 * times)
    late = rng.integers(0, delay_ms, len(clicked))
    shown = np.repeat(rows["bid_id"], 2)
    outcomes = {
        "bid_id": np.concatenate([shown, rows["bid_id"][clicked]]),
        "kind": np.concatenate(
            [np.tile(np.array([WIN, BILLING], np.uint8), n), np.full(len(clicked), CLICK, np.uint8)]
        ),
        "time_ms": np.concatenate([np.repeat(rows["time_ms"], 2) + 10, rows["time_ms"][clicked] + late]),
        "price_micros": np.zeros(2 * n + len(clicked), np.int64),
    }
    return rows, outcomes


def test_clicks_at_half_the_rate_are_followed_and_the_other_heads_left_alone() -> None:
    decisions, outcomes = logs(0.5)
    correction = correct(decisions, outcomes, 5, int(decisions["time_ms"][-1]))
    factors = correction.factors(np.array([1, 2, 3, 99]))
    assert factors[:, 0] == pytest.approx(0.5, abs=0.13)
    np.testing.assert_array_equal(factors[:, 1:], 1.0)
    (everything,) = [row for row in correction.watched if row.head == "click" and row.of == "all"]
    assert everything.ratio == pytest.approx(2.0, abs=0.2)
    assert everything.corrected == pytest.approx(everything.observed, rel=0.15)
    assert not everything.alert
    assert {(row.of, row.id) for row in correction.watched if row.head == "click"} == {
        ("all", 0), ("line item", 1), ("line item", 2), ("line item", 3), ("exchange", 2),
    }  # fmt: skip


def test_bids_of_another_version_say_nothing_about_this_one() -> None:
    decisions, outcomes = logs(0.5)
    correction = correct(decisions, outcomes, 6, int(decisions["time_ms"][-1]))
    assert correction.line_items == []
    np.testing.assert_array_equal(correction.factors(np.array([1, 2])), 1.0)


def test_a_click_that_may_still_come_is_not_a_missing_one() -> None:
    decisions, outcomes = logs(1.0, delay_ms=3 * HOUR)
    end = int(decisions["time_ms"][-1])
    seen = outcomes["time_ms"] <= end
    known = {name: column[seen] for name, column in outcomes.items()}
    horizon = learned_horizons(decisions, known)["click"]
    assert 2 * HOUR < horizon <= 3 * HOUR
    times = label_times(decisions, known, {"click": horizon})
    young = decisions["time_ms"] > end - horizon
    clicked = np.isin(decisions["bid_id"], known["bid_id"][known["kind"] == CLICK])
    assert (times[young & ~clicked, 0] > end).all()
    correction = correct(decisions, known, 5, end)
    assert correction.factors(np.array([1]))[0, 0] == pytest.approx(1.0, abs=0.3)


def test_a_later_stage_dates_the_earlier_ones() -> None:
    decisions, outcomes = logs(0.0, n=10)
    outcomes["kind"][3] = FUNDED
    outcomes["bid_id"][3] = 4
    outcomes["time_ms"][3] = 9 * HOUR
    times = label_times(decisions, outcomes, {})
    assert times[3].tolist() == [9 * HOUR] * 4 + [int(decisions["time_ms"][3])]


def test_an_alert_is_raised_where_the_correction_cannot_keep_up() -> None:
    decisions, outcomes = logs(1.0, n=4_000)
    decisions["p"][:, 0] = np.where(np.arange(4_000) < 2_000, 0.0004, 0.04)
    correction = correct(decisions, outcomes, 5, int(decisions["time_ms"][-1]))
    assert any(row.alert for row in correction.watched if row.head == "click")


def test_the_creative_that_is_clicked_more_than_expected_gets_more_of_its_line_item() -> None:
    decisions, outcomes = logs(1.0)
    clicked = np.isin(decisions["bid_id"], outcomes["bid_id"][outcomes["kind"] == CLICK])
    decisions["creative"] = (10 * decisions["line_item"] + np.where(np.arange(N) % 4 == 0, 1, 2)).astype(np.uint32)
    popular = clicked & (decisions["line_item"] == 2)
    decisions["creative"][popular] = 21
    ids, split = creative_shares(decisions, outcomes, shares, seed=1)
    share = dict(zip(ids.tolist(), split.tolist(), strict=True))
    assert share[21] > 0.9
    assert share[22] >= 0.05 - 1e-9
    known = Correction(creatives=ids.tolist(), shares=split.tolist()).creative_shares(np.array([21, 99]))
    assert known.tolist() == pytest.approx([share[21], float(np.mean(split))])


def test_it_is_saved_whole_and_a_broken_file_has_no_effect(config: Config) -> None:
    config.path("models").mkdir()
    correction = correct(*logs(0.5), 5, 10**12)
    path = save_correction(config, correction)
    assert load_correction(config) == correction
    path.write_text("{")
    assert load_correction(config) == Correction()
