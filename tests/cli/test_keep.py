"""`dsp backup`, `restore` and `retain` through the command line."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from dsp.base.config import Config, ConsoleConfig, LedgerConfig
from dsp.cli.main import app
from dsp.ingress.metrics_http import MetricsServer
from dsp.ledger.database import open_database
from dsp.log.segments import SUFFIX


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.delenv("DSP_DATA_DIR", raising=False)
    # An address where something else would have to answer /healthz: none of ours.
    config = Config(data_dir=str(tmp_path), ledger=LedgerConfig(port=1), console=ConsoleConfig(port=1))
    file = tmp_path / "settings.json"
    file.write_bytes(msgspec.json.encode(config))
    open_database(tmp_path / "ledger.db").dispose()
    return lambda *arguments: CliRunner().invoke(app, ["--config", str(file), *(str(a) for a in arguments)])


def test_a_backup_is_made_checked_and_put_back(run: Callable[..., Any], tmp_path: Path) -> None:
    made = json.loads(run("backup", "--into", tmp_path / "b", "--keep", 3, "--json").stdout)["backup"]
    assert "books.db" in run("restore", made, "--check").stdout
    before = Path(json.loads(run("restore", made, "--json").stdout)["before"])
    assert (before / "ledger.db").exists()
    assert (tmp_path / "ledger.db").exists()
    refused = run("restore", tmp_path)
    assert refused.exit_code == 2
    assert "is no backup" in refused.stderr


def test_nothing_is_put_back_under_a_running_ledger(tmp_path: Path, run: Callable[..., Any]) -> None:
    made = json.loads(run("backup", "--into", tmp_path / "b", "--json").stdout)["backup"]
    server = MetricsServer("127.0.0.1", 0, tmp_path, "x", lambda: True)  # it answers /healthz, as a ledger does
    file = tmp_path / "settings.json"
    config = Config(data_dir=str(tmp_path), ledger=LedgerConfig(port=server.port))
    file.write_bytes(msgspec.json.encode(config))
    try:
        refused = run("restore", made)
    finally:
        server.close()
    assert refused.exit_code == 2
    assert "stop it first" in refused.stderr


def test_old_logs_go_and_a_dry_run_only_says_so(run: Callable[..., Any], tmp_path: Path) -> None:
    directory = tmp_path / "log" / "decisions"
    directory.mkdir(parents=True)
    old, new = directory / f"0-w-1-1{SUFFIX}", directory / f"9-w-1-1{SUFFIX}"
    for path in (old, new):
        path.write_bytes(b"xyz")
    os.utime(old, (0, 0))
    told = json.loads(run("retain", "--dry-run", "--json").stdout)
    assert (told["decisions_files"], told["decisions_bytes"]) == (1, 3)
    assert old.exists()
    assert "decisions files" in run("retain").stdout
    assert not old.exists()
    assert new.exists()
