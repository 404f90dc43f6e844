"""The command line: wrong input is one clear line and status 2; each command does its wiring."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from socket import create_server
from typing import Any

import httpx
import pytest
import typer
from typer.testing import CliRunner

import dsp.catalog
from dsp.cli.main import app

EXAMPLE = Path(dsp.catalog.__file__).parent / "example" / "catalog.yaml"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setenv("DSP_DATA_DIR", str(tmp_path))
    return lambda *arguments: CliRunner().invoke(app, [str(a) for a in arguments])


def test_version(run: Callable[..., Any]) -> None:
    assert json.loads(run("version", "--json").stdout) == {"version": "0.1.0"}
    assert run("version").stdout == "0.1.0\n"


def test_every_command_and_option_says_what_it_is_for() -> None:
    def check(command: Any, name: str) -> None:
        assert command.help, name
        for parameter in command.params:
            if parameter.name != "help":
                assert parameter.help, f"{name} {parameter.name}"
        for child_name, child in getattr(command, "commands", {}).items():
            check(child, f"{name} {child_name}")

    check(typer.main.get_command(app), "dsp")


def test_a_wrong_config_names_file_and_field(run: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text("bidder: {http_port: eighty}\n")
    result = run("--config", file, "audience", "stats")
    assert result.exit_code == 2
    assert str(file) in result.stderr
    assert "$.bidder.http_port" in result.stderr
    assert "Traceback" not in result.output
    missing = run("--config", tmp_path / "missing.yaml", "audience", "stats")
    assert missing.exit_code == 2
    assert "missing.yaml" in missing.stderr


def test_a_catalog_is_applied_published_and_shown(run: Callable[..., Any], tmp_path: Path) -> None:
    result = run("catalog", "apply", EXAMPLE, "--json")
    assert result.exit_code == 0, result.output
    assert Path(json.loads(result.stdout)["snapshot"]).exists()
    catalog = json.loads(run("catalog", "show", "--json").stdout)
    assert len(catalog["line_items"]) >= 25
    assert "max bid" in run("catalog", "show").stdout
    assert Path(run("catalog", "publish").stdout.strip()).name == "000002.snap"


def test_a_wrong_catalog_file_is_told_by_line(run: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text("advertisers:\n  - name: 7\n    colour: red\n")
    result = run("catalog", "apply", file)
    assert result.exit_code == 2
    assert f"{file}:" in result.stderr
    assert run("catalog", "apply", tmp_path / "missing.yaml").exit_code == 2


def test_people_are_loaded_and_counted(run: Callable[..., Any], tmp_path: Path) -> None:
    assert json.loads(run("audience", "stats", "--json").stdout)["people"] == 0
    file = tmp_path / "people.csv"
    file.write_text("ifa,age_band\n38400000-8cf0-11bd-b23e-10b96e40000d,3\n38400000-8cf0-11bd-b23e-10b96e40000e,99\n")
    result = run("audience", "load", file, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["loaded"], report["rejected"]) == (1, 1)
    assert Path(report["rejects"]).exists()
    assert json.loads(run("audience", "stats", "--json").stdout)["people"] == 1
    file.write_text("colour\nred\n")
    assert run("audience", "load", file).exit_code == 2


def test_a_person_is_looked_up_exported_and_forgotten(run: Callable[..., Any], tmp_path: Path) -> None:
    ifa = "38400000-8cf0-11bd-b23e-10b96e40000d"
    file = tmp_path / "people.csv"
    file.write_text(f"ifa,imei_md5,age_band,consent,segments\n{ifa},0123456789abcdef0123456789abcdef,3,1,7\n")
    assert run("audience", "load", file).exit_code == 0
    found = json.loads(run("audience", "get", ifa, "--json").stdout)
    assert (found["age_band"], found["segments"], found["identifiers"]) == (3, [{"number": 7}], 2)
    out = tmp_path / "them.json"
    assert run("audience", "export", ifa, "--out", out).exit_code == 0
    assert json.loads(out.read_text()) == found
    sample = tmp_path / "segment.parquet"
    assert "1 members" in run("audience", "lookalike", "7", "--out", sample).stdout
    left = run("audience", "forget", ifa, "--json")  # the file that was loaded lies in the data directory
    assert left.exit_code == 1
    assert json.loads(left.stdout)["traces"] == ["people.csv"]
    assert run("audience", "load", file).exit_code == 0
    file.unlink()
    gone = json.loads(run("audience", "forget", ifa, "--json").stdout)
    assert (gone["profiles"], gone["ids"], gone["traces"]) == (1, 2, [])
    assert json.loads(run("audience", "get", ifa, "--json").stdout) is None
    by_imei = run("audience", "get", "0123456789ABCDEF0123456789ABCDEF", "--kind", "imei_md5")
    assert "nobody is known" in by_imei.stdout
    assert run("audience", "get", ifa, "--kind", "shoe").exit_code == 2


def test_a_cluster_is_sized(run: Callable[..., Any]) -> None:
    small, large = (
        json.loads(run("audience", "size", "--people", people, "--qps", "100000", "--json").stdout)
        for people in ("1e7", "1e9")
    )
    assert small["nodes"] < large["nodes"]
    assert large["records"] == 6_000_000_000
    assert "USD a month" in run("audience", "size", "--people", "1e8", "--qps", "1e5").stdout


def test_training_without_logs_says_what_to_do_and_a_prior_needs_none(run: Callable[..., Any]) -> None:
    result = run("train")
    assert result.exit_code == 2
    assert "dsp catalog apply" in result.stderr
    assert run("catalog", "apply", EXAMPLE).exit_code == 0
    assert run("train").exit_code == 2
    prior = run("train", "--bootstrap", "--json")
    assert prior.exit_code == 0, prior.output
    assert Path(json.loads(prior.stdout)["path"]).is_dir()


def test_model_versions_are_listed_promoted_and_rolled_back(run: Callable[..., Any], tmp_path: Path) -> None:
    assert "dsp train" in run("model", "list").stdout
    run("train", "--bootstrap")
    shutil.copytree(tmp_path / "models" / "000001", tmp_path / "models" / "000002")
    assert run("model", "shadow", 2).exit_code == 0
    roles = {row["version"]: row["role"] for row in json.loads(run("model", "list", "--json").stdout)}
    assert roles == {1: "current", 2: "shadows"}
    assert run("model", "promote", 2, "--share", 0.1).exit_code == 0
    assert "serves 10%" in run("model", "list").stdout
    assert json.loads(run("model", "promote", 2, "--json").stdout) == {"version": 2, "refused": []}
    assert json.loads(run("model", "rollback", "--json").stdout) == {"current": 1}
    wrong = run("model", "promote", 7)
    assert wrong.exit_code == 2
    assert "no model version 7" in wrong.stderr


def test_a_request_is_explained(run: Callable[..., Any], tmp_path: Path) -> None:
    run("catalog", "apply", EXAMPLE)
    run("train", "--bootstrap")
    file = tmp_path / "request.json"
    banner = {"format": [{"w": 300, "h": 250}]}
    user_agent = (
        "Mozilla/5.0 (Linux; Android 14) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0 Mobile Safari/537.36"
    )
    body = {
        "id": "r", "at": 1, "cur": ["USD"], "imp": [{"id": "1", "bidfloor": 0.01, "banner": banner}],
        "site": {"domain": "news.example", "cat": ["IAB13"], "publisher": {"id": "p"}},
        "device": {"ua": user_agent, "os": "Android", "devicetype": 4, "geo": {"country": "USA"}},
    }  # fmt: skip
    file.write_text(json.dumps(body))
    told = run("explain", file)
    assert told.exit_code == 0, told.output
    assert "result   " in told.stdout
    assert "default -" in told.stdout
    assert "USD wins every other one" in told.stdout
    again = run("explain", file, "--json")
    assert again.exit_code == 0, again.output
    rows = json.loads(again.stdout)["candidates"]
    assert {row["strategy"] for row in rows} <= {"value", "fixed bid"}
    assert rows
    wrong = run("explain", file, "--exchange", "nobody")
    assert wrong.exit_code == 2
    assert "there are: " in wrong.stderr


def test_serve_starts_everything_from_an_empty_directory_and_ends_cleanly(tmp_path: Path) -> None:
    sockets = [create_server(("127.0.0.1", 0)) for _ in range(7)]
    http_port, grpc_port, metrics_port, ledger_port, sync_port, *web = (int(s.getsockname()[1]) for s in sockets)
    for s in sockets:
        s.close()
    file = tmp_path / "config.yaml"
    bidder = {"http_port": http_port, "grpc_port": grpc_port, "metrics_port": metrics_port, "drain_s": 3.0}
    ledger, console = {"port": ledger_port, "grpc_port": sync_port}, {"port": web[0], "metrics_port": web[1]}
    file.write_text(json.dumps({"bidder": bidder, "ledger": ledger, "console": console}))
    data = tmp_path / "data"
    process = subprocess.Popen(
        [sys.executable, "-m", "dsp.cli.main", "--config", str(file), "serve"],
        env={**os.environ, "DSP_DATA_DIR": str(data)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        ready = f"http://127.0.0.1:{metrics_port}/readyz"
        deadline = time.monotonic() + 200
        while True:
            assert process.poll() is None, "dsp serve ended"
            assert time.monotonic() < deadline, "never ready"
            try:
                if httpx.get(ready).status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            time.sleep(0.1)
        exchange = json.loads((data / "run" / "exchange.labels.json").read_text())[0]
        answer = httpx.post(f"http://127.0.0.1:{http_port}/bid/{exchange}", content=b"{}")
        assert answer.status_code in (400, 401)
        assert 'dsp_bid_requests_total{exchange="' in httpx.get(f"http://127.0.0.1:{metrics_port}/metrics").text
    finally:
        process.send_signal(signal.SIGTERM)
        output, told = process.communicate(timeout=60)
    assert process.returncode == 0
    lines = [json.loads(line) for line in told.splitlines()]  # nothing but JSON, from every role
    serving = {(line["role"], line.get("worker")) for line in lines if line["event"] == "serving"}
    assert serving == {("ledger", None), ("console", None), ("bidder", "http0"), ("bidder", "grpc0")}, told
    assert "first start" in output
    assert not list((data / "run").glob("bidder-*.json"))
