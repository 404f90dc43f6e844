"""`dsp supply` and `dsp shaping`: what the workers of this machine refused, in words and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from catalog_file import GOOD
from typer.testing import CliRunner

from dsp.base.config import Config, ShapingConfig
from dsp.base.metrics import OUTCOMES, SHAPED, SUPPLY, Metrics
from dsp.cli.main import app


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.delenv("DSP_DATA_DIR", raising=False)
    config = Config(data_dir=str(tmp_path), shaping=ShapingConfig(mode="watch"))
    file = tmp_path / "settings.json"
    file.write_bytes(msgspec.json.encode(config))
    return lambda *arguments: CliRunner().invoke(app, ["--config", str(file), *(str(a) for a in arguments)])


@pytest.fixture
def worker(tmp_path: Path) -> Metrics:
    """Counts of a worker that knows one exchange."""
    metrics = Metrics.create(tmp_path / "run" / "bidder-http-0.metrics", "bidder")
    metrics.name_labels("exchange", ["alpha"])
    metrics.counter("dsp_supply_refused_total")[0, SUPPLY.index("duplicate")] = 7
    metrics.counter("dsp_supply_refused_total")[0, SUPPLY.index("proxy_ip")] = 2
    metrics.counter("dsp_bid_requests_total")[0, OUTCOMES.index("bid")] = 90
    metrics.counter("dsp_shaped_requests_total")[0, SHAPED.index("explored")] = 5
    return metrics


def test_supply_shows_lists_and_what_they_refused(run: Callable[..., Any], worker: Metrics, tmp_path: Path) -> None:
    (tmp_path / "supply").mkdir()
    (tmp_path / "supply" / "ip_ranges.txt").write_text("192.0.2.0/24\n2001:db8::/32\n")
    told = json.loads(run("supply", "--json").stdout)
    assert told["lists"]["ip_ranges"] == 2
    assert {reason: n for reason, n in told["refused"]["alpha"].items() if n} == {"duplicate": 7, "proxy_ip": 2}
    text = run("supply").stdout
    assert "2 ip ranges" in text
    assert "7 refused: duplicate" in text
    assert "fraud" not in text  # nothing was refused for it


def test_a_supply_list_that_cannot_be_used_is_said_with_its_line(run: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "supply").mkdir()
    (tmp_path / "supply" / "ip_ranges.txt").write_text("192.0.2.0/24\nnonsense\n")
    refused = run("supply")
    assert refused.exit_code == 2
    assert "ip_ranges.txt:2" in refused.stderr


def test_shaping_shows_what_it_would_refuse(run: Callable[..., Any], worker: Metrics, tmp_path: Path) -> None:
    before = run("shaping")
    assert before.exit_code != 0
    assert "dsp catalog apply" in before.stderr
    file = tmp_path / "catalog.yaml"
    file.write_text(GOOD)
    assert run("catalog", "apply", file).exit_code == 0
    assert run("catalog", "publish").exit_code == 0
    told = json.loads(run("shaping", "--json").stdout)
    assert told["mode"] == "watch"
    assert (told["exchanges"]["alpha"]["requests"], told["exchanges"]["alpha"]["explored"]) == (90, 5)
    assert told["total"] == told["exchanges"]["alpha"]
    text = run("shaping").stdout
    assert "watching: nothing is refused" in text
    assert "alpha" in text
