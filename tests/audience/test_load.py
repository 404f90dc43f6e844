"""Loading people from arrays and files: what loads, what is rejected, and that no identifier is left lying about."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_conformance import key, read

import dsp.audience.load as load_module
from dsp.audience.columns import COLUMNS, given_bytes, read_segments
from dsp.audience.identity import (
    KIND_BUYERUID,
    KIND_DIDMD5,
    KIND_EID,
    KIND_IFA,
    KIND_USER_ID,
    identity_key,
    load_pepper,
)
from dsp.audience.lmdb_store import LmdbProfileStore, profiles_path
from dsp.audience.load import LoadReport, load_profiles, people_writer, write_people
from dsp.audience.profile import P_CONSENT, P_N_SEGMENTS, PROFILE, PROFILE_VERSION, SCHEMA
from dsp.audience.store import StoreError
from dsp.base.config import Config
from dsp.openrtb.hashing import hash_text

IFA = "38400000-8cf0-11bd-b23e-{:012x}"


def load(tmp_path: Path, content: bytes | pa.Table, name: str = "people.csv") -> LoadReport:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        pq.write_table(content, path)
    return load_profiles(Config(data_dir=str(tmp_path / "var")), path, hash_text=hash_text)


def profile(tmp_path: Path, kind: int, text: str, exchange: int = 0) -> np.void | None:
    """What the store knows of an identifier."""
    pepper = load_pepper(tmp_path / "var" / "secrets" / "pepper.json")
    store = LmdbProfileStore(profiles_path(tmp_path / "var"))
    found, rows = read(store, [[identity_key(kind, text, pepper, exchange)]])
    store.close()
    return np.frombuffer(rows[0], PROFILE)[0] if found[0] else None


def rejects(report: LoadReport) -> list[tuple[str, str]]:
    if report.rejects is None:
        return []
    with report.rejects.open(newline="") as file:
        return sorted((row["row"], row["column"]) for row in csv.DictReader(file))


def test_a_csv_row_becomes_a_profile(tmp_path: Path) -> None:
    report = load(
        tmp_path,
        b"ifa,consent,age_band,income_band,gender,owned,lifecycle_2,intent_1,risk_qualification,recency_days,hours_2,"
        b"affinity_8,home_region,segments,updated_d\n"
        b"38400000-8CF0-11BD-B23E-000000000001,3,2,5,1,9,7,200,30,4,129,17,12,102:20900|7,20800\n",
    )
    assert report == LoadReport(1, 0, None)
    row = profile(tmp_path, KIND_IFA, IFA.format(1))
    assert row is not None
    scalars = ("version", "consent", "age_band", "income_band", "gender", "owned", "recency_days", "home_region")
    assert [row[name].item() for name in scalars] == [PROFILE_VERSION, 3, 2, 5, 1, 9, 4, 12]
    assert row["lifecycle"].tolist() == [0, 7, 0, 0, 0]
    assert row["intent"].tolist() == [200, 255, 255, 255, 255]  # unknown is not zero
    assert row["risk"].tolist() == [255] * 5 + [30]
    assert row["hours"].tolist() == [0, 129, 0]
    assert row["affinity"].tolist() == [255] * 7 + [17]
    assert row["activity"].item() == 255
    assert row["n_segments"].item() == 2
    assert row["segments"][:3].tolist() == [7, 102, 0]
    assert row["segment_expiry_d"][:2].tolist() == [65535, 20900]
    assert row["updated_d"].item() == 20800
    assert row["person"].item() == 1


def test_every_kind_of_identifier_finds_the_person(tmp_path: Path) -> None:
    report = load(
        tmp_path,
        b"buyeruid,exchange,user_id,eid,eid_source,ifa,age_band\n"
        b"b1,7,u1,e1,uidapi.com," + IFA.format(1).encode() + b",3\n"
        b"b1,8,,,,,4\n",
    )
    assert (report.loaded, report.rejected) == (2, 0)
    for kind, text, scope in (
        (KIND_BUYERUID, "b1", 7), (KIND_USER_ID, "u1", 7), (KIND_EID, "e1", hash_text("UIDAPI.com")),
        (KIND_IFA, IFA.format(1), 0),
    ):  # fmt: skip
        row = profile(tmp_path, kind, text, scope)
        assert row is not None
        assert row["age_band"].item() == 3
    other = profile(tmp_path, KIND_BUYERUID, "b1", 8)
    assert other is not None
    assert other["age_band"].item() == 4
    assert profile(tmp_path, KIND_BUYERUID, "b1", 9) is None


BAD_ROWS = (
    b"ifa,age_band,intent_1,segments,buyeruid,exchange\n"
    b"%s,1,,,,\n"  # 1 good
    b"%s,7,,,,\n"  # 2 no such band
    b"%s,1\n"  # 3 too short
    b"\n"
    b"%s,1,-4,,,\n"  # 4
    b"%s,1,nan,,,\n"  # 5
    b"%s,1,99999999999999999999,,,\n"  # 6
    b"%s,1,,101:x,,\n"  # 7
    b"%s,1,,0,,\n"  # 8 segment 0
    b"%s,1,,1|2|3|4|5|6|7|8|9|10|11|12|13|14|15|16|17,,\n"  # 9
    b"00000000-0000-0000-0000-000000000000,1,,,,\n"  # 10 nobody
    b",1,,,,\n"  # 11 nobody
    b",1,,,buyer,one\n"  # 12 exchange is not a number
    b"%s,1,,,,,,,\n"  # 13 too long
    b"%s,\xff\xfe,,,,\n"  # 14
    b"%s,1,,,,\n"  # 15 good
    b"\xff\xfe\x80,1,,,,\n"  # 16 good: an identifier may be any bytes
)


def test_bad_rows_are_reported_by_number_and_the_rest_loads(tmp_path: Path) -> None:
    content = BAD_ROWS % tuple(IFA.format(i + 1).encode() for i in range(BAD_ROWS.count(b"%s")))
    report = load(tmp_path, content)
    assert (report.loaded, report.rejected) == (3, 13)
    assert rejects(report) == sorted(
        [("2", "age_band"), ("3", ""), ("4", "intent_1"), ("5", "intent_1"), ("6", "intent_1"), ("7", "segments"),
         ("8", "segments"), ("9", "segments"), ("10", ""), ("11", ""), ("12", "buyeruid"), ("13", ""),
         ("14", "age_band")]
    )  # fmt: skip
    assert profile(tmp_path, KIND_IFA, IFA.format(1)) is not None
    assert profile(tmp_path, KIND_IFA, IFA.format(2)) is None


def test_no_identifier_comes_to_rest_anywhere(tmp_path: Path) -> None:
    """Every file under the data directory is searched for the raw identifiers, the rejected ones too."""
    good, bad, buyer = IFA.format(0xABCDEF), IFA.format(0xFEDCBA), "buyer-identifier-0001"
    load(tmp_path, f"ifa,buyeruid,exchange,age_band\n{good},{buyer},1,2\n{bad},{buyer},1,99\n{bad},1\n".encode())
    files = [path for path in (tmp_path / "var").rglob("*") if path.is_file()]
    assert len(files) >= 3
    for path in files:
        raw = path.read_bytes().lower()
        for needle in (good, bad, buyer, good.replace("-", "")):
            assert needle.encode() not in raw, path


def test_parquet_with_typed_columns(tmp_path: Path) -> None:
    table = pa.table(
        {
            "ifa": [IFA.format(1), IFA.format(2), None],
            "user_id": pa.array([5, None, None], pa.int64()),
            "exchange": pa.array([7, 7, 7], pa.int16()),
            "age_band": pa.array([3, None, 1], pa.int8()),
            "segments": ["5", None, "6"],
        }
    )
    report = load(tmp_path, table, "people.parquet")
    assert (report.loaded, report.rejected) == (2, 1)
    assert rejects(report) == [("3", "")]
    first, second = (profile(tmp_path, KIND_IFA, IFA.format(i)) for i in (1, 2))
    assert first is not None
    assert second is not None
    assert (first["age_band"].item(), second["age_band"].item()) == (3, 0)
    assert first["segments"][0].item() == 5
    assert profile(tmp_path, KIND_USER_ID, "5", 7) is not None


def test_a_second_load_updates(tmp_path: Path) -> None:
    load(tmp_path, f"ifa,age_band\n{IFA.format(1)},1\n{IFA.format(2)},2\n".encode())
    load(tmp_path, f"ifa,age_band\n{IFA.format(1)},5\n{IFA.format(3)},3\n".encode())
    rows = [profile(tmp_path, KIND_IFA, IFA.format(i)) for i in (1, 2, 3)]
    assert [None if row is None else row["age_band"].item() for row in rows] == [5, 2, 3]


def test_progress_is_told_per_block(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("ifa,age_band\n" + "".join(f"{IFA.format(i + 1)},{i % 8}\n" for i in range(120_000)))
    told: list[tuple[int, int]] = []
    report = load_profiles(
        Config(data_dir=str(tmp_path)), path, lambda loaded, rejected: told.append((loaded, rejected))
    )
    assert (report.loaded, report.rejected) == (105_000, 15_000)
    assert len(told) > 1
    assert told == sorted(told)
    assert told[-1] == (report.loaded, report.rejected)
    assert set(rejects(report)) == {(str(row), "age_band") for row in range(8, 120_001, 8)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ifa,shoe_size\nx,43\n", "shoe_size"),
        (b"age_band\n3\n", "no identifier column"),
        (b"ifa,ifa\na,b\n", "repeated"),
        (b"buyeruid\nx\n", "needs a column exchange"),
        (b"", "no identifier column"),
        (b"\xff\xfe\n", "decode"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_as_a_whole(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        load(tmp_path, content)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nowhere"):
        load_profiles(Config(data_dir=str(tmp_path)), tmp_path / "nowhere.csv")


def test_an_eid_column_needs_the_hash(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("eid,eid_source\nx,a.com\n")
    with pytest.raises(StoreError, match="hash"):
        load_profiles(Config(data_dir=str(tmp_path)), path)


def test_every_field_of_a_profile_can_be_loaded() -> None:
    derived = {"version", "person", "reserved", "n_segments", "segments", "segment_expiry_d", "key_id", "nonce"}
    for field in SCHEMA.fields:
        assert bool(field.column_names) == (field.name not in derived), field.name
        assert len(set(field.column_names)) == len(field.column_names)
        assert field.largest <= np.iinfo(PROFILE[field.name].base).max
        assert set(field.column_names) <= COLUMNS
    assert "segments" in COLUMNS


def test_write_people_takes_keys_in_any_shape(tmp_path: Path) -> None:
    records = np.zeros(2, PROFILE)
    records["person"] = [10, 20]
    one = np.frombuffer(key(1) + key(2), np.uint8).reshape(2, 16)
    for i, ids in enumerate((one, one[:, None, :], [[key(1)], [key(2), key(3)]])):
        root = tmp_path / str(i)
        assert write_people(root, records, ids) == 2
        store = LmdbProfileStore(profiles_path(root))
        assert read(store, [[key(1)], [key(2)]])[0] == [1, 1]
        store.close()


def test_people_are_written_block_by_block(tmp_path: Path) -> None:
    with people_writer(tmp_path) as writer:
        for block in range(3):
            records = np.zeros(1, PROFILE)
            records["person"] = block + 1
            writer.write(records, np.frombuffer(key(block + 1), np.uint8).reshape(1, 1, 16))
    store = LmdbProfileStore(profiles_path(tmp_path))
    assert store.people() == 3
    store.close()


def test_a_file_changes_what_its_columns_speak_of(tmp_path: Path) -> None:
    load(tmp_path, f"ifa,age_band,intent_1,segments\n{IFA.format(1)},3,200,5|7:21000\n".encode())
    load(tmp_path, f"ifa,income_band,intent_2\n{IFA.format(1)},4,9\n".encode())
    row = profile(tmp_path, KIND_IFA, IFA.format(1))
    assert row is not None
    assert (row["age_band"].item(), row["income_band"].item(), row["n_segments"].item()) == (3, 4, 2)
    assert row["intent"].tolist() == [200, 9, 255, 255, 255]
    assert row["segment_expiry_d"][:2].tolist() == [65535, 21000]
    load(tmp_path, f"ifa,segments\n{IFA.format(1)},9\n".encode())
    row = profile(tmp_path, KIND_IFA, IFA.format(1))
    assert row is not None
    assert (row["segments"].tolist(), row["age_band"].item()) == ([9] + [0] * 15, 3)


def test_given_bytes_are_those_of_the_columns() -> None:
    given = given_bytes(["ifa", "consent", "segments"])
    assert given[P_CONSENT] == 255
    assert given[P_N_SEGMENTS : P_N_SEGMENTS + 65].all()
    assert given.astype(bool).sum() == 1 + 65


def test_a_deleted_person_is_gone_by_every_id(tmp_path: Path) -> None:
    load(tmp_path, f"ifa,buyeruid,exchange,age_band\n{IFA.format(1)},b1,7,3\n{IFA.format(2)},b2,7,4\n".encode())
    report = load(tmp_path, f"ifa,delete\n{IFA.format(1)},1\n{IFA.format(9)},1\n".encode())
    assert (report.loaded, report.deleted, report.rejected) == (0, 1, 0)
    assert profile(tmp_path, KIND_IFA, IFA.format(1)) is None
    assert profile(tmp_path, KIND_BUYERUID, "b1", 7) is None
    assert profile(tmp_path, KIND_BUYERUID, "b2", 7) is not None
    pepper = load_pepper(tmp_path / "var" / "secrets" / "pepper.json")
    store = LmdbProfileStore(profiles_path(tmp_path / "var"))
    read(store, [[identity_key(KIND_BUYERUID, "b1", pepper, 7)]])
    assert store.stats.corrupt == 0  # no id is left that points nowhere
    store.close()


@pytest.mark.parametrize("there_before", [False, True])
def test_an_interrupted_load_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there_before: bool
) -> None:
    monkeypatch.setattr(load_module, "SAVE_ROWS", 30_000)
    monkeypatch.setattr(load_module, "BLOCK_BYTES", 1 << 20)
    config = Config(data_dir=str(tmp_path / "var"))
    if there_before:
        load(tmp_path, f"ifa,age_band\n{IFA.format(0xFFFFFF)},1\n".encode(), "first.csv")
    path = tmp_path / "a.csv"
    path.write_text("ifa,age_band\n" + "".join(f"{IFA.format(i + 1)},{i % 8}\n" for i in range(100_000)))

    class PowerError(Exception):
        pass

    def fail(loaded: int, rejected: int) -> None:
        if loaded > 60_000:
            raise PowerError

    with pytest.raises(PowerError):
        load_profiles(config, path, fail)
    told: list[int] = []
    report = load_profiles(config, path, lambda loaded, rejected: told.append(loaded))
    assert 30_000 <= report.resumed < 90_000
    assert (report.loaded, report.rejected) == (87_500, 12_500)
    assert set(rejects(report)) == {(str(row), "age_band") for row in range(8, 100_001, 8)}
    store = LmdbProfileStore(profiles_path(tmp_path / "var"))
    assert store.people() == 87_500 + there_before
    store.close()
    for i in (0, 30_001, 60_001, 99_998):
        row = profile(tmp_path, KIND_IFA, IFA.format(i + 1))
        assert row is not None
        assert row["age_band"].item() == i % 8
    again = load_profiles(config, path)
    assert (again.resumed, again.loaded) == (0, 87_500)


def test_a_changed_file_is_not_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_module, "SAVE_ROWS", 1)
    config = Config(data_dir=str(tmp_path / "var"))
    path = tmp_path / "a.csv"
    path.write_text(f"ifa,age_band\n{IFA.format(1)},1\n")

    def fail(loaded: int, rejected: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_profiles(config, path, fail)
    path.write_text(f"ifa,age_band\n{IFA.format(2)},2\n{IFA.format(3)},2\n")
    report = load_profiles(config, path)
    assert (report.resumed, report.loaded) == (0, 2)
    assert profile(tmp_path, KIND_IFA, IFA.format(1)) is None


def test_device_ids_by_the_names_data_teams_use(tmp_path: Path) -> None:
    load(
        tmp_path,
        b"idfa,gaid,oaid,imei_md5,caid,age_band\n"
        + IFA.format(1).upper().encode() + b",,,,,1\n,"
        + IFA.format(2).encode() + b",,,,2\n,,oaid-3,,,3\n,,,0123456789abcdef0123456789abcdef,,4\n,,,,caid-5,5\n",
    )  # fmt: skip
    for kind, text, scope, age in (
        (KIND_IFA, IFA.format(1), 0, 1), (KIND_IFA, IFA.format(2), 0, 2), (KIND_IFA, "oaid-3", 0, 3),
        (KIND_DIDMD5, "0123456789ABCDEF0123456789ABCDEF", 0, 4), (KIND_EID, "caid-5", hash_text("caid"), 5),
    ):  # fmt: skip
        row = profile(tmp_path, kind, text, scope)
        assert row is not None
        assert row["age_band"].item() == age


segment_cells = st.lists(
    st.tuples(st.integers(0, 70_000), st.one_of(st.none(), st.integers(0, 70_000))), min_size=0, max_size=18
)


@settings(deadline=None)
@given(cells=st.lists(st.one_of(segment_cells, st.text("0123456789:| x", max_size=12)), min_size=1, max_size=4))
def test_segment_cells_read_as_a_dictionary_would(cells: list[object]) -> None:
    texts = [
        cell if isinstance(cell, str) else "|".join(f"{n}" if d is None else f"{n}:{d}" for n, d in cell)  # type: ignore[attr-defined]
        for cell in cells
    ]
    raw = "".join(texts).encode()
    starts = np.cumsum([0, *[len(text.encode()) for text in texts]]).astype(np.int64)
    n = len(texts)
    numbers, expiry = np.zeros((n, 16), np.uint16), np.zeros((n, 16), np.uint16)
    count, wrong = np.zeros(n, np.uint8), np.zeros(n, bool)
    read_segments(np.frombuffer(raw or b"\0", np.uint8), starts, numbers, expiry, count, wrong)
    for i, text in enumerate(texts):
        expected = as_dictionary(text)
        assert wrong[i] == (expected is None), text
        got = dict(zip(numbers[i, : count[i]].tolist(), expiry[i, : count[i]].tolist(), strict=True))
        assert got == (expected or {}), text
        assert list(got) == sorted(got)


def as_dictionary(text: str) -> dict[int, int] | None:
    out: dict[int, int] = {}
    for item in text.split("|") if text else []:
        match = re.fullmatch(r" *([0-9]{1,9})(?::([0-9]{1,9}))? *", item)
        if match is None or not 1 <= int(match[1]) <= 65535 or int(match[2] or 65535) > 65535:
            return None
        out[int(match[1])] = int(match[2] or 65535)
    return out if len(out) <= 16 else None
