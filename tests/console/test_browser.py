"""A real browser through the console as a marketer goes: in by the link, create, launch, spend, pause, report, export.

Debian's Chromium by Playwright; skipped where it isn't installed, unless DSP_REQUIRE_BROWSER is set. Screenshots go to
``DSP_SCREENSHOTS`` where that is set. axe-core looks at every page, light and dark.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import axe_core_python
import httpx
import msgspec
import pytest
from console_names import PASSWORD
from playwright.sync_api import Page, expect
from sqlalchemy import insert

from dsp.base.config import Config, ConsoleConfig
from dsp.catalog.current import current_path
from dsp.catalog.publish import catalog_path
from dsp.catalog.snapshot import Snapshot
from dsp.catalog.store import open_catalog
from dsp.console.accounts import Accounts
from dsp.ledger.accounts import CAMPAIGN
from dsp.ledger.database import open_database
from dsp.ledger.rollups import ALL, GRAINS
from dsp.ledger.schema import MEASURES, ROLLUP_DAYS
from dsp.market.roles import free_ports

AXE = (Path(axe_core_python.__file__).parent / "axe.min.js").read_text()
WORDS = {
    "en": (
        "Overview",
        "New campaign",
        "Save",
        "Go live",
        "Pause",
        "draft",
        "paused",
        "active",
        "Reports",
        "Download CSV",
    ),
    "zh": ("概览", "新建广告系列", "保存", "上线", "暂停", "草稿", "已暂停", "投放中", "报表", "下载 CSV"),
}


@pytest.fixture
def console(config: Config) -> Iterator[Config]:
    """The console role as a process of its own."""
    port, metrics_port = free_ports(2)
    running = msgspec.structs.replace(config, console=ConsoleConfig(port=port, metrics_port=metrics_port))
    file = config.path("settings.json")
    file.write_bytes(msgspec.json.encode(running))
    command = [sys.executable, "-m", "dsp.cli.main", "--config", str(file), "console"]
    environment = {k: v for k, v in os.environ.items() if k != "DSP_DATA_DIR"}
    process = subprocess.Popen(command, env=environment)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{running.console.port}/healthz")
                break
            except httpx.TransportError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield running
    finally:
        process.terminate()
        assert process.wait(20) == 0


def look(page: Page, name: str) -> None:
    """Keep a picture; no serious violation of accessibility in light or dark."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        if os.environ.get("DSP_SCREENSHOTS"):
            page.screenshot(path=Path(os.environ["DSP_SCREENSHOTS"]) / f"{name}-{scheme}.png", full_page=True)
        page.evaluate(AXE)
        found = page.evaluate("axe.run()")["violations"]
        assert [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")] == []


def spend(config: Config, campaign: int, micros: int) -> None:
    """Book something today, as rollups have it."""
    day = int(time.time() // 86_400)
    engine = open_database(config.path("ledger.db"))
    with engine.begin() as connection:
        for kind, ref in ((CAMPAIGN, campaign), (ALL, 0)):
            for grain in GRAINS:
                key: dict[str, Any] = {"kind": kind, "grain": grain, "day": day - day % grain, "ref": ref}
                amounts = dict.fromkeys(MEASURES, 0) | {"spend_micros": micros, "impressions": 1234}
                connection.execute(insert(ROLLUP_DAYS).values(**key, currency="USD", **amounts))
    engine.dispose()


def paused_within(config: Config, campaign: int, paused: bool, limit_s: float) -> float:
    """Seconds until the snapshot that workers map has it."""
    begun = time.monotonic()
    while True:
        path = current_path(config)
        if path is not None:
            items = Snapshot.load(path).meta["campaigns"]
            row = list(items["id"]).index(campaign) if campaign in items["id"] else None
            if row is not None and (items["status"][row] != "active") == paused:
                return time.monotonic() - begun
        assert time.monotonic() - begun < limit_s, "the change did not reach the bidders' snapshot in time"
        time.sleep(0.02)


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_marketer_creates_launches_watches_pauses_and_exports(console: Config, page: Page, lang: str) -> None:
    overview, new, save, go_live, pause, is_draft, is_paused, is_active, reports, download = WORDS[lang]
    base = f"http://127.0.0.1:{console.console.port}"
    engine = open_catalog(catalog_path(console))
    token = Accounts(engine).make_link()
    engine.dispose()
    page.goto(f"{base}/enter?token={token}&lang={lang}")
    look(page, f"enter-{lang}")
    page.fill("[name=email]", "me@bank.example")
    page.fill("[name=password]", PASSWORD)
    page.click("main button")
    expect(page.get_by_role("heading", level=1)).to_have_text(overview)
    page.goto(f"{base}/campaigns")
    look(page, f"campaigns-{lang}")
    page.get_by_role("link", name=new).click()
    page.fill("[name=name]", "Summer")
    page.fill("[name=total]", "10")
    page.fill("[name=daily]", "20")
    page.get_by_role("button", name=save).click()
    expect(page.locator("[name=daily]")).to_have_attribute("aria-invalid", "true")  # more than the total
    look(page, f"refused-{lang}")
    page.fill("[name=daily]", "5")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/campaigns/\d+\?done=made$"))
    campaign = int(page.url.rsplit("/", 1)[1].partition("?")[0])
    expect(page.locator("[data-status]").first).to_have_text(is_draft)
    page.get_by_role("button", name=go_live, exact=True).click()
    expect(page.locator("[data-status]").first).to_have_text(is_active)
    look(page, f"campaign-{lang}")
    page.goto(base)
    expect(page.get_by_role("row", name="Summer")).to_contain_text("0.00")
    spend(console, campaign, 7_250_000)
    expect(page.get_by_role("row", name="Summer")).to_contain_text("7.25", timeout=5_000)  # without a reload
    look(page, f"overview-{lang}")
    page.goto(f"{base}/campaigns/1")
    page.get_by_role("button", name=pause, exact=True).click()
    expect(page.locator("[data-status]").first).to_have_text(is_paused)
    paused_within(console, 1, True, 2.0)
    page.goto(f"{base}/line-items/1")
    page.wait_for_load_state("networkidle")
    look(page, f"line-item-{lang}")
    for name in (
        "creatives",
        "creatives/1",
        "line-items/1/new-creative",
        "line-items/1/new-creative?format=native",
        "line-items/1/new-creative?format=video",
        "audiences",
        "exchanges/1/bill",
        "line-items",
        "line-items/1/why",
        "exchanges",
        "guide",
        "review",
        "users",
        "keys",
        "security",
    ):
        page.goto(f"{base}/{name}")
        page.wait_for_load_state("networkidle")
        look(page, f"{re.sub('[/?=]', '-', name)}-{lang}")
    page.goto(f"{base}/changes")
    look(page, f"changes-{lang}")
    page.get_by_role("link", name=reports).click()
    look(page, f"reports-{lang}")
    with page.expect_download() as downloading:
        page.get_by_role("link", name=download).click()
    assert "Summer" in Path(downloading.value.path()).read_text()
    metrics = httpx.get(f"http://127.0.0.1:{console.console.metrics_port}/metrics").text
    assert 'dsp_console_sign_ins_total{by="link",outcome="in"} 1.0' in metrics
    assert 'dsp_console_requests_total{method="GET",route="/campaigns/{id}",status="2xx"}' in metrics
    assert "dsp_console_publish_seconds_count 0.0" not in metrics  # what was paused above
    page.locator("#sign-out").click()
    page.goto(base)
    expect(page).to_have_url(f"{base}/sign-in")
    look(page, f"sign-in-{lang}")
