import time

import numpy as np
import pytest

from dsp.log.decisions import DECISION_FIELDS, DecisionWriter, read_decisions
from dsp.log.segments import SUFFIX, TEMPORARY

F = 12


def batch(start: int, n: int, time_ms: int = 1000):
    rows = {
        name: np.arange(start, start + n)[:, None].repeat(width, 1).astype(dtype) + np.arange(width, dtype=dtype)
        if width
        else np.arange(start, start + n).astype(dtype)
        for name, (dtype, width) in DECISION_FIELDS.items()
    }
    rows["time_ms"] = np.full(n, time_ms, np.int64)
    rows["ghost"][:] = 0
    features = (np.arange(n * F, dtype=np.float32) + start).reshape(n, F)
    return rows, features


@pytest.fixture
def writer(tmp_path):
    writer = DecisionWriter(tmp_path, "w0", "spec", "3", threaded=False)
    yield writer
    writer.close()


def test_what_is_written_is_read(writer, tmp_path):
    expected = [batch(start, n) for start, n in ((0, 3), (3, 64), (67, 1))]
    for rows, features in expected:
        writer.append(rows, features)
    writer.close()
    found = read_decisions(tmp_path)
    for name in DECISION_FIELDS:
        whole = np.concatenate([rows[name] for rows, _ in expected])
        assert found[name].dtype == whole.dtype
        assert (found[name] == whole).all()
    assert (found["features"] == np.concatenate([features for _, features in expected])).all()
    assert found["features"].dtype == np.float32
    assert found["spec_hash"] == "spec"
    assert found["truncated"] == 0


def test_arrays_may_be_reused_after_append(writer, tmp_path):
    rows, features = batch(0, 4)
    writer.append(rows, features)
    for array in (*rows.values(), features):
        array[:] = 0
    writer.flush()
    assert read_decisions(tmp_path)["bid_id"].tolist() == [0, 1, 2, 3]


def test_an_unfinished_segment_is_readable(writer, tmp_path):
    writer.append(*batch(0, 4))
    writer.flush()
    (file,) = tmp_path.iterdir()
    assert file.name.endswith(SUFFIX + TEMPORARY)
    assert len(read_decisions(tmp_path)["bid_id"]) == 4
    writer.close()
    (file,) = tmp_path.iterdir()
    assert file.name.endswith(SUFFIX)


def test_a_file_cut_anywhere_gives_its_complete_batches(writer, tmp_path):
    for start in (0, 10, 20):
        writer.append(*batch(start, 10))
        writer.flush()
    writer.close()
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    sizes = set()
    for end in (*range(0, len(whole), 97), len(whole)):
        file.write_bytes(whole[:end])
        found = read_decisions(tmp_path)
        assert len(found["bid_id"]) % 10 == 0
        assert found["bid_id"].tolist() == list(range(len(found["bid_id"])))
        sizes.add(len(found["bid_id"]))
    assert sizes == {0, 10, 20, 30}


def test_garbage_among_segments_is_counted_not_fatal(writer, tmp_path):
    writer.append(*batch(0, 10))
    writer.close()
    (tmp_path / f"9999{SUFFIX}").write_bytes(b"not arrow at all" * 10)
    (tmp_path / "README").write_text("other files are left alone")
    found = read_decisions(tmp_path)
    assert len(found["bid_id"]) == 10
    assert found["truncated"] == 1


def test_rows_of_another_feature_spec_are_left_out_and_counted(writer, tmp_path):
    writer.append(*batch(0, 10))
    time.sleep(0.002)  # segments are named by milliseconds
    writer.set_model("newer", "4")
    writer.append(*batch(10, 5))
    writer.close()
    found = read_decisions(tmp_path)
    assert found["spec_hash"] == "newer"
    assert found["bid_id"].tolist() == list(range(10, 15))
    assert found["skipped"] == 10
    assert len(read_decisions(tmp_path, spec_hash="spec")["bid_id"]) == 10


def test_since_leaves_out_older_rows(writer, tmp_path):
    writer.append(*batch(0, 10, time_ms=1000))
    writer.append(*batch(10, 10, time_ms=2000))
    writer.close()
    assert read_decisions(tmp_path, since=1500)["bid_id"].tolist() == list(range(10, 20))


def test_segments_rotate_by_size_and_age(tmp_path):
    now = [1000.0]
    writer = DecisionWriter(tmp_path, "w0", "spec", "1", flush_s=0.01, segment_s=60, clock=lambda: now[0])
    writer.append(*batch(0, 10))
    _until(lambda: list(tmp_path.glob(f"*{TEMPORARY}")))
    now[0] += 61
    _until(lambda: list(tmp_path.glob(f"*{SUFFIX}")))
    writer.append(*batch(10, 10))
    writer.close()
    assert len(list(tmp_path.glob(f"*{SUFFIX}"))) == 2
    assert sorted(read_decisions(tmp_path)["bid_id"].tolist()) == list(range(20))


def test_a_full_buffer_drops_and_counts(tmp_path):
    writer = DecisionWriter(tmp_path, "w0", "spec", "1", threaded=False, chunk_rows=64, chunks=2)
    for start in range(0, 64 * 5, 32):
        writer.append(*batch(start, 32))
    assert writer.dropped == 64 * 3
    writer.close()
    assert len(read_decisions(tmp_path)["bid_id"]) == 64 * 2


def test_a_full_disk_drops_and_counts_and_recovers(tmp_path):
    writer = DecisionWriter(tmp_path, "w0", "spec", "1", threaded=False, min_free_bytes=1 << 60)
    writer.append(*batch(0, 32))
    writer.flush()
    assert writer.dropped == 32
    writer._segments._min_free_bytes = 0
    writer.append(*batch(32, 32))
    writer.close()
    assert read_decisions(tmp_path)["bid_id"].tolist() == list(range(32, 64))


def test_no_directory_reads_as_no_rows(tmp_path):
    found = read_decisions(tmp_path / "nowhere")
    assert len(found["bid_id"]) == 0
    assert found["p"].shape == (0, 5)


def test_the_background_thread_loses_nothing(tmp_path):
    writer = DecisionWriter(tmp_path, "w0", "spec", "1", chunk_rows=256, chunks=64, flush_s=0.001)
    for start in range(0, 10_000, 50):
        writer.append(*batch(start, 50))
    writer.close()
    assert writer.dropped == 0
    assert read_decisions(tmp_path)["bid_id"].tolist() == list(range(10_000))


def _until(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_ghost_bids_are_read_only_where_asked_for(writer, tmp_path):
    rows, features = batch(0, 4)
    rows["ghost"] = np.array([0, 1, 0, 1], np.uint8)
    writer.append(rows, features)
    writer.flush()
    assert read_decisions(tmp_path)["bid_id"].tolist() == [0, 2]
    assert read_decisions(tmp_path, ghosts=True)["bid_id"].tolist() == [0, 1, 2, 3]
