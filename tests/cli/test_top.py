"""`dsp top`: rates and delays between two looks, a role that is away, and output for machines."""

import json
from pathlib import Path
from socket import create_server

import msgspec
import pytest
from rich.console import Console
from typer.testing import CliRunner

from dsp.base.config import BidderConfig, Config, LedgerConfig
from dsp.base.metrics import OUTCOMES, STAGES, Metrics, render
from dsp.base.scrape import Scrape
from dsp.cli import top
from dsp.cli.main import app
from dsp.ingress.metrics_http import MetricsServer


def scrape(directory: Path) -> Scrape:
    return Scrape(render(directory, "bidder").decode())


def test_rates_and_delays_are_of_the_time_between_two_looks(tmp_path: Path) -> None:
    metrics = Metrics.create(tmp_path / "bidder-http-0.metrics", "bidder")
    metrics.name_labels("exchange", ["one", "two"])
    requests, seconds = metrics.counter("dsp_bid_requests_total"), metrics.histogram("dsp_request_seconds")
    stages = metrics.histogram("dsp_stage_seconds")
    requests[0, OUTCOMES.index("bid")] = 1_000  # long ago
    seconds.observe_n(0, 0.5, 1_000)
    before = top.Look(10.0, scrape(tmp_path), None)
    requests[0, OUTCOMES.index("bid")] += 30
    requests[1, OUTCOMES.index("no_bid")] += 10
    seconds.observe_n(0, 0.001, 39)
    seconds.observe(0, 0.1)
    stages.observe(STAGES.index("decode"), 0.003)
    stages.observe(STAGES.index("total"), 0.004)
    metrics.gauge("dsp_workers")[0] = 1
    shown = top.figures(before, top.Look(12.0, scrape(tmp_path), None))
    bidder = shown["bidder"]
    assert shown["ledger"] is None
    assert (bidder["requests"], bidder["bids"], bidder["workers"]) == (20.0, 15.0, 1)
    assert bidder["exchanges"]["two"]["requests"] == 5.0
    assert 1.0 <= bidder["p50_ms"] < 1.5  # half octaves
    assert 100 <= bidder["p99_ms"] < 150
    assert bidder["stages"]["decode"] == pytest.approx(0.75)
    console = Console(width=150)
    with console.capture() as screen:
        console.print(top.render(shown))
    text = screen.get()
    assert "75.0 %" in text
    assert "away" in text, "the ledger doesn't answer, and that is said"
    first = top.figures(top.Look(1.0, None, None), before)
    assert first["bidder"]["requests"] is None, "one look gives no rate"


def test_a_running_role_is_read_over_http_for_machines_and_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DSP_DATA_DIR", raising=False)
    Metrics.create(tmp_path / "run" / "bidder-http-0.metrics", "bidder").gauge("dsp_snapshot_version")[0] = 7
    with create_server(("127.0.0.1", 0)) as taken:
        nobody = taken.getsockname()[1]
    server = MetricsServer("127.0.0.1", 0, tmp_path / "run", "bidder", lambda: True)
    file = tmp_path / "settings.json"
    config = Config(bidder=BidderConfig(metrics_port=server.port), ledger=LedgerConfig(port=nobody))
    file.write_bytes(msgspec.json.encode(config))
    command = ["--config", str(file), "top", "--once", "--every", "0.1"]
    try:
        told = CliRunner().invoke(app, [*command, "--json"])
        assert json.loads(told.stdout)["bidder"]["snapshot"] == 7
        assert "requests/s" in CliRunner().invoke(app, command).stdout
    finally:
        server.close()
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 2
    assert "dsp serve" in refused.stderr
