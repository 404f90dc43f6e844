"""The ARTF agent's engine: a batch of a host's requests in, proposed mutations out, by the stages of the bid engine.

Decode, gate, consent, one profile read, `target`, `build_features`, one ONNX run: the same index, people, model and win
curve as bids. Of a bid request the agent proposes segments of the person (only those that the settings name, and only
where consent allows the profile to be read) and deals to activate or suppress; of a bid response lower prices.

Nothing is bid, so no budget is held: a line item counts as live while it is in flight and not paused.

Invariants: a mutation's intent is one that the request lists and that its lifecycle has a place for. What would come
after ``tmax`` is not answered: a request that cannot be decided in the time it has left is answered at once with no
mutation, and one that was overtaken by its deadline is told so by a status.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from dsp.audience.consent import JOIN, ConsentGate, mask_profiles
from dsp.audience.identity import IDENTITY_COLUMNS, column_numbers, identity_keys, load_pepper
from dsp.audience.open import Audience, open_audience
from dsp.audience.profile import P_SUPPRESS, PROFILE
from dsp.base.config import Config
from dsp.base.metrics import ARTF_INTENTS, ARTF_OUTCOMES, Metrics
from dsp.bidder.artf_propose import (
    AD_WIDTH,
    MAX_QUESTIONS,
    QU_DEAL,
    QU_IMP,
    QU_WIDTH,
    deal_questions,
    judge_deals,
    shadable,
    shade_bids,
)
from dsp.bidder.context import fill_context
from dsp.bidder.engine import HALF_HOUR_S, HALF_HOURS, REFRESH_NS, NotReadyError
from dsp.bidder.gate import Q_BITS, Q_FOUND, TIER1_KEYS, TIER1_VALUES, forget_refused, gate
from dsp.bidder.plan import Plan, PlanError
from dsp.bidder.retry import Retry
from dsp.bidder.rollout import Loaded
from dsp.bidder.target import target
from dsp.bidder.workspace import Workspace
from dsp.catalog.current import current_path
from dsp.catalog.index import find_row
from dsp.catalog.layout import DIM_DEAL
from dsp.catalog.snapshot import Snapshot
from dsp.model.correction import Correction, correction_stamp, load_correction
from dsp.model.features import LINE_WIDTH, F, build_features
from dsp.model.registry import current_dir
from dsp.model.score import Scorer
from dsp.openrtb import artf as wire
from dsp.openrtb.columns import (
    D_ID_LEN,
    D_ID_OFF,
    FMT_PROTOBUF,
    I_ID_LEN,
    I_ID_OFF,
    I_REQ,
    OK,
    R_EXCHANGE,
    R_STATUS,
    R_TMAX,
    REQUEST_COLUMNS,
    Batch,
)
from dsp.openrtb.decode import decode_batch, error_text
from dsp.openrtb.hashing import hash_text
from dsp.openrtb.limits import MAX_BATCH

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

PROPOSED, NOTHING, BAD, SHED, LATE, FAILED = range(len(ARTF_OUTCOMES))  # slots of ARTF_OUTCOMES
MAX_ARTF_BATCH = min(MAX_BATCH, 64)
COST_MEMORY = 0.1  # weight of the newest batch in what a batch is expected to take
MOST_EXPECTED_NS = 2_000_000  # one slow batch must not refuse everything after it
_FOREVER = 10**12  # a budget that is never short

Send = Callable[[int, int, bytes], None]
"""(position in the batch, outcome, serialized RTBResponse or the text of a refusal)"""


class ArtfEngine:
    """See the module. One engine belongs to one thread; `poll` swaps in a new snapshot or model between batches."""

    def __init__(
        self,
        config: Config,
        *,
        snapshot: Snapshot,
        audience: Audience,
        scorer: Scorer,
        metrics: Metrics,
        clock: Callable[[], int] = time.time_ns,
        tick: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.config, self.audience, self.clock, self.tick = config, audience, clock, tick
        self.batch = Batch()
        self.expected_ns = 0.0  # what the next batch is expected to take
        self._columns = column_numbers(IDENTITY_COLUMNS, REQUEST_COLUMNS)
        self._pepper = load_pepper(config.path("secrets", "pepper.json"))
        self._consent = ConsentGate(config.bidder.vendor_id, REQUEST_COLUMNS, hash_text)
        self._rows: I64 = np.zeros((MAX_ARTF_BATCH, wire.M_WIDTH), np.int64)
        self._bids: I64 = np.zeros((MAX_ARTF_BATCH * wire.MAX_BIDS, wire.MB_WIDTH), np.int64)
        self._prices = self._bids.view(np.float64)[:, wire.MB_PRICE]
        self._ends: I64 = np.zeros(MAX_ARTF_BATCH, np.int64)
        self._questions: I64 = np.zeros((MAX_QUESTIONS, QU_WIDTH), np.int64)
        self._wanted = np.zeros(MAX_QUESTIONS, np.bool_)
        most = len(self._bids)
        self._bid_imp = np.zeros(most, np.int32)
        self._floor, self._currency, self._shaded = np.zeros(most), np.zeros(most, np.int64), np.zeros(most, np.int64)
        self._shade_rows: F32 = np.zeros((most, F), np.float32)
        self._no_line = np.zeros((1, LINE_WIDTH), np.float32), np.zeros(most, np.int32)
        self._corrected_ns = 0
        self._watched: tuple[Path | None, Path | None] = (None, None)
        self._retry = Retry("new model")
        self._use_metrics(metrics)
        self._model = Loaded.of(scorer)
        self._attach(snapshot)

    @classmethod
    def open(cls, config: Config, *, metrics: Metrics | None = None, clock: Callable[[], int] = time.time_ns) -> Self:
        """An engine over ``config.data_dir``. Raises `NotReadyError` without a snapshot or model, `PlanError` for
        settings that don't fit the catalog.
        """
        snapshot_path, model_path = current_path(config), current_dir(config)
        if snapshot_path is None or model_path is None:
            raise NotReadyError("no catalog snapshot or no model yet: `dsp catalog publish`, `dsp train`")
        engine = cls(
            config,
            snapshot=Snapshot.load(snapshot_path),
            audience=open_audience(config),
            scorer=Scorer.load(model_path),
            metrics=metrics if metrics is not None else Metrics.memory("bidder"),
            clock=clock,
        )
        engine._watched = snapshot_path, model_path
        return engine

    def _use_metrics(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._counted = metrics.counter("dsp_artf_requests_total")
        self._mutations = metrics.counter("dsp_artf_mutations_total")
        self._seconds = metrics.histogram("dsp_request_seconds")
        self._batches = metrics.histogram("dsp_batch_size")

    def _attach(self, snapshot: Snapshot) -> None:
        plan, settings = Plan(snapshot), self.config.artf
        x = plan.by_name.get(settings.exchange, -1)
        if x < 0:
            raise PlanError(f"artf.exchange: the catalog has no exchange named {settings.exchange!r}")
        numbers = {str(each["name"]): int(each["number"]) for each in snapshot.meta["segments"]}
        if unknown := sorted(set(settings.segments) - set(numbers)):
            raise PlanError(f"artf.segments: the catalog has no segments {', '.join(unknown)}")
        self._segments = {numbers[name]: theirs for name, theirs in settings.segments.items()}
        self.plan, self._exchange, self._exchange_id = plan, x, int(plan.exchange_ids[x])
        self._deals(snapshot)
        named = [str(seat) for seat in snapshot.meta["exchanges"][x].get("seats", [])]
        self._seats: I64 = np.array([hash_text(seat) for seat in named], np.int64)
        self.work = Workspace(1, plan.rows.shape[1], self.config.seed)
        self._available: I64 = np.full(plan.n, _FOREVER, np.int64)
        self._multiplier = np.ones(plan.n, np.float64)
        self._consent.attach(plan.exchange_names)
        self._live_at_ns = 0
        self._correct()
        self._metrics.gauge("dsp_snapshot_version")[...] = snapshot.version
        self._metrics.name_labels("exchange", plan.exchange_names)

    def _deals(self, snapshot: Snapshot) -> None:
        """The exchange's deals that the catalog knows."""
        plan = self.plan
        mine = [deal for deal in snapshot.meta["deals"] if deal["exchange_id"] == self._exchange_id]
        self._deal_ids = [str(deal["id"]) for deal in mine]
        self._ours: I64 = np.zeros((len(mine), AD_WIDTH), np.int64)
        for d, deal in enumerate(mine):
            h, currency = hash_text(str(deal["id"])), plan.cur_hash.tolist().index(hash_text(deal["currency"]))
            floor = int(deal["floor_micros"] * plan.cur_usd[currency])
            self._ours[d] = h, find_row(plan.dim_keys, plan.dim_rows, DIM_DEAL, h), floor

    def _correct(self) -> None:
        correction, version = load_correction(self.config), self._model.scorer.version
        mine = correction if correction.version == version else Correction()
        self._factor = mine.factors(self.plan.ids)
        self._version = str(version)
        self._metrics.gauge("dsp_model_version")[...] = version

    # --- deciding -----------------------------------------------------------------------------------------------------

    def decide(self, bodies: Sequence[bytes], arrived_ns: Sequence[int], left_ns: Sequence[int], send: Send) -> None:
        """Answer up to MAX_ARTF_BATCH requests, each once, through ``send``.

        ``arrived_ns`` by the engine's tick; ``left_ns`` what the caller's own deadline left each then (0: it had none).
        """
        n = len(bodies)
        begun_ns = self.tick()
        text = np.frombuffer(bytearray(b"".join([*bodies, b"\0"])), np.uint8)
        self._ends[:n] = list(accumulate(map(len, bodies)))
        wire.decode_artf(text, self._ends, n, self._rows, self._bids)
        rows, raw = self._rows[:n].tolist(), text.tobytes()
        ids = [_utf8(raw, row[wire.M_ID_OFF], row[wire.M_ID_LEN]) for row in rows]
        deadlines = [self._deadline(rows[i][wire.M_TMAX], arrived_ns[i], left_ns[i]) for i in range(n)]
        kept: list[int] = []
        for i, row in enumerate(rows):
            status = row[wire.M_STATUS]
            if status != wire.OK or ids[i] is None:
                self._send(send, i, BAD, (wire.ERRORS[status] or "id is not valid UTF-8").encode())
            elif deadlines[i] - begun_ns <= self.expected_ns:
                self._send(send, i, *self._nothing(ids[i], deadlines[i], SHED))
            elif not _asks(row):
                self._send(send, i, *self._nothing(ids[i], deadlines[i], NOTHING))
            else:
                kept.append(i)
        if kept:
            self._propose(kept, raw, text, ids, deadlines, send)
        took_ns = self.tick() - begun_ns
        self.expected_ns += (min(took_ns, MOST_EXPECTED_NS) - self.expected_ns) * COST_MEMORY
        self._batches.observe_size(n)
        ended_ns = begun_ns + took_ns
        self._seconds.observe_array(0, np.array([ended_ns - each for each in arrived_ns], np.int64))

    def decline(self, bodies: Sequence[bytes], send: Send) -> None:
        """Answer any number of requests without mutations, at once: there are too many."""
        for i, body in enumerate(bodies):
            self._ends[0] = len(body)
            wire.decode_artf(np.frombuffer(bytearray(body + b"\0"), np.uint8), self._ends, 1, self._rows, self._bids)
            off, length = self._rows[0, [wire.M_ID_OFF, wire.M_ID_LEN]].tolist()
            self._send(send, i, SHED, wire.encode_artf(_utf8(body, off, length) or "", (), self._version))

    def _deadline(self, tmax_ms: int, arrived_ns: int, left_ns: int) -> int:
        """When an answer must have been handed over: tmax or the caller's deadline, less what the way back takes."""
        settings = self.config.artf
        given_ns = int((tmax_ms if tmax_ms > 0 else settings.tmax_ms) * 1e6)
        if left_ns > 0:
            given_ns = min(given_ns, left_ns)
        return arrived_ns + given_ns - int(settings.allowance_ms * 1e6)

    def _nothing(self, request_id: str | None, deadline_ns: int, outcome: int) -> tuple[int, bytes]:
        """An answer without mutations, if there is time for any."""
        if self.tick() >= deadline_ns:
            return LATE, b""
        return outcome, wire.encode_artf(request_id or "", (), self._version)

    def _send(self, send: Send, i: int, outcome: int, payload: bytes) -> None:
        self._counted[outcome] += 1
        send(i, outcome, payload)

    def _propose(
        self, kept: list[int], raw: bytes, text: U8, ids: list[str | None], deadlines: list[int], send: Send
    ) -> None:
        """Decide the requests ``kept`` of the batch."""
        n, batch, work, plan = len(kept), self.batch, self.work, self.plan
        rows = self._rows[kept]
        spans = rows[:, [wire.M_REQUEST_OFF, wire.M_REQUEST_LEN]].tolist()
        requests = [raw[off : off + length] for off, length in spans]
        now_ns, now_s = time.monotonic_ns(), self.clock() // 1_000_000_000
        if now_ns - self._live_at_ns > REFRESH_NS:
            plan.refresh_live(now_s, self._available, self._multiplier)
            self._live_at_ns = now_ns
        exchanges = np.full(n, self._exchange, np.int64)
        decode_batch(batch, requests, np.full(n, FMT_PROTOBUF), exchanges, plan.dialects)
        batch.req[:n, R_EXCHANGE] = self._exchange
        batch.req[:n, R_TMAX] = 1_000_000  # the auction's; ours is the envelope's
        work.arrived_ns[:n] = now_ns
        gate(
            n, batch.req, batch.pool, batch.text, work.arrived_ns, now_ns, plan.ex_i, 0.0, work.tokens, work.tokens_ns,
            plan.cur_hash, TIER1_KEYS, TIER1_VALUES, 0, work.q,
        )  # fmt: skip
        self._consent.run(batch.req, batch.text, batch.pool, n, work.bits)
        forget_refused(n, work.q, work.bits)
        of_request = rows[:, wire.M_LIFECYCLE] == wire.BID_REQUEST
        work.bits[:n] *= of_request  # shading looks at nobody
        self._join(n, now_s)
        listed = rows[:, wire.M_INTENTS, None] >> np.arange(8) & 1
        n_questions = self._ask_deals(n, now_s, listed * of_request[:, None])
        shaded = self._shade(n, rows, text, listed[:, wire.BID_SHADE] * ~of_request, now_s)
        proposals = self._collect(n, rows, text, listed * of_request[:, None], n_questions, shaded)
        for k, i in enumerate(kept):
            if batch.req[k, R_STATUS] != OK:
                self._send(send, i, BAD, b"bid_request: " + error_text(batch, k).encode())
                continue
            made = proposals[k]
            payload = wire.encode_artf(ids[i] or "", made, self._version)
            if self.tick() >= deadlines[i]:
                self._send(send, i, LATE, b"")
                continue
            for each in made:
                self._mutations[ARTF_INTENTS.index(wire.INTENTS[each.intent])] += 1
            self._send(send, i, PROPOSED if made else NOTHING, payload)

    def _join(self, n: int, now_s: int) -> None:
        """One batched read of profiles and states, only of those whose consent allows it."""
        work, batch = self.work, self.batch
        identity_keys(
            batch.req, batch.text, batch.pool, n, self._columns, self.plan.exchange_ids, self._pepper, work.bits, JOIN,
            work.keys, work.wanted,
        )  # fmt: skip
        if self.audience.remote is not None:
            self.audience.budget(self.config.artf.tmax_ms / 2)
        self.audience.store.read(work.keys, work.wanted, work.profiles, work.found[:n])
        mask_profiles(n, work.bits, work.profiles, work.found, now_s // 86_400)
        self.audience.states(n, work.bits, work.keys, work.wanted, work.profiles, work.found[:n], work.states)
        work.q[:n, Q_FOUND] = work.found[:n]
        work.q[:n, Q_BITS] = work.bits[:n]

    def _ask_deals(self, n: int, now_s: int, asked: I64) -> int:
        """Which deals there are to judge, judged in ``_wanted``; how many."""
        activate = np.ascontiguousarray(asked[:, wire.ACTIVATE_DEALS])
        suppress = np.ascontiguousarray(asked[:, wire.SUPPRESS_DEALS])
        batch, work, plan, scorer = self.batch, self.work, self.plan, self._model.scorer
        n_imps = int(batch.counts[0])
        fill_context(
            n_imps, batch.imp, batch.req, batch.pool, work.q, now_s, plan.cur_hash, plan.cur_usd, plan.usd, work.ctx
        )
        if not activate.any() and not suppress.any():
            return 0
        half_hour = (now_s // HALF_HOUR_S + 144) % HALF_HOURS
        target(
            n, batch.req, batch.pool, batch.text, work.profiles, work.q, half_hour, now_s // 86_400,
            plan.rows, plan.dim_keys, plan.dim_rows, plan.dim_any, plan.dim_used, TIER1_KEYS, TIER1_VALUES,
            plan.live, work.dims, work.values, work.ends, work.absent, work.rows_found, work.either, work.matched,
            work.some,
        )  # fmt: skip
        n_questions, n_cand = deal_questions(
            n_imps, batch.imp, batch.deal, batch.pool, work.q, activate, suppress, work.profiles, work.states.rows,
            work.states.known, work.matched, work.some, plan.rows, plan.dim_keys, plan.dim_rows, plan.dim_any,
            plan.weight, plan.li_i, plan.cur_hash, plan.cur_usd, plan.usd, self._ours, work.imp_rows, work.either,
            self._questions, work.cand_imp, work.cand_li,
        )  # fmt: skip
        build_features(scorer.rows, n_cand, work.cand_imp, work.cand_li, work.ctx, work.profiles, plan.lines)
        judge_deals(
            n_questions, self._questions, work.cand_li, scorer.run(n_cand), self._factor, plan.li_v, plan.cap,
            plan.account_usd, plan.fixed_bid, batch.imp, work.q, self.config.bidder.min_bid_micros, self._wanted,
        )  # fmt: skip
        return n_questions

    def _shade(self, n: int, rows: I64, text: U8, asked: I64, now_s: int) -> I64:
        """Per bid of the batch what to propose, CPM micros of its currency; 0 nothing."""
        n_bids = int((rows[:, wire.M_BID0] + rows[:, wire.M_BIDN]).max())
        if not asked.any() or n_bids == 0:
            return self._shaded[:0]
        batch, work, plan, wins = self.batch, self.work, self.plan, self._model.wins
        self._bid_imp[:n_bids] = -1
        shadable(
            n, asked, rows, self._bids, self._prices, text, self._seats, batch.req, work.q, batch.imp, batch.deal,
            batch.text, plan.cur_hash, plan.usd, self._bid_imp, self._floor, self._currency,
        )  # fmt: skip
        line, no_line = self._no_line
        at = np.maximum(self._bid_imp[:n_bids], 0)
        build_features(self._shade_rows, n_bids, at, no_line, work.ctx, work.profiles, line)
        shade_bids(
            n_bids, self._bids, self._prices, self._bid_imp, self._floor, self._currency, self._shade_rows,
            self._exchange_id, batch.imp, plan.cur_usd, wins.curve, wins.value, wins.bid, wins.chance, wins.scaled,
            wins.weights, *wins.reach, self._shaded,
        )  # fmt: skip
        return self._shaded[:n_bids]

    def _collect(
        self, n: int, rows: I64, text: U8, asked: I64, n_questions: int, shaded: I64
    ) -> list[list[wire.Mutation]]:
        """The mutations of each request."""
        batch, work = self.batch, self.work
        out: list[list[wire.Mutation]] = [[] for _ in range(n)]
        if self._segments:
            today_d = self.clock() // 86_400_000_000_000
            known = np.flatnonzero(asked[:, wire.SEGMENTS] * work.found[:n] * (work.profiles[:n, P_SUPPRESS] == 0))
            for k in known.tolist():
                if names := self._names(work.profiles[k], today_d):
                    out[k].append(wire.Mutation(wire.SEGMENTS, "/user/data/segment", names))
        told: dict[tuple[int, int], list[str]] = {}
        for (imp, deal), wanted in zip(
            self._questions[:n_questions, [QU_IMP, QU_DEAL]].tolist(), self._wanted[:n_questions].tolist(), strict=True
        ):
            if deal >= 0 and wanted:
                told.setdefault((imp, wire.ACTIVATE_DEALS), []).append(self._deal_ids[deal])
            elif deal < 0 and not wanted:
                row = batch.deal[-1 - deal]
                name = _cut(batch.text, row[D_ID_OFF], row[D_ID_LEN])
                told.setdefault((imp, wire.SUPPRESS_DEALS), []).append(name)
        for (imp, intent), ids in told.items():
            row = batch.imp[imp]
            path = f"/imp/{_cut(batch.text, row[I_ID_OFF], row[I_ID_LEN])}"
            out[int(row[I_REQ])].append(wire.Mutation(intent, path, ids))
        if len(shaded) and shaded.any():
            for k, row in enumerate(rows):
                first = int(row[wire.M_BID0])
                for b in range(first, first + int(row[wire.M_BIDN])):
                    if shaded[b]:
                        bid = self._bids[b]
                        seat = _cut(text, bid[wire.MB_SEAT_OFF], bid[wire.MB_SEAT_LEN])
                        name = _cut(text, bid[wire.MB_ID_OFF], bid[wire.MB_ID_LEN])
                        path = f"/seatbid/{seat}/bid/{name}"
                        out[k].append(wire.Mutation(wire.BID_SHADE, path, price=int(shaded[b]) / 1e6))
        return out

    def _names(self, profile: U8, today_d: int) -> list[str]:
        """What the host calls the segments a person is in today."""
        record: Any = profile.view(PROFILE)[0]
        count = int(record["n_segments"])
        numbers, until_d = record["segments"][:count].tolist(), record["segment_expiry_d"][:count].tolist()
        return [
            self._segments[number]
            for number, day in zip(numbers, until_d, strict=True)
            if number in self._segments and day >= today_d
        ]

    # --- life ---------------------------------------------------------------------------------------------------------

    def poll(self) -> None:
        """Swap in a newer snapshot or model, if there is one."""
        snapshot_path, model_path = self._watched
        newest = current_path(self.config)
        if snapshot_path is not None and newest is not None and newest != snapshot_path:
            self._attach(Snapshot.load(newest))
            self._watched = newest, model_path
        if model_path is not None:
            self._retry.attempt(self._watch_model, time.monotonic_ns())
        stamp = correction_stamp(self.config)
        if stamp != self._corrected_ns:
            self._corrected_ns = stamp
            self._correct()

    def _watch_model(self) -> None:
        snapshot_path, model_path = self._watched
        newest = current_dir(self.config)
        if newest is not None and newest != model_path:
            self._model = Loaded.of(Scorer.load(newest))
            self._watched = snapshot_path, newest
            self._correct()

    def warm(self) -> None:
        """Compile and touch everything, without counting it."""
        metrics = self._metrics
        self._use_metrics(Metrics.memory("warm"))
        both = wire.warm_requests()
        far_ns = 10**12
        for size in (1, 8, MAX_ARTF_BATCH):
            for body in both:
                self.decide([body] * size, [self.tick() + far_ns] * size, [0] * size, lambda i, outcome, payload: None)
        self.expected_ns = 0.0
        self._use_metrics(metrics)
        gc.collect()
        gc.freeze()

    def close(self) -> None:
        """Release what it holds."""
        self.audience.close()


def _utf8(raw: bytes, off: int, length: int) -> str | None:
    """Text of the batch; None where it isn't UTF-8."""
    try:
        return raw[off : off + length].decode()
    except UnicodeDecodeError:
        return None


def _asks(row: list[int]) -> bool:
    """Whether there is anything of ours that the request lists and its lifecycle has a place for."""
    intents = row[wire.M_INTENTS]
    if row[wire.M_REQUEST_LEN] < 0:
        return False
    if row[wire.M_LIFECYCLE] == wire.BID_REQUEST:
        return bool(intents & (1 << wire.SEGMENTS | 1 << wire.ACTIVATE_DEALS | 1 << wire.SUPPRESS_DEALS))
    if row[wire.M_LIFECYCLE] == wire.BID_RESPONSE:
        return bool(intents & 1 << wire.BID_SHADE) and row[wire.M_BIDN] > 0
    return False


def _cut(text: U8, off: int, length: int) -> str:
    return text[off : off + length].tobytes().decode("utf-8", "replace")
