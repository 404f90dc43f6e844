"""Metrics: what is counted in workers' files adds up in one text, and outlives the workers."""

import json
import multiprocessing
import random
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from dsp.base.metrics import (
    BAD_REASONS,
    DEFINITIONS,
    NBR_CODES,
    OUTCOMES,
    SECONDS_BUCKETS,
    STAGES,
    Metrics,
    clear_gauges,
    nbr_slot,
    render,
)
from dsp.bidder.answer import KINDS
from dsp.openrtb import columns


def samples(directory: Path, prefix: str = "bidder") -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    found = {}
    for family in text_string_to_metric_families(render(directory, prefix).decode()):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, f"{key} is there twice"
            found[key] = sample.value
    return found


def test_counters_of_all_workers_add_up(tmp_path: Path) -> None:
    for n in range(3):
        worker = Metrics.create(tmp_path / f"bidder-{n}.metrics", "bidder")
        worker.counter("dsp_bid_requests_total")[1, 0] += 10 + n
        worker.counter("dsp_imps_dropped_total")[0] += 1
        worker.counter("dsp_no_bid_total")[nbr_slot(500)] += 2
        worker.name_labels("exchange", ["alpha", "beta"])
    other = Metrics.create(tmp_path / "ledger-0.metrics", "ledger")
    other.counter("dsp_imps_dropped_total")[0] += 100
    found = samples(tmp_path)
    assert found["dsp_bid_requests_total", (("exchange", "beta"), ("outcome", "bid"))] == 33
    assert found["dsp_imps_dropped_total", ()] == 3
    assert not any(("exchange", "unknown") in labels for _, labels in found)
    assert found["dsp_no_bid_total", (("reason", "500"),)] == 6
    alone = render(tmp_path, "bidder", ["dsp_imps_dropped_total"]).decode()
    assert [family.name for family in text_string_to_metric_families(alone)] == ["dsp_imps_dropped"]
    assert "dsp_imps_dropped_total 3.0" in alone


def test_a_crashed_workers_counts_stay_and_its_successor_goes_on_from_them(tmp_path: Path) -> None:
    path = tmp_path / "bidder-0.metrics"

    def crash() -> None:
        metrics = Metrics.create(path, "bidder")
        metrics.counter("dsp_imps_dropped_total")[0] = 7
        metrics.gauge("dsp_queue_depth")[0] = 5
        import os

        os._exit(1)

    process = multiprocessing.get_context("fork").Process(target=crash)
    process.start()
    process.join(30)
    assert samples(tmp_path)["dsp_imps_dropped_total", ()] == 7
    clear_gauges(path)
    assert samples(tmp_path)["dsp_queue_depth", ()] == 0
    Metrics.create(path, "bidder").counter("dsp_imps_dropped_total")[0] += 1
    assert samples(tmp_path)["dsp_imps_dropped_total", ()] == 8


def test_gauges_are_summed_or_the_newest(tmp_path: Path) -> None:
    for n, version in enumerate((3, 4)):
        worker = Metrics.create(tmp_path / f"bidder-{n}.metrics", "bidder")
        worker.gauge("dsp_snapshot_version")[...] = version
        worker.gauge("dsp_queue_depth")[...] = 2
    found = samples(tmp_path)
    assert found["dsp_snapshot_version", ()] == 4
    assert found["dsp_queue_depth", ()] == 4


def test_a_file_of_another_version_is_started_afresh(tmp_path: Path) -> None:
    path = tmp_path / "bidder-0.metrics"
    path.write_bytes(b"not metrics")
    assert samples(tmp_path)["dsp_imps_dropped_total", ()] == 0
    Metrics.create(path, "bidder").counter("dsp_imps_dropped_total")[0] += 1
    assert samples(tmp_path)["dsp_imps_dropped_total", ()] == 1


def test_every_duration_falls_into_the_bucket_whose_edge_it_does_not_pass() -> None:
    histogram = Metrics.memory().histogram("dsp_request_seconds")
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    edges = [*SECONDS_BUCKETS, float("inf")]
    around = [edge_ns + d for e in SECONDS_BUCKETS for edge_ns in [round(e * 1e9)] for d in (-1, 0, 1)]
    for ns in [0, 1, 10**12, *around, *(int(2 ** chance.uniform(0, 40)) for _ in range(500))]:
        histogram.counts[:] = 0
        histogram.observe_ns(0, ns)
        bucket = int(histogram.counts[0].argmax())
        assert ns <= edges[bucket] * 1e9 + 0.5
        assert bucket == 0 or ns >= edges[bucket - 1] * 1e9 - 0.5


def test_all_ways_to_observe_agree() -> None:
    ns = np.array([0, 900, 1500, 70_000, 10**9, 10**11], np.int64)
    one, many, seconds = (Metrics.memory().histogram("dsp_request_seconds") for _ in range(3))
    for value in ns.tolist():
        one.observe_ns(0, value)
        seconds.observe(0, (value + 0.5) * 1e-9)
    many.observe_array(0, ns)
    assert (one.counts == many.counts).all()
    assert (one.sums == many.sums).all()
    assert (one.counts == seconds.counts).all()
    three = Metrics.memory().histogram("dsp_request_seconds")
    three.observe_n(0, 0.001, 3)
    assert three.counts.sum() == 3
    assert three.sums[0] == 3_000_000


def test_marks_fill_each_stage_and_the_total(tmp_path: Path) -> None:
    stages = Metrics.create(tmp_path / "bidder-0.metrics", "bidder").histogram("dsp_stage_seconds")
    marks = tuple(1_000_000 * k for k in range(len(STAGES)))
    stages.observe_marks(marks)
    found = samples(tmp_path)
    assert found["dsp_stage_seconds_sum", (("stage", "decode"),)] == pytest.approx(0.001)
    assert found["dsp_stage_seconds_sum", (("stage", "total"),)] == pytest.approx(0.009)
    assert all(found["dsp_stage_seconds_count", (("stage", stage),)] == 1 for stage in STAGES)


def test_batch_sizes_are_counted_in_powers_of_two(tmp_path: Path) -> None:
    histogram = Metrics.create(tmp_path / "bidder-0.metrics", "bidder").histogram("dsp_batch_size")
    for size in (1, 2, 3, 4, 64, 65):
        histogram.observe_size(size)
    found = samples(tmp_path)
    cumulative = [found["dsp_batch_size_bucket", (("le", le),)] for le in ("1", "2", "4", "64", "+Inf")]
    assert cumulative == [1, 2, 4, 5, 6]
    assert found["dsp_batch_size_sum", ()] == 139


def test_label_values_are_the_codes_of_the_layers_they_speak_of() -> None:
    assert OUTCOMES[: len(KINDS)] == KINDS
    assert {nbr_slot(code) for code in NBR_CODES} == set(range(len(NBR_CODES)))
    statuses = {name: value for name, value in vars(columns).items() if name.startswith("E_")}
    assert {BAD_REASONS[value] for value in statuses.values()} == {name[2:].lower() for name in statuses}
    assert len({d.name for d in DEFINITIONS}) == len(DEFINITIONS)


def test_a_name_of_the_wrong_kind_is_refused() -> None:
    metrics = Metrics.memory()
    with pytest.raises(KeyError):
        metrics.counter("dsp_queue_depth")
    with pytest.raises(KeyError):
        metrics.histogram("dsp_imps_dropped_total")


def test_exchange_names_are_kept_beside_the_files(tmp_path: Path) -> None:
    Metrics.create(tmp_path / "bidder-0.metrics", "bidder").name_labels("exchange", ["x"])
    assert json.loads((tmp_path / "exchange.labels.json").read_text()) == ["x"]
