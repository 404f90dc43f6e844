"""`dsp doctor` finds what is missing, says what to do, and finds nothing where all is well."""

import json
import os
from pathlib import Path
from socket import create_server

import msgspec
import pytest
from typer.testing import CliRunner

from dsp.audience.identity import load_pepper
from dsp.base.config import AudienceConfig, BidderConfig, Config, LedgerConfig
from dsp.base.token import load_signer
from dsp.cli.doctor import UNSYNCED, _backlog, _clock, _cores, examine
from dsp.cli.main import app


def test_an_empty_directory_has_everything_missing_and_each_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    config = Config(data_dir=str(tmp_path), ledger=LedgerConfig(port=port))  # nobody listens there
    file = tmp_path / "settings.yaml"
    file.write_bytes(msgspec.json.encode(config))
    monkeypatch.delenv("DSP_DATA_DIR", raising=False)
    result = CliRunner().invoke(app, ["--config", str(file), "doctor", "--json"])
    assert result.exit_code == 1
    wrong = {each["what"]: each["says"] for each in json.loads(result.stdout) if not each["ok"]}
    assert {"key pepper.json", "key signing.json", "catalog", "model", "ledger"} <= set(wrong)
    assert "dsp catalog apply" in wrong["catalog"]
    assert "dsp train" in wrong["model"]
    assert not (tmp_path / "secrets").exists()  # looking changes nothing


def test_a_key_that_others_may_read_is_found(tmp_path: Path) -> None:
    config = Config(data_dir=str(tmp_path))
    load_signer(config.path("secrets", "signing.json"))
    load_pepper(config.path("secrets", "pepper.json"))
    config.path("secrets", "signing.json").chmod(0o644)
    findings = {what: (ok, says) for what, ok, says in examine(config)}
    assert findings["key pepper.json"] == (True, "there")
    assert not findings["key signing.json"][0]
    assert "chmod 600" in findings["key signing.json"][1]


def test_a_clock_that_nothing_keeps_or_that_others_are_ahead_of_is_found(tmp_path: Path) -> None:
    config = Config(data_dir=str(tmp_path))
    (tmp_path / "snapshots").mkdir()
    snapshot = tmp_path / "snapshots" / "000001.snap"
    snapshot.touch()
    os.utime(snapshot, (1_000.0, 1_000.0))
    assert all(ok for _, ok, _ in _clock(config, 1_000.0, 0))
    kept, agree = _clock(config, 900.0, UNSYNCED)
    assert not kept[1]
    assert "chrony" in kept[2]
    assert not agree[1]
    assert "100 s in the future" in agree[2]


def test_limits_that_are_too_low_say_how_to_raise_them(tmp_path: Path) -> None:
    file = tmp_path / "somaxconn"
    file.write_text("128\n")
    _, ok, says = _backlog(file)
    assert not ok
    assert "net.core.somaxconn=4096" in says
    file.write_text("4096\n")
    assert _backlog(file)[1]
    assert _backlog(tmp_path / "none")[1]
    config = Config(bidder=BidderConfig(http_workers=3, grpc_workers=2))
    assert _cores(config, 5)[1]
    assert not _cores(config, 4)[1]


def test_an_audience_that_cannot_be_opened_is_found(tmp_path: Path) -> None:
    def audience(config: Config) -> tuple[bool, str]:
        return next((ok, says) for what, ok, says in examine(config) if what == "audience")

    assert audience(Config(data_dir=str(tmp_path)))[0]
    hosts = AudienceConfig(store="aerospike", aerospike_hosts=("127.0.0.1:1",))
    ok, says = audience(Config(data_dir=str(tmp_path), audience=hosts))
    assert not ok
    assert "contextual" in says
