"""What requests are worth by where they come from: the table that traffic shaping learns, and its verdicts.

A request belongs to five cells: its exchange; its publisher, its format and its geo there; and all of them together.
Each cell counts requests that were processed and the surplus they were expected to bring, and forgets: by time
(`forget`) and by count, so that a busy cell turns as fast as a quiet one. What a request is worth is the exchange's
mean times what publisher, format and geo each make of it, as if independent, and then what its own cell has seen: so a
cell that has never been seen is judged at once, and one that is the exception is found out. The draws towards the mean
are weak (PART, OWN) as most publishers, formats and geos are either worth nothing or about what others are. Of cells of
all together only one in ADMIT requests makes a new one: the rare ones are judged by their parts and take no room.

The table is one open-addressed array of rows, read as int64 for keys and float64 for counts. A row is found by its key
within PROBES of its place, or isn't there. Nothing here knows clocks, files or randomness.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from dsp.base.kernel import inlined, kernel

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

# --- a row: eight words, one cache line ------------------------------------------------------------------------------
(
    W_KEY,  # 0: free
    W_EXCHANGE,  # keys of the cells it is part of, 0 for none
    W_PUBLISHER,
    W_FORMAT,
    W_GEO,
    W_REQUESTS,  # float64: processed, forgotten at the same pace as the surplus
    W_SURPLUS,  # float64: CPM micros of USD
    W_OFFERED,  # float64: processed or not
) = range(8)
W_WIDTH = 8

SLOTS = 1 << 15
PROBES = 16
FULL = SLOTS // 2  # rows; beyond it the least used go
MOST = 5_000.0  # requests that a cell remembers
PART = 0.3  # requests that the mean weighs in what a publisher, a format or a geo makes of it
OWN = 3.0  # requests that those three weigh against what a cell has seen itself
KNOWN = 500.0  # requests of an exchange before anything of it is refused
UNKNOWN = -1.0
ADMIT = 8
BINS = 320  # of worth, in eighths of an octave
_EMPTY = 0.01  # requests; less is nothing


@inlined
def find(cells: I64, key: int) -> int:
    """The row of ``key``, -1 where it has none."""
    mask = cells.shape[0] - 1
    at = key & mask
    for _ in range(PROBES):
        if cells[at, W_KEY] == key:
            return at
        if cells[at, W_KEY] == 0:
            return -1
        at = (at + 1) & mask
    return -1


@inlined
def place(cells: I64, key: int, exchange: int, publisher: int, form: int, geo: int) -> int:
    """The row of ``key``, made where there is none; -1 where there is no room."""
    mask = cells.shape[0] - 1
    at = key & mask
    for _ in range(PROBES):
        if cells[at, W_KEY] == key:
            return at
        if cells[at, W_KEY] == 0:
            cells[at, W_EXCHANGE], cells[at, W_PUBLISHER] = exchange, publisher
            cells[at, W_FORMAT], cells[at, W_GEO] = form, geo
            cells[at, W_KEY] = key
            return at
        at = (at + 1) & mask
    return -1


@inlined
def add(counts: F64, at: int, surplus: float) -> None:
    """One processed request that was expected to bring ``surplus``."""
    if counts[at, W_REQUESTS] >= MOST:
        counts[at, W_REQUESTS] *= 0.5
        counts[at, W_SURPLUS] *= 0.5
    counts[at, W_REQUESTS] += 1.0
    counts[at, W_SURPLUS] += surplus


@kernel
def forget(cells: I64, counts: F64, keep: float) -> int:
    """Multiply every count by ``keep``; how many rows are in use."""
    used = 0
    for at in range(cells.shape[0]):
        if cells[at, W_KEY] != 0:
            used += 1
            counts[at, W_REQUESTS] *= keep
            counts[at, W_SURPLUS] *= keep
            counts[at, W_OFFERED] *= keep
    return used


@kernel
def collect(cells: I64, theirs: I64, their_counts: F64, keep: float, total: F64) -> None:
    """Add another worker's counts, times ``keep``, to ``total`` float64[SLOTS, 3], making room for cells we lack."""
    for at in range(theirs.shape[0]):
        row = theirs[at]
        offered = their_counts[at, W_OFFERED] * keep
        if row[W_KEY] == 0 or not offered >= _EMPTY:
            continue
        mine = place(cells, row[W_KEY], row[W_EXCHANGE], row[W_PUBLISHER], row[W_FORMAT], row[W_GEO])
        if mine >= 0:
            total[mine, 0] += their_counts[at, W_REQUESTS] * keep
            total[mine, 1] += their_counts[at, W_SURPLUS] * keep
            total[mine, 2] += offered


@kernel
def value_parts(cells: I64, total: F64, worth: F64) -> None:
    """Fill ``worth`` float64[SLOTS] of exchanges, publishers, formats and geos, in surplus per request.

    ``total`` float64[SLOTS, 3]: requests, surplus and offered of all workers. UNKNOWN before KNOWN requests of an
    exchange have been processed.
    """
    for at in range(cells.shape[0]):
        worth[at] = UNKNOWN
        if cells[at, W_KEY] != 0 and cells[at, W_EXCHANGE] == 0 and total[at, 0] >= KNOWN:
            worth[at] = total[at, 1] / total[at, 0]
    for at in range(cells.shape[0]):
        if cells[at, W_EXCHANGE] != 0 and cells[at, W_PUBLISHER] == 0:
            exchange = find(cells, cells[at, W_EXCHANGE])
            if exchange >= 0 and worth[exchange] >= 0.0:
                worth[at] = (PART * worth[exchange] + total[at, 1]) / (PART + total[at, 0])


@kernel
def value_wholes(cells: I64, total: F64, worth: F64) -> None:
    """Fill ``worth`` of the cells that are all of an exchange, a publisher, a format and a geo, after `value_parts`."""
    for at in range(cells.shape[0]):
        if cells[at, W_PUBLISHER] != 0:
            row = cells[at]
            prior = expected(
                worth, find(cells, row[W_EXCHANGE]), find(cells, row[W_PUBLISHER]), find(cells, row[W_FORMAT]),
                find(cells, row[W_GEO]),
            )  # fmt: skip
            if prior >= 0.0:
                worth[at] = (OWN * prior + total[at, 1]) / (OWN + total[at, 0])


@inlined
def expected(worth: F64, exchange: int, publisher: int, form: int, geo: int) -> float:
    """What a request is worth by the rows of its parts (-1 for none); UNKNOWN while the exchange is."""
    if exchange < 0 or worth[exchange] < 0.0:
        return UNKNOWN
    mean = worth[exchange]
    if mean == 0.0:
        return 0.0
    prior = mean
    for at in (publisher, form, geo):
        if at >= 0 and worth[at] >= 0.0:
            prior *= worth[at] / mean
    return prior


@inlined
def bin_of(worth: float) -> int:
    """The bin of a worth."""
    return min(int(8.0 * math.log2(1.0 + worth)), BINS - 1)


def price_of_room(brought: F64, give_up: float) -> float:
    """The worth per request below which requests together bring at most ``give_up`` of all that is expected.

    ``brought`` float64[BINS]: the worth of recent requests, added up by `bin_of` it.
    """
    upto = np.cumsum(brought)
    spare = int(np.searchsorted(upto, give_up * upto[-1], side="right"))
    return float(2.0 ** (spare / 8.0) - 1.0) if upto[-1] > 0.0 else 0.0


@kernel
def thin(cells: I64, counts: F64, spare: I64, spare_counts: F64, least: float) -> int:
    """Keep only rows that were offered ``least`` requests, by way of ``spare`` (as ``cells``); how many those are."""
    for at in range(cells.shape[0]):
        for word in range(cells.shape[1]):
            spare[at, word] = cells[at, word]
            cells[at, word] = 0
    used = 0
    for at in range(spare.shape[0]):
        row = spare[at]
        if row[W_KEY] != 0 and spare_counts[at, W_OFFERED] >= least:
            mine = place(cells, row[W_KEY], row[W_EXCHANGE], row[W_PUBLISHER], row[W_FORMAT], row[W_GEO])
            if mine >= 0:
                counts[mine, W_REQUESTS] = spare_counts[at, W_REQUESTS]
                counts[mine, W_SURPLUS] = spare_counts[at, W_SURPLUS]
                counts[mine, W_OFFERED] = spare_counts[at, W_OFFERED]
                used += 1
    return used
