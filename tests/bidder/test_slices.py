"""A worker's side of the sync, against a scripted ledger."""

import threading
import time

import numpy as np
import pytest

from dsp.base.config import Config, LedgerConfig
from dsp.bidder.slices import BUCKET_NS, Slices
from dsp.control.grants import GRANT, RECALL_ALL, RECALL_SURPLUS, WANT, SyncReply

T0 = 10**12


class Script:
    """Answers with whatever `grant` was told; keeps the requests."""

    def __init__(self) -> None:
        self.requests, self.rows, self.closed, self.lease, self.epoch, self.seq = [], {}, 0, 1, 1, 0
        self.stop = self.away = False

    def grant(self, line_item, granted, **fields):
        row = {"period": 1, "least": 200, "multiplier": 1.0, **fields}
        self.rows[line_item] = {"line_item": line_item, "granted": granted, **row}

    def sync(self, request):
        self.requests.append(request)
        if self.away:
            raise OSError("away")
        rows = np.zeros(len(self.rows), GRANT)
        for i, row in enumerate(self.rows.values()):
            for name, value in row.items():
                rows[name][i] = value
        self.rows = {}
        self.seq += 1
        return SyncReply(self.lease, self.epoch, self.seq, 30.0, self.closed, rows.tobytes(), self.stop)

    def close(self):
        pass

    def wants(self, i=-1):
        return {int(row["line_item"]): row for row in np.frombuffer(self.requests[i].wants, WANT)}


@pytest.fixture
def script():
    return Script()


@pytest.fixture
def clock():
    now = [T0]
    tick = lambda: now[0]  # noqa: E731
    tick.now = now
    return tick


@pytest.fixture
def slices(script, clock):
    slices = Slices(Config(ledger=LedgerConfig()), script, worker="w", clock=clock, threaded=False)
    slices.attach(np.array([11, 12, 13]))
    return slices


def step(slices, clock, seconds=0.25):
    clock.now[0] += int(seconds * 1e9)
    slices.refresh(clock())


def reserve(slices, row, micros):
    slices.available[row] -= micros
    slices.reserved[row] += micros


def test_nothing_is_available_before_the_first_grant(slices, script, clock):
    assert (slices.available == 0).all()
    assert not slices.live(clock())
    script.grant(12, 100, period=19_000)
    slices.refresh(clock())
    assert slices.available.tolist() == [0, 100, 0]
    assert slices.period.tolist() == [0, 19_000, 0]
    assert (slices.lease, slices.epoch) == (1, 1)
    assert script.requests[0].lease == 0


def test_available_is_what_the_rules_say(slices, script, clock):
    script.grant(11, 1000)
    slices.refresh(clock())
    reserve(slices, 0, 300)
    assert slices.available[0] == 700
    step(slices, clock)
    assert slices.available[0] == 700
    script.grant(11, 1000, posted=80, settled=100)  # one of 100 won at 80
    step(slices, clock)
    assert slices.available[0] == 1000 - 80 - (300 - 100)


def test_a_bucket_closes_on_the_ledgers_word_only(slices, script, clock):
    script.grant(11, 1000)
    slices.refresh(clock())
    reserve(slices, 0, 300)
    for _ in range(20):
        step(slices, clock, 0.5)
        assert slices.available[0] == 700
    assert slices.bucket == 10
    script.closed = 1
    step(slices, clock, 0.5)
    assert slices.available[0] == 1000


def test_buckets_follow_the_clock_from_the_leases_begin(slices, script, clock):
    slices.refresh(clock())
    assert slices.bucket == 0
    step(slices, clock, 0.99)
    assert slices.bucket == 0
    step(slices, clock, 0.01)
    assert slices.bucket == 1
    step(slices, clock, 5)
    assert slices.bucket == 6
    assert BUCKET_NS == 10**9


def test_a_short_slice_asks_once_and_again_when_granted(slices, script, clock):
    script.grant(11, 100, least=30)
    slices.refresh(clock())
    reserve(slices, 0, 90)
    step(slices, clock)
    assert script.wants()[11]["seen"] == 100
    assert script.wants()[11]["want"] >= 20
    step(slices, clock)
    assert 11 not in script.wants()  # nothing new to say
    script.grant(11, 120)
    step(slices, clock)
    reserve(slices, 0, 25)
    step(slices, clock)
    assert script.wants()[11]["seen"] == 120


def test_a_lost_request_is_said_again(slices, script, clock):
    script.grant(11, 100)
    slices.refresh(clock())
    reserve(slices, 0, 100)
    script.away = True
    step(slices, clock)
    first = script.wants()[11]["want"]
    script.away = False
    step(slices, clock)
    assert script.wants()[11]["want"] >= first // 2
    assert slices.errors == 1


def test_recall_gives_back_what_demand_does_not_need(slices, script, clock):
    script.grant(12, 1000)
    slices.refresh(clock())
    reserve(slices, 1, 400)
    script.grant(11, 1000, recall=RECALL_SURPLUS)
    script.grant(12, 1000, recall=RECALL_ALL)
    step(slices, clock)
    assert slices.available.tolist() == [1000, 0, 0]  # all of it at once
    step(slices, clock)
    assert script.wants()[11]["returned"] == 1000
    assert script.wants()[12]["returned"] == 600
    assert slices.available.tolist() == [0, 0, 0]


def test_what_lost_bids_free_of_a_cut_budget_is_not_bid_again(slices, script, clock):
    script.grant(12, 1000)
    slices.refresh(clock())
    reserve(slices, 1, 400)
    script.grant(12, 1000, recall=RECALL_ALL)
    step(slices, clock, 2.0)
    script.closed = slices.bucket  # the ledger has nothing new to say of the line item, but its bids are over
    step(slices, clock)
    assert slices.available[1] == 0
    step(slices, clock)
    assert script.wants()[12]["returned"] == 1000
    script.closed, script.epoch = slices.bucket, 1
    script.grant(12, 3000, returned=1000)
    step(slices, clock)
    assert slices.available[1] == 2000  # raised again


def test_an_oversized_slice_is_cut_back_unasked(slices, script, clock):
    script.grant(11, 10_000, least=30)
    slices.refresh(clock())
    step(slices, clock)
    assert script.wants()[11]["returned"] == 9_970


def test_the_lease_runs_from_the_request_and_its_end_stops_everything(slices, script, clock):
    script.grant(11, 100)
    slices.refresh(clock())
    script.away = True
    step(slices, clock, 29.9)
    assert slices.available[0] == 100
    assert slices.live(clock())
    step(slices, clock, 0.2)
    assert slices.available[0] == 0
    assert not slices.live(clock())
    script.away = False
    step(slices, clock)
    assert slices.available[0] == 100  # the ledger still knows the lease


def test_a_new_lease_voids_everything_of_the_old_one(slices, script, clock):
    script.grant(11, 100)
    slices.refresh(clock())
    reserve(slices, 0, 40)
    step(slices, clock, 3)
    script.lease = 2
    script.grant(11, 50)
    step(slices, clock)
    assert slices.lease == 2
    assert slices.bucket == 0
    assert slices.available[0] == 50
    assert slices.reserved.tolist() == [0, 0, 0]


def test_a_new_period_begins_with_its_own_slice(slices, script, clock):
    script.grant(11, 100, period=5)
    slices.refresh(clock())
    reserve(slices, 0, 40)
    step(slices, clock, 1.5)
    reserve(slices, 0, 10)
    script.grant(11, 70, period=6)
    step(slices, clock)
    assert slices.available[0] == 70
    assert slices.period[0] == 6
    script.closed = 1
    step(slices, clock)
    assert slices.available[0] == 70  # yesterday's buckets give nothing to today


def test_an_older_epoch_is_ignored(slices, script, clock):
    script.epoch = 5
    script.grant(11, 100)
    slices.refresh(clock())
    script.epoch = 4
    script.grant(11, 10**6)
    step(slices, clock)
    assert slices.available[0] == 100
    assert slices.epoch == 5


def test_the_kill_switch_stops_and_its_end_resumes(slices, script, clock):
    script.grant(11, 100)
    slices.refresh(clock())
    script.stop = True
    step(slices, clock)
    assert (slices.available == 0).all()
    assert not slices.live(clock())
    script.stop = False
    step(slices, clock)
    assert slices.available[0] == 100


def test_attach_keeps_state_by_id_through_reordering_and_absence(slices, script, clock):
    script.grant(11, 100)
    script.grant(13, 300)
    slices.refresh(clock())
    reserve(slices, 0, 40)
    step(slices, clock, 1.1)
    reserve(slices, 0, 5)
    slices.attach(np.array([13, 14, 11]))
    assert slices.available.tolist() == [300, 0, 55]
    assert slices.reserved.tolist() == [0, 0, 5]
    slices.attach(np.array([14]))
    assert slices.available.tolist() == [0]
    slices.attach(np.array([11, 14]))
    assert slices.available.tolist() == [55, 0]
    script.closed = 1
    step(slices, clock)
    assert slices.available[0] == 95  # the bucket with 40 has closed, the 5 are still out


def test_a_line_item_that_left_the_snapshot_is_given_back(slices, script, clock):
    script.grant(11, 100)
    slices.refresh(clock())
    slices.attach(np.array([12]))
    step(slices, clock)
    assert script.wants()[11]["returned"] == 100


def test_a_grant_for_a_line_item_of_a_later_snapshot_waits_for_it(slices, script, clock):
    script.grant(99, 100, least=100)
    slices.refresh(clock())
    assert len(slices.available) == 3
    slices.attach(np.array([11, 99]))
    assert slices.available.tolist() == [0, 100]


def test_close_gives_back_and_says_so(slices, script, clock):
    script.grant(11, 100)
    slices.refresh(clock())
    reserve(slices, 0, 30)
    slices.close()
    assert script.requests[-1].final
    assert script.wants()[11]["returned"] == 70
    assert (slices.available == 0).all()
    assert not slices.live(clock())


def test_fixed_slices_need_no_ledger(clock):
    slices = Slices.fixed(np.array([5, 6]), 1000)
    slices.refresh(clock())
    assert slices.available.tolist() == [1000, 1000]
    reserve(slices, 0, 1000)
    clock.now[0] += 10**12
    slices.refresh(clock())
    assert slices.available.tolist() == [0, 1000]
    assert slices.live(clock())
    slices.attach(np.array([6, 7]))
    assert slices.available.tolist() == [1000, 1000]


def test_the_thread_brings_grants_and_keeps_an_idle_lease_alive(script):
    script.grant(11, 100)
    heard = threading.Event()
    real = script.sync

    def sync(request):
        reply = real(request)
        if len(script.requests) >= 4:
            heard.set()
        return reply

    script.sync = sync
    slices = Slices(Config(ledger=LedgerConfig(sync_s=0.005)), script, worker="w")
    slices.attach(np.array([11]))
    assert heard.wait(10)
    # The engine has applied nothing yet: all requests after the first keep the one lease.
    assert [request.lease for request in script.requests[:4]] == [0, 1, 1, 1]
    assert all(request.seq == 0 for request in script.requests[:4])
    script.grant(11, 100)
    deadline = time.monotonic() + 10
    while slices.available[0] == 0 and time.monotonic() < deadline:
        slices.refresh(time.monotonic_ns())
        time.sleep(0.001)
    assert slices.available[0] == 100
    slices.close()
    assert script.requests[-1].final


def test_refresh_with_nothing_to_do_is_cheap():
    slices = Slices.fixed(np.arange(5000), 1000)
    slices.refresh(T0)
    best = min(_time(slices) for _ in range(5))
    assert best < 5e-6  # 0.2 µs here; generous for a busy machine


def _time(slices) -> float:
    started = time.perf_counter()
    for _ in range(200):
        slices.refresh(T0)
    return (time.perf_counter() - started) / 200
