"""The snapshot file: what is written is what is read, and nothing else is taken for one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dsp.catalog.snapshot import ARRAYS, Snapshot, SnapshotError, write_snapshot
from dsp.catalog.synthetic import synthetic_snapshot


@pytest.fixture(scope="module")
def compiled():
    return synthetic_snapshot(40, seed=3, version=7)


@pytest.fixture
def file(tmp_path: Path, compiled) -> Path:
    path = tmp_path / "000007.snap"
    write_snapshot(path, *compiled)
    return path


def test_every_array_comes_back_as_it_was(file, compiled):
    snapshot = Snapshot.load(file)
    assert snapshot.version == 7
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(snapshot, name), compiled[0][name], name)
        assert not getattr(snapshot, name).flags.writeable
        assert getattr(snapshot, name).ctypes.data % 64 == 0 or getattr(snapshot, name).size == 0


def test_meta_comes_back_and_is_parsed_only_on_access(file, compiled):
    meta = Snapshot.load(file).meta
    assert meta._parsed == {}
    assert dict(meta)["line_items"] == compiled[1]["line_items"]
    assert meta["public_url"] == "https://dsp.example"
    assert set(meta) == set(compiled[1])
    with pytest.raises(KeyError):
        meta["nothing"]


def test_arrays_outlive_the_snapshot_object(file):
    rows = Snapshot.load(file).rows
    assert int(rows.sum(dtype=np.uint64)) >= 0


def test_a_snapshot_in_memory_is_like_a_loaded_one(file, compiled):
    loaded, made = Snapshot.load(file), Snapshot(*compiled, version=7)
    for creative in range(len(made.cr_i)):
        assert made.template_json(creative) == loaded.template_json(creative)
        assert made.template_pb(creative) == loaded.template_pb(creative)
        assert made.native(creative) == loaded.native(creative)
    assert loaded.template_json(0) is loaded.template_json(0)


@pytest.mark.parametrize("keep", [0, 10, 39, 40, 100, 3000])
def test_a_cut_file_is_refused(file, keep):
    data = file.read_bytes()
    file.write_bytes(data[:keep])
    with pytest.raises(SnapshotError, match=file.name):
        Snapshot.load(file)


def test_a_file_with_something_appended_is_refused(file):
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(SnapshotError, match="cut short or grown"):
        Snapshot.load(file)


def test_a_foreign_file_is_refused(file):
    file.write_bytes(b"PK\x03\x04" + bytes(2000))
    with pytest.raises(SnapshotError, match="not a snapshot"):
        Snapshot.load(file)


def test_another_format_is_refused(file):
    data = bytearray(file.read_bytes())
    data[8] = 99
    file.write_bytes(data)
    with pytest.raises(SnapshotError, match="publish the catalog again"):
        Snapshot.load(file)


@pytest.mark.parametrize("at", [41, 200, 900])
def test_a_damaged_header_is_refused(file, at):
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)
    with pytest.raises(SnapshotError, match="damaged header"):
        Snapshot.load(file)


def test_a_missing_file_is_a_snapshot_error(tmp_path):
    with pytest.raises(SnapshotError, match=r"nothing\.snap"):
        Snapshot.load(tmp_path / "nothing.snap")


def test_a_missing_or_mistyped_array_is_named(tmp_path, compiled):
    arrays, meta = compiled
    with pytest.raises(SnapshotError, match="array li_v: missing"):
        Snapshot({k: v for k, v in arrays.items() if k != "li_v"}, meta, 1)
    path = tmp_path / "x.snap"
    write_snapshot(path, {**arrays, "rows": arrays["rows"].astype(np.int64)}, meta)
    with pytest.raises(SnapshotError, match=r"x\.snap: array rows: int64"):
        Snapshot.load(path)


def test_a_failed_write_leaves_the_old_file(file, compiled):
    before = file.read_bytes()
    with pytest.raises(TypeError):
        write_snapshot(file, compiled[0], {**compiled[1], "odd": object()})
    with pytest.raises(AttributeError):
        write_snapshot(file, {**compiled[0], "li_i": None}, compiled[1])  # type: ignore[dict-item]
    assert file.read_bytes() == before
    assert [p.name for p in file.parent.iterdir()] == [file.name]


def test_an_empty_catalog_is_a_snapshot_too(tmp_path):
    arrays, meta = synthetic_snapshot(0, seed=1)
    write_snapshot(tmp_path / "empty.snap", arrays, meta)
    snapshot = Snapshot.load(tmp_path / "empty.snap")
    assert snapshot.li_i.shape == (0, 16)
    assert snapshot.cr_i.shape == (0, 20)
