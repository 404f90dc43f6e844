"""The audience as the settings ask for it, and a change of peppers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from store_conformance import key, read, record
from test_aerospike import HOSTS, NEEDS_SERVER

from dsp.audience.cipher import KEYS_VARIABLE
from dsp.audience.consent import FREQUENCY
from dsp.audience.frequency import States
from dsp.audience.hot import HotProfiles
from dsp.audience.identity import KIND_IFA, identity_key, load_peppers
from dsp.audience.lmdb_store import LmdbProfileStore, profiles_path
from dsp.audience.load import load_profiles, write_people
from dsp.audience.open import open_audience
from dsp.audience.person import People, keys_of_identifier
from dsp.audience.profile import PROFILE, PROFILE_BYTES
from dsp.audience.store import StoreError
from dsp.base.config import AudienceConfig, BidderConfig, Config

IFA = "38400000-8cf0-11bd-b23e-{:012x}"


def test_lmdb_is_the_default_and_reads_encrypted_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEYS_VARIABLE, f"1:{'ab' * 32}")
    write_people(tmp_path, np.frombuffer(record(10, age_band=5), PROFILE), [[key(1)]])
    config = Config(data_dir=str(tmp_path))
    audience = open_audience(config)
    found, rows = read(audience.store, [[key(1)]])
    assert found == [1]
    assert np.frombuffer(rows[0], PROFILE)["age_band"][0] == 5
    assert audience.remote is None
    audience.close()
    audience.close()
    monkeypatch.setenv(KEYS_VARIABLE, f"1:{'cd' * 32}")
    audience = open_audience(config)
    read(audience.store, [[key(1)]])  # the wrong key: noise, not a crash
    audience.close()
    monkeypatch.setenv(KEYS_VARIABLE, "nonsense")
    with pytest.raises(StoreError, match=KEYS_VARIABLE):
        open_audience(config)


def test_without_profile_reads_everybody_may_still_be_counted(tmp_path: Path) -> None:
    audience = open_audience(Config(data_dir=str(tmp_path), bidder=BidderConfig(profile_reads=False)))
    states = States(1)
    keys = np.frombuffer(key(1) * 4, np.uint8).reshape(4, 16)
    profiles, found = np.zeros((1, PROFILE_BYTES), np.uint8), np.zeros(1, np.int64)
    audience.states(1, np.array([FREQUENCY]), keys, np.array([1, 0, 0, 0]), profiles, found, states)
    assert (states.known[0], states.subjects[0].tobytes()) == (1, key(1))
    audience.close()


def test_aerospike_needs_to_be_told_where(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="aerospike_hosts"):
        open_audience(Config(data_dir=str(tmp_path), audience=AudienceConfig(store="aerospike")))


def test_an_aerospike_that_is_not_there_is_no_reason_not_to_start(tmp_path: Path) -> None:
    settings = AudienceConfig(store="aerospike", aerospike_hosts=("127.0.0.1:1",))
    audience = open_audience(Config(data_dir=str(tmp_path), audience=settings))
    assert read(audience.store, [[key(1)]])[0] == [0]
    assert audience.store.stats.errors == 1
    states = States(1)
    states.known[:] = 1
    zero = np.zeros((4, 16), np.uint8)
    audience.states(1, np.array([FREQUENCY]), zero, np.zeros(4, np.int64), zero, np.zeros(1, np.int64), states)
    assert states.known[0] == 0  # nobody knows what was shown
    audience.close()


@NEEDS_SERVER
def test_one_setting_makes_it_aerospike(tmp_path: Path) -> None:
    settings = AudienceConfig(store="aerospike", aerospike_hosts=(HOSTS,), timeout_ms=1000, ttl_days=2)
    config = Config(data_dir=str(tmp_path), audience=settings)
    path = tmp_path / "people.csv"
    path.write_text(f"ifa,imei_md5,age_band\n{IFA.format(1)},{'ab' * 16},3\n{IFA.format(2)},,4\n{IFA.format(3)},,99\n")
    report = load_profiles(config, path)
    assert (report.loaded, report.rejected) == (2, 1)
    path.write_text(f"ifa,income_band,delete\n{IFA.format(1)},5,0\n{IFA.format(2)},,1\n")
    report = load_profiles(config, path)
    assert (report.loaded, report.deleted) == (1, 1)
    audience = open_audience(config)
    assert isinstance(audience.store, HotProfiles)
    ids = [keys_of_identifier(config, IFA.format(i), "ifa")[0] for i in (1, 2)]
    audience.budget(500)
    found, rows = read(audience.store, [[ids[0]], [ids[1]]])
    row = np.frombuffer(rows[0], PROFILE)[0]
    assert (found, row["age_band"], row["income_band"]) == ([1, 0], 3, 5)
    audience.close()
    with People(config) as people:
        known = people.find(keys_of_identifier(config, "AB" * 16, "imei_md5"))
        assert known is not None
        assert known["identifiers"] == 2
        path.unlink()
        done = people.forget([ids[0]], IFA.format(1))
        assert (done.profiles, done.ids, done.traces) == (1, 2, [])
        assert people.find([ids[0]]) is None


def test_peppers_rotate_without_losing_anybody(tmp_path: Path) -> None:
    """A person loaded under the old pepper is found, and is the same when loaded again under the new one."""
    config = Config(data_dir=str(tmp_path / "var"))
    path = tmp_path / "people.csv"
    path.write_text(f"ifa,age_band\n{IFA.format(1)},3\n{IFA.format(2)},4\n")
    load_profiles(config, path)
    file = config.path("secrets", "pepper.json")
    old = json.loads(file.read_text())
    file.write_text(json.dumps({**old, "2": "5" * 32}))
    peppers = load_peppers(file)
    assert peppers.last is not None
    with People(config) as people:
        assert people.find(keys_of_identifier(config, IFA.format(1), "ifa")) is not None
    path.write_text(f"ifa,income_band\n{IFA.format(1)},6\n")
    load_profiles(config, path)
    store = LmdbProfileStore(profiles_path(config.root))
    assert store.people() == 2
    for pepper in (peppers.current, peppers.last):
        found, rows = read(store, [[identity_key(KIND_IFA, IFA.format(1), pepper)]])
        row = np.frombuffer(rows[0], PROFILE)[0]
        assert (found, row["age_band"], row["income_band"]) == ([1], 3, 6)
    store.close()


def test_ten_megabytes_with_bad_rows(tmp_path: Path) -> None:
    """Damage, absurd values and rows of another width all over a large file: counted, named, and the rest loads."""
    path = tmp_path / "people.csv"
    rng = np.random.default_rng(12)
    bad = {"missing": "{ifa}\n", "band": "{ifa},9,1,\n", "absurd": "{ifa},1,99999999999999999999999,\n",
           "negative": "{ifa},-1,1,\n", "text": "{ifa},one,1,\n", "segment": "{ifa},1,1,70000\n", "nobody": ",1,1,\n",
           "zeros": "00000000-0000-0000-0000-000000000000,1,1,\n"}  # fmt: skip
    kinds = list(bad)
    n, wrong = 240_000, 0
    with path.open("w") as file:
        file.write("ifa,age_band,intent_1,segments\n")
        for i, draw in enumerate(rng.random(n)):
            ifa = IFA.format(i + 1)
            if draw < 0.05:
                file.write(bad[kinds[i % len(kinds)]].format(ifa=ifa))
                wrong += 1
            else:
                file.write(f"{ifa},3,{i % 255},7\n")
    assert path.stat().st_size > 10_000_000
    report = load_profiles(Config(data_dir=str(tmp_path / "var")), path)
    assert (report.loaded, report.rejected) == (n - wrong, wrong)
    assert report.rejects is not None
    assert report.rejects.read_text().count("\n") == wrong + 1
    store = LmdbProfileStore(profiles_path(tmp_path / "var"))
    assert store.people() == n - wrong
    store.close()
