"""`dsp experiment` from a catalog file and what a bidder logged to a report, and what erasure takes out of it."""

from __future__ import annotations

import copy
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "bidder"))
from test_scenarios import BASE

from dsp.base.config import Config
from dsp.base.metrics import Metrics
from dsp.bidder.engine import Engine
from dsp.bidder.slices import Slices
from dsp.catalog.current import current_path
from dsp.catalog.snapshot import Snapshot
from dsp.cli.main import app
from dsp.log.decisions import DecisionWriter, read_decisions
from dsp.model.bootstrap import bootstrap_model
from dsp.model.features import SPEC_HASH
from dsp.model.score import Scorer
from dsp.openrtb.columns import FMT_JSON

PEOPLE = 300
ARMS = [{"name": "held out", "share": 0.4, "control": True}, {"name": "shown", "share": 0.6}]


def ifa(i: int) -> str:
    return f"8c1b2d3e-0000-4000-8000-{i:012x}"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with a published catalog, and a log of everybody asked for once."""
    root = tmp_path_factory.mktemp("experiment")
    catalog = copy.deepcopy(BASE["catalog"])
    catalog["advertisers"][0]["campaigns"][0]["experiments"] = [{"name": "lift", "arms": ARMS}]
    (root / "catalog.yaml").write_text(yaml.safe_dump(catalog))
    config = Config(data_dir=str(root))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DSP_DATA_DIR", str(root))
        for arguments in (["catalog", "apply", str(root / "catalog.yaml")],):
            done = CliRunner().invoke(app, arguments)
            assert done.exit_code == 0, done.output
    published = current_path(config)
    assert published is not None
    snapshot = Snapshot.load(published)
    slices = Slices.fixed(snapshot.li_i[:, 0].copy(), 10**12)
    engine = Engine.open(
        config, snapshot=snapshot, scorer=Scorer.load(bootstrap_model(config)), slices=slices, metrics=Metrics.memory()
    )
    engine.decisions = DecisionWriter(config.path("log", "decisions"), "t", SPEC_HASH, "1")
    for i in range(PEOPLE):
        body = json.dumps({**BASE["request"], "device": {**BASE["request"]["device"], "ifa": ifa(i)}}).encode()
        engine.decide([body], [FMT_JSON], [0])
    engine.close()
    return root


@pytest.fixture
def run(root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setenv("DSP_DATA_DIR", str(root))
    return lambda *arguments: CliRunner().invoke(app, [str(a) for a in arguments])


def test_the_list_says_what_runs(run: Callable[..., Any]) -> None:
    (row,) = json.loads(run("experiment", "list", "--json").stdout)["experiments"]
    assert (row["name"], row["status"], row["line_items"]) == ("lift", "active", 1)
    assert [(arm["share"], arm["does"]) for arm in row["arms"]] == [(0.4, "is shown nothing"), (0.6, "as usual")]
    assert "held out" in run("experiment", "list").stdout


def test_a_report_compares_shown_people_with_held_out_ones(run: Callable[..., Any], root: Path) -> None:
    alone = run("experiment", "report", "lift")
    assert "give their conversions with --conversions" in alone.stdout
    file = root / "conversions.csv"
    now = time.time() + 60
    lines = [f"{ifa(i)},funded,{now}" for i in range(0, PEOPLE, 2)]
    file.write_text("\n".join(["ifa,stage,time", *lines]) + "\n")
    told = run("experiment", "report", "lift", "--conversions", file, "--json")
    assert told.exit_code == 0, told.output
    report = json.loads(told.stdout)
    held, shown = report["arms"]
    assert held["people"] + shown["people"] == PEOPLE
    assert held["ghost_bids"] == held["people"]
    assert shown["bids"] == shown["people"]
    assert held["funded"] + shown["funded"] == len(lines)
    row = report["compared"]["shown"]["funded per thousand people"]
    assert row["base"] == pytest.approx(1000 * held["funded"] / held["people"])
    assert row["difference_interval"][0] < row["difference"] < row["difference_interval"][1]
    assert "funded per thousand people" in run("experiment", "report", report["id"], "--conversions", file).stdout


def test_a_wrong_name_or_list_is_one_clear_line(run: Callable[..., Any], root: Path) -> None:
    assert "no experiment is called 'lit'" in run("experiment", "report", "lit").stderr
    file = root / "wrong.csv"
    for text, message in (
        ("ifa,time\nx,1\n", "column stage is missing"),
        ("ifa,stage,time\nx,bought,1\n", "row 1: no such stage"),
        ("name,stage,time\nx,funded,1\n", "no column with an identifier"),
    ):
        file.write_text(text)
        wrong = run("experiment", "report", "lift", "--conversions", file)
        assert wrong.exit_code == 2
        assert message in wrong.stderr


def test_forgetting_a_person_takes_them_out_of_the_report(run: Callable[..., Any], root: Path) -> None:
    before = read_decisions(root / "log" / "decisions", ghosts=True)
    assert (before["unit"] != 0).all()
    done = json.loads(run("audience", "forget", ifa(7), "--json").stdout)
    assert done["events"] == 1
    after = read_decisions(root / "log" / "decisions", ghosts=True)
    assert np.flatnonzero(after["unit"] == 0).tolist() == [7]
    arms = json.loads(run("experiment", "report", "lift", "--json").stdout)["arms"]
    assert sum(arm["people"] for arm in arms) == PEOPLE - 1
    assert sum(arm["erased_bids"] for arm in arms) == 1
