"""The engine: a batch of requests in, answers out. `decide` reads as the list of its stages (design 4).

Per-request Python exists only in decode and encode; between them are NumPy arrays that live as long as the engine,
numba kernels, one profile read and one ONNX run. One engine belongs to one thread; `poll`, called between batches from
that thread, swaps in a new snapshot or model, so no batch ever sees two.
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from dsp.audience.consent import JOIN, ConsentGate, mask_profiles
from dsp.audience.hot import HotProfiles
from dsp.audience.identity import IDENTITY_COLUMNS, column_numbers, identity_keys, load_peppers
from dsp.audience.open import Audience, open_audience
from dsp.audience.store import ProfileStore
from dsp.base.config import Config
from dsp.base.mapped import touch
from dsp.base.metrics import Metrics
from dsp.base.token import Signer, load_signer
from dsp.base.trace import Tracer
from dsp.bidder.answer import TOO_LARGE, Answer, Numbers
from dsp.bidder.arms import enter_arms, list_ghosts
from dsp.bidder.capping import drop_capped, reserve_caps
from dsp.bidder.choose import choose_again, match_conditions
from dsp.bidder.context import fill_context
from dsp.bidder.count import NBR_SLOTS, count_batch
from dsp.bidder.duplicates import Duplicates
from dsp.bidder.encode import Encoder
from dsp.bidder.gate import (
    Q_BITS,
    Q_FOUND,
    TIER1_KEYS,
    TIER1_VALUES,
    forget_refused,
    gate,
    least_left_us,
)
from dsp.bidder.logged import log_bids
from dsp.bidder.meters import Meters
from dsp.bidder.plan import Plan
from dsp.bidder.price import ARM_CHALLENGER, price, select
from dsp.bidder.rank import C_ARM_FLAGS, C_IMP, C_MEDIA, MAX_K, rank
from dsp.bidder.retry import Retry
from dsp.bidder.rollout import Loaded, Rollout
from dsp.bidder.sample import RequestSample
from dsp.bidder.shape import Shaping
from dsp.bidder.slices import Slices
from dsp.bidder.supply import Supply
from dsp.bidder.target import target
from dsp.bidder.tokens import write_tokens
from dsp.bidder.warm import warm_bodies
from dsp.bidder.watched import show_watched
from dsp.bidder.wintable import Odds
from dsp.bidder.workspace import Workspace
from dsp.catalog.current import current_path
from dsp.catalog.layout import CR_ID
from dsp.catalog.snapshot import Snapshot
from dsp.log.decisions import DecisionRehearsal, DecisionSink, DecisionWriter
from dsp.model.context import HEADS
from dsp.model.correction import Correction, correction_stamp, load_correction
from dsp.model.features import SPEC_HASH, F, build_features
from dsp.model.registry import current_dir
from dsp.model.rollout import Challenger, challenger
from dsp.model.score import Scorer
from dsp.openrtb.columns import I_REQ, R_EXCHANGE, REQUEST_COLUMNS, Batch
from dsp.openrtb.decode import decode_batch
from dsp.openrtb.hashing import hash_text
from dsp.openrtb.limits import MAX_BATCH, MAX_BATCH_BYTES, MAX_BODY_BYTES

HALF_HOUR_S = 1800
HALF_HOURS = 336  # of a week
MIN_LEFT_US = 1000  # with less than this left of tmax an answer would be late
REFRESH_NS = 50_000_000  # how often the live line items are worked out again
TOO_LARGE_TEXT = b"body larger than %d bytes" % MAX_BODY_BYTES
F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]


class NotReadyError(Exception):
    """There is no snapshot or no model yet; the message says which and how to make one."""


class Engine:
    """See the module. Use `open`; the constructor takes every part."""

    def __init__(
        self,
        config: Config,
        *,
        snapshot: Snapshot,
        audience: Audience,
        scorer: Scorer,
        slices: Slices,
        signer: Signer,
        metrics: Metrics,
        decisions: DecisionWriter | None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.config = config
        self.audience = audience
        self.store = audience.store
        self.models = Rollout(scorer)
        self._correction = Correction()
        self._scored = self.models.current  # by which the last batch was
        self._rows = 0  # and how many
        self.slices = slices
        self.signer = signer
        self.decisions = decisions
        self.tracer: Tracer | None = None  # of sampled batches, when asked for
        self.clock = clock
        self.batch = Batch()
        self._k = min(config.bidder.candidates, MAX_K)
        self._qps_share = 1.0 / max(1, config.bidder.http_workers + config.bidder.grpc_workers)
        self._columns = column_numbers(IDENTITY_COLUMNS, REQUEST_COLUMNS)
        peppers = load_peppers(config.path("secrets", "pepper.json"))
        self._pepper, self._old_pepper = peppers.current, peppers.last
        self._consent = ConsentGate(config.bidder.vendor_id, REQUEST_COLUMNS, hash_text)
        self._next_bid = self._first = 0
        self._inflight: U64 | None = None  # a rehearsal's; otherwise the host's
        self._stand_ins: tuple[Slices, Meters, U64] | None = None  # of rehearsals with this snapshot
        self._rehearsal: DecisionRehearsal | DecisionSink | None = None
        self._live_at_ns = 0
        self._store_seen = (0, 0, 0, 0, 0, 0)
        self._watched: tuple[Path | None, Path | None] = (None, None)
        self._standing: Challenger | None = None
        self._retries = Retry("new model"), Retry("challenger")
        self._corrected_ns = 0  # stamp of the correction in use
        self._sample: RequestSample | None = None
        self.shaping: Shaping | None = None  # of traffic, when asked for
        self.supply = Supply(config)
        self.duplicates: Duplicates | None = None  # of impressions through several paths, when asked for
        self.meters = Meters(metrics)
        self._attach(snapshot)
        self.metrics.gauge("dsp_model_version")[...] = scorer.version

    @classmethod
    def open(
        cls,
        config: Config,
        *,
        snapshot: Snapshot | None = None,
        store: ProfileStore | None = None,
        scorer: Scorer | None = None,
        slices: Slices | None = None,
        signer: Signer | None = None,
        metrics: Metrics | None = None,
        decisions: DecisionWriter | None = None,
        clock: Callable[[], int] = time.time_ns,
        worker: str = "0",
    ) -> Self:
        """An engine whose unset parts come from ``config.data_dir``. Raises `NotReadyError` where one is missing."""
        snapshot_path = current_path(config) if snapshot is None else None
        model_path = current_dir(config) if scorer is None else None
        if snapshot is None:
            if snapshot_path is None:
                raise NotReadyError("no catalog snapshot yet: run `dsp catalog apply FILE` and `dsp catalog publish`")
            snapshot = Snapshot.load(snapshot_path)
        if scorer is None:
            if model_path is None:
                raise NotReadyError("no model yet: run `dsp train` (or `dsp train --bootstrap` without logs)")
            scorer = Scorer.load(model_path)
        if decisions is None and config.bidder.log_decisions:
            decisions = DecisionWriter(
                config.path("log", "decisions"), worker, SPEC_HASH, str(scorer.version), features=F
            )
        engine = cls(
            config,
            snapshot=snapshot,
            audience=open_audience(config, store),
            scorer=scorer,
            slices=slices if slices is not None else Slices(config, worker=worker),
            signer=signer if signer is not None else load_signer(config.path("secrets", "signing.json")),
            metrics=metrics if metrics is not None else Metrics.memory("bidder"),
            decisions=decisions,
            clock=clock,
        )
        if config.bidder.sample_s > 0:
            directory = config.path("log", "requests")
            engine._sample = RequestSample(directory, worker, int(config.bidder.sample_s * 1e9))
        engine._watched = (snapshot_path, model_path)
        if model_path is not None:
            engine._watch_models()
        return engine

    def _attach(self, snapshot: Snapshot) -> None:
        """Make ``snapshot`` the one that decides."""
        plan = Plan(snapshot)
        self.plan, self._stand_ins = plan, None
        self.work = Workspace(self._k, plan.rows.shape[1], self.config.seed)
        self.encoder = Encoder(plan, self.signer)
        self.slices.attach(plan.ids)
        self._consent.attach(plan.exchange_names)
        self.supply.attach(list(plan.exchange_names))
        self._live_at_ns = 0
        self._apply_correction()
        self.metrics.gauge("dsp_snapshot_version")[...] = snapshot.version
        self.metrics.name_labels("exchange", plan.exchange_names)

    @property
    def metrics(self) -> Metrics:
        """Where it counts."""
        return self.meters.metrics

    @property
    def scorer(self) -> Scorer:
        """The current model's."""
        return self.models.current.scorer

    @property
    def scored(self) -> tuple[int, F32]:
        """How many candidates the last batch had, and their scores float32[n, 5], until the next batch."""
        return self._rows, self._scored.scorer.scores[: self._rows]

    @property
    def scored_by(self) -> int:
        """The version of the model that did."""
        return self._scored.scorer.version

    @property
    def factor(self) -> F32:
        """What the odds of the last batch's scores were multiplied by, float32[L, 5]."""
        return self._factor if self._scored is self.models.current else self._ones

    def odds(self, candidate: int) -> Odds:
        """What the auction of a candidate of the last batch is thought to go for."""
        c, batch = self.work.cand[candidate], self.batch
        exchange = int(batch.req[batch.imp[c[C_IMP], I_REQ], R_EXCHANGE])
        return Odds.of(
            self._scored.wins, int(self.plan.exchange_ids[exchange]), int(c[C_MEDIA]),
            self._scored.scorer.rows[candidate],
        )  # fmt: skip

    # --- look-ups for the ingress -------------------------------------------------------------------------------------

    def exchange_of(self, name: str) -> int:
        """Index of the exchange with this URL name, -1 if there is none."""
        return self.plan.by_name.get(name, -1)

    def exchange_of_token(self, token: bytes | str) -> int:
        """Index of the exchange whose token this is ("Bearer <token>" or bare), -1 if there is none."""
        text = token.decode("ascii", "replace") if isinstance(token, bytes) else token
        return self.plan.by_token.get(text.removeprefix("Bearer ").strip(), -1)

    def exchange_token(self, index: int) -> str:
        """The token an exchange must show; "" when it needs none."""
        return self.plan.exchange_tokens[index]

    def exchange_callers(self, index: int) -> tuple[str, Sequence[str]]:
        """The header that names its certificate ("name: value", "" for none) and the networks it calls from."""
        return self.plan.exchange_callers[index]

    # --- deciding -----------------------------------------------------------------------------------------------------

    def decide(
        self,
        bodies: Sequence[bytes],
        formats: Numbers,
        exchanges: Numbers,
        arrived_ns: Numbers | None = None,
        nbr_bodies: bool = False,
    ) -> list[Answer]:
        """Answer up to MAX_BATCH requests, in their order.

        ``formats``: FMT_JSON or FMT_PROTOBUF; ``exchanges``: indices of the current snapshot; ``arrived_ns``: monotonic
        nanoseconds (default: now). With ``nbr_bodies`` a no-bid's payload is a BidResponse with its reason.
        """
        n = len(bodies)
        if n == 0:
            return []
        total = sum(map(len, bodies))
        if n > MAX_BATCH or total > MAX_BATCH_BYTES:
            return self._decide_parts(bodies, formats, exchanges, arrived_ns, nbr_bodies)
        now_ns = time.monotonic_ns()
        arrived = self.work.arrived_ns
        if arrived_ns is None:
            arrived[:n] = now_ns
        else:
            arrived[:n] = arrived_ns
        return self._run(bodies, formats, exchanges, n, now_ns, nbr_bodies)

    def _decide_parts(
        self, bodies: Sequence[bytes], formats: Numbers, exchanges: Numbers, arrived_ns: Numbers | None, nbr: bool
    ) -> list[Answer]:
        """A batch with a body over the limit, or too much of everything: refuse the one, cut the other."""
        answers: list[Answer] = [(TOO_LARGE, TOO_LARGE_TEXT)] * len(bodies)
        part: list[int] = []
        size = 0

        def flush() -> None:
            arrived = [arrived_ns[i] for i in part] if arrived_ns is not None else None
            done = self.decide(
                [bodies[i] for i in part], [formats[i] for i in part], [exchanges[i] for i in part], arrived, nbr
            )
            for i, answer in zip(part, done, strict=True):
                answers[i] = answer
            part.clear()

        for i, body in enumerate(bodies):
            if len(body) > MAX_BODY_BYTES:
                self.meters.requests[min(exchanges[i], len(self.meters.requests) - 1), TOO_LARGE] += 1
                continue
            if part and (len(part) == MAX_BATCH or size + len(body) > MAX_BATCH_BYTES):
                flush()
                size = 0
            part.append(i)
            size += len(body)
        if part:
            flush()
        return answers

    def _run(
        self, bodies: Sequence[bytes], formats: Numbers, exchanges: Numbers, n: int, now_ns: int, nbr_bodies: bool
    ) -> list[Answer]:
        batch, work, plan, slices = self.batch, self.work, self.plan, self.slices
        clock_ns = time.perf_counter_ns
        t0 = clock_ns()
        now_s = self.clock() // 1_000_000_000
        slices.refresh(now_ns)
        if now_ns - self._live_at_ns > REFRESH_NS:
            plan.refresh_live(now_s, slices.available, slices.multiplier)
            self._live_at_ns = now_ns

        decode_batch(batch, bodies, formats, exchanges, plan.dialects)
        batch.req[:n, R_EXCHANGE] = exchanges
        t1 = clock_ns()

        q = work.q
        gate(
            n, batch.req, batch.pool, batch.text, work.arrived_ns, now_ns, plan.ex_i, self._qps_share,
            work.tokens, work.tokens_ns, plan.cur_hash, TIER1_KEYS, TIER1_VALUES, MIN_LEFT_US, q,
        )  # fmt: skip
        self.supply.check(n, batch, q, self.meters.supply)
        shaping = self.shaping
        if shaping is not None:
            learn = slices.live(now_ns) and bool(plan.live.any())
            shaping.cut(n, batch, plan.exchange_ids, q, self.clock(), learn=learn)
        self._consent.run(batch.req, batch.text, batch.pool, n, work.bits)
        duplicates = self.duplicates
        if duplicates is not None:
            duplicates.check(n, batch, work.bits, plan.ex_i, q, self.meters.supply, now_ns)
        forget_refused(n, q, work.bits)
        t2 = clock_ns()

        self._join(n, now_s)
        t3 = clock_ns()

        half_hour = (now_s // HALF_HOUR_S + 144) % HALF_HOURS  # 1970-01-01 was a Thursday: 3 days of 48
        target(
            n, batch.req, batch.pool, batch.text, work.profiles, q, half_hour, now_s // 86_400,
            plan.rows, plan.dim_keys, plan.dim_rows, plan.dim_any, plan.dim_used, TIER1_KEYS, TIER1_VALUES,
            plan.live, work.dims, work.values, work.ends, work.absent, work.rows_found, work.either, work.matched,
            work.some,
        )  # fmt: skip
        n_imps = int(batch.counts[0])
        n_cand = rank(
            n_imps, batch.imp, batch.deal, batch.pool, work.profiles, q, work.matched, work.some,
            plan.rows, plan.dim_keys, plan.dim_rows, plan.dim_any, plan.open_auction, plan.item, plan.product,
            plan.shapes, plan.ad, plan.cr_i, self._share, plan.adv_domains, plan.seat_hash, plan.cur_hash, plan.usd,
            plan.weight,
            slices.available, self._k, work.random, work.imp_rows, work.known_deals, work.either, work.top_li,
            work.top_score, work.top_score_bits, work.top_key, work.intent, work.cand, work.cand_imp, work.cand_li,
        )  # fmt: skip
        if plan.arms.running:
            self._enter_arms(n_cand)
        if plan.choosing and n_cand:
            n_cand = self._choose_again(n, n_cand, now_s, half_hour)
        n_cand = drop_capped(
            n_cand, work.cand, work.cand_imp, work.cand_li, batch.imp, q, plan.li_i, work.profiles, plan.caps,
            plan.cr_caps, work.states.rows, work.states.known, now_s, work.capped,
        )  # fmt: skip
        t4 = clock_ns()

        model = self._scored = self.models.pick()
        scorer, wins = model.scorer, model.wins
        fill_context(
            n_imps, batch.imp, batch.req, batch.pool, q, now_s, plan.cur_hash, plan.cur_usd, plan.usd, work.ctx
        )
        build_features(scorer.rows, n_cand, work.cand_imp, work.cand_li, work.ctx, work.profiles, plan.lines)
        self._rows = n_cand
        t5 = clock_ns()
        p = scorer.run(n_cand)
        if plan.arms.challenge and self.models.shadows and n_cand:
            self.models.score_arm(n_cand, p, (work.cand[:n_cand, C_ARM_FLAGS] & ARM_CHALLENGER) != 0)
        t6 = clock_ns()

        price(
            n_cand, work.cand, p, batch.imp, batch.req, q, plan.li_v, plan.cap, plan.account_usd, plan.fixed_bid,
            plan.cur_usd, slices.multiplier, plan.exchange_ids, wins.curve, wins.value, wins.bid, wins.chance,
            wins.below, wins.scaled, wins.weights, *wins.reach, scorer.rows, self.config.bidder.min_bid_micros,
            self.factor, work.value, work.bid_cpm, work.surplus,
        )  # fmt: skip
        n_bids = select(
            n_cand, n, work.cand, batch.imp, batch.req, q, plan.li_i, plan.cur_usd, work.bid_cpm, work.surplus,
            slices.available, slices.reserved, work.bids, work.first_bid,
        )  # fmt: skip
        if n_bids and plan.capped:
            inflight = self.audience.inflight.table if self._inflight is None else self._inflight
            n_bids = reserve_caps(
                n_bids, n, work.bids, work.first_bid, work.cand, batch.imp, batch.req, plan.ex_i, plan.caps,
                plan.cr_caps, work.states.rows, work.states.known, work.states.subjects, inflight,
                self.audience.hosts, now_s, slices.available, slices.reserved, work.capped,
            )  # fmt: skip
        t7 = clock_ns()

        ghosts = plan.arms.ghosts
        if (n_bids or ghosts) and not slices.live(time.monotonic_ns()):
            n_bids = 0  # the lease ended while we thought: what was reserved lapses with it
            ghosts = False
            work.first_bid[: n + 1] = 0
        if duplicates is not None:
            duplicates.done(n, work.first_bid)
        answers = self._encode(n_bids, now_s, nbr_bodies)
        t8 = clock_ns()
        if n_bids:
            self._log(n_bids, work.bids, self._first, work.records, now_s, p)
        if ghosts:
            self._log_ghosts(n_cand, now_s, p)
        self.models.shadow(n_cand, p, self.metrics)
        if shaping is not None:
            shaping.learn(n, batch, plan, work)
        self._count(n, now_ns, t0)
        marks = (t0, t1, t2, t3, t4, t5, t6, t7, t8, clock_ns())
        self.meters.stages.observe_marks(marks)
        if self.tracer is not None:
            self.tracer.offer(n, n_cand, n_bids, marks)
        return answers

    def _join(self, n: int, now_s: int) -> None:
        """Stage 3: one batched read of profiles and frequency states, only of those whose consent allows it."""
        work, batch, plan, q = self.work, self.batch, self.plan, self.work.q
        identity_keys(
            batch.req, batch.text, batch.pool, n, self._columns, plan.exchange_ids, self._pepper, work.bits, JOIN,
            work.keys, work.wanted,
        )  # fmt: skip
        t0 = time.perf_counter_ns()
        if self.audience.remote is not None:
            self.audience.budget(least_left_us(n, q) / 2000)  # half of what the most pressed request has left
        self.store.read(work.keys, work.wanted, work.profiles, work.found[:n])
        if self._old_pepper is not None:
            self._find_by_old_pepper(n)
        self.meters.store.observe_ns(0, time.perf_counter_ns() - t0)
        mask_profiles(n, work.bits, work.profiles, work.found, now_s // 86_400)
        self.audience.states(n, work.bits, work.keys, work.wanted, work.profiles, work.found, work.states)
        q[:n, Q_FOUND] = work.found[:n]
        q[:n, Q_BITS] = work.bits[:n]

    def _find_by_old_pepper(self, n: int) -> None:
        """While a pepper is being replaced: whoever wasn't found is looked for under the one before."""
        work, batch = self.work, self.batch
        assert self._old_pepper is not None
        bits = np.where(work.found[:n] == 0, work.bits[:n], 0)
        keys, wanted = np.empty_like(work.keys), np.empty_like(work.wanted)
        profiles, found = np.empty_like(work.profiles), np.zeros(n, np.int64)
        identity_keys(
            batch.req, batch.text, batch.pool, n, self._columns, self.plan.exchange_ids, self._old_pepper, bits, JOIN,
            keys, wanted,
        )  # fmt: skip
        self.store.read(keys, wanted, profiles, found)
        rows = np.flatnonzero(found)
        work.profiles[rows], work.found[rows] = profiles[rows], 1

    def _encode(self, n_bids: int, now_s: int, nbr_bodies: bool) -> list[Answer]:
        """Stage 10: tokens, then the answers of all requests."""
        work, plan, batch, slices = self.work, self.plan, self.batch, self.slices
        first = self._first = self._ids(n_bids)
        write_tokens(
            n_bids, work.bids, work.cand, batch.imp, batch.req, work.q, work.states.subjects, work.states.known,
            plan.li_i, plan.cr_i, plan.ex_i, plan.cur_code, plan.cur_usd, plan.fx_bits, slices.period, self.signer.kid,
            slices.bucket, slices.lease, slices.epoch, first, now_s, work.records,
        )  # fmt: skip
        return self.encoder.answers(
            batch, work.q, work.cand, work.bids, n_bids, work.first_bid, work.records, first, nbr_bodies
        )

    def _enter_arms(self, n_cand: int) -> None:
        """Stage 5 of running experiments: the arm of every candidate's person."""
        work, arms = self.work, self.plan.arms
        enter_arms(
            n_cand, work.cand, self.batch.imp, work.states.subjects, work.states.known, arms.of_line_item,
            arms.experiments, arms.arms, self.models.shadows,
        )  # fmt: skip

    def _choose_again(self, n: int, n_cand: int, now_s: int, half_hour: int) -> int:
        """Stage 5 where some ads are not for everybody: how many candidates still have one."""
        work, plan, batch, when = self.work, self.plan, self.batch, self.plan.conditions
        if when.there:
            match_conditions(
                n, batch.req, batch.pool, batch.text, work.profiles, work.q, half_hour, now_s // 86_400,
                when.rows, when.keys, when.key_rows, when.any, when.used, TIER1_KEYS, TIER1_VALUES,
                when.everything, work.dims, work.values, work.ends, work.absent, work.rows_found, when.either,
                when.hold,
            )  # fmt: skip
        return choose_again(
            n_cand, work.cand, work.cand_imp, work.cand_li, batch.imp, batch.deal, batch.pool, plan.arms.creatives,
            when.line_item, when.of_creative, when.hold, plan.item, plan.shapes, plan.ad, plan.cr_i, self._share,
            plan.cur_hash, plan.usd, work.random,
        )  # fmt: skip

    def _log_ghosts(self, n_cand: int, now_s: int, p: F32) -> None:
        """Log what control people would have been bid."""
        work, plan, batch = self.work, self.plan, self.batch
        n = list_ghosts(
            n_cand, work.cand, batch.imp, batch.req, work.q, plan.li_i, plan.cur_usd, work.bid_cpm, work.ghosts
        )
        if n:
            self.meters.ghosts += n
            self._log(n, work.ghosts, self._ids(n), work.no_records, now_s, p)

    def _ids(self, n: int) -> int:
        """The first of ``n`` bid ids that nobody else has."""
        first = (self.slices.lease & 0xFFFFFF) << 40 | self._next_bid
        self._next_bid = (self._next_bid + n) & 0xFFFFFFFFFF
        return first

    def _log(self, n_bids: int, bids: I64, first_id: int, records: U8, now_s: int, p: F32) -> None:
        """Stage 11: one row per bid, with the features it was scored on."""
        writer = self._rehearsal or self.decisions
        if writer is None:
            return
        work, plan, features = self.work, self.plan, self._scored.scorer.rows
        room = writer.reserve(n_bids, features.shape[1])
        if room is None:
            return
        columns, row = room
        log_bids(
            n_bids, row, first_id, now_s, bids, work.cand, self.batch.imp, self.batch.req, plan.li_i, plan.cr_i,
            plan.ex_i, records, p, work.value, self.slices.multiplier, features,
            self._scored.scorer.version, self.models.challenger_version, *columns,
        )  # fmt: skip
        writer.commit(n_bids)

    def _count(self, n: int, now_ns: int, t0: int) -> None:
        """Metrics of a batch, without a label look-up."""
        work, batch, plan, meters = self.work, self.batch, self.plan, self.meters
        count_batch(
            n, batch.req, work.q, work.first_bid, work.bids, work.cand, plan.cr_i, work.surplus,
            meters.requests, meters.no_bid, meters.bids, meters.bad, meters.shed, meters.consent,
            meters.profiles, meters.imps_dropped, meters.worth, NBR_SLOTS,
        )  # fmt: skip
        meters.batch.observe_size(n)
        answered_ns = now_ns + time.perf_counter_ns() - t0
        meters.request.observe_array(0, answered_ns - work.arrived_ns[:n])
        meters.queue.observe_array(0, now_ns - work.arrived_ns[:n])

    # --- life ---------------------------------------------------------------------------------------------------------

    def poll(self) -> None:
        """Swap in a newer snapshot or model, if there is one; called between batches from the engine's thread."""
        self.slices.refresh(time.monotonic_ns())  # an idle worker returns what it does not need
        self.supply.poll(time.monotonic_ns())
        self._count_store()
        if self._sample is not None:
            total, now_ns = int(self.meters.requests.sum()), time.monotonic_ns()
            self._sample.take(self.batch, self.plan.exchange_names, total, now_ns, self.clock() // 1_000_000)
        snapshot_path, model_path = self._watched
        if snapshot_path is not None:
            newest = current_path(self.config)
            if newest is not None and newest != snapshot_path:
                work, ids = self.work, self.plan.exchange_ids
                self._attach(Snapshot.load(newest))
                self.work.keep_buckets(work, ids, self.plan.exchange_ids)
                self._watched = (newest, model_path)
        if model_path is not None:
            self._watch_models()

    def _watch_models(self) -> None:
        """Take up a new current model, challenger or correction; what does not load is tried again later."""
        now_ns = self.clock()
        current, other = self._retries
        current.attempt(self._watch_current, now_ns)
        other.attempt(self._watch_challenger, now_ns)
        self._watch_correction()

    def _watch_current(self) -> None:
        """Swap in what became the current model."""
        snapshot_path, model_path = self._watched
        newest = current_dir(self.config)
        if newest is not None and newest != model_path:
            self._swap_model(Scorer.load(newest))
            self._watched = (snapshot_path, newest)

    def _watch_challenger(self) -> None:
        """Take up what stands beside the current model, or let it go."""
        standing = challenger(self.config)
        if standing == self._standing:
            return
        self.models.challenge(None, 0.0)  # a former challenger leaves, whether or not the next one loads
        self._standing = None
        if standing is not None:
            self.models.challenge(Scorer.load(standing.path), standing.share)
            self._standing = standing

    def _watch_correction(self) -> None:
        """Take up a new online correction of the current model."""
        stamp = correction_stamp(self.config)
        if stamp != self._corrected_ns:
            self._corrected_ns = stamp
            self._correction = load_correction(self.config)
            self._apply_correction()

    def _apply_correction(self) -> None:
        """Line up the correction with the snapshot's line items; another model's has no effect."""
        self._ones = np.ones((self.plan.n, len(HEADS)), np.float32)
        mine = self._correction.version == self.models.current.scorer.version
        self._factor = self._correction.factors(self.plan.ids) if mine else self._ones
        self._share = self._correction.creative_shares(self.plan.cr_i[:, CR_ID])
        show_watched(self._correction.watched if mine else (), self.plan.exchange_ids.tolist(), self.metrics)

    def _count_store(self) -> None:
        """Add what the store and the frequency stage have counted since the last poll."""
        self.meters.frequency += self.work.capped
        self.work.capped[:] = 0
        stats, guard = self.store.stats, self.audience.guard
        slow, hurried = (guard.slow_reads, guard.hurried) if guard is not None else (0, 0)
        kept = self.store.served if isinstance(self.store, HotProfiles) else 0
        # timeout, unavailable, corrupt, other, hurried; then what memory answered
        seen = (slow, stats.skipped - hurried, stats.corrupt, stats.errors, hurried, kept)
        for i, (now, before) in enumerate(zip(seen[:-1], self._store_seen, strict=False)):
            self.meters.store_errors[i] += now - before
        self.meters.kept += kept - self._store_seen[-1]
        self._store_seen = seen

    def _swap_model(self, scorer: Scorer) -> None:
        self.models.current = Loaded.of(scorer)
        self._apply_correction()
        self.metrics.gauge("dsp_model_version")[...] = scorer.version
        if self.decisions is not None:
            self.decisions.set_model(SPEC_HASH, str(scorer.version))

    @contextlib.contextmanager
    def rehearsing(self) -> Iterator[Sequence[str]]:
        """Meanwhile requests do all the work and leave no trace: no budget, cap, QPS, decision, metric or sample.

        Gives the names of the exchanges there are.
        """
        real = self.slices, self.meters, self.tracer, self._inflight
        shaping, duplicates = self.shaping, self.duplicates
        if duplicates is not None:
            self.duplicates = Duplicates(self.config, alone=True)
        if shaping is not None:
            self.shaping = Shaping(self.config.shaping, Metrics.memory("rehearsal"), self.config.seed)
        kept = self._next_bid, self.work.tokens.copy(), self.work.tokens_ns.copy()
        if self._stand_ins is None:
            inflight = np.zeros(len(self.audience.inflight.table), np.uint64)
            self._stand_ins = Slices.fixed(self.plan.ids), Meters(Metrics.memory("rehearsal")), inflight
        self.tracer = None
        self.slices, self.meters, self._inflight = self._stand_ins
        self._rehearsal = (
            DecisionRehearsal(self.decisions) if self.decisions is not None else DecisionSink(len(self.work.bids), F)
        )
        self._live_at_ns = 0
        try:
            yield self.plan.exchange_names
        finally:
            self._count_store()
            self.slices, self.meters, self.tracer, self._inflight = real
            self.shaping, self.duplicates = shaping, duplicates
            self._next_bid, self.work.tokens[:], self.work.tokens_ns[:] = kept
            self._rehearsal, self._live_at_ns = None, time.monotonic_ns()
            self.slices.refresh(self._live_at_ns)
            self.plan.refresh_live(self.clock() // 1_000_000_000, self.slices.available, self.slices.multiplier)

    def warm(self) -> None:
        """Compile and touch everything with requests of every kind, then freeze what was allocated so far."""
        for array in (self.plan.rows, self.plan.dim_keys, self.plan.dim_rows, self.plan.li_i, self.plan.cr_i):
            touch(array)
        with self.rehearsing():
            for repeat in (1, 8, 32):
                bodies, formats = warm_bodies(repeat)
                for nbr in (False, True):
                    self.decide(bodies, formats, [0] * len(bodies), None, nbr)
        gc.collect()
        gc.freeze()

    def close(self) -> None:
        """Stop background work and write what is buffered."""
        self.slices.close()
        if self.decisions is not None:
            self.decisions.close()
        self.audience.close()
        if self.tracer is not None:
            self.tracer.close()
