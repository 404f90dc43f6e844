"""Counters, gauges and histograms as int64 arrays in one memory-mapped file per worker.

The hot path, numba kernels included, adds to plain arrays: no lock, no label look-up, no dict. A worker's file is
``data_dir/run/<role>-<n>.metrics``; `render` adds up all files of a role, so one ``/metrics`` speaks for all workers,
dead ones included: what a crashed worker counted stays in its file, and the process that takes over its number n goes
on from there, so counters never fall. Only gauges die with a process. Invariant: one process writes a file at a time.

The table `DEFINITIONS` is the only place where a metric or a label value is named.
"""

from __future__ import annotations

import json
import math
import mmap
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numba as nb
import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

I64 = npt.NDArray[np.int64]

NBR_CODES = (*range(18), *range(500, 532))  # OpenRTB no-bid reasons, and ours
_NBR_SLOT = {code: slot for slot, code in enumerate(NBR_CODES)}
STAGES = ("decode", "gate", "audience", "target", "features", "score", "price", "encode", "log", "total")
OUTCOMES = ("bid", "no_bid", "bad", "too_large", "shed", "unauthorized")  # the first five: kinds of dsp.bidder.answer
MEDIA = ("banner", "video", "audio", "native")  # slot = number of the medium's bit
# The first twelve are the decode statuses E_* of dsp.openrtb.columns, 0 standing for anything else.
BAD_REASONS = (
    *(
        "other",
        "syntax",
        "utf8",
        "type",
        "number",
        "depth",
        "no_id",
        "no_imp",
        "imp_id",
        "dup_imp_id",
        "truncated",
        "limit",
    ),
    *("gzip", "body_too_large", "body_cut", "body_late", "content_type", "content_encoding", "unknown_exchange"),
)
RTA_OUTCOMES = ("accept", "refuse", "unknown", "ping", "test", "bad", "shed", "failed")
ARTF_OUTCOMES = ("proposed", "nothing", "bad", "shed", "late", "failed")
ARTF_INTENTS = ("segments", "activate_deals", "suppress_deals", "bid_shade")
SHAPED = ("refused", "explored")
SUPPLY = (
    "proxy_ip", "incomplete_chain", "no_ads_txt", "ads_txt", "unlisted_seller", "fraud", "viewability", "blocked_node",
    "duplicate",
)  # fmt: skip
SHED_REASONS = ("queue", "qps", "draining", "deadline", "delay")
FREQUENCY_DROPS = ("capped", "unknown", "suppressed", "in_flight", "table_full")
STORE_ERRORS = ("timeout", "unavailable", "corrupt", "other", "hurried")
PROFILES = ("found", "missing", "denied")
MODEL_ROLES = ("current", "challenger")
HEADS = ("click", "apply", "approve", "fund", "default")
# Slot = bits: 1 profile join, 2 frequency counting, 4 risk join.
CONSENT = (
    *("none", "profile", "frequency", "profile+frequency"),
    *("risk", "profile+risk", "frequency+risk", "profile+frequency+risk"),
)


@dataclass(frozen=True)
class Capacity:
    """A label whose values are numbered while running; `Metrics.name_labels` says what they are called."""

    name: str
    size: int


@dataclass(frozen=True)
class Definition:
    """One metric: ``labels`` maps a label's name to its fixed values or to a `Capacity`, in array order."""

    name: str
    kind: str  # counter, gauge_sum, gauge_max, seconds, sizes
    help: str
    labels: tuple[tuple[str, tuple[str, ...] | Capacity], ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """How many values each label has; (1,) for no labels."""
        return tuple(values.size if isinstance(values, Capacity) else len(values) for _, values in self.labels) or (1,)


EXCHANGES = Capacity("exchange", 64)
UNKNOWN_EXCHANGE = EXCHANGES.size - 1  # the last slot of a Capacity label is for what has no number

LINE_ITEMS = Capacity("line_item", 65)  # the busiest; all of them would be too many series

DEFINITIONS: tuple[Definition, ...] = (
    Definition(
        "dsp_bid_requests_total",
        "counter",
        "Bid requests by exchange and what became of them.",
        (("exchange", EXCHANGES), ("outcome", OUTCOMES)),
    ),
    Definition(
        "dsp_no_bid_total",
        "counter",
        "No-bids by OpenRTB no-bid reason.",
        (("reason", tuple(str(code) for code in NBR_CODES)),),
    ),
    Definition(
        "dsp_bids_total",
        "counter",
        "Bids by exchange and medium (a response may hold several).",
        (("exchange", EXCHANGES), ("media", MEDIA)),
    ),
    Definition(
        "dsp_bid_surplus_micros_total",
        "counter",
        "Expected surplus of bids by exchange, CPM micro-dollars: what its requests are worth to us.",
        (("exchange", EXCHANGES),),
    ),
    Definition(
        "dsp_shaped_requests_total",
        "counter",
        "Requests that traffic shaping refused, and those it would have refused but processed to learn from.",
        (("exchange", EXCHANGES), ("what", SHAPED)),
    ),
    Definition(
        "dsp_shaped_lost_micros_total",
        "counter",
        "Expected surplus lost with the refused, CPM micro-dollars: what the explored brought, for all they stand for.",
        (("exchange", EXCHANGES),),
    ),
    Definition(
        "dsp_shaped_saved_micros_total",
        "counter",
        "Cost of processing saved with the refused, CPM micro-dollars.",
        (("exchange", EXCHANGES),),
    ),
    Definition(
        "dsp_supply_refused_total",
        "counter",
        "Requests refused for the quality of their supply.",
        (("exchange", EXCHANGES), ("reason", SUPPLY)),
    ),
    Definition("dsp_bad_requests_total", "counter", "Requests refused as malformed.", (("reason", BAD_REASONS),)),
    Definition("dsp_shed_total", "counter", "Requests refused for lack of room or rate.", (("reason", SHED_REASONS),)),
    Definition("dsp_imps_dropped_total", "counter", "Impressions beyond the bound of one request, not considered."),
    Definition("dsp_consent_total", "counter", "Requests by what consent and law allow.", (("decision", CONSENT),)),
    Definition("dsp_profiles_total", "counter", "Profile joins.", (("result", PROFILES),)),
    Definition("dsp_store_errors_total", "counter", "Failed reads of the audience store.", (("kind", STORE_ERRORS),)),
    Definition("dsp_profiles_kept_total", "counter", "Profiles answered from memory while the store did not."),
    Definition(
        "dsp_frequency_total",
        "counter",
        "Candidates and bids that frequency or suppression took out.",
        (("reason", FREQUENCY_DROPS),),
    ),
    Definition(
        "dsp_rta_requests_total",
        "counter",
        "RTA requests by platform and what became of them.",
        (("exchange", EXCHANGES), ("outcome", RTA_OUTCOMES)),
    ),
    Definition("dsp_rta_accepts_total", "counter", "Strategies accepted.", (("exchange", EXCHANGES),)),
    Definition(
        "dsp_artf_requests_total",
        "counter",
        "ARTF requests by what became of them; late: not answered, its time was over.",
        (("outcome", ARTF_OUTCOMES),),
    ),
    Definition("dsp_artf_mutations_total", "counter", "Mutations proposed.", (("intent", ARTF_INTENTS),)),
    Definition("dsp_decisions_dropped_total", "counter", "Decision rows the log had no room for."),
    Definition("dsp_engine_errors_total", "counter", "Batches that failed inside the engine; answered as no-bids."),
    Definition("dsp_worker_restarts_total", "counter", "Workers that died and were started again."),
    Definition("dsp_stage_seconds", "seconds", "Time of one batch in one stage.", (("stage", STAGES),)),
    Definition("dsp_request_seconds", "seconds", "Time from a request's arrival to its answer."),
    Definition("dsp_queue_seconds", "seconds", "Time from a request's arrival until the engine took it."),
    Definition("dsp_store_seconds", "seconds", "Time of one batched read of the audience store."),
    Definition("dsp_batch_size", "sizes", "Requests per batch."),
    Definition("dsp_queue_depth", "gauge_sum", "Requests waiting for the engine."),
    Definition("dsp_workers", "gauge_sum", "Workers alive and ready."),
    Definition("dsp_snapshot_version", "gauge_max", "Newest catalog snapshot in use."),
    Definition("dsp_model_version", "gauge_max", "Newest model in use."),
    Definition(
        "dsp_calibration_thousandths",
        "gauge_max",
        "Predicted over observed by the model alone, times 1000; 0: nothing observed.",
        (("exchange", EXCHANGES), ("head", HEADS)),
    ),
    Definition(
        "dsp_line_item_calibration_thousandths",
        "gauge_max",
        "The same of the 64 line items with the most outcomes; of all of them: dsp model drift.",
        (("line_item", LINE_ITEMS), ("head", HEADS)),
    ),
    Definition(
        "dsp_calibration_alerts",
        "gauge_max",
        "Line items, exchanges and totals whose corrected predictions left their band.",
        (("head", HEADS),),
    ),
    Definition("dsp_ghost_bids_total", "counter", "Bids that people of a control arm would have got."),
    Definition("dsp_shadow_rows_total", "counter", "Candidate rows that a shadowing model and the current one scored."),
    Definition(
        "dsp_shadow_score_millionths_total",
        "counter",
        "Sum of the scores that both models gave those rows, in millionths.",
        (("model", MODEL_ROLES), ("head", HEADS)),
    ),
)

# --- histograms ---------------------------------------------------------------------------------------------------
# Seconds: half octaves of whole microseconds, found by a multiplication and a bit length: bucket b holds us² < 2^b, so
# its edge is ceil(2^(b/2)) µs: 1, 2, 3, 4, 6, 8, 12, 16, 23, 32 ... up to 8.4 s. (b = 1 and 2 share the edge of 2 µs.)
_ROOTS = 47
SECONDS_BUCKETS = tuple((math.isqrt((1 << b) - 1) + 1) * 1e-6 for b in range(_ROOTS))
SIZES_BUCKETS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
_EDGES = {"seconds": SECONDS_BUCKETS, "sizes": SIZES_BUCKETS}
_UNIT = {"seconds": 1e9, "sizes": 1.0}  # what the int64 sum counts: nanoseconds, items


class Histogram:
    """``counts`` int64[labels, buckets + 1] (the last is +Inf) and ``sums`` int64[labels] in nanoseconds (or items)."""

    __slots__ = ("_last", "_sums_at", "_view", "_width", "counts", "sums")

    def __init__(self, cells: I64, labels: int, buckets: int) -> None:
        self._width = buckets + 1
        self._last = buckets
        split = labels * self._width
        self.counts = cells[:split].reshape(labels, self._width)
        self.sums = cells[split:]
        self._view: memoryview[int] = memoryview(cells)  # type: ignore[arg-type]  # adds in a third of an array's time
        self._sums_at = split

    def observe(self, i: int, seconds: float) -> None:
        """One observation under the i-th label value."""
        self.observe_ns(i, int(seconds * 1e9))

    def observe_n(self, i: int, seconds: float, n: int) -> None:
        """``n`` observations of ``seconds`` each, say all requests of a batch."""
        self.observe_ns(i, int(seconds * 1e9), n)

    def observe_ns(self, i: int, ns: int, n: int = 1) -> None:
        """``n`` observations of ``ns`` nanoseconds each. About 0.6 µs."""
        us = ns // 1000
        bucket = (us * us).bit_length()
        if bucket > self._last:  # noqa: PLR1730  # min() costs as much as the rest
            bucket = self._last
        view = self._view
        view[i * self._width + bucket] += n
        view[self._sums_at + i] += ns * n

    def observe_marks(self, marks: tuple[int, ...]) -> None:
        """A batch's way through its stages: ``marks[i]`` to ``marks[i + 1]`` (ns) under label i, all under the next.

        All in one kernel call, about 1 µs for ten stages. Give it tuples of one length: each length compiles once.
        """
        _observe_marks(self.counts, self.sums, marks)

    def observe_array(self, i: int, ns: I64) -> None:
        """All of ``ns`` (int64, nanoseconds) under the i-th label value, in one kernel call."""
        _observe_array(self.counts, self.sums, i, ns)

    def observe_size(self, size: int) -> None:
        """One observation of a size, for histograms of kind ``sizes``."""
        self.counts[0, min((size - 1).bit_length() if size > 0 else 0, self._last)] += 1
        self.sums[0] += size


@nb.njit(cache=True)
def _bucket(ns: int, last: int) -> int:
    us = ns // 1000
    square, bucket = us * us, 0
    while square > 0 and bucket < last:
        square >>= 1
        bucket += 1
    return bucket


@nb.njit(cache=True)
def _observe_array(counts: I64, sums: I64, i: int, ns: I64) -> None:
    for k in range(ns.shape[0]):
        counts[i, _bucket(ns[k], counts.shape[1] - 1)] += 1
        sums[i] += ns[k]


@nb.njit(cache=True)
def _observe_marks(counts: I64, sums: I64, marks: tuple[int, ...]) -> None:
    last = counts.shape[1] - 1
    for i in range(len(marks)):
        ns = marks[i + 1] - marks[i] if i + 1 < len(marks) else marks[i] - marks[0]
        counts[i, _bucket(ns, last)] += 1
        sums[i] += ns


def nbr_slot(code: int) -> int:
    """Index of an OpenRTB no-bid reason in ``dsp_no_bid_total``; unlisted codes count as 0 (unknown error)."""
    return _NBR_SLOT.get(code, 0)


# --- layout of a file -----------------------------------------------------------------------------------------------
# 4 words of header (magic, hash of the definitions, pid, 0), then every metric's cells in table order.
_MAGIC = 0x4D_50_53_44
_HEADER = 4


def _cells(d: Definition) -> int:
    size = int(np.prod(d.shape, dtype=np.int64))
    return size * (len(_EDGES[d.kind]) + 2) if d.kind in _EDGES else size


_BY_NAME = {d.name: d for d in DEFINITIONS}
_OFFSET: dict[str, int] = {}
_WORDS = _HEADER
for _d in DEFINITIONS:
    _OFFSET[_d.name] = _WORDS
    _WORDS += _cells(_d)
_LAYOUT = int.from_bytes(blake2b(repr((DEFINITIONS, _EDGES)).encode(), digest_size=7).digest(), "little")


class Metrics:
    """The metrics of one process. `create` maps its file, `memory` none (tests, tools)."""

    def __init__(self, cells: I64, role: str, path: Path | None) -> None:
        self.role = role
        self.path = path
        self._all = cells

    @classmethod
    def memory(cls, role: str = "test") -> Metrics:
        """Metrics that nobody else sees."""
        return cls(np.zeros(_WORDS, np.int64), role, None)

    @classmethod
    def create(cls, path: Path, role: str) -> Metrics:
        """Map ``path``, going on from a dead predecessor's counters; from zero if new or of another layout."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if _read(path) is None:
            temporary = path.with_suffix(f".{os.getpid()}")
            head = np.zeros(_WORDS, np.int64)
            head[:2] = _MAGIC, _LAYOUT
            temporary.write_bytes(head.tobytes())
            temporary.replace(path)
        with path.open("r+b") as file:
            cells = np.frombuffer(mmap.mmap(file.fileno(), _WORDS * 8), np.int64)
        cells[2] = os.getpid()
        metrics = cls(cells, role, path)
        metrics.clear_gauges()
        return metrics

    def counter(self, name: str) -> I64:
        """int64 array shaped by the metric's labels, (1,) for none: add to it."""
        return self._array(name, "counter")

    def gauge(self, name: str) -> I64:
        """int64 array shaped by the metric's labels, (1,) for none: ``gauge[...] = value``."""
        return self._array(name, "gauge")

    def histogram(self, name: str) -> Histogram:
        """The histogram of that name. Raises KeyError where there is none."""
        d = _BY_NAME[name]
        if d.kind not in _EDGES:
            raise KeyError(f"{name} is a {d.kind}")
        labels = int(np.prod(d.shape, dtype=np.int64))
        return Histogram(self._flat(d), labels, len(_EDGES[d.kind]))

    def clear_gauges(self) -> None:
        """Zero every gauge: on start, and when this process stops being one of the role's workers."""
        for d in DEFINITIONS:
            if d.kind.startswith("gauge"):
                self._flat(d)[:] = 0

    def name_labels(self, label: str, names: Sequence[str]) -> None:
        """Say what the values of a `Capacity` label are called, in order; written next to the metrics file."""
        if self.path is None:
            return
        path = labels_path(self.path.parent, label)
        text = json.dumps(list(names))
        if path.exists() and path.read_text() == text:
            return
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(text)
        temporary.replace(path)

    def _flat(self, d: Definition) -> I64:
        start = _OFFSET[d.name]
        return self._all[start : start + _cells(d)]

    def _array(self, name: str, kind: str) -> I64:
        d = _BY_NAME[name]
        if not d.kind.startswith(kind):
            raise KeyError(f"{name} is a {d.kind}")
        return self._flat(d).reshape(d.shape)


def labels_path(directory: Path, label: str) -> Path:
    """Where the names of a `Capacity` label's values are kept."""
    return directory / f"{label}.labels.json"


def clear_gauges(path: Path) -> None:
    """Zero the gauges of a dead worker's file; called by whoever reaps it."""
    cells = _read(path)
    if cells is not None:
        Metrics.create(path, "reaped")


def _read(path: Path) -> I64 | None:
    """A file's words, or None where it is missing or of another layout."""
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    if len(raw) != _WORDS * 8:
        return None
    cells = np.frombuffer(raw, np.int64)
    return cells if cells[0] == _MAGIC and cells[1] == _LAYOUT else None


# --- rendering --------------------------------------------------------------------------------------------------------
class _Role(Collector):
    """Sums of all files whose name starts with a prefix, as prometheus_client wants them."""

    def __init__(self, directory: Path, prefix: str, names: Collection[str]) -> None:
        self._directory, self._names = directory, names
        files = [_read(path) for path in sorted(directory.glob(f"{prefix}*.metrics"))]
        known = [cells for cells in files if cells is not None] or [np.zeros(_WORDS, np.int64)]
        stacked = np.stack(known)
        self._sum, self._max = stacked.sum(0), stacked.max(0)

    def collect(self) -> Iterator[Metric]:
        for d in DEFINITIONS:
            if self._names and d.name not in self._names:
                continue
            start = _OFFSET[d.name]
            cells = (self._max if d.kind == "gauge_max" else self._sum)[start : start + _cells(d)]
            yield self._family(d, cells)

    def _family(self, d: Definition, cells: I64) -> Metric:
        names = [name for name, _ in d.labels]
        rows = list(self._label_rows(d))
        if d.kind in _EDGES:
            edges = [*(f"{edge:.12g}" for edge in _EDGES[d.kind]), "+Inf"]
            split = len(rows) * len(edges)
            counts = cells[:split].reshape(len(rows), len(edges)).cumsum(axis=1)
            histogram = HistogramMetricFamily(d.name, d.help, labels=names)
            for i, (values, _) in enumerate(rows):
                # A later bucket with the same edge holds more: it replaces the earlier one.
                buckets = list(dict(zip(edges, (float(count) for count in counts[i]), strict=True)).items())
                histogram.add_metric(values, buckets, float(cells[split + i]) / _UNIT[d.kind])
            return histogram
        family = (CounterMetricFamily if d.kind == "counter" else GaugeMetricFamily)(d.name, d.help, labels=names)
        for (values, named), value in zip(rows, cells, strict=True):
            if named or value:
                family.add_metric(values, float(value))
        return family

    def _label_rows(self, d: Definition) -> Iterator[tuple[list[str], bool]]:
        """Each cell's label values, and whether all of them have a name of their own."""
        columns = [self._label_values(values) for _, values in d.labels]
        for index in np.ndindex(d.shape):
            cell = [column[i] for column, i in zip(columns, index, strict=False)]
            yield [name for name, _ in cell], all(named for _, named in cell)

    def _label_values(self, values: tuple[str, ...] | Capacity) -> list[tuple[str, bool]]:
        if not isinstance(values, Capacity):
            return [(value, True) for value in values]
        path = labels_path(self._directory, values.name)
        names = json.loads(path.read_text()) if path.exists() else []
        known = [(names[i], True) if i < len(names) else (str(i), False) for i in range(values.size - 1)]
        return [*known, ("unknown", False)]


def render(directory: Path, role_prefix: str, names: Collection[str] = ()) -> bytes:
    """All workers of a role added up, in Prometheus' text format; of these metrics alone where there are ``names``."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Role(directory, role_prefix, names))
    return generate_latest(registry)
