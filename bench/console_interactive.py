"""How soon each page of the console can be used, in Chromium, where a client has much.

`python -m bench console interactive --keep DIR`, over the data that `python -m bench console --keep DIR` has made. The
console runs as a process of its own; a page is interactive when its document is read, its script has run and its first
content is painted (the later of DOMContentLoaded and First Contentful Paint, from the start of the navigation). Bar:
1.5 s. One JSON line each, appended to ``bench/results/console_interactive.jsonl``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path

import msgspec
import yaml
from playwright.sync_api import sync_playwright

from bench.machine import facts
from dsp.base.config import Config, ConsoleConfig
from dsp.catalog.publish import catalog_path
from dsp.catalog.store import open_catalog
from dsp.console.accounts import Accounts
from dsp.market.roles import Roles, free_ports

BAR_MS = 1500.0
RESULTS = Path(__file__).parent / "results" / "console_interactive.jsonl"
PATHS = (
    *("/", "/campaigns", "/campaigns/3", "/campaigns/new", "/line-items", "/line-items?sort=name", "/line-items/77"),
    *("/line-items/77/why", "/line-items/77/new-creative", "/creatives", "/creatives/7", "/audiences", "/review"),
    *("/campaigns/3/new-line-item", "/experiments"),
    *("/reports", "/reports?by=line_item&daily=true", "/reports?by=campaign,exchange&daily=true&compare=true"),
    *("/exchanges", "/exchanges/1/bill", "/changes", "/users", "/keys", "/security", "/guide"),
)
_READY = """() => {
  const page = performance.getEntriesByType("navigation")[0];
  const paint = performance.getEntriesByName("first-contentful-paint")[0];
  return page.domContentLoadedEventEnd && paint ? Math.max(page.domContentLoadedEventEnd, paint.startTime) : 0;
}"""


def main(args: list[str]) -> int:
    """Run it; 1 where the bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench console interactive", description=__doc__)
    parser.add_argument(
        "--keep", type=Path, required=True, help="a directory that `python -m bench console` has filled"
    )
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args(args)
    config = Config(data_dir=str(options.keep), console=ConsoleConfig(port=free_ports(1)[0], metrics_port=0))
    file = config.path("interactive.yaml")
    file.write_text(yaml.safe_dump(msgspec.to_builtins(config)))
    engine = open_catalog(catalog_path(config))
    accounts = Accounts(engine)
    if not accounts.has_users():
        accounts.add_owner("owner@bench.example")
    token = accounts.make_link()
    engine.dispose()
    base = f"http://127.0.0.1:{config.console.port}"
    taken: dict[str, list[float]] = {path: [] for path in PATHS}
    with Roles(file, config.path("run")) as roles, sync_playwright() as playwright:
        roles.wait_ready(roles.start("console", ["console"]), f"{base}/healthz", 60)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_context().new_page()
        page.goto(f"{base}/enter?token={token}&lang=en")
        page.click("main button")
        page.wait_for_url(f"{base}/")
        for _ in range(options.turns):
            for path in PATHS:
                answer = page.goto(base + path, wait_until="domcontentloaded")
                assert answer is not None, path
                assert answer.ok, path
                page.wait_for_function(_READY)
                taken[path].append(float(page.evaluate(_READY)))
        browser.close()
    shared = {"time": int(time.time()), "bar_ms": BAR_MS, "machine": msgspec.to_builtins(facts())}
    slow = []
    with RESULTS.open("a") as results:
        for path, ms in taken.items():
            median = sorted(ms)[len(ms) // 2]
            line = {
                "bench": "console interactive",
                "path": path,
                "median_ms": round(median),
                "worst_ms": round(max(ms)),
            }
            results.write(json.dumps({**line, **shared}) + "\n")
            print(json.dumps(line))
            slow += [path] if median > BAR_MS else []
    print(f"{len(PATHS)} pages, {len(slow)} later than {BAR_MS:.0f} ms: {', '.join(slow)}")
    return 1 if slow else 0
