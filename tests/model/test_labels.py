"""Which rows teach which head what."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dsp.log.outcomes import APPLIED, APPROVED, BILLING, CLICK, DEFAULTED, FUNDED, IMPRESSION, LOSS, WIN
from dsp.model.context import HEADS
from dsp.model.labels import SETTLE_MS, join_labels

NOW = 1_760_000_000_000


def decisions(n: int, **columns: Any) -> dict[str, Any]:
    return {
        "bid_id": np.arange(1, n + 1, dtype=np.uint64),
        "time_ms": np.full(n, NOW),
        "exchange": np.zeros(n, np.uint16),
        "flags": np.zeros(n, np.uint8),
        "at": np.ones(n, np.uint8),
        **columns,
    }


def outcomes(*rows: tuple[int, int], time_ms: int = NOW, price: int = 0) -> dict[str, Any]:
    return {
        "price_micros": np.full(len(rows), price, np.int64),
        "bid_id": np.array([bid for bid, _ in rows], np.uint64),
        "kind": np.array([kind for _, kind in rows], np.uint8),
        "time_ms": np.full(len(rows), time_ms),
    }


def population(labels: Any, head: str) -> dict[int, float]:
    rows, y = labels.of(HEADS.index(head))
    return dict(zip((rows + 1).tolist(), y.tolist(), strict=True))


def test_each_head_learns_from_those_who_reached_the_stage_before() -> None:
    labels = join_labels(
        decisions(5),
        outcomes(
            (1, BILLING), (2, BILLING), (2, CLICK), (3, BILLING), (3, CLICK), (3, APPLIED), (3, APPROVED),
            (4, BILLING), (4, CLICK), (4, APPLIED), (4, APPROVED), (4, FUNDED), (4, DEFAULTED), (5, LOSS),
        ),
    )  # fmt: skip
    assert population(labels, "click") == {1: 0, 2: 1, 3: 1, 4: 1}
    assert population(labels, "apply") == {2: 0, 3: 1, 4: 1}
    assert population(labels, "approve") == {3: 1, 4: 1}
    assert population(labels, "fund") == {3: 0, 4: 1}
    assert population(labels, "default") == {4: 1}


def test_a_later_stage_proves_the_earlier_ones() -> None:
    labels = join_labels(decisions(1), outcomes((1, FUNDED)))
    assert [population(labels, head) for head in HEADS] == [{1: 1}, {1: 1}, {1: 1}, {1: 1}, {1: 0}]


def test_repeated_and_unknown_outcomes_change_nothing() -> None:
    once = join_labels(decisions(2), outcomes((1, BILLING), (1, CLICK)))
    more = join_labels(decisions(2), outcomes((1, CLICK), (1, BILLING), (1, CLICK), (99, CLICK), (0, BILLING)))
    np.testing.assert_array_equal(once.stage, more.stage)


def test_test_requests_teach_nothing() -> None:
    labels = join_labels(decisions(2, flags=np.array([1, 2], np.uint8)), outcomes((1, CLICK), (2, CLICK)))
    assert population(labels, "click") == {2: 1}
    assert labels.settled.tolist() == [False, True]


def test_a_win_is_an_impression_only_where_the_exchange_never_bills() -> None:
    labels = join_labels(
        decisions(3, exchange=np.array([0, 1, 1], np.uint16)), outcomes((1, WIN), (2, WIN), (3, WIN), (3, BILLING))
    )
    assert population(labels, "click") == {1: 0, 3: 0}


def test_our_own_pixel_proves_an_impression() -> None:
    assert population(join_labels(decisions(1), outcomes((1, IMPRESSION))), "click") == {1: 0}


def test_a_row_too_young_for_its_horizon_is_left_out_positive_or_not() -> None:
    given = decisions(3, time_ms=np.array([NOW - 5_000, NOW, NOW]))
    happened = outcomes((1, CLICK), (2, CLICK), (2, APPLIED), (3, CLICK))
    labels = join_labels(given, happened, {"apply": 5_000})
    assert population(labels, "apply") == {1: 0}
    assert population(labels, "click") == {1: 1, 2: 1, 3: 1}


def test_silence_is_a_loss_only_after_a_while() -> None:
    given = decisions(4, time_ms=np.array([NOW - SETTLE_MS, NOW - 100, NOW - 100, NOW]))
    labels = join_labels(given, outcomes((3, LOSS), (4, WIN)))
    assert labels.settled.tolist() == [True, False, True, True]
    assert labels.won.tolist() == [False, False, False, True]


def test_losses_and_second_price_wins_tell_the_price_to_win() -> None:
    given = decisions(4, at=np.array([1, 1, 2, 2], np.uint8))
    labels = join_labels(given, outcomes((1, LOSS), (2, WIN), (3, WIN), (4, LOSS), (9, LOSS), price=700))
    np.testing.assert_array_equal(labels.price, [700, np.nan, 700, 700])
    silent = join_labels(given, outcomes((1, LOSS), (3, WIN)))
    assert np.isnan(silent.price).all()


@pytest.mark.parametrize("n", [0, 3])
def test_empty_logs_give_empty_populations(n: int) -> None:
    labels = join_labels(decisions(n), outcomes())
    assert all(population(labels, head) == {} for head in HEADS)
