"""A worker's slices of every budget: what may still be bid without asking anybody, and the sync that refills them.

Invariant (design section 5): ``available = G - R - C - (pending - settled)`` per line item, where G is granted, R
given back, C the cost posted, pending what was reserved in the buckets that are not closed, settled what the ledger
knows to be posted or voided of that; G, C and settled come from one reply. A bucket is closed by the ledger's word
only, so without sync the worker spends what is available and stops; when the lease runs out nothing is available.

Only the engine's thread changes state, in `refresh`. The background thread carries requests out and replies in; each is
one object handed over by one attribute. Every amount that travels is cumulative, so lost messages cost nothing.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dsp.base.config import Config
from dsp.base.token import load_signer
from dsp.bidder.sync import open_transport
from dsp.bidder.tolerance import fade, relief
from dsp.control.grants import GRANT, RECALL_ALL, RECALL_NONE, WANT, SyncReply, SyncRequest, SyncTransport, sync_key

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

BUCKET_NS = 1_000_000_000
UNLIMITED = 1 << 60
_RATE_S = 2.0  # memory of the demand estimate; it rises faster:
_RISE = 0.5  # weight of one measurement above it
_DRY = 8  # a slice of which less than a part in so many is left ran dry,
_HIDDEN = 4.0  # and may have been wanted so many times as much
_LEAST_BIDS = 8  # `least` is this many bids
_SURPLUS = 4  # a slice larger than this many times its target is cut back unasked


class _Word(NamedTuple):
    """Where the engine's thread stands, for the background thread to read as one."""

    lease: int = 0
    epoch: int = 0
    seq: int = 0
    bucket: int = 0
    closed: int = 0
    bucket_zero: int = 0


@dataclass(slots=True)
class _Exchange:
    """One request and what came of it."""

    request: SyncRequest
    want: I64  # by row at building time; `table` tells whether rows still mean the same
    returned: I64
    table: int
    sent_ns: int = 0
    reply: SyncReply | None = None


class Slices:
    """Budget state by line item index, int64 micros: the kernel takes r from ``available``, adds it to ``reserved``.

    Arrays are replaced by `attach` and sometimes by `refresh`; hold them no longer than a batch. ``lease``, ``epoch``,
    ``bucket`` and ``period`` go into the token of each bid. ``key`` is `sync_key` of the signing secret.
    ``threaded=False`` syncs inside `refresh` (simulation, with its own ``clock``).
    """

    available: I64
    reserved: I64
    period: I64
    multiplier: F64
    _lease_until: int  # monotonic ns, like all of these
    _next_ns: int  # `refresh` has nothing to do before
    _next_sync: int
    _bucket_zero: int  # when bucket 0 began
    _built_ns: int

    def __init__(
        self,
        config: Config,
        transport: SyncTransport | None = None,
        *,
        worker: str = "",
        key: bytes = b"",
        clock: Callable[[], int] = time.monotonic_ns,
        threaded: bool = True,
    ) -> None:
        self.worker = worker or f"{socket.gethostname()}-{os.getpid()}"
        self.lease = self.epoch = self.bucket = 0
        self.stopped = False  # kill switch
        self.syncs = self.errors = 0
        ledger = config.ledger
        if transport is None:
            secret = key or sync_key(load_signer(config.path("secrets", "signing.json")).sync_secret)
            transport = open_transport(ledger, secret)
        self._transport = transport
        self._clock, self._threaded = clock, threaded
        self._sync_ns, self._slice_s = int(ledger.sync_s * 1e9), ledger.slice_s
        self._zero()
        self._index: dict[int, int] = {}
        self._table = 0  # counts changes of what a row means
        self._size = 0  # attached rows; further ones are parked: still owed, not in the snapshot
        self._resize(np.zeros(0, np.int64), 0)
        self._outbox: _Exchange | None = None
        self._inbox: _Exchange | None = None
        self._word = _Word()
        self._heard: SyncReply | None = None  # the last reply, applied or not
        self._wake = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None

    @classmethod
    def fixed(cls, line_item_ids: I64, micros: int = UNLIMITED) -> Slices:
        """Slices without a ledger: ``micros`` for each line item, lease 0, never refilled. For tests and benchmarks."""
        slices = cls(Config(), _Nobody(), worker="fixed", threaded=False)
        slices._lease_until = slices._next_ns = UNLIMITED << 2
        slices._fixed = int(micros)
        slices.attach(np.asarray(line_item_ids, np.int64))
        return slices

    # --- the engine's side -------------------------------------------------------------------------------------------

    def attach(self, line_item_ids: I64) -> None:
        """Take the line items of a snapshot, [L] public ids in its order; state is kept by id. Starts syncing."""
        ids = np.asarray(line_item_ids, np.int64)
        held = (self._granted != 0) & ~np.isin(self._ids, ids)
        self._resize(np.concatenate([ids, self._ids[held]]), len(ids))
        if self._threaded and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="slices", daemon=True)
            self._thread.start()

    def refresh(self, now_ns: int) -> None:
        """Once per batch, first thing: apply what arrived, roll the bucket, hand out a request when it is time."""
        if self._inbox is None and now_ns < self._next_ns:
            return
        if self._bucket_of(now_ns) > self.bucket:
            self._roll(self._bucket_of(now_ns))
        idle = self._outbox is None  # read before the inbox: a reply is put in before the outbox is emptied
        if self._inbox is not None:
            exchange, self._inbox = self._inbox, None
            self._apply(exchange)
        if idle and now_ns >= self._next_sync and (self.lease or not self._threaded):
            self._next_sync = now_ns + self._sync_ns
            exchange = self._build(now_ns)
            if self._threaded:
                self._outbox = exchange
                self._wake.set()
            elif self._carry(exchange):
                self._apply(exchange)
        self._word = _Word(self.lease, self.epoch, self._seq, self.bucket, self._closed, self._bucket_zero)
        if now_ns >= self._lease_until or self.stopped:
            self.available[:] = 0
        bucket_end = self._bucket_zero + (self.bucket + 1) * BUCKET_NS
        self._next_ns = min(bucket_end, self._next_sync, max(self._lease_until, now_ns + 1))

    def live(self, now_ns: int) -> bool:
        """Whether bids may still be encoded; ask again just before encode (a stalled process must not bid on)."""
        return now_ns < self._lease_until and not self.stopped

    def close(self) -> None:
        """Give everything back and end the lease; call when no bid will follow."""
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            if self._inbox is not None:
                self._apply(self._inbox)
        if self.lease:
            self._recall[:] = RECALL_ALL
            self._carry(self._build(self._clock(), final=True))
        self.available[:] = 0
        self._lease_until = 0
        self._transport.close()

    # --- state -------------------------------------------------------------------------------------------------------

    _fixed = 0
    _STATE = ("_granted", "_returned", "_acked", "_posted", "_settled", "_pending", "_rolled", "_last", "_least")
    _STATE_MORE = ("_asked", "_recall", "_called", "_slack", "_all_available", "_all_reserved", "_all_period")
    _SUMS = ("_rate", "_ended", "_cost")

    def _zero(self) -> None:
        """No lease, nothing granted, no bucket open."""
        self._seq = self._closed = 0
        self._lease_until = self._next_ns = self._next_sync = self._bucket_zero = self._built_ns = 0
        self._open: deque[tuple[int, I64, I64]] = deque()  # (bucket, rows, micros reserved) rolled, not closed
        self._ids = np.zeros(0, np.int64)
        for name in (*self._STATE, *self._STATE_MORE):
            setattr(self, name, np.zeros(0, np.int64))
        for name in self._SUMS:
            setattr(self, name, np.zeros(0))
        self._all_multiplier = np.ones(0)

    _granted: I64
    _returned: I64
    _acked: I64  # of returned, what the ledger has confirmed
    _posted: I64
    _settled: I64
    _pending: I64  # reserved in rolled buckets that are not closed
    _rolled: I64  # reserved in all rolled buckets ever
    _last: I64  # reserved ever, at the last request: demand is the difference
    _least: I64
    _asked: I64  # wanted, as the ledger knows
    _recall: I64
    _called: I64  # back, all of it, until the ledger says otherwise
    _slack: I64  # tolerance: what open reservations may count below their full amount
    _rate: F64  # micros reserved a second, lately
    _ended: F64  # reservations of closed buckets, and
    _cost: F64  # what was posted, both fading
    _all_available: I64
    _all_reserved: I64
    _all_period: I64

    def _resize(self, ids: I64, size: int) -> None:
        """Rows become ``ids``, the first ``size`` attached; state moves by id, dropped ids are forgotten."""
        old = self._index
        source = np.fromiter((old.get(i, -1) for i in ids.tolist()), np.int64, len(ids))
        known = source >= 0
        for name in (*self._STATE, *self._STATE_MORE, *self._SUMS, "_all_multiplier"):
            before: npt.NDArray[np.generic] = getattr(self, name)
            after = np.ones(len(ids), before.dtype) if name == "_all_multiplier" else np.zeros(len(ids), before.dtype)
            after[known] = before[source[known]]
            setattr(self, name, after)
        target = np.full(len(self._ids), -1, np.int64)
        target[source[known]] = np.flatnonzero(known)
        moved = [(bucket, target[rows], micros) for bucket, rows, micros in self._open]
        self._open = deque((bucket, rows[rows >= 0], micros[rows >= 0]) for bucket, rows, micros in moved)
        self._ids, self._size = ids, size
        self._index = {i: row for row, i in enumerate(ids.tolist())}
        self._table += 1
        if self._fixed:
            self._all_available[~known] = self._fixed
        self.available, self.reserved = self._all_available[:size], self._all_reserved[:size]
        self.period, self.multiplier = self._all_period[:size], self._all_multiplier[:size]

    def _recompute(self) -> None:
        held = self._granted - self._returned - self._posted
        np.subtract(held, self._pending + self._all_reserved - self._settled, out=self._all_available)
        if self._slack.any():
            reserved = self._pending + self._all_reserved - self._settled
            self._all_available += relief(reserved, self._slack, self._ended, self._cost, self._least // _LEAST_BIDS)

    def _bucket_of(self, now_ns: int) -> int:
        return (now_ns - self._bucket_zero) // BUCKET_NS

    def _roll(self, bucket: int) -> None:
        """The bucket is over: what was reserved in it becomes pending."""
        rows = np.flatnonzero(self._all_reserved)
        if len(rows):
            micros = self._all_reserved[rows]
            self._open.append((self.bucket, rows, micros))
            self._pending[rows] += micros
            self._rolled[rows] += micros
            self._all_reserved[rows] = 0
        self.bucket = bucket

    # --- a request ---------------------------------------------------------------------------------------------------

    def _build(self, now_ns: int, *, final: bool = False) -> _Exchange:
        """Measure demand, give back surplus, ask for what is short."""
        self._measure(now_ns)
        target = np.maximum(self._least, (self._rate * self._slice_s).astype(np.int64))
        surplus = self._surplus(target)
        self._returned += surplus
        self._all_available -= surplus
        want = np.where(self._all_available * 2 < target, target - self._all_available, 0)
        want[self._size :] = 0
        want[self._recall != RECALL_NONE] = 0
        self._recall[:] = RECALL_NONE  # each recall is answered once
        rows = np.flatnonzero((want > self._asked) | (self._returned != self._acked))
        wants = np.zeros(len(rows), WANT)
        wants["line_item"], wants["period"] = self._ids[rows], self._all_period[rows]
        wants["seen"], wants["returned"] = self._granted[rows], self._returned[rows]
        wants["want"] = 0 if final else want[rows]
        request = SyncRequest(
            self.worker, self.lease, self.epoch, self._seq, self.bucket, self._closed, wants.tobytes(), final
        )
        return _Exchange(request, np.maximum(want, self._asked), self._returned.copy(), self._table)

    def _measure(self, now_ns: int) -> None:
        elapsed_s = (now_ns - self._built_ns) / 1e9
        if elapsed_s <= 0:
            return
        self._built_ns = now_ns
        if self._slack.any():
            keep = fade(elapsed_s)
            self._ended *= keep
            self._cost *= keep
        total = self._rolled + self._all_reserved
        used = total - self._last
        rate = used / elapsed_s
        rate[self._all_available * _DRY < used] *= _HIDDEN  # it ran dry: the demand was larger than what it shows
        weight = np.where(rate > self._rate, _RISE, 1.0 - np.exp(-elapsed_s / _RATE_S))
        self._rate += weight * (rate - self._rate)
        self._last = total

    def _surplus(self, target: I64) -> I64:
        """What to give back now: the rest of an oversized slice, or of a recalled one beyond present demand."""
        keep = np.where(self._all_available > _SURPLUS * target, target, UNLIMITED)
        soon = (self._rate * (3 * self._sync_ns / 1e9)).astype(np.int64)
        keep = np.where(self._recall != RECALL_NONE, soon, keep)
        keep[self._recall == RECALL_ALL] = 0
        keep[self._size :] = 0
        surplus: I64 = np.maximum(self._all_available - keep, 0)
        return surplus

    def _give_back(self) -> None:
        """What is called back stops at once, not with the next request; so does what lost bids free from then on."""
        rows = np.flatnonzero(self._called)
        if len(rows):
            surplus = np.maximum(self._all_available[rows], 0)
            self._returned[rows] += surplus
            self._all_available[rows] -= surplus

    # --- a reply -----------------------------------------------------------------------------------------------------

    def _apply(self, exchange: _Exchange) -> None:
        reply = exchange.reply
        if reply is None or reply.epoch < self.epoch:
            return  # an older ledger's word, fenced
        if reply.lease != self.lease:
            self._begin(reply.lease, exchange.sent_ns)
        elif exchange.request.lease == self.lease and exchange.table == self._table:
            self._asked, self._acked = exchange.want, np.maximum(self._acked, exchange.returned)
        if reply.epoch != self.epoch:
            self._asked[:] = 0  # a new ledger has not heard what we want
        self.epoch, self._seq, self.stopped = reply.epoch, reply.seq, reply.stop
        self._lease_until = exchange.sent_ns + int(reply.lease_s * 1e9)
        while self._open and self._open[0][0] < reply.closed:
            _, rows, micros = self._open.popleft()
            self._pending[rows] -= micros
            self._ended[rows] += micros
        self._closed = max(self._closed, reply.closed)
        self._take(np.frombuffer(reply.grants, GRANT))
        self._recompute()
        self._give_back()

    def _begin(self, lease: int, sent_ns: int) -> None:
        """A new lease: nothing of the old one is ours any more; the ledger knows what was reserved under it."""
        ids, size, sums = self._ids, self._size, [getattr(self, name) for name in self._SUMS]
        self._index = {}
        self._zero()
        self._resize(ids, size)
        for name, values in zip(self._SUMS, sums, strict=True):
            setattr(self, name, values)
        self.lease, self.bucket = lease, 0
        self._bucket_zero = self._built_ns = sent_ns
        self._next_sync = sent_ns + self._sync_ns

    def _take(self, grants: npt.NDArray[np.void]) -> None:
        unknown = [i for i in grants["line_item"].tolist() if i not in self._index]
        if unknown:  # granted before we have the snapshot: ours all the same
            self._resize(np.concatenate([self._ids, np.array(unknown, np.int64)]), self._size)
        index = self._index
        rows = np.fromiter((index[i] for i in grants["line_item"].tolist()), np.int64, len(grants))
        fresh = self._all_period[rows] != grants["period"]
        if fresh.any():
            self._begin_period(rows[fresh])
        self._asked[rows[grants["granted"] > self._granted[rows]]] = 0
        self._all_period[rows] = grants["period"]
        self._granted[rows] = grants["granted"]
        self._acked[rows] = np.maximum(self._acked[rows], grants["returned"])
        self._cost[rows] += grants["posted"] - self._posted[rows]
        self._posted[rows] = grants["posted"]
        self._settled[rows] = grants["settled"]
        self._least[rows] = grants["least"]
        self._recall[rows] = grants["recall"]
        self._called[rows] = grants["recall"] == RECALL_ALL
        self._slack[rows] = grants["slack"]
        self._all_multiplier[rows] = grants["multiplier"]

    def _begin_period(self, rows: I64) -> None:
        """A slice of a new period: what was reserved under the old one is the ledger's matter alone."""
        gone = np.zeros(len(self._ids), bool)
        gone[rows] = True
        self._open = deque((bucket, r[~gone[r]], micros[~gone[r]]) for bucket, r, micros in self._open)
        self._rolled[rows] += self._all_reserved[rows]
        for array in (
            self._granted,
            self._returned,
            self._acked,
            self._posted,
            self._pending,
            self._all_reserved,
            self._asked,
        ):
            array[rows] = 0
        self._settled[rows] = 0

    # --- the background thread ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        """Carry requests; where the engine is idle, keep the lease alive with empty ones."""
        while not self._closing:
            exchange = self._outbox
            if exchange is None:
                exchange = self._heartbeat()
            if self._carry(exchange):
                self._inbox = exchange
            self._outbox = None
            self._wake.clear()
            if not self._closing:
                self._wake.wait(self._sync_ns / 1e9 * (2 if self.lease else 1))

    def _heartbeat(self) -> _Exchange:
        """A request without rows. A lease that the engine has not applied yet is kept, too, and all sent again."""
        word, heard = self._word, self._heard
        if heard is not None and heard.lease != word.lease:
            word = _Word(heard.lease, heard.epoch)
        elif word.lease:  # no bid can follow in the bucket before last, however stalled the engine
            word = word._replace(bucket=max(word.bucket, (self._clock() - word.bucket_zero) // BUCKET_NS - 1))
        request = SyncRequest(self.worker, word.lease, word.epoch, word.seq, word.bucket, word.closed)
        return _Exchange(request, self._asked, self._returned, -1)

    def _carry(self, exchange: _Exchange) -> bool:
        exchange.sent_ns = self._clock()
        try:
            exchange.reply = self._heard = self._transport.sync(exchange.request)
        except (OSError, ValueError):
            self.errors += 1
            return False
        self.syncs += 1
        return True


class _Nobody:
    """The transport of fixed slices: never asked."""

    def sync(self, request: SyncRequest) -> SyncReply:
        raise OSError("fixed slices have no ledger")

    def close(self) -> None:
        pass
