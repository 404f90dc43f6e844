"""One person: found, shown, exported, forgotten with proof; and who may do that."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from dsp.audience.access import AccessError, allow, user_name
from dsp.audience.cipher import KEYS_VARIABLE
from dsp.audience.frequency import Shown
from dsp.audience.lmdb_frequency import LmdbFrequencyWriter, frequency_path, person_subject
from dsp.audience.load import load_profiles
from dsp.audience.lookalike import export_segment
from dsp.audience.person import People, keys_of_identifier, people_blocks
from dsp.audience.profile import LIFECYCLE
from dsp.audience.rotate import rotate_records
from dsp.audience.stats import count
from dsp.audience.store import StoreError
from dsp.base.config import AccessConfig, AudienceConfig, Config
from dsp.openrtb.hashing import hash_text

RULES = (AccessConfig("ann", ("read",)), AccessConfig("bob", ("load",)))
IFA = "38400000-8cf0-11bd-b23e-{:012x}"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    config = Config(data_dir=str(tmp_path / "var"))
    path = tmp_path / "people.csv"
    rows = [
        f"{IFA.format(i)},b{i},7,u{i}@x.example,x.example,{i % 7},3,5:21000|{100 + i % 3}\n" for i in range(1, 2001)
    ]
    path.write_text("ifa,buyeruid,exchange,eid,eid_source,age_band,consent,segments\n" + "".join(rows))
    load_profiles(config, path, hash_text=hash_text)
    return config


def keys(config: Config, number: int) -> list[bytes]:
    return keys_of_identifier(config, IFA.format(number), "ifa")


def seen(config: Config, number: int) -> None:
    writer = LmdbFrequencyWriter(frequency_path(config.root))
    person = person_subject(number)
    first, second = Shown(1_790_000_000, 1, 2, 3, 4, 0), Shown(1_790_000_000, 5, 6, 7, 8, 1)
    writer.count([(person, first), (keys(config, number)[0], second)])
    writer.convert([(person, 1, LIFECYCLE.index("applied"))])
    writer.close()


def test_a_person_is_shown_by_any_identifier(config: Config) -> None:
    seen(config, 9)
    with People(config) as people:
        by_ifa = people.find(keys(config, 9))
        by_eid = people.find(keys_of_identifier(config, "u9@x.example", "eid", "x.example", hash_text))
        assert people.find(keys(config, 5000)) is None
    assert by_ifa is not None
    assert by_ifa == by_eid
    assert (by_ifa["age_band"], by_ifa["identifiers"]) == (2, 3)
    assert by_ifa["segments"] == [{"number": 5, "until": "2027-07-01"}, {"number": 100}]
    assert [shown["line_item"] for shown in by_ifa["shown"]] == [2, 6]
    assert by_ifa["conversions"] == [{"product": 1, "stage": "applied"}]
    json.dumps(by_ifa)


@pytest.mark.parametrize("encrypted", [False, True])
def test_forgetting_leaves_nothing_and_proves_it(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encrypted: bool
) -> None:
    if encrypted:
        monkeypatch.setenv(KEYS_VARIABLE, f"1:{'ab' * 32}")
        rotate_records(config)
    seen(config, 9)
    all_keys = [
        *keys(config, 9), *keys_of_identifier(config, "b9", "buyeruid", "7"),
        *keys_of_identifier(config, "u9@x.example", "eid", "x.example", hash_text),
    ]  # fmt: skip
    with People(config) as people:
        done = people.forget(keys(config, 9), IFA.format(9))
        assert (done.profiles, done.ids, done.states) == (1, 3, 2)
        assert done.traces == []
        assert done.files >= 4
        assert people.find(keys(config, 9)) is None
        assert people.find(keys(config, 10)) is not None
    for path in config.root.rglob("*"):  # our own look, by every key
        if path.is_file():
            raw = path.read_bytes()
            for needle in (*all_keys, IFA.format(9).encode(), b"u9@x.example"):
                assert needle not in raw, path
    assert count(config).people == 1999
    new = tmp_path / "more.csv"
    new.write_text(f"ifa,age_band\n{IFA.format(9)},1\n")
    load_profiles(config, new)
    with People(config) as people:
        found = people.find(keys(config, 9))
    assert found is not None
    assert found["person"] == 2001  # a new number: nothing of the old one can come back
    assert found["shown"] == []


def test_a_trace_elsewhere_is_reported(config: Config) -> None:
    config.path("log").mkdir(exist_ok=True)
    config.path("log", "careless.txt").write_text(f"debug: {IFA.format(9).upper()}")
    config.path("log", "hex.txt").write_text(keys(config, 9)[0].hex())
    with People(config) as people:
        done = people.forget(keys(config, 9), IFA.format(9))
    assert sorted(done.traces) == ["log/careless.txt", "log/hex.txt"]


def test_forgetting_somebody_unknown(config: Config) -> None:
    with People(config) as people:
        done = people.forget(keys(config, 77_777), IFA.format(77_777))
    assert (done.profiles, done.ids, done.states, done.traces) == (0, 0, 0, [])


def test_identifiers_that_make_no_sense(config: Config) -> None:
    for text, column, scope, message in (
        ("x", "shoe", "", "unknown kind"), ("x", "buyeruid", "", "needs its exchange"),
        ("x", "buyeruid", "seven", "is a number"), ("0000", "ifa", "", "nobody"),
        ("x", "eid", "a.com", "needs the hash"),
    ):  # fmt: skip
        with pytest.raises(StoreError, match=message):
            keys_of_identifier(config, text, column, scope)


def test_keys_rotate_and_every_profile_stays_readable(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = config.path("profiles.lmdb", "data.mdb").read_bytes()
    monkeypatch.setenv(KEYS_VARIABLE, f"1:{'ab' * 32}")
    assert rotate_records(config) == 2000
    monkeypatch.setenv(KEYS_VARIABLE, f"1:{'ab' * 32},2:{'cd' * 32}")
    assert rotate_records(config) == 2000
    monkeypatch.setenv(KEYS_VARIABLE, f"2:{'cd' * 32}")  # the old key is gone
    with People(config) as people:
        found = people.find(keys(config, 9))
    assert found is not None
    assert found["age_band"] == 2
    sealed = config.path("profiles.lmdb", "data.mdb").read_bytes()
    segments = np.array([5, 101], "<u2").tobytes() + bytes(28)
    assert plain.count(segments) > 100
    assert sealed.count(segments) == 0


def test_a_segment_is_exported_without_anybody(config: Config, tmp_path: Path) -> None:
    out = tmp_path / "segment.parquet"
    members, others = export_segment(people_blocks(config), 101, out, share=0.5)
    table = pq.read_table(out)
    assert members == 667
    assert 500 < others < 850
    assert sum(table["member"].to_pylist()) == members
    assert {"age_band", "intent_1", "risk_device"} < set(table.column_names)
    assert not {"person", "segments", "nonce", "consent", "ifa"} & set(table.column_names)


def test_access_is_by_user_and_logged_without_whom(config: Config) -> None:
    reference = allow(config, "read")
    assert reference
    strict = Config(data_dir=config.data_dir, audience=AudienceConfig(access=RULES))
    assert allow(strict, "read", user="ann")
    with pytest.raises(AccessError, match="bob may not read people; ann may"):
        allow(strict, "read", user="bob")
    with pytest.raises(AccessError, match="nobody may"):
        allow(strict, "erase", user="ann")
    with pytest.raises(AccessError):
        allow(config, "read", user="somebody-else")
    lines = [json.loads(line) for line in config.path("log", "access.jsonl").read_text().splitlines()]
    assert [line["allowed"] for line in lines] == [True, True, False, False, False]
    assert lines[0]["reference"] == reference
    assert lines[0]["user"] == user_name()
    assert set(lines[0]) == {"time", "user", "action", "allowed", "people", "reference"}
