"""`dsp campaign` against a console that runs as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import yaml
from catalog_file import GOOD
from sqlalchemy import Engine

from dsp.base.config import Config, ConsoleConfig
from dsp.catalog.current import current_path
from dsp.catalog.publish import catalog_path
from dsp.catalog.snapshot import Snapshot
from dsp.catalog.store import apply_file, open_catalog
from dsp.console.accounts import Accounts
from dsp.ledger.accounts import CAMPAIGN
from dsp.ledger.database import open_database
from dsp.ledger.schema import MEASURES, ROLLUP_DAYS
from dsp.market.roles import free_ports

Run = Callable[..., Any]
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("DSP_")}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Config]:
    """A console at work over the small catalog."""
    directory = tmp_path_factory.mktemp("campaign")
    config = Config(data_dir=str(directory), console=ConsoleConfig(port=free_ports(1)[0], metrics_port=0))
    (directory / "catalog.yaml").write_text(GOOD)
    engine = open_catalog(catalog_path(config))
    apply_file(engine, directory / "catalog.yaml")
    engine.dispose()
    books = open_database(config.path("ledger.db"))
    _spend(books)
    books.dispose()
    config.path("settings.json").write_bytes(msgspec.json.encode(config))
    process = subprocess.Popen(_command(config, "console"), env=ENVIRONMENT)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{config.console.port}/healthz")
                break
            except httpx.TransportError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield config
    finally:
        process.terminate()
        assert process.wait(20) == 0


def _spend(books: Engine) -> None:
    row = {"kind": CAMPAIGN, "grain": 1, "day": 20_000, "ref": 1, "currency": "USD"}
    amounts = dict.fromkeys(MEASURES, 0) | {"impressions": 1_000, "spend_micros": 12_340_000}
    with books.begin() as connection:
        connection.execute(ROLLUP_DAYS.insert().values(**row, **amounts))


def _command(config: Config, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "dsp.cli.main", "--config", str(config.path("settings.json")), *arguments]


@pytest.fixture(scope="module")
def key(config: Config) -> str:
    engine = open_catalog(catalog_path(config))
    accounts = Accounts(engine)
    session = accounts.use_link(accounts.make_link(), "me@bank.example", "correct horse battery")
    identity = accounts.by_session(session)
    assert identity is not None
    secret = accounts.add_key(identity, "terminal", ["read", "write", "report"])[1]
    engine.dispose()
    return secret


@pytest.fixture(scope="module")
def run(config: Config, key: str) -> Run:
    """Runs `dsp campaign ...`; its JSON, or with ``status`` what it wrote on stderr."""

    def run(*arguments: str, status: int = 0, secret: str = key, as_json: bool = True) -> Any:
        command = _command(config, "campaign", *arguments, *(["--json"] if as_json and not status else []))
        done = subprocess.run(
            command, env={**ENVIRONMENT, "DSP_API_KEY": secret}, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == status, done.stderr
        if status:
            return done.stderr
        return json.loads(done.stdout) if as_json else done.stdout

    return run


def test_campaigns_are_listed_shown_paused_resumed_and_reach_the_snapshot(run: Run, config: Config) -> None:
    assert [c["name"] for c in run("list")] == ["Spring"]
    shown = run("show", "Spring")
    assert [i["name"] for i in shown["line_items"]] == ["Loans", "Savings"]
    assert run("pause", "Spring")[0]["status"] == "paused"
    assert run("resume", "1")[0]["status"] == "active"
    assert run("pause", "--line-item", "Savings")[0]["status"] == "paused"
    _published(config, lambda meta: list(meta["line_items"]["status"]).count("paused") == 1)
    assert run("show", "1")["changes"][0]["action"] == "resume"
    assert "Spring" in run("list", "--status", "active", as_json=False)


def _published(config: Config, holds: Callable[[dict[str, Any]], bool]) -> None:
    deadline = time.monotonic() + 10
    while True:
        path = current_path(config)
        if path is not None and holds(Snapshot.load(path).meta):
            return
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_second_person_is_asked(run: Run) -> None:
    (asked,) = run("review", "Spring")
    assert asked["campaign"] == 1
    assert asked["id"] > 0


def test_a_budget_is_shown_and_changed_in_part(run: Run) -> None:
    assert run("budget", "Spring")["total"] == "1000.1"
    changed = run("budget", "Spring", "--daily", "80")
    assert (changed["total"], changed["daily"]) == ("1000.1", "80")
    assert run("budget", "Spring", "--daily", "none")["daily"] is None
    assert "budget.total" in run("budget", "Spring", "--total", "-5", status=2)


def test_a_file_is_applied_once_and_again_without_a_change(run: Run, tmp_path: Path) -> None:
    text = yaml.safe_load(GOOD)
    del text["currencies"]
    campaign = text["advertisers"][0]["campaigns"][0]
    text["advertisers"][0]["campaigns"] = [{**campaign, "name": "Autumn"}]
    text["offers"].append({"name": "Gold", "product": "credit_card", "lender": "Bank", "margin": 3})
    file = tmp_path / "autumn.yaml"
    file.write_text(yaml.safe_dump(text))
    first = run("apply", str(file))
    assert {(r["kind"], r["name"]) for r in first if r["action"] == "made"} == {
        *(("offer", "Gold"), ("campaign", "Autumn"), ("line_item", "Loans"), ("line_item", "Savings")),
    }
    assert {r["action"] for r in run("apply", str(file))} == {"unchanged"}
    text["advertisers"][0]["campaigns"][0]["budget"] = {"total": "-1"}
    file.write_text(yaml.safe_dump(text))
    assert "campaign 'Autumn': budget.total" in run("apply", str(file), status=2)
    file.write_text("advertisers: [{nam: x}]")
    assert "autumn.yaml" in run("apply", str(file), status=2)


def test_a_report_says_what_was_spent(run: Run) -> None:
    rows = run("report", "Spring", "--from", "2024-10-04", "--to", "2024-10-04")
    assert [(r["name"], r["impressions"], r["spend_micros"]) for r in rows] == [("Spring", 1_000, 12_340_000)]
    assert "12.34" in run("report", "--from", "2024-10-04", "--to", "2024-10-04", as_json=False)


def test_what_does_not_work_says_what_to_do(run: Run) -> None:
    assert "DSP_API_KEY" in run("list", status=2, secret="")
    assert "API key is not valid" in run("list", status=2, secret="dsp_wrong")
    assert "no campaign called 'Winter'" in run("pause", "Winter", status=2)
    assert "can't be reached" in run("--url", "http://127.0.0.1:9", "list", status=2)
