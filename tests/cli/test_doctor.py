"""`dsp doctor` finds what is missing, says what to do, and finds nothing where all is well."""

import json
from pathlib import Path
from socket import create_server

import msgspec
import pytest
from typer.testing import CliRunner

from dsp.audience.identity import load_pepper
from dsp.base.config import Config, LedgerConfig
from dsp.base.token import load_signer
from dsp.cli.doctor import examine
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
