"""How many servers an audience needs: people and requests a second in; nodes, memory and cost out.

Every figure per record or read was measured by a bench (the command stands beside it) or is the server's documented
constant; prices are the reader's to give. Real clusters are sized for the loss of a node, so one is added.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

# Aerospike: https://aerospike.com/docs — 64 bytes of primary index per record, always in memory.
INDEX_BYTES = 64
# Measured by `python -m bench audience aerospike --pid N`: what the server says it uses, over its records, and its CPU.
RECORD_BYTES = 241  # one identity key: profile and the person's ids
READ_US = 4.0  # server CPU per key of a batch, one core
# By the layout of a state (`dsp.audience.frequency`): header and totals, and each impression of the last week.
STATE_BYTES, IMPRESSION_BYTES = 48, 24
# Measured by `python -m bench audience load --people 10000000` (LMDB, file over people, 3 ids, 10 segments):
LMDB_PERSON_BYTES = 238
BUSY = 0.6  # of a node's CPU or memory or disk that may be used: room for peaks and for a lost node's share


@dataclass(frozen=True)
class Node:
    """What one server has and costs."""

    memory_gb: float = 64.0
    disk_gb: float = 1_000.0
    cores: int = 16
    usd_month: float = 600.0


@dataclass(frozen=True)
class Size:
    """What an audience needs."""

    people: int
    records: int
    index_gb: float
    data_gb: float
    reads_per_s: float
    nodes_for_memory: int
    nodes_for_disk: int
    nodes_for_reads: int
    nodes: int
    usd_month: float
    lmdb_gb: float  # the alternative: a copy on every bidder host


def size(
    people: int,
    qps: float,
    node: Node = Node(),
    *,
    ids: float = 3.0,
    keys_per_request: float = 2.0,
    known_share: float = 1.0,
    copies: int = 2,
    data_in_memory: bool = False,
    seen_share: float = 0.3,
    impressions: float = 5.0,
) -> Size:
    """Nodes for ``people`` profiles and ``qps`` bid requests a second.

    ``ids``: identity keys a person; ``keys_per_request``: keys a request brings; ``known_share``: of the requests whose
    consent allows a look-up; ``copies``: replication factor; ``seen_share``: of the people who have seen an ad
    this week, ``impressions`` each.
    """
    record_bytes = RECORD_BYTES + seen_share * (STATE_BYTES + IMPRESSION_BYTES * impressions)
    records = round(people * ids * copies)
    index_gb, data_gb = records * INDEX_BYTES / 1e9, records * record_bytes / 1e9
    reads = qps * keys_per_request * known_share
    memory_gb = index_gb + (data_gb if data_in_memory else 0)
    for_memory = math.ceil(memory_gb / (node.memory_gb * BUSY))
    for_disk = 0 if data_in_memory else math.ceil(data_gb / (node.disk_gb * BUSY))
    for_reads = math.ceil(reads * READ_US / 1e6 / (node.cores * BUSY))
    nodes = max(for_memory, for_disk, for_reads, copies) + 1
    return Size(
        people, records, index_gb, data_gb, reads, for_memory, for_disk, for_reads, nodes, nodes * node.usd_month,
        people * LMDB_PERSON_BYTES / 1e9,
    )  # fmt: skip
