"""Anything may happen to accounts and grants, in any order: the invariants hold after every step.

Workers come, go and die, their clocks are up to five seconds off; the ledger restarts or cannot be reached; notices
come late, twice or never; budgets are raised, cut and paused; brakes and people stop things; money is given back.
"""

import os
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from ledger_world import World

from dsp.base.config import Config, LedgerConfig
from dsp.bidder.slices import Slices
from dsp.ledger.accounts import CAMPAIGN, LINE_ITEM
from dsp.ledger.adjust import Adjustment
from dsp.ledger.audit import audit
from dsp.ledger.plan import Budget, LinePlan, Plan

LINES = 3
BID = 10_000
CONFIG = Config(ledger=LedgerConfig(skew_s=1.0, lease_s=6.0, win_rate_jump=0, price_jump=0))


class Ledger(RuleBasedStateMachine):
    """The real books, grants and slices on a simulated clock."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.world = World(Path(self.directory.name) / "ledger.db", config=CONFIG)
        self.workers: list[tuple[Slices, int]] = []
        self.tokens: list[tuple[int, bytes]] = []  # (line item, token)
        self.budgets = [30 * BID] * LINES
        self.campaign = 70 * BID
        self.paused: set[int] = set()
        self.caps: dict[tuple[int, int], int] = {}  # account -> the most that may be posted, late wins apart
        self.documents = 0

    @initialize()
    def begin(self) -> None:
        self.adopt()
        self.join(0)

    def adopt(self) -> None:
        lines = [
            LinePlan(
                i,
                10,
                100,
                least_micros=3 * BID,
                budget=Budget(self.budgets[i - 1]),
                paused=i in self.paused,
                margin_ppm=100_000,
            )
            for i in range(1, LINES + 1)
        ]
        self.world.adopt(Plan(lines, {10: Budget(self.campaign)}, exp_s=3.0))
        for key, account in self.world.books.granting.accounts.items():
            in_flight = account.posted.get(0, 0) + self.with_margin(account.outstanding.get(0, 0))
            self.caps[key] = max(account.budget.total_micros, in_flight)

    @staticmethod
    def with_margin(media: int) -> int:
        return media * 11 // 10 + 1

    # --- workers -----------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.workers) < 3)
    @rule(skew_ms=st.integers(-5000, 5000))
    def join(self, skew_ms: int) -> None:
        clock, skew = self.world.clock, skew_ms * 1_000_000
        slices = Slices(CONFIG, self.world, worker="w", clock=lambda: clock() + skew, threaded=False)
        slices.attach(np.arange(1, LINES + 1))
        self.workers.append((slices, skew))

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), kindly=st.booleans())
    def leave(self, data, kindly: bool) -> None:
        slices, _ = self.workers.pop(data.draw(st.integers(0, len(self.workers) - 1)))
        if kindly:
            slices.close()

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), line=st.integers(1, LINES), bids=st.integers(1, 6), reserve=st.integers(BID // 2, BID))
    def bid(self, data, line: int, bids: int, reserve: int) -> None:
        slices, skew = self.workers[data.draw(st.integers(0, len(self.workers) - 1))]
        now_ns = self.world.clock() + skew
        slices.refresh(now_ns)
        for _ in range(bids):
            if slices.available[line - 1] < reserve or not slices.live(now_ns):
                return
            slices.available[line - 1] -= reserve
            slices.reserved[line - 1] += reserve
            where = {"period": int(slices.period[line - 1]), "bucket": slices.bucket, "lease": slices.lease}
            token = self.world.token(
                line_item=line, reserve_micros=reserve, bid_cpm_micros=reserve * 1000, epoch=slices.epoch, **where
            )
            self.tokens.append((line, token))

    @rule(seconds=st.floats(0.05, 4.0))
    def wait(self, seconds: float) -> None:
        for _ in range(max(1, int(seconds / 0.25))):
            self.world.clock.advance(min(seconds, 0.25))
            for slices, skew in self.workers:
                slices.refresh(self.world.clock() + skew)

    # --- notices -----------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.tokens)
    @rule(data=st.data(), path=st.sampled_from("bbbnlcp"), share=st.floats(0, 1.3), keep=st.booleans())
    def notice(self, data, path: str, share: float, keep: bool) -> None:
        at = data.draw(st.integers(0, len(self.tokens) - 1))
        line, token = self.tokens[at] if keep else self.tokens.pop(at)
        books = self.world.books
        late, before = books.counts["late_wins"], books.spend(line)
        query = {"p": f"{share * BID / 1000:.3f}", "e": "applied", "r": "102"}
        assert self.world.ledger.notice(path, token, query) == 204
        if books.counts["late_wins"] > late:
            for key in ((LINE_ITEM, line), (CAMPAIGN, 10)):
                self.caps[key] += books.spend(line) - before

    # --- the ledger and people ---------------------------------------------------------------------------------------

    @rule()
    def restart(self) -> None:
        counts = self.world.books.counts
        self.world.restart()
        self.world.books.counts = counts

    @rule(up=st.booleans())
    def split(self, up: bool) -> None:
        self.world.up = up

    @rule(line=st.integers(1, LINES), bids=st.integers(0, 60), campaign=st.integers(20, 150))
    def change_budgets(self, line: int, bids: int, campaign: int) -> None:
        self.budgets[line - 1], self.campaign = bids * BID, campaign * BID
        self.adopt()

    @rule(line=st.integers(1, LINES))
    def pause_or_go_on(self, line: int) -> None:
        self.paused ^= {line}
        self.adopt()

    @rule(line=st.integers(0, LINES), stop=st.booleans())
    def stop_or_resume(self, line: int, stop: bool) -> None:
        kind, now_ms = LINE_ITEM if line else 0, self.world.clock.time_ms()
        with self.world.books.batch():
            if stop:
                self.world.books.stop(kind, line, "person", "", now_ms)
            else:
                self.world.books.resume(kind, line, now_ms)

    @rule(line=st.integers(1, LINES), share=st.floats(0.1, 1.0))
    def clawback(self, line: int, share: float) -> None:
        spent = sum(self.world.books.granting.line(line).media.values())
        micros = int(spent * share)
        if micros:
            self.documents += 1
            back = Adjustment(f"ivt {self.documents}", "clawback", micros, line_item=line, exchange=7)
            with self.world.books.batch():
                assert self.world.books.adjust(back, self.world.clock.time_ms())

    # --- what must hold ----------------------------------------------------------------------------------------------

    @invariant()
    def debits_are_credits(self) -> None:
        self.world.books.check()

    @invariant()
    def the_bound_holds(self) -> None:
        for key, account in self.world.books.granting.accounts.items():
            if key in self.caps:
                posted = account.posted.get(0, 0)
                assert posted <= self.caps[key] + LINES, (key, posted, self.caps[key])

    @invariant()
    def no_worker_may_bid_what_it_was_not_granted(self) -> None:
        for slices, _ in self.workers:
            lease = self.world.books.granting.leases.get(slices.lease)
            if lease is None or lease.over:
                continue
            for line, slot in lease.slots.items():
                if slot.period == slices.period[line - 1]:
                    heard = int(slices._posted[line - 1])  # a late win may be posted before the worker hears of it
                    assert slices.available[line - 1] <= max(0, slot.granted - slot.returned - heard), line

    def teardown(self) -> None:
        audit(self.world.books.journal.engine)
        self.world.books.close()
        self.directory.cleanup()


TestLedger = Ledger.TestCase
TestLedger.settings = settings(
    max_examples=int(os.environ.get("DSP_EXAMPLES", "25")),  # more for a long look
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
