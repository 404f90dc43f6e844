"""Price and select: the value formula, floors, caps, and money that is reserved before it is spent."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsp.bidder.gate import Q_AT, Q_CURRENCY, Q_WIDTH
from dsp.bidder.price import B_CAND, B_PRICE, B_RESERVE, B_WIDTH, price, select, value_of
from dsp.bidder.rank import C_AT, C_DEAL, C_FLOOR, C_FLOORCUR, C_IMP, C_LI, C_WIDTH
from dsp.bidder.wintable import win_table
from dsp.catalog.layout import (
    LI_MAX_BID,
    LI_STRATEGY,
    LI_WIDTH,
    LIV_EAD,
    LIV_LGD,
    LIV_MARGIN,
    LIV_PAYOUT_APPLY,
    LIV_PAYOUT_CLICK,
    LIV_WIDTH,
)
from dsp.model.features import F
from dsp.openrtb.columns import I_REQ, I_WIDTH, R_TEST, R_WIDTH


class Auction:
    """One request with imps and fixed-bid candidates, as `select` sees them."""

    def __init__(self, imps: int, line_items: int, bids_cpm: list[list[int]], floor: int = 0, at: int = 1) -> None:
        self.req = np.zeros((1, R_WIDTH), np.int64)
        self.imp = np.zeros((max(imps, 1), I_WIDTH), np.int64)
        self.imp[:, I_REQ] = 0
        self.q = np.zeros((1, Q_WIDTH), np.int64)
        self.q[0, Q_AT] = at
        self.q[0, Q_CURRENCY] = 0
        self.li_i = np.zeros((line_items, LI_WIDTH), np.int64)
        self.li_i[:, LI_STRATEGY] = 1
        self.li_v = np.zeros((line_items, LIV_WIDTH))
        rows = [(i, li) for i, of in enumerate(bids_cpm) for li in range(len(of))]
        self.cand = np.zeros((len(rows), C_WIDTH), np.int64)
        for a, (i, li) in enumerate(rows):
            self.cand[a, [C_IMP, C_LI, C_DEAL, C_FLOOR, C_FLOORCUR, C_AT]] = i, li, -1, floor, 0, at
        self.bid_cpm = np.array([bids_cpm[i][li] for i, li in rows], np.int64)
        self.surplus = self.bid_cpm.astype(np.float64)
        self.bids = np.zeros((len(rows) + 1, B_WIDTH), np.int64)
        self.first = np.zeros(2, np.int64)

    def select(self, available: np.ndarray, reserved: np.ndarray) -> list[tuple[int, int, int, int]]:
        """(imp, line item, price, reserve) of every bid."""
        n = select(
            len(self.cand), 1, self.cand, self.imp, self.req, self.q, self.li_i, np.ones(1), self.bid_cpm,
            self.surplus, available, reserved, self.bids, self.first,
        )  # fmt: skip
        rows = self.bids[:n]
        return [
            (int(self.cand[b[B_CAND], C_IMP]), int(self.cand[b[B_CAND], C_LI]), int(b[B_PRICE]), int(b[B_RESERVE]))
            for b in rows
        ]

    def price(self, p: list[float], multiplier: float = 1.0, dear_exchange: int = 63) -> tuple[float, int]:
        """(value, bid CPM micros) of the first candidate, offered by exchange 1."""
        value, bid, surplus = np.zeros(9), np.zeros(9, np.int64), np.zeros(9)
        curves = np.tile(np.array([2.0, 2e6]), (64, 4, 1))
        curves[dear_exchange] = 8.0, 4e6
        wins = win_table(curves)
        line_items = len(self.li_i)
        price(
            1, self.cand, np.array([p], np.float32), self.imp, self.req, self.q, self.li_v,
            self.li_i[:, LI_MAX_BID].astype(np.float64), np.ones(line_items),
            self.li_i[:, LI_STRATEGY].astype(np.uint8), np.ones(1), np.full(line_items, multiplier),
            np.array([1]), wins.curve,
            wins.value, wins.bid, wins.chance, wins.below, wins.scaled, wins.weights, *wins.reach,
            np.zeros((1, F), np.float32), 10_000, np.ones((line_items, 5), np.float32),
            value, bid, surplus,
        )  # fmt: skip
        self.left = float(surplus[0])
        return float(value[0]), int(bid[0])


def test_value_is_the_margin_less_expected_loss_plus_stage_payouts() -> None:
    v = np.zeros(LIV_WIDTH)
    v[[LIV_MARGIN, LIV_LGD, LIV_EAD, LIV_PAYOUT_CLICK, LIV_PAYOUT_APPLY]] = 400.0, 0.6, 5000.0, 0.1, 2.0
    p = np.array([0.01, 0.2, 0.5, 0.8, 0.05], np.float32)
    funded = 0.01 * 0.2 * 0.5 * 0.8
    expected = funded * (400.0 - 0.05 * 0.6 * 5000.0) + 0.01 * 0.1 + 0.01 * 0.2 * 2.0
    assert value_of(p, np.ones(5, np.float32), v) == pytest.approx(expected, rel=1e-6)


def test_second_price_bids_the_whole_value_and_first_price_less() -> None:
    for at in (1, 2):
        auction = Auction(1, 1, [[0]], at=at)
        auction.li_i[0, [LI_STRATEGY, LI_MAX_BID]] = 0, 50_000_000
        auction.li_v[0, LIV_PAYOUT_CLICK] = 1.0
        value, bid = auction.price([0.005, 0, 0, 0, 0])  # 0.005 per impression: 5 CPM
        assert value == pytest.approx(0.005, rel=1e-6)
        if at == 2:
            assert bid == pytest.approx(5_000_000, abs=2000)
        else:
            assert 0 < bid < 4_900_000


@pytest.mark.parametrize("floor", [0, 1_500_000])
def test_at_second_price_the_surplus_is_the_value_less_the_second_price(floor: int) -> None:
    """Not the value less the bid, which is nothing: the better of two line items could not be told by it."""
    left = []
    for click in (0.004, 0.006):
        auction = Auction(1, 1, [[0]], floor=floor, at=2)
        auction.li_i[0, [LI_STRATEGY, LI_MAX_BID]] = 0, 50_000_000
        auction.li_v[0, LIV_PAYOUT_CLICK] = 1.0
        auction.price([click, 0, 0, 0, 0])
        left.append(auction.left)
        worth = click * 1e9
        price = np.linspace(1.0, worth, 200_001)  # of the best rival
        reached = 1.0 / (1.0 + (2e6 / price) ** 2)
        gain = worth - np.maximum((price[1:] + price[:-1]) / 2, floor)
        assert auction.left == pytest.approx(float((gain * np.diff(reached)).sum()), rel=0.01)
    assert left[1] > left[0]


def test_the_win_curve_is_that_of_the_exchanges_public_id() -> None:
    """As the log names it, and training learns it; not that of its place in the catalog."""
    auction = Auction(1, 1, [[0]])
    auction.li_i[0, [LI_STRATEGY, LI_MAX_BID]] = 0, 50_000_000
    auction.li_v[0, LIV_PAYOUT_CLICK] = 1.0
    usual, first, own = (auction.price([0.006, 0, 0, 0, 0], 1.0, x)[1] for x in (63, 0, 1))
    assert first == usual
    assert own > 1.3 * usual


def test_a_bid_is_never_above_the_line_items_maximum_nor_below_the_floor() -> None:
    auction = Auction(1, 1, [[0]], floor=1_234_567, at=2)
    auction.li_i[0, [LI_STRATEGY, LI_MAX_BID]] = 0, 3_000_000
    auction.li_v[0, LIV_PAYOUT_CLICK] = 1.0
    assert auction.price([0.005, 0, 0, 0, 0])[1] == 3_000_000
    bid = auction.price([0.0012346, 0, 0, 0, 0])[1]
    assert bid == 0 or bid >= 1_234_567
    assert auction.price([0.0011, 0, 0, 0, 0])[1] == 0  # worth less than the floor


def test_the_same_line_item_does_not_bid_twice_in_a_response() -> None:
    auction = Auction(3, 2, [[5_000_000, 3_000_000], [5_000_000, 3_000_000], [5_000_000, 3_000_000]])
    bids = auction.select(np.full(2, 10**9), np.zeros(2, np.int64))
    assert [(imp, li) for imp, li, _, _ in bids] == [(0, 0), (1, 1)]


def test_a_test_request_reserves_nothing() -> None:
    auction = Auction(1, 1, [[5_000_000]])
    auction.req[0, R_TEST] = 1
    available, reserved = np.full(1, 10_000), np.zeros(1, np.int64)
    assert len(auction.select(available, reserved)) == 1
    assert available[0] == 10_000
    assert reserved[0] == 0


@settings(max_examples=60, deadline=None)
@given(
    bids=st.lists(st.lists(st.integers(0, 40).map(lambda k: k * 1000), min_size=3, max_size=3), min_size=1, max_size=6),
    money=st.lists(st.integers(0, 60), min_size=3, max_size=3),
)
def test_reservations_never_exceed_what_is_available(bids: list[list[int]], money: list[int]) -> None:
    auction = Auction(len(bids), 3, bids)
    available, reserved = np.array(money, np.int64), np.zeros(3, np.int64)
    made = auction.select(available, reserved)
    assert (available >= 0).all()
    assert (available + reserved == np.array(money)).all()
    assert len({imp for imp, _, _, _ in made}) == len(made)
    assert sum(r for _, _, _, r in made) == reserved.sum()
