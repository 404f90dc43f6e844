"""The calculator: arithmetic a reader can follow."""

from __future__ import annotations

import math

import pytest

from dsp.audience.sizing import BUSY, INDEX_BYTES, READ_US, RECORD_BYTES, Node, size


def test_a_billion_profiles() -> None:
    node = Node(memory_gb=128, disk_gb=2000, cores=16, usd_month=900)
    need = size(1_000_000_000, 200_000, node, seen_share=0)
    assert need.records == 6_000_000_000
    assert need.index_gb == pytest.approx(6e9 * INDEX_BYTES / 1e9)
    assert need.data_gb == pytest.approx(6e9 * RECORD_BYTES / 1e9)
    assert need.nodes_for_memory == math.ceil(384 / (128 * BUSY))
    assert need.nodes_for_reads == math.ceil(200_000 * 2 * READ_US / 1e6 / (16 * BUSY))
    assert need.nodes == max(need.nodes_for_memory, need.nodes_for_disk, need.nodes_for_reads) + 1
    assert need.usd_month == need.nodes * 900
    assert size(1_000_000_000, 200_000, node).data_gb > need.data_gb


def test_a_small_audience_still_survives_a_node() -> None:
    assert size(10_000_000, 100).nodes == 3  # two copies, and one to spare


def test_memory_only_costs_memory() -> None:
    on_disk, in_memory = (size(100_000_000, 1000, data_in_memory=m) for m in (False, True))
    assert in_memory.nodes_for_disk == 0
    assert in_memory.nodes_for_memory > on_disk.nodes_for_memory
