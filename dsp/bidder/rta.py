"""The RTA engine: a batch of a media platform's questions in, answers out, through the stages of the bid engine.

Decode, identity, one profile read, `target`, `build_features`, one ONNX run and an answering kernel: the same index,
store, model and budgets as bids, and no Python per request but joining and cutting bytes. The platform runs auction
and billing, so nothing is reserved; a line item without money, stopped or out of flight is not live and not accepted.

An answer always exists: what can't be read, or comes while the engine fails or has no room, gets `default_answer`.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from dsp.audience.consent import mask_profiles
from dsp.audience.identity import load_pepper
from dsp.audience.open import Audience, open_audience
from dsp.audience.rta_ids import DEFAULT_PRIORITY, RTA_IDS, id_table, rta_keys
from dsp.base.config import Config, PlatformConfig
from dsp.base.metrics import RTA_OUTCOMES, Metrics
from dsp.bidder.engine import HALF_HOUR_S, HALF_HOURS, REFRESH_NS, NotReadyError
from dsp.bidder.gate import Q_FOUND, TIER1_KEYS, TIER1_VALUES
from dsp.bidder.plan import Plan, PlanError
from dsp.bidder.retry import Retry
from dsp.bidder.rta_answer import (
    ANSWER_BYTES,
    ANSWERS,
    ARMS,
    MAX_STRATEGIES,
    MAX_TARGET_BYTES,
    REFUSED_CODE,
    S_WIDTH,
    rta_answers,
    rta_candidates,
    rta_requests,
)
from dsp.bidder.rta_tally import T_WIDTH, Tallies
from dsp.bidder.slices import Slices
from dsp.bidder.target import target
from dsp.bidder.workspace import Workspace
from dsp.catalog.current import current_path
from dsp.catalog.index import find_row
from dsp.catalog.layout import DIM_EXCHANGE
from dsp.catalog.snapshot import Snapshot
from dsp.model.correction import Correction, correction_stamp, load_correction
from dsp.model.features import build_features
from dsp.model.registry import current_dir
from dsp.model.score import Scorer
from dsp.openrtb import rta as wire
from dsp.openrtb.columns import R_WIDTH
from dsp.openrtb.hashing import hash_text
from dsp.openrtb.limits import MAX_BATCH

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
MAX_BODY_BYTES = 64 << 10  # typical are 95 bytes; what is larger gets the default
O_SHED, O_FAILED = RTA_OUTCOMES.index("shed"), RTA_OUTCOMES.index("failed")


class Platform:
    """One platform's settings and strategies as arrays, for one snapshot. Raises `PlanError` for what can't be."""

    def __init__(self, config: PlatformConfig, plan: Plan) -> None:
        self.name = config.exchange
        exchange = plan.by_name.get(config.exchange, -1)
        if exchange < 0:
            raise PlanError(f"rta: the catalog has no exchange named {config.exchange!r}")
        self.exchange = exchange
        self.token = plan.exchange_tokens[exchange]
        self.default = bytes([0x10, 0 if config.default_accept else REFUSED_CODE])
        self.settings: I64 = np.array(
            [
                exchange, hash_text(config.country), config.utc_offset_min * 60, config.cache_accept_s,
                config.cache_refuse_s, config.cache_unknown_s, config.cache_fresh_s, config.min_price, config.max_cpc,
                config.max_cpa,
            ],
            np.int64,
        )  # fmt: skip
        priority = config.id_priority or DEFAULT_PRIORITY
        if unknown := [name for name in priority if name not in RTA_IDS]:
            raise PlanError(f"rta: {config.exchange}: unknown ids {unknown}; there are {', '.join(RTA_IDS)}")
        self.ids = id_table(priority, lambda name: int(getattr(wire, f"A_{name}_OFF")), hash_text)
        arms = [(exp, ARMS.index(arm)) for exp, arm in sorted(config.experiments.items())]
        self.experiments: I64 = np.array(arms, np.int64).reshape(-1, 2)
        currency = hash_text(config.currency)
        if currency not in plan.cur_hash.tolist():
            raise PlanError(f"rta: no rate for {config.currency}; add it to the catalog's currencies")
        self.hundredths = 100.0 * plan.account_usd / plan.cur_usd[plan.cur_hash.tolist().index(currency)]
        self._strategies(config, plan)

    def _strategies(self, config: PlatformConfig, plan: Plan) -> None:
        named = {item.line_item: item for item in config.strategies}
        known = set(plan.ids.tolist())
        rows, ids, groups = [], [], dict[bytes, int]()
        for li in sorted(
            {*_naming(plan, self.exchange), *(int(i) for i in np.flatnonzero(np.isin(plan.ids, [*named])))}
        ):
            given = named.get(int(plan.ids[li]))
            text = (given.id if given else str(plan.ids[li])).encode()
            if not 0 < len(text) <= MAX_TARGET_BYTES:
                raise PlanError(f"rta: {self.name}: strategy {text.decode()!r} has not 1 to {MAX_TARGET_BYTES} bytes")
            group = groups.setdefault(plan.lines[li].tobytes(), len(groups))
            rows.append((li, group, ANSWERS.index(given.answer) if given else 0, len(text)))
            ids.append(text)
        if missing := sorted(set(named) - known):
            raise PlanError(f"rta: {self.name}: no line items {missing}")
        if len(rows) > MAX_STRATEGIES or len(set(ids)) != len(ids):
            raise PlanError(f"rta: {self.name}: at most {MAX_STRATEGIES} strategies, each with its own id")
        self.strategies: I64 = np.array(rows, np.int64).reshape(-1, S_WIDTH)
        self.targets: U8 = np.zeros((max(1, len(ids)), MAX_TARGET_BYTES), np.uint8)
        for i, text in enumerate(ids):
            self.targets[i, : len(text)] = np.frombuffer(text, np.uint8)
        self.groups = max(1, len(groups))
        self.named = [(text.decode(), int(plan.ids[row[0]])) for text, row in zip(ids, rows, strict=True)]
        self.tally: F64 = np.zeros((len(ids), T_WIDTH), np.float64)


def _naming(plan: Plan, exchange: int) -> list[int]:
    """Indices of the line items that target the exchange by name."""
    row = find_row(plan.dim_keys, plan.dim_rows, DIM_EXCHANGE, exchange + 1)
    if row < 0:
        return []
    anywhere = plan.dim_any[DIM_EXCHANGE]
    bits = plan.rows[row] & ~plan.rows[anywhere] if anywhere >= 0 else plan.rows[row]
    return [int(i) for i in np.flatnonzero(np.unpackbits(bits.view(np.uint8), bitorder="little")) if i < plan.n]


class RtaEngine:
    """See the module. One engine belongs to one thread; `poll` swaps in a new snapshot or model between batches."""

    def __init__(
        self,
        config: Config,
        *,
        snapshot: Snapshot,
        audience: Audience,
        scorer: Scorer,
        slices: Slices,
        metrics: Metrics,
        clock: Callable[[], int] = time.time_ns,
        worker: str = "rta0",
    ) -> None:
        self.config, self.audience, self.scorer, self.slices, self.clock = config, audience, scorer, slices, clock
        self._pepper = load_pepper(config.path("secrets", "pepper.json"))
        self._counted = metrics.counter("dsp_rta_requests_total")
        self._accepts = metrics.counter("dsp_rta_accepts_total")
        self._seconds = metrics.histogram("dsp_request_seconds")
        self._batches = metrics.histogram("dsp_batch_size")
        self._metrics = metrics
        self._tag = 0
        self.platforms: list[Platform] = []
        self._tallies, self._days = Tallies(config.path("rta"), worker), list[int]()
        self._corrected_ns = 0
        self._watched: tuple[Path | None, Path | None] = (None, None)
        self._retry = Retry("new model")
        self._asked: I64 = np.zeros((MAX_BATCH, wire.A_WIDTH), np.int64)
        self._exps: I64 = np.zeros((MAX_BATCH, wire.MAX_EXPS), np.int64)
        self._ads: I64 = np.zeros((MAX_BATCH, wire.MAX_ADS, wire.AD_WIDTH), np.int64)
        self._req: I64 = np.zeros((MAX_BATCH, R_WIDTH), np.int64)
        self._none: I64 = np.zeros(1, np.int64)
        self._out: U8 = np.zeros(MAX_BATCH * ANSWER_BYTES, np.uint8)
        self._answered: I64 = np.zeros(MAX_BATCH, np.int64)  # where each answer ends
        self._wants: I64 = np.zeros((MAX_BATCH, MAX_STRATEGIES), np.int64)
        self._wanting: I64 = np.zeros(MAX_BATCH, np.int64)
        self._ends: I64 = np.zeros(MAX_BATCH, np.int64)
        self._heads = np.zeros(5, np.float32)
        self._price: I64 = np.zeros((MAX_STRATEGIES, 2), np.int64)
        self._weight = np.zeros(MAX_STRATEGIES, np.float64)
        self._f = np.zeros(1, np.float32)
        self._means: dict[int, float] = {}  # of strategies by line item, over snapshots
        self._ids: list[int] = []
        self._mean: F64 = np.zeros(0, np.float64)
        self._attach(snapshot)

    @classmethod
    def open(
        cls, config: Config, *, metrics: Metrics | None = None, slices: Slices | None = None, worker: str = "rta0",
        clock: Callable[[], int] = time.time_ns,
    ) -> Self:  # fmt: skip
        """An engine over ``config.data_dir``. Raises `NotReadyError` without a snapshot or model."""
        snapshot_path, model_path = current_path(config), current_dir(config)
        if snapshot_path is None or model_path is None:
            raise NotReadyError("no catalog snapshot or no model yet: `dsp catalog publish`, `dsp train`")
        engine = cls(
            config,
            snapshot=Snapshot.load(snapshot_path),
            audience=open_audience(config),
            scorer=Scorer.load(model_path),
            slices=slices if slices is not None else Slices(config, worker=worker),
            metrics=metrics if metrics is not None else Metrics.memory("bidder"),
            clock=clock,
            worker=worker,
        )
        engine._watched = snapshot_path, model_path
        return engine

    def _attach(self, snapshot: Snapshot) -> None:
        plan = Plan(snapshot)
        platforms = [Platform(each, plan) for each in self.config.rta.platforms]
        self._tally()
        self._means.update(zip(self._ids, self._mean.tolist(), strict=True))
        self._ids = plan.ids.tolist()
        self.plan = plan
        self.platforms = platforms
        self._days = self._today()
        self.by_name = {platform.name: k for k, platform in enumerate(platforms)}
        self.work = Workspace(8, plan.rows.shape[1], self.config.seed)
        self._mean = np.array([self._means.get(i, 0.0) for i in self._ids], np.float64)
        self._row_of: I64 = np.zeros((MAX_BATCH, max([p.groups for p in platforms], default=1)), np.int64)
        self.slices.attach(plan.ids)
        self._live_at_ns = 0
        self._correct()
        self._metrics.name_labels("exchange", plan.exchange_names)

    def _correct(self) -> None:
        """Line up the model's online correction with the snapshot; another model's has no effect."""
        correction = load_correction(self.config)
        mine = correction if correction.version == self.scorer.version else Correction()
        self._factor = mine.factors(self.plan.ids)

    def platform_of(self, name: str) -> int:
        """A platform's number by its exchange's name, -1 if there is none."""
        return self.by_name.get(name, -1)

    def token_of(self, platform: int) -> str:
        """The bearer token it must send; "" when it needs none."""
        return self.platforms[platform].token

    def callers_of(self, platform: int) -> tuple[str, Sequence[str]]:
        """The header that names its certificate ("name: value", "" for none) and the networks it calls from."""
        return self.plan.exchange_callers[self.platforms[platform].exchange]

    def default_answer(self, platform: int, body: bytes, outcome: int = O_SHED) -> bytes:
        """What a request gets that isn't decided: its id, where it comes first as it should, and the default code."""
        known = self.platforms[platform]
        self._counted[known.exchange, outcome] += 1
        if len(body) > 2 and body[0] == 0x0A and body[1] < 0x80 and len(body) >= 2 + body[1]:
            return body[: 2 + body[1]] + known.default
        return known.default

    def decide(self, platform: int, bodies: Sequence[bytes]) -> list[bytes]:
        """Answers to up to MAX_BATCH requests of one platform, in their order."""
        if len(bodies) > MAX_BATCH:
            return [
                a for i in range(0, len(bodies), MAX_BATCH) for a in self.decide(platform, bodies[i : i + MAX_BATCH])
            ]
        t0 = time.perf_counter_ns()
        n, known, work, plan, slices = len(bodies), self.platforms[platform], self.work, self.plan, self.slices
        sizes = list(map(len, bodies))
        if max(sizes, default=0) > MAX_BODY_BYTES:
            bodies = [body if len(body) <= MAX_BODY_BYTES else b"\xff" for body in bodies]
            sizes = list(map(len, bodies))
        now_ns, now_s = time.monotonic_ns(), self.clock() // 1_000_000_000
        slices.refresh(now_ns)
        if now_ns - self._live_at_ns > REFRESH_NS:
            plan.refresh_live(now_s, slices.available, slices.multiplier)
            self._live_at_ns = now_ns
        text = np.frombuffer(bytearray(b"".join([*bodies, b"\0"])), np.uint8)
        self._ends[:n] = list(accumulate(sizes))
        asked, q = self._asked, work.q
        wire.decode_rta(text, self._ends, n, asked, self._exps, self._ads)
        rta_requests(n, asked, known.settings, now_s, self._req, q, work.bits, work.ctx)
        rta_keys(asked, wire.A_DOUBTFUL, text, n, known.ids, self._pepper, work.keys, work.wanted)
        self.audience.store.read(work.keys, work.wanted, work.profiles, work.found[:n])
        mask_profiles(n, work.bits, work.profiles, work.found)
        np.multiply(work.bits[:n], work.found[:n], out=work.bits[:n])  # without consent on record nothing is read
        self.audience.states(n, work.bits, work.keys, work.wanted, work.profiles, work.found[:n], work.states)
        q[:n, Q_FOUND] = work.found[:n]
        half_hour = (now_s // HALF_HOUR_S + 144) % HALF_HOURS
        target(
            n, self._req, self._none, text, work.profiles, q, half_hour, now_s // 86_400,
            plan.rows, plan.dim_keys, plan.dim_rows, plan.dim_any, plan.dim_used, TIER1_KEYS, TIER1_VALUES,
            plan.live, work.dims, work.values, work.ends, work.absent, work.rows_found, work.either, work.matched,
            work.some,
        )  # fmt: skip
        rows = rta_candidates(
            n, q, work.found, work.profiles, work.states.rows, work.states.known, work.matched, work.some,
            known.strategies, plan.li_i, work.ctx,
            self._row_of, self._wants, self._wanting, work.cand_imp, work.cand_li,
        )  # fmt: skip
        build_features(self.scorer.rows, rows, work.cand_imp, work.cand_li, work.ctx, work.profiles, plan.lines)
        p = self.scorer.run(rows)
        rta_answers(
            n, asked, self._exps, self._ads, text, known.settings, known.experiments, known.strategies, known.targets,
            work.found, work.profiles, work.states.rows, work.states.known,
            self._row_of, self._wants, self._wanting, p, self._factor, plan.li_i, plan.li_v,
            known.hundredths, slices.multiplier, self._mean, (now_s & 0x7FFFFFFF) << 24 | self._tag & 0xFFFF00,
            self._heads, self._price, self._weight, self._f, self._f.view(np.int32), self._out, self._answered,
            self._counted[known.exchange], self._accepts[known.exchange : known.exchange + 1], known.tally,
        )  # fmt: skip
        self._tag += 256
        ends = self._answered[:n].tolist()
        said = self._out[: ends[-1]].tobytes()
        answers = [said[start:end] or known.default for start, end in pairwise([0, *ends])]
        self._batches.observe_size(n)
        self._seconds.observe_ns(0, time.perf_counter_ns() - t0)
        return answers

    def _today(self) -> list[int]:
        """Each platform's day, since 1970."""
        now_s = self.clock() // 1_000_000_000
        return [(now_s + each.utc_offset_min * 60) // 86_400 for each in self.config.rta.platforms]

    def _tally(self) -> None:
        """Hand on what the strategies' sums have grown by, to the days that were when it was last looked."""
        for platform, day in zip(self.platforms, self._days, strict=True):
            self._tallies.add(day, platform.name, platform.named, platform.tally)
        self._days = self._today()

    def poll(self) -> None:
        """Swap in a newer snapshot or model, if there is one; keep the strategies' sums."""
        self.slices.refresh(time.monotonic_ns())
        now_s = self.clock() // 1_000_000_000
        if self._tallies.due(now_s) or self._days != self._today():
            self._tally()
            self._tallies.keep(now_s)
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
            self.scorer = Scorer.load(newest)
            self._watched = snapshot_path, newest

    def warm(self) -> None:
        """Compile and touch everything, without counting it."""
        counted, accepts = self._counted, self._accepts
        self._counted, self._accepts = np.zeros_like(counted), np.zeros_like(accepts)
        body = b"\x0a\x01w\x18\x01\x2a\x04\x08\x02\x48\x00"
        for platform in range(len(self.platforms)):
            for repeat in (1, 8, MAX_BATCH):
                self.decide(platform, [body] * repeat)
        self._counted, self._accepts = counted, accepts
        gc.collect()
        gc.freeze()

    def close(self) -> None:
        """Keep the strategies' sums, stop background work."""
        self._tally()
        self._tallies.keep(self.clock() // 1_000_000_000)
        self.slices.close()
        self.audience.close()
