"""Traffic shaping, behind the gate: requests that don't pay for their own processing are refused as soon as read.

What a request is worth is the expected surplus of its bids (`dsp.bidder.price`), learned by exchange, publisher,
format and geo (`dsp.control.worth`) from the requests that were processed. What is worth less than its processing costs
is refused, and of the rest what is worth least, as long as all of that together is no more than a share that may be
given up (``shaping.give_up``): machines that are busy with it can't do better things. A seeded share of what would be
refused is processed all the same: it keeps the learned worth true, finds what has changed, and says what refusing has
cost.

Each worker counts in its own file, ``run/shape-<worker>.cells``, as with metrics, and a few seconds apart adds up those
of all workers, dead ones included, each as old as it is. So what one has learned all know, and a restart knows it too.
Nothing is learned while nothing may be bid (no lease, no live line item): that would say that all traffic is worthless.
"""

from __future__ import annotations

import math
import mmap
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dsp.base.config import Config, ShapingConfig
from dsp.base.kernel import inlined, kernel
from dsp.base.metrics import Metrics
from dsp.bidder.gate import GO, Q_CURRENCY, Q_NBR
from dsp.bidder.plan import Plan
from dsp.bidder.price import B_CAND, B_PRICE
from dsp.bidder.rank import C_LI
from dsp.bidder.workspace import Workspace
from dsp.control.worth import (
    ADMIT,
    BINS,
    FULL,
    SLOTS,
    UNKNOWN,
    W_OFFERED,
    W_REQUESTS,
    W_SURPLUS,
    W_WIDTH,
    add,
    bin_of,
    collect,
    expected,
    find,
    forget,
    place,
    price_of_room,
    thin,
    value_parts,
    value_wholes,
)
from dsp.openrtb.codes import NBR_NOT_WORTH
from dsp.openrtb.columns import (
    CHANNEL_APP,
    I_B_SIZES0,
    I_B_SIZESN,
    I_INSTL,
    I_MEDIA,
    I_V_H,
    I_V_W,
    R_BUNDLE,
    R_CHANNEL,
    R_COUNTRY,
    R_DOMAIN,
    R_EXCHANGE,
    R_IMP0,
    R_IMPN,
    R_PUBLISHER,
    R_TEST,
    Batch,
)
from dsp.openrtb.hashing import hash_text, mix64
from dsp.openrtb.limits import MAX_BATCH

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]

SHAPE_FILES = "shape-*.cells"
UPDATE_S = 2.0
RECENT = 32_768  # requests that say what may be given up; then they count half
_MAGIC = 0x31_45_50_48_53
_BYTES = 64 + SLOTS * W_WIDTH * 8
USD_CPM_MICROS = 1_000.0  # of one request, per dollar for a million requests
FIXED = 0.1  # what a bid at its buyer's own price is taken to bring, of that price
REFUSED, TRIED = 0, 1  # dsp_shaped_requests_total
NOTHING, USUAL, EXPLORED = range(3)
OF_TEACHES, OF_WIDTH = 5, 6  # after the rows of exchange, publisher, format, geo and all of them
ADMITTED = (1 << 32) // ADMIT


@kernel
def key_of(a: int, b: int, salt: int) -> int:
    """A cell's key from what it is of; never 0."""
    h = mix64(mix64(np.uint64(a) + np.uint64(salt)) ^ np.uint64(b))
    return np.int64(h) if h != 0 else np.int64(1)  # type: ignore[return-value]  # numba's int


@kernel
def exchange_key(exchange: int) -> int:
    """The key of an exchange's cell by its public id."""
    return key_of(exchange, 1, 1)


@kernel
def cell_keys(r: int, req: I64, imp: I64, pool: I64, exchange: int) -> tuple[int, int, int, int, int]:
    """Keys of (the exchange, its publisher, its format, its geo, all of them) of request ``r``.

    ``exchange`` is the public id. The publisher is its id or, where that isn't said, the site or app; the format is
    the media of all imps with the first one's size; geo is the country.
    """
    publisher = req[r, R_PUBLISHER]
    if publisher == 0:
        publisher = req[r, R_BUNDLE] if req[r, R_CHANNEL] == CHANNEL_APP else req[r, R_DOMAIN]
    first, media = req[r, R_IMP0], np.int64(0)
    for i in range(first, first + req[r, R_IMPN]):
        media |= imp[i, I_MEDIA]
    if imp[first, I_B_SIZESN] > 0:
        size = pool[imp[first, I_B_SIZES0]]
    else:
        size = max(imp[first, I_V_W], 0) << 16 | max(imp[first, I_V_H], 0)
    form = size << 8 | media << 1 | (1 if imp[first, I_INSTL] == 1 else 0)
    by_publisher = key_of(exchange, publisher, 2)
    by_format = key_of(exchange, form, 3)
    by_geo = key_of(exchange, req[r, R_COUNTRY], 4)
    return exchange_key(exchange), by_publisher, by_format, by_geo, key_of(by_publisher ^ by_format, by_geo, 5)


@kernel
def shape(
    n: int, req: I64, imp: I64, pool: I64, exchange_ids: I64, cells: I64, counts: F64, worth: F64, brought: F64,
    least: float, explore: int, random: U64, learn: bool, nbr: int, cost: int, q: I64, of: I64, shaped: I64,
    saved: I64,
) -> None:  # fmt: skip
    """Refuse what is worth less than ``least``: Q_NBR becomes ``nbr``. ``of`` int64[n, OF_WIDTH] gets the rows of the
    cells of each request, -1 for none, and last what it will teach: NOTHING, USUAL or, where it is only EXPLORED.

    ``worth`` float64[SLOTS] and ``brought`` float64[BINS] as of `dsp.control.worth`; ``explore`` is the share to
    process all the same, in 2^32 parts; ``shaped`` int64[exchanges, 2] counts refused and explored, ``saved``
    int64[exchanges] adds ``cost`` (CPM micros of USD) of each refused one.
    """
    for r in range(n):
        row = of[r]
        row[OF_TEACHES] = NOTHING
        if q[r, Q_NBR] != GO or req[r, R_TEST] == 1:
            continue
        x = req[r, R_EXCHANGE]
        exchange, publisher, form, geo, whole = cell_keys(r, req, imp, pool, exchange_ids[x])
        row[0] = place(cells, exchange, 0, 0, 0, 0)
        row[1] = place(cells, publisher, exchange, 0, 0, 0)
        row[2] = place(cells, form, exchange, 0, 0, 0)
        row[3] = place(cells, geo, exchange, 0, 0, 0)
        row[4] = find(cells, whole)
        if row[4] >= 0:
            value = worth[row[4]]
        else:
            value = expected(worth, row[0], row[1], row[2], row[3])
            if draw(random) < ADMITTED:
                row[4] = place(cells, whole, exchange, publisher, form, geo)
                if row[4] >= 0:
                    worth[row[4]] = value
        for k in range(5):
            if row[k] >= 0:
                counts[row[k], W_OFFERED] += 1.0
        teaches = USUAL
        if value >= 0.0:
            brought[bin_of(value)] += value
            if value < least:
                slot = min(x, shaped.shape[0] - 1)
                if draw(random) >= explore:
                    q[r, Q_NBR] = nbr
                    shaped[slot, REFUSED] += 1
                    saved[slot] += cost
                    continue
                shaped[slot, TRIED] += 1
                teaches = EXPLORED
        if learn:
            row[OF_TEACHES] = teaches


@inlined
def draw(random: U64) -> int:
    """A number below 2^32."""
    random[0] += np.uint64(0x9E3779B97F4A7C15)
    return np.int64(mix64(random[0]) >> np.uint64(32))  # type: ignore[return-value]  # numba's int


@kernel
def learn_worth(
    n: int, req: I64, first_bid: I64, bids: I64, cand: I64, fixed_bid: U8, cur_usd: F64, q: I64, surplus: F64, of: I64,
    counts: F64, weight: float, lost: I64,
) -> None:  # fmt: skip
    """Add what each processed request was expected to bring (CPM micros of USD) to its cells.

    ``fixed_bid`` uint8[L] marks line items with a price of their buyer's own: they count FIXED of it. What explored
    requests brought counts ``weight`` times into ``lost`` int64[exchanges]: each stands for as many that were refused.
    """
    for r in range(n):
        if of[r, OF_TEACHES] == NOTHING:
            continue
        value = 0.0
        for b in range(first_bid[r], first_bid[r + 1]):
            c = bids[b, B_CAND]
            if fixed_bid[cand[c, C_LI]] != 0:
                value += max(surplus[c], FIXED * bids[b, B_PRICE] * cur_usd[q[r, Q_CURRENCY]])
            else:
                value += max(0.0, surplus[c])
        for k in range(5):
            if of[r, k] >= 0:
                add(counts, of[r, k], value)
        if of[r, OF_TEACHES] == EXPLORED:
            lost[min(req[r, R_EXCHANGE], lost.shape[0] - 1)] += np.int64(value * weight)


class Cells:
    """One worker's cells: ``rows`` int64[SLOTS, W_WIDTH], ``counts`` the same as float64, ``head`` int64[8].

    Head: magic, when they were last forgotten (ns), the least worth processed (CPM micros of USD), the rest free.
    """

    def __init__(self, words: I64) -> None:
        self.head = words[:8]
        self.rows = words[8:].reshape(SLOTS, W_WIDTH)
        self.counts: F64 = self.rows.view(np.float64)

    @classmethod
    def memory(cls) -> Cells:
        """Cells that nobody else sees."""
        return cls(np.zeros(_BYTES // 8, np.int64))

    @classmethod
    def create(cls, path: Path) -> Cells:
        """Map ``path``, going on from what was there; made anew where it is missing or of another layout."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if cls.read(path) is None:
            words = np.zeros(_BYTES // 8, np.int64)
            words[0] = _MAGIC
            temporary = path.with_suffix(".new")
            temporary.write_bytes(words.tobytes())
            temporary.replace(path)
        with path.open("r+b") as file:
            return cls(np.frombuffer(mmap.mmap(file.fileno(), _BYTES), np.int64))

    @classmethod
    def read(cls, path: Path) -> Cells | None:
        """A copy of a file as it is now, None where it is missing or of another layout."""
        try:
            raw = path.read_bytes()
        except OSError:
            return None
        if len(raw) != _BYTES:
            return None
        words = np.frombuffer(raw, np.int64)
        return cls(words) if words[0] == _MAGIC else None


class Shaping:
    """The shaping of one engine; belongs to its thread."""

    def __init__(self, config: ShapingConfig, metrics: Metrics, seed: int, path: Path | None = None) -> None:
        """``path``: this worker's file; those beside it are its fellows'. None: alone, in memory."""
        self.config, self._path = config, path
        self.cells = Cells.create(path) if path is not None else Cells.memory()
        self.cost = round(config.usd_per_million * USD_CPM_MICROS)
        self.least = 0.0  # worth per request, CPM micros of USD, below which it is refused
        self.worth: F64 = np.full(SLOTS, UNKNOWN, np.float64)
        self._judged = 0.0  # requests that brought
        self._brought: F64 = np.zeros(BINS, np.float64)
        self.total: F64 = np.zeros((SLOTS, 3), np.float64)
        self._spare = Cells.memory()
        self._of: I64 = np.full((MAX_BATCH, OF_WIDTH), -1, np.int64)
        watching = config.mode == "watch"
        self._explore = round((1.0 if watching else config.explore) * 2**32)
        self._weight = 1.0 if watching else (1.0 - config.explore) / config.explore
        self._random: U64 = np.array([(seed * 0xD1B54A32D192ED03 + 1) & 0xFFFFFFFFFFFFFFFF], np.uint64)
        self._next_ns = 0
        self.use_metrics(metrics)

    @classmethod
    def reading(cls, config: ShapingConfig, directory: Path, now_ns: int) -> Shaping:
        """What all workers with a file below ``directory`` know, judged; for reports."""
        shaping = cls(config, Metrics.memory("report"), 0)
        shaping._path = directory / "shape-report.cells"  # not a worker's, and never written
        shaping.update(now_ns)
        shaping.least = max((float(cells.head[2]) for cells in shaping._fellows()), default=0.0)
        return shaping

    def use_metrics(self, metrics: Metrics) -> None:
        """Count there from now on."""
        self._m_shaped = metrics.counter("dsp_shaped_requests_total")
        self._m_lost = metrics.counter("dsp_shaped_lost_micros_total")
        self._m_saved = metrics.counter("dsp_shaped_saved_micros_total")

    def cut(self, n: int, batch: Batch, exchange_ids: I64, q: I64, now_ns: int, *, learn: bool) -> None:
        """Refuse of a batch what isn't worth it. ``now_ns``: wall clock; ``learn``: whether bids are possible now."""
        if now_ns >= self._next_ns:
            self.update(now_ns)
        self._judged += n
        shape(
            n, batch.req, batch.imp, batch.pool, exchange_ids, self.cells.rows, self.cells.counts, self.worth,
            self._brought, self.least, self._explore, self._random, learn, NBR_NOT_WORTH, self.cost, q, self._of,
            self._m_shaped, self._m_saved,
        )  # fmt: skip

    def learn(self, n: int, batch: Batch, plan: Plan, work: Workspace) -> None:
        """Learn from the bids of the batch that was cut last."""
        learn_worth(
            n, batch.req, work.first_bid, work.bids, work.cand, plan.fixed_bid, plan.cur_usd, work.q, work.surplus,
            self._of, self.cells.counts, self._weight, self._m_lost,
        )  # fmt: skip

    def update(self, now_ns: int) -> None:
        """Forget, add up what all workers know, and judge anew."""
        self._next_ns = now_ns + int(UPDATE_S * 1e9)
        cells, memory_ns = self.cells, self.config.memory_s * 1e9
        keep = math.exp(-max(0, now_ns - int(cells.head[1])) / memory_ns) if cells.head[1] else 1.0
        cells.head[1] = now_ns
        if self._judged > RECENT:
            self._judged /= 2
            self._brought /= 2
        used, least = forget(cells.rows, cells.counts, keep), 0.5
        while used > FULL:
            used = thin(cells.rows, cells.counts, self._spare.rows, self._spare.counts, least)
            least *= 4
        self.total[:] = cells.counts[:, [W_REQUESTS, W_SURPLUS, W_OFFERED]]
        for other in self._fellows():
            age_ns = max(0, now_ns - int(other.head[1]))
            collect(cells.rows, other.rows, other.counts, math.exp(-age_ns / memory_ns), self.total)
        value_parts(cells.rows, self.total, self.worth)
        value_wholes(cells.rows, self.total, self.worth)
        self.least = max(self.cost, price_of_room(self._brought, self.config.give_up))
        cells.head[2] = round(self.least)

    def _fellows(self) -> list[Cells]:
        if self._path is None:
            return []
        found = (Cells.read(path) for path in self._path.parent.glob(SHAPE_FILES) if path != self._path)
        return [cells for cells in found if cells is not None]


def open_shaping(config: Config, metrics: Metrics, worker: str) -> Shaping:
    """The shaping of one worker, on its file under ``run``; it explores other requests than its fellows."""
    path = config.path("run", f"shape-{worker}.cells")
    return Shaping(config.shaping, metrics, config.seed ^ hash_text(worker), path)
