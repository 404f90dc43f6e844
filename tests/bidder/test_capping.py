"""The frequency stage: candidates dropped, bids booked, budgets given back."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dsp.audience.frequency import Shown, States, add_event, set_lifecycle
from dsp.audience.inflight import InFlight
from dsp.audience.profile import LIFECYCLE, P_LIFECYCLE, P_SUPPRESS, PROFILE_BYTES, SUPPRESS_DEVICE
from dsp.base.caps import CAMPAIGN, LINE_ITEM
from dsp.bidder.capping import (
    COUNTERS,
    DROPPED_CAPPED,
    DROPPED_UNKNOWN,
    SUPPRESSED,
    WITHDRAWN,
    drop_capped,
    reserve_caps,
)
from dsp.bidder.gate import Q_FOUND, Q_WIDTH
from dsp.bidder.price import B_CAND, B_PRICE, B_RESERVE, B_WIDTH
from dsp.bidder.rank import C_CR, C_IMP, C_LI, C_WIDTH
from dsp.catalog.layout import (
    EX_EXP_S,
    EX_WIDTH,
    LI_FLAGS,
    LI_PRODUCT,
    LI_SUPPRESS,
    LI_WIDTH,
    LIF_ALLOW_UNCAPPED,
    STAGES,
)
from dsp.catalog.types import ACQUIRED
from dsp.openrtb.columns import I_REQ, IMP_COLUMNS, R_TEST, REQUEST_COLUMNS

NOW = 1_790_000_000
# Line items 0, 1 with creatives 0, 1 are capped (2 a day; together, as a campaign, 3 a day); 2 is not.
CAPS = np.array(
    [[LINE_ITEM, 10, 86_400, 2], [CAMPAIGN, 5, 86_400, 3], [LINE_ITEM, 11, 86_400, 2], [CAMPAIGN, 5, 86_400, 3]],
    np.int64,
)
CR_CAPS = np.array([[0, 2], [2, 4], [4, 4]], np.int32)


class Batch:
    """Requests with one imp each; a candidate is (request, line item), its creative has the same number."""

    def __init__(self, requests: int, cands: list[tuple[int, int]]) -> None:
        self.n, self.requests = len(cands), requests
        self.req = np.zeros((requests, len(REQUEST_COLUMNS)), np.int64)
        self.imp = np.zeros((requests, len(IMP_COLUMNS)), np.int64)
        self.imp[:, I_REQ] = np.arange(requests)
        self.cand = np.zeros((self.n, C_WIDTH), np.int64)
        for c, (r, li) in enumerate(cands):
            self.cand[c, C_IMP], self.cand[c, C_LI], self.cand[c, C_CR] = r, li, li
        self.cand_imp, self.cand_li = self.cand[:, C_IMP].astype(np.int32), self.cand[:, C_LI].astype(np.int32)
        self.li_i = np.zeros((3, LI_WIDTH), np.int64)
        self.ex_i = np.zeros((1, EX_WIDTH), np.int64)
        self.ex_i[0, EX_EXP_S] = 300
        self.states = States(requests)
        for r in range(requests):
            self.know(r, 7 + r)
        self.q = np.zeros((requests, Q_WIDTH), np.int64)
        self.profiles = np.zeros((requests, PROFILE_BYTES), np.uint8)
        self.out = np.zeros(COUNTERS, np.int64)

    def know(self, r: int, person: int, *shown: Shown) -> None:
        state = b""
        for one in shown:
            state = add_event(state, one)
        self.states.put(r, state or None)
        self.states.subjects[r] = np.frombuffer(person.to_bytes(16, "little"), np.uint8)

    def drop(self) -> list[tuple[int, int]]:
        kept = drop_capped(
            self.n, self.cand, self.cand_imp, self.cand_li, self.imp, self.q, self.li_i, self.profiles, CAPS,
            CR_CAPS, self.states.rows, self.states.known, NOW, self.out,
        )  # fmt: skip
        assert (self.cand_li[:kept] == self.cand[:kept, C_LI]).all()
        assert (self.cand_imp[:kept] == self.cand[:kept, C_IMP]).all()
        return [(int(i), int(li)) for i, li in self.cand[:kept, [C_IMP, C_LI]]]

    def book(self, table: InFlight, bids: list[int], first: list[int]) -> tuple[list[int], list[int]]:
        """Bids (candidates) with a budget of 10 each; (what is left, where each request's begin)."""
        rows = np.zeros((len(bids), B_WIDTH), np.int64)
        rows[:, B_CAND], rows[:, B_PRICE], rows[:, B_RESERVE] = bids, 5, 10
        first_bid = np.array(first, np.int64)
        self.available, self.reserved = np.full(3, 100, np.int64), np.zeros(3, np.int64)
        for b in bids:
            self.available[self.cand[b, C_LI]] -= 10
            self.reserved[self.cand[b, C_LI]] += 10
        kept = reserve_caps(
            len(bids), self.requests, rows, first_bid, self.cand, self.imp, self.req, self.ex_i, CAPS, CR_CAPS,
            self.states.rows, self.states.known, self.states.subjects, table.table, 1, NOW, self.available,
            self.reserved, self.out,
        )  # fmt: skip
        return rows[:kept, B_CAND].tolist(), first_bid.tolist()


def seen(line_item: int) -> Shown:
    return Shown(NOW - 60, line_item - 10, line_item, 5, 1, 0)


def test_who_has_seen_enough_is_dropped_and_the_rest_keeps_its_order() -> None:
    batch = Batch(3, [(0, 0), (0, 2), (1, 0), (1, 1), (2, 1)])
    batch.know(0, 7, seen(10), seen(10))
    batch.know(1, 8, seen(10), seen(10))
    batch.know(2, 9, seen(10), seen(10), seen(11))  # the campaign's three
    assert batch.drop() == [(0, 2), (1, 1)]
    assert batch.out[DROPPED_CAPPED] == 3


def test_an_unknown_person_sees_only_what_is_uncapped_or_allowed() -> None:
    batch = Batch(2, [(0, 0), (0, 2), (1, 0), (1, 1)])
    batch.states.known[:] = 0
    batch.li_i[1, LI_FLAGS] = LIF_ALLOW_UNCAPPED
    assert batch.drop() == [(0, 2), (1, 1)]
    assert batch.out[DROPPED_UNKNOWN] == 2


def test_bids_of_one_batch_do_not_exceed_a_cap_together(tmp_path: Path) -> None:
    table = InFlight(tmp_path / "t", buckets=64)
    batch = Batch(4, [(0, 0), (1, 0), (2, 0), (3, 2)])
    for r in range(4):
        batch.know(r, 7)  # one person, four requests
    left, first = batch.book(table, [0, 1, 2, 3], [0, 1, 2, 3, 4])
    assert left == [0, 1, 3]
    assert first == [0, 1, 2, 2, 3]
    assert batch.out[WITHDRAWN] == 1
    assert batch.available.tolist() == [80, 100, 90]  # the withdrawn bid's budget is back
    assert batch.reserved.tolist() == [20, 0, 10]


def test_two_line_items_share_their_campaigns_cap(tmp_path: Path) -> None:
    table = InFlight(tmp_path / "t", buckets=64)
    batch = Batch(2, [(0, 0), (0, 1), (1, 0), (1, 1)])
    for r in range(2):
        batch.know(r, 7)
    assert batch.book(table, [0, 1, 2, 3], [0, 2, 4]) == ([0, 1, 2], [0, 2, 3])


def test_test_requests_book_nothing(tmp_path: Path) -> None:
    table = InFlight(tmp_path / "t", buckets=64)
    batch = Batch(3, [(0, 0), (1, 0), (2, 0)])
    batch.req[:, R_TEST] = 1
    assert batch.book(table, [0, 1, 2], [0, 1, 2, 3])[0] == [0, 1, 2]
    assert not table.table.any()


def test_people_we_may_not_count_book_nothing(tmp_path: Path) -> None:
    table = InFlight(tmp_path / "t", buckets=64)
    batch = Batch(1, [(0, 0)])
    batch.states.known[:] = 0  # allow_uncapped let it through
    assert batch.book(table, [0], [0, 1])[0] == [0]
    assert not table.table.any()


def test_an_applicant_is_not_shown_what_acquires_applicants() -> None:
    """By the profile, and by a conversion since: either is enough; another product's stage doesn't matter."""
    batch = Batch(4, [(r, 2) for r in range(4)])
    applied = LIFECYCLE.index("applied")
    batch.li_i[2, LI_SUPPRESS] = 1 << applied
    batch.li_i[2, LI_PRODUCT] = 1
    batch.q[:, Q_FOUND] = 1
    batch.profiles[0, P_LIFECYCLE + 1] = applied
    batch.profiles[3, P_LIFECYCLE + 0] = applied
    batch.states.put(1, set_lifecycle(b"", 1, applied))
    assert batch.drop() == [(2, 2), (3, 2)]
    assert batch.out[SUPPRESSED] == 2


def test_a_conversion_counts_for_people_without_a_profile() -> None:
    batch = Batch(2, [(0, 2), (1, 2)])
    batch.li_i[2, LI_SUPPRESS] = 1 << LIFECYCLE.index("funded")
    for r in range(2):
        batch.states.put(r, set_lifecycle(b"", 0, LIFECYCLE.index("funded")))
    batch.states.known[1] = 0  # may not be counted: nothing is known of them
    assert batch.drop() == [(1, 2)]


def test_a_suppressed_person_is_shown_nothing() -> None:
    batch = Batch(2, [(0, 0), (0, 2), (1, 2)])
    batch.q[:, Q_FOUND] = 1
    batch.profiles[0, P_SUPPRESS] = SUPPRESS_DEVICE
    assert batch.drop() == [(1, 2)]


def test_stages_are_the_same_everywhere() -> None:
    assert STAGES == LIFECYCLE
    assert set(ACQUIRED) < set(STAGES)
