"""What is posted and what is granted, for every account that has a budget, and the slices that workers hold. No I/O.

Invariant: an account's ``outstanding`` is the sum of `Slot.outstanding` over the slots below it, per period; a grant is
made only while posted + outstanding stays within the budget, of every ancestor and period (rule 1 of design section 5).

Slices are media cost: what exchanges may charge. Budgets and what is posted to an account hold the agency's margin on
it, too; `Account.headroom` is where the one becomes the other, rounded against us.
"""

from __future__ import annotations

from collections import deque

from dsp.ledger.periods import ALL_TIME, Zone, day_of, periods_of
from dsp.ledger.plan import NO_LIMIT, Budget, LinePlan

# Kinds of accounts, as the books store them.
(LINE_ITEM, CAMPAIGN, ADVERTISER, PAYABLE, DISPUTE, MARGIN, PREPAID, CASH, HOUSE) = range(1, 10)
ACCOUNT_KINDS = (
    *("", "line item", "campaign", "advertiser", "payable to exchange", "disputed with exchange"),
    *("margin on line item", "prepaid by advertiser", "cash from advertiser", "our own cost for advertiser"),
)
ROLLUPS = (CAMPAIGN, ADVERTISER)  # sums over line items; all other kinds make up the double entry
MILLION = 1_000_000


class Account:
    """A budget: a line item's, a campaign's or an advertiser's. Amounts by period, 0 being all time."""

    __slots__ = ("budget", "funds", "kind", "lines", "margin_ppm", "outstanding", "posted", "ref", "waiting")

    def __init__(self, kind: int, ref: int) -> None:
        self.kind, self.ref = kind, ref
        self.budget = Budget(0, 0)  # nothing may be granted before a plan says so
        self.funds = NO_LIMIT  # paid in, where an advertiser pays in advance
        self.margin_ppm = 0
        self.posted: dict[int, int] = {}
        self.outstanding: dict[int, int] = {}
        self.lines: dict[int, Line] = {}
        self.waiting: dict[Slot, None] = {}  # slots that want more than this account has left

    def post(self, period: int, micros: int) -> None:
        """Cost of a period, margin included."""
        posted = self.posted
        for within in periods_of(period):
            posted[within] = posted.get(within, 0) + micros

    def headroom(self, period: int) -> int:
        """What may still be granted in ``period``, micros of media cost; negative after a cut or late wins."""
        budget = self.budget
        least = self._left(ALL_TIME, min(budget.total_micros, self.funds))
        if budget.daily_micros < NO_LIMIT:
            least = min(least, self._left(day_of(period), budget.daily_micros))
        if budget.hourly_micros < NO_LIMIT:
            least = min(least, self._left(period, budget.hourly_micros))
        return least

    def _left(self, period: int, limit: int) -> int:
        left = limit - self.posted.get(period, 0)
        if self.margin_ppm:
            left = left * MILLION // (MILLION + self.margin_ppm)
        return left - self.outstanding.get(period, 0)

    def overspend(self) -> int:
        """Posted beyond the total budget, micros."""
        return max(0, self.posted.get(ALL_TIME, 0) - min(self.budget.total_micros, self.funds))


class Line:
    """A line item with its chain of budgets, itself first. ``media`` and ``margin`` add up to what was posted."""

    __slots__ = (
        *("active", "chain", "currency", "hourly", "id", "least_micros", "margin", "margin_ppm", "media", "multiplier"),
        *("name", "plan", "slack_micros", "recalled", "stopped", "zone"),
    )

    def __init__(self, line_id: int, chain: tuple[Account, ...], currency: str, name: str, margin_ppm: int) -> None:
        self.id, self.chain, self.currency, self.name, self.margin_ppm = line_id, chain, currency, name, margin_ppm
        self.least_micros = 1
        self.multiplier = 1.0  # pacing (`dsp.ledger.pacer`)
        self.slack_micros = 0  # of each slice: what its reservations may be counted below their full amount
        self.active = False  # in the plan, not paused, in flight, not stopped by a brake
        self.stopped = False
        self.recalled = True  # its slices stay called back while it is off or its budget is cut; True: look whether
        self.hourly = False  # some budget of the chain is by the hour
        self.plan: LinePlan | None = None
        self.zone: Zone | None = None
        self.media: dict[int, int] = {}
        self.margin: dict[int, int] = {}

    @property
    def period(self) -> int:
        """The budget period that new grants are of."""
        if self.zone is None:
            return ALL_TIME
        return self.zone.hour if self.hourly else self.zone.day

    def add_media(self, period: int, micros: int) -> int:
        """Media cost of a period; returns the margin on it, so that a period's margin is that of its sum, rounded down.

        In whatever order costs come, the margin adds up to the same.
        """
        media = self.media[period] = self.media.get(period, 0) + micros
        due = media * self.margin_ppm // MILLION - self.margin.get(period, 0)
        most = -(-abs(micros) * self.margin_ppm // MILLION)  # a changed margin is not for what was posted before
        margin = max(-most, min(due, most))
        self.margin[period] = self.margin.get(period, 0) + margin
        return margin

    def room(self, period: int) -> tuple[int, Account]:
        """The least headroom of the chain, and whose it is."""
        blocker = self.chain[0]
        least = blocker.headroom(period)
        for account in self.chain[1:]:
            room = account.headroom(period)
            if room < least:
                least, blocker = room, account
        return least, blocker


class Slot:
    """One worker's slice of one line item in one period. All amounts are cumulative."""

    __slots__ = (
        *("granted", "lease", "line", "period", "posted", "recall", "returned", "settled"),
        *("switch_bucket", "switch_seq", "want"),
    )

    def __init__(self, lease: Lease, line: Line, period: int) -> None:
        self.lease, self.line, self.period = lease, line, period
        self.granted = self.returned = self.posted = self.settled = self.want = self.recall = 0
        self.switch_seq = 0  # retired slots: the worker that applied this reply uses the next period's slot,
        self.switch_bucket: int | None = None  # and no later bucket than this holds reservations of this one

    @property
    def outstanding(self) -> int:
        """What this slice may still cost."""
        return max(0, self.granted - self.returned - self.posted)

    def move(self, granted: int = 0, returned: int = 0, posted: int = 0) -> int:
        """Change the slice; the accounts above follow. Returns what became free to grant to others."""
        before = self.outstanding
        self.granted += granted
        self.returned += returned
        self.posted += posted
        change = self.outstanding - before
        if change:
            for account in self.line.chain:
                held = account.outstanding
                for period in periods_of(self.period):
                    held[period] = held.get(period, 0) + change
        return -change - posted


class Lease:
    """A worker process as the ledger knows it. Bucket numbers are the worker's; those below ``closed`` are settled."""

    __slots__ = (
        *("bucket", "changed", "closed", "closed_ms", "expires_ns", "hungry", "id", "marks", "opened_ms"),
        *("over", "retired", "seq", "settled", "settled_ids", "slots", "worker"),
    )

    def __init__(self, lease_id: int, worker: str, opened_ms: int) -> None:
        self.id, self.worker, self.opened_ms = lease_id, worker, opened_ms
        self.expires_ns = 0
        self.over = False  # no bid can follow under this lease
        self.bucket = -1
        self.closed = 0
        self.closed_ms = opened_ms
        self.marks: deque[tuple[int, int, int]] = deque()  # (bucket, ns, ms): all lower buckets were over then
        self.slots: dict[int, Slot] = {}
        self.retired: dict[tuple[int, int], Slot] = {}
        self.seq = 1  # of the next reply
        self.changed: dict[Slot, int] = {}  # not yet confirmed by the worker -> seq of the reply that tells
        self.hungry: dict[Slot, None] = {}
        self.settled: dict[int, dict[Slot, int]] = {}
        self.settled_ids: dict[int, set[int]] = {}

    def slot(self, line_item: int, period: int) -> Slot | None:
        """The slot of a line item and period, retired ones included."""
        slot = self.slots.get(line_item)
        if slot is not None and slot.period == period:
            return slot
        return self.retired.get((line_item, period))

    def touch(self, slot: Slot) -> None:
        """The worker must hear of this slot."""
        self.changed[slot] = self.seq

    def confirm(self, seq: int, bucket: int) -> None:
        """The worker, in ``bucket``, has applied reply ``seq``."""
        heard = [slot for slot, told in self.changed.items() if told <= seq]
        for slot in heard:
            del self.changed[slot]
            slot.recall = 0
        for slot in self.retired.values():
            if slot.switch_bucket is None and slot.switch_seq <= seq:
                slot.switch_bucket = bucket

    def settle(self, slot: Slot, bucket: int, bid_id: int, reserve_micros: int) -> bool:
        """A reservation is posted or voided: False when it was already, or its bucket is closed."""
        if bucket < self.closed:
            return False
        ids = self.settled_ids.setdefault(bucket, set())
        if bid_id in ids:
            return False
        ids.add(bid_id)
        amounts = self.settled.setdefault(bucket, {})
        amounts[slot] = amounts.get(slot, 0) + reserve_micros
        slot.settled += reserve_micros
        self.touch(slot)
        return True

    def close_below(self, bucket: int) -> None:
        """Every reservation in buckets below ``bucket`` is settled now."""
        if bucket <= self.closed:
            return
        self.closed = bucket
        for old in [k for k in self.settled if k < bucket]:
            for slot, micros in self.settled.pop(old).items():
                slot.settled -= micros
                self.touch(slot)
        for old in [k for k in self.settled_ids if k < bucket]:
            del self.settled_ids[old]
