"""Who gets how much: leases, slices, their division, recall and reclaim. Pure but for the rows it asks to be journaled.

Time is an argument: ``mono_ns`` for durations (leases, buckets), ``time_ms`` for budget periods. Rules by number are
those of design section 5.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dsp.base.config import LedgerConfig
from dsp.control.grants import GRANT, RECALL_ALL, RECALL_SURPLUS, WANT, SyncReply, SyncRequest
from dsp.ledger.accounts import ADVERTISER, CAMPAIGN, LINE_ITEM, Account, Lease, Line, Slot
from dsp.ledger.periods import Zone, periods_of
from dsp.ledger.plan import NO_LIMIT, Budget, LinePlan, Plan

RECALL_NS = 1_000_000_000
FOREVER = 1 << 62
FEW = 4  # scarce room is divided down to a least slice over this (two bids), so that the last of it sees all demand
SLACK_SHARES = 8  # a tolerance is divided among this many leases at most


class Granting:
    """The slices of all workers. Whoever owns it journals ``dirty_*`` before it lets a reply out (rule 1)."""

    def __init__(self, config: LedgerConfig, epoch: int) -> None:
        self.epoch = epoch
        self.lines: dict[int, Line] = {}
        self.accounts: dict[tuple[int, int], Account] = {}
        self.leases: dict[int, Lease] = {}
        self.next_lease = 1
        self.dirty_slots: dict[Slot, None] = {}
        self.dropped_slots: list[tuple[int, int, int]] = []
        self.dirty_leases: dict[Lease, None] = {}
        self.dirty_lines: dict[Line, None] = {}
        self.plan = Plan([])
        self.stop = False
        self.stops: set[tuple[int, int]] = set()  # (kind, ref) of accounts that nothing is granted to
        self._turn_ms = 0.0  # when the next flight begins or ends
        self._lease_ns, self._skew_s = int(config.lease_s * 1e9), config.skew_s
        self._zones: dict[str, Zone] = {}
        self._starved: dict[Account, int] = {}  # with waiting slots -> when others were last asked to give back

    # --- accounts ----------------------------------------------------------------------------------------------------

    def account(self, kind: int, ref: int) -> Account:
        """The account, made when new."""
        found = self.accounts.get((kind, ref))
        if found is None:
            found = self.accounts[kind, ref] = Account(kind, ref)
        return found

    def line(self, line_item: int) -> Line:
        """The line item, unknown ones as orphans: what they cost is owed, nothing is granted."""
        return self.lines.get(line_item) or self.add_line(line_item, 0, 0, "", "", 0)

    def add_line(
        self, line_item: int, campaign: int, advertiser: int, currency: str, name: str, margin_ppm: int
    ) -> Line:
        """A line item with its chain of accounts."""
        chain = [self.account(LINE_ITEM, line_item)]
        chain += [self.account(CAMPAIGN, campaign)] if campaign else []
        chain += [self.account(ADVERTISER, advertiser)] if advertiser else []
        line = self.lines[line_item] = Line(line_item, tuple(chain), currency, name, margin_ppm)
        for account in chain:
            account.lines[line_item] = line
        self.dirty_lines[line] = None
        return line

    def adopt(self, plan: Plan, time_ms: int) -> list[tuple[Line, tuple[Account, ...]]]:
        """Take a snapshot's budgets. Returns lines that got ancestors: what was posted before must be booked there."""
        self.plan = plan
        adopted = []
        for item in plan.lines:
            line = self.lines.get(item.id)
            if line is None:
                line = self.add_line(item.id, item.campaign, item.advertiser, item.currency, item.name, item.margin_ppm)
            elif len(line.chain) == 1:
                line = self._adopt_orphan(line, item)
                adopted.append((line, line.chain[1:]))
            if line.margin_ppm != item.margin_ppm:
                line.margin_ppm = item.margin_ppm
                self.dirty_lines[line] = None
            line.plan, line.least_micros = item, item.least_micros
            line.zone = self._zones.get(item.timezone) or self._zones.setdefault(item.timezone, Zone(item.timezone))
        known = {item.id for item in plan.lines}
        for line in self.lines.values():
            if line.id not in known:
                line.plan = None
        self._set_budgets(plan)
        for zone in self._zones.values():
            zone.roll(time_ms)
        self.activate(time_ms)
        for lease in self._live():
            self._fit(lease)
        return adopted

    def _set_budgets(self, plan: Plan) -> None:
        for line in self.lines.values():
            for account in line.chain:
                account.margin_ppm = line.margin_ppm  # one advertiser, one margin
        unlimited = Budget()
        for (kind, ref), account in self.accounts.items():
            if kind == LINE_ITEM:
                item = self.lines[ref].plan
                self._set_budget(account, item.budget if item is not None else Budget(0, 0))
            elif ref:
                budgets = plan.campaigns if kind == CAMPAIGN else plan.advertisers
                self._set_budget(account, budgets.get(ref, unlimited))
        for line in self.lines.values():
            line.hourly = any(account.budget.hourly_micros < NO_LIMIT for account in line.chain)
            limit = min(line.chain[0].budget.total_micros, line.chain[0].budget.daily_micros)
            tolerance = line.plan.tolerance_ppm if line.plan is not None and limit < NO_LIMIT else 0
            slack = limit * tolerance // 1_000_000 // SLACK_SHARES
            if slack != line.slack_micros:
                line.slack_micros = slack
                for lease in self._live():
                    if line.id in lease.slots:
                        lease.touch(lease.slots[line.id])

    def activate(self, time_ms: int) -> None:
        """Begin and end flights, heed pauses and stops: slices of what is off are called back, what is on is fed."""
        turn = float("inf")
        for line in self.lines.values():
            plan = line.plan
            line.stopped = any((account.kind, account.ref) in self.stops for account in line.chain)
            on = plan is not None and not plan.paused and not line.stopped and plan.start_ms <= time_ms < plan.end_ms
            if plan is not None:
                turn = min(turn, *(at for at in (plan.start_ms, plan.end_ms) if at > time_ms), float("inf"))
            if on and not line.active:
                line.active = True
                self._wake(line.chain[0])
            elif line.active and not on:
                line.active = False
                self._recall(line, RECALL_ALL)
        self._turn_ms = turn

    def set_funds(self, advertiser: int, micros: int) -> None:
        """What an advertiser that pays in advance has paid in, `NO_LIMIT` for others."""
        account = self.account(ADVERTISER, advertiser)
        if account.funds != micros:
            less, account.funds = micros < account.funds, micros
            self._changed(account, less)

    def _adopt_orphan(self, orphan: Line, item: LinePlan) -> Line:
        slots = [slot for lease in self.leases.values() for slot in _slots(lease) if slot.line is orphan]
        line = self.add_line(item.id, item.campaign, item.advertiser, item.currency, item.name, item.margin_ppm)
        line.media, line.margin = orphan.media, orphan.margin
        for slot in slots:
            slot.line = line
            for account in line.chain[1:]:
                for period in periods_of(slot.period):
                    account.outstanding[period] = account.outstanding.get(period, 0) + slot.outstanding
        return line

    def _set_budget(self, account: Account, budget: Budget) -> None:
        before, account.budget = account.budget, budget
        if budget != before:
            self._changed(account, budget.below(before))

    def _changed(self, account: Account, less: bool) -> None:
        self._wake(account)
        if less:
            for line in account.lines.values():
                if line.room(line.period)[0] < 0:
                    self._recall(line, RECALL_ALL)

    # --- the exchange with a worker ----------------------------------------------------------------------------------

    def sync(self, request: SyncRequest, mono_ns: int, time_ms: int) -> SyncReply:
        """Take a worker's word, grant what can be granted, answer. `tick` first; journal before the reply goes out."""
        lease = self.leases.get(request.lease)
        if lease is None or lease.over:
            lease = self._open(request.worker, time_ms)
        else:
            self._hear(lease, request, mono_ns, time_ms)
        if request.final:
            self._end(lease, mono_ns, time_ms)
        else:
            lease.expires_ns = mono_ns + self._lease_ns
            self._feed(lease, mono_ns)
        return self._reply(lease)

    def _open(self, worker: str, time_ms: int) -> Lease:
        lease = self.leases[self.next_lease] = Lease(self.next_lease, worker, time_ms)
        self.next_lease += 1
        self.dirty_leases[lease] = None
        self._fit(lease)
        return lease

    def _fit(self, lease: Lease) -> None:
        """One slot per active line item, of its present period; older ones retire."""
        for line in self.lines.values():
            if not line.active:
                continue
            slot = lease.slots.get(line.id)
            if slot is not None:
                if slot.period == line.period:
                    continue
                slot.switch_seq, slot.switch_bucket = lease.seq, None
                lease.retired[line.id, slot.period] = slot
                lease.changed.pop(slot, None)
                lease.hungry.pop(slot, None)
            slot = lease.slots[line.id] = Slot(lease, line, line.period)
            slot.want = line.least_micros
            lease.hungry[slot] = None
            lease.touch(slot)

    def _hear(self, lease: Lease, request: SyncRequest, mono_ns: int, time_ms: int) -> None:
        if request.epoch == self.epoch:
            lease.confirm(request.seq, request.bucket)
        lease.close_below(request.closed)  # what an earlier life of this ledger had said
        if request.bucket > lease.bucket:
            lease.bucket = request.bucket
            lease.marks.append((request.bucket, mono_ns, time_ms))
        for line_item, period, seen, returned, want in np.frombuffer(request.wants, WANT).tolist():
            slot = lease.slot(line_item, period)
            if slot is None:
                continue
            if slot.returned < returned <= slot.granted:
                self._free(slot, slot.move(returned=returned - slot.returned))
                self.dirty_slots[slot] = None
            slot.want = max(0, want - (slot.granted - seen))
            if slot.want and lease.slots.get(line_item) is slot:
                lease.hungry[slot] = None

    def _reply(self, lease: Lease) -> SyncReply:
        slots = [slot for slot in lease.changed if lease.slots.get(slot.line.id) is slot]
        for slot in slots:  # also of what was called back before: what lost bids free is not theirs to spend
            if slot.line.recalled and self._still_recalled(slot.line):
                slot.recall = RECALL_ALL
        rows = np.array(
            [
                (
                    *(s.line.id, s.period, s.granted, s.returned, s.posted, s.settled, s.line.least_micros),
                    *(s.line.multiplier, s.recall, s.line.slack_micros),
                )
                for s in slots
            ],
            GRANT,
        )
        reply = SyncReply(
            lease.id, self.epoch, lease.seq, self._lease_ns / 1e9, lease.closed, rows.tobytes(), self.stop
        )
        lease.seq += 1
        return reply

    # --- division ----------------------------------------------------------------------------------------------------

    def _feed(self, lease: Lease, mono_ns: int) -> None:
        """Grant what hungry slots want, as far as every ancestor allows; scarce room is divided by the workers."""
        hungry, lease.hungry = lease.hungry, {}
        workers = sum(1 for other in self.leases.values() if not other.over)
        for slot in hungry:
            line = slot.line
            if not slot.want:
                continue
            if not line.active:  # until a plan gives it a budget
                line.chain[0].waiting[slot] = None
                continue
            room, blocker = line.room(slot.period)
            amount = min(slot.want, max(room // workers, line.least_micros // FEW, 1), room)
            if amount > 0:
                slot.move(granted=amount)
                slot.want = slot.want - amount if amount == room else 0  # cut to its share: it will ask again
                self.dirty_slots[slot] = None
                lease.touch(slot)
            if room <= 0 or slot.want:
                blocker.waiting[slot] = None
                if self._starved.get(blocker, mono_ns - RECALL_NS) + RECALL_NS <= mono_ns:
                    self._starve(blocker, mono_ns)

    def _starve(self, account: Account, mono_ns: int) -> None:
        """Ask those who hold slices of this budget for what they do not need.

        All but the first in the queue: crumbs too small for a bid must come together somewhere (rule 10).
        """
        self._starved[account] = mono_ns
        if account.outstanding.get(0, 0) > 0:
            first = next(iter(account.waiting), None)
            for line in account.lines.values():
                self._recall(line, RECALL_SURPLUS, first)

    def _still_recalled(self, line: Line) -> bool:
        line.recalled = not line.active or line.room(line.period)[0] < 0
        return line.recalled

    def _recall(self, line: Line, how: int, spare: Slot | None = None) -> None:
        line.recalled = line.recalled or how == RECALL_ALL
        for lease in self._live():
            slot = lease.slots.get(line.id)
            if slot is not None and slot is not spare and slot.outstanding > 0 and slot.recall < how:
                slot.recall = how
                lease.touch(slot)

    def _free(self, slot: Slot, freed: int) -> None:
        if freed > 0:
            for account in slot.line.chain:
                self._wake(account)

    def wake(self, line: Line) -> None:
        """The line item's budgets have more room than before."""
        for account in line.chain:
            self._wake(account)

    def _wake(self, account: Account) -> None:
        if account.waiting:
            for slot in account.waiting:
                if slot.lease.slots.get(slot.line.id) is slot:
                    slot.lease.hungry[slot] = None
            account.waiting.clear()
        self._starved.pop(account, None)

    # --- time --------------------------------------------------------------------------------------------------------

    def tick(self, mono_ns: int, time_ms: int, watermark_ns: int | None = None) -> None:
        """End leases, close buckets, reclaim, begin new periods, as far as time has come."""
        rolled = [zone.roll(time_ms) for zone in self._zones.values()]
        if time_ms >= self._turn_ms:
            self.activate(time_ms)
            rolled.append(True)
        if any(rolled):
            for account in self.accounts.values():
                self._wake(account)
            for lease in self._live():
                self._fit(lease)
        for account, since in list(self._starved.items()):
            if not account.waiting:
                del self._starved[account]
            elif since + RECALL_NS <= mono_ns:
                self._starve(account, mono_ns)
        hold_ns = int((self.plan.exp_s + self._skew_s) * 1e9)
        applied_ns = mono_ns if watermark_ns is None else min(mono_ns, watermark_ns)
        for lease in list(self.leases.values()):
            if not lease.over and lease.expires_ns and lease.expires_ns <= mono_ns:
                self._end(lease, mono_ns, time_ms)
            self._close(lease, applied_ns - hold_ns)

    def _close(self, lease: Lease, before_ns: int) -> None:
        """Close buckets whose every later bucket began before ``before_ns`` (rule 5), and reclaim (rule 7)."""
        closed = lease.closed
        while lease.marks and lease.marks[0][1] <= before_ns:
            closed, _, lease.closed_ms = lease.marks.popleft()
        if closed == lease.closed:
            return
        lease.close_below(closed)
        self.dirty_leases[lease] = None
        if closed >= FOREVER:
            for slot in list(_slots(lease)):
                self._reclaim(slot)
            del self.leases[lease.id]
            return
        for slot in [s for s in lease.retired.values() if s.switch_bucket is not None and s.switch_bucket < closed]:
            self._reclaim(slot)

    def _end(self, lease: Lease, mono_ns: int, time_ms: int) -> None:
        """No bid can follow: the lease ran out, or the worker said so. Its buckets close when their time has come."""
        lease.over = True
        lease.hungry.clear()
        lease.marks.append((FOREVER, mono_ns, time_ms))

    def _reclaim(self, slot: Slot) -> None:
        """G - C of a slot whose buckets are all closed goes back to its budgets."""
        lease = slot.lease
        self._free(slot, slot.move(returned=slot.outstanding))
        if lease.slots.get(slot.line.id) is slot:
            del lease.slots[slot.line.id]
        lease.retired.pop((slot.line.id, slot.period), None)
        lease.changed.pop(slot, None)
        self.dirty_slots.pop(slot, None)
        self.dropped_slots.append((lease.id, slot.line.id, slot.period))

    def _live(self) -> Iterator[Lease]:
        return (lease for lease in self.leases.values() if not lease.over)


def _slots(lease: Lease) -> Iterator[Slot]:
    yield from lease.slots.values()
    yield from lease.retired.values()
