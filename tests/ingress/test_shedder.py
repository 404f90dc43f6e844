"""Shedding: a queue is cut to what can be answered in time, and what is worth least goes first."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dsp.base.config import BidderConfig
from dsp.base.metrics import OUTCOMES, Metrics
from dsp.ingress.shedder import LEAST, Shedder, shares

MS = 1_000_000
Call = tuple[int, bytes, int, int]


class Clock:
    now_ns = 1

    def __call__(self) -> int:
        return self.now_ns


def shedder(metrics: Metrics | None = None, delay_ms: float = 20.0) -> tuple[Shedder, Clock]:
    clock = Clock()
    config = BidderConfig(queue_delay_ms=delay_ms, queue_limit=2048)
    return Shedder(config, metrics or Metrics.memory(), clock), clock


def busy(shed: Shedder, clock: Clock, us_per_request: int, batches: int = 200) -> None:
    for _ in range(batches):
        shed.decided(64, more=True)
        clock.now_ns += 64 * us_per_request * 1000


def queue(exchanges: list[int]) -> list[Call]:
    return [(i, b"", exchange, i) for i, exchange in enumerate(exchanges)]


def test_the_queue_holds_what_is_decided_within_the_delay() -> None:
    shed, clock = shedder()
    assert shed.limit == 2048  # nothing is known yet
    busy(shed, clock, 100)
    assert shed.limit == 200
    busy(shed, clock, 50)  # it got faster
    assert 390 <= shed.limit <= 400
    busy(shed, clock, 10_000)
    assert shed.limit == 128  # two batches always have room


def test_a_burst_may_wait_longer_than_what_comes_while_shedding_lasts() -> None:
    shed, clock = shedder()
    busy(shed, clock, 100)
    begun_ns = clock.now_ns
    while clock.now_ns - begun_ns < 90 * MS:  # a burst
        shed.cut(queue([3] * 1000))
        busy(shed, clock, 100, 1)
    assert shed.limit in (199, 200)
    while clock.now_ns - begun_ns < 400 * MS:  # it goes on
        shed.cut(queue([3] * 1000))
        busy(shed, clock, 100, 1)
    assert shed.limit == 128  # 50, but a batch always has room
    busy(shed, clock, 25, 200)  # calm
    begun_ns = clock.now_ns
    while clock.now_ns - begun_ns < 400 * MS:
        assert shed.full(3, 1000)
        busy(shed, clock, 25, 1)
    assert shed.limit in (199, 200)  # of 800
    shed.decided(64, more=False)
    clock.now_ns += 101 * MS
    shed.decided(1, more=False)
    assert shed.limit in (799, 800)


def test_idle_time_is_no_cost() -> None:
    shed, clock = shedder()
    busy(shed, clock, 100)
    shed.decided(64, more=False)
    clock.now_ns += 60_000 * MS
    shed.decided(1, more=True)
    clock.now_ns += 64 * 100_000
    shed.decided(64, more=False)
    assert shed.limit in (199, 200)


def test_nothing_is_shed_for_delay_where_that_is_switched_off() -> None:
    shed, clock = shedder(delay_ms=0)
    busy(shed, clock, 10_000)
    assert shed.limit == 2048


def test_the_exchange_that_is_worth_least_goes_first_and_comes_back_to_be_tried() -> None:
    metrics = Metrics.memory()
    shed, clock = shedder(metrics)
    requests, surplus = metrics.counter("dsp_bid_requests_total"), metrics.counter("dsp_bid_surplus_micros_total")
    requests[3, OUTCOMES.index("bid")] += 100
    requests[7, OUTCOMES.index("no_bid")] += 90
    requests[7, OUTCOMES.index("bid")] += 10
    surplus[3] += 100 * 2000
    surplus[7] += 10 * 2000
    shed.update()
    busy(shed, clock, 100)
    waiting = queue([7, 3] * 200)
    gone = shed.cut(waiting)
    assert len(waiting) == 200
    assert {call[2] for call in gone} == {7}
    assert {call[2] for call in waiting} == {3}
    before = shed.worth[7]
    for _ in range(100):  # all of 7 is shed: nothing is learned of it
        requests[3, OUTCOMES.index("bid")] += 100
        surplus[3] += 100 * 2000
        shed.update()
    assert before < shed.worth[3] * 0.2
    assert shed.worth[7] > shed.worth[3] * 0.9


@given(st.lists(st.integers(0, 70), max_size=300), st.lists(st.floats(0, 1e9), min_size=64, max_size=64))
def test_a_cut_keeps_the_limit_the_order_and_everybody(exchanges: list[int], worth: list[float]) -> None:
    shed, _ = shedder()
    shed.worth, shed.limit = np.array(worth), 64
    waiting = queue(exchanges)
    gone = shed.cut(waiting)
    assert len(waiting) == min(64, len(exchanges))
    assert waiting == sorted(waiting)
    assert sorted(waiting + gone) == queue(exchanges)
    if gone:
        assert max(worth[min(c[2], 63)] for c in gone) <= min(worth[min(c[2], 63)] for c in waiting)


def test_a_front_that_cannot_see_its_queue_tells_when_it_was_idle() -> None:
    shed, clock = shedder()
    busy(shed, clock, 100)
    clock.now_ns += 60_000 * MS
    shed.idle_until(clock.now_ns)
    clock.now_ns += 64 * 100_000
    shed.decided(64, more=True)
    assert shed.limit in (199, 200)


@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0, 5.0, 7.5]), st.integers(0, 1000)), min_size=1, max_size=20))
def test_who_is_worth_more_may_fill_more_of_the_queue(exchanges: list[tuple[float, int]]) -> None:
    worth, traffic = np.array([w for w, _ in exchanges]), np.array([n for _, n in exchanges])
    found = np.array(shares(worth, traffic))
    assert found.min() >= LEAST
    assert found.max() <= 1
    if traffic.any():
        seen = traffic > 0
        assert (found[seen & (worth == worth[seen].max())] == 1).all()
        for k in np.flatnonzero(seen):
            assert (found[seen & (worth > worth[k])] > found[k]).all()
            assert (found[seen & (worth == worth[k])] == found[k]).all()


def test_of_requests_worth_the_same_the_newest_goes() -> None:
    shed, _ = shedder()
    shed.limit = 64
    waiting = queue([3] * 100)
    assert shed.cut(waiting) == queue([3] * 100)[64:]
