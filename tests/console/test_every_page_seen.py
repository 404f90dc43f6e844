"""axe over every page of the route table, with and without something to show, refused and gone wrong; light and dark.

The browser's requests are answered by the application itself, in this process: no port, no start-up, a clock that
stands still.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import axe_core_python
import pytest
from every_page import ERRORS, PARTS, REFUSED, addresses, bare, refused
from playwright.sync_api import Page, Route
from starlette.testclient import TestClient

from dsp.console.edge import LANGUAGE

HOST = "http://console.test"
AXE = (Path(axe_core_python.__file__).parent / "axe.min.js").read_text()
ALL = "axe.run({resultTypes: ['violations']})"
DARK = "axe.run({runOnly: ['color-contrast', 'link-in-text-block']})"  # what colours decide
Visit = Callable[[str], None]


def answered_by(page: Page, client: TestClient, prepared: dict[str, str]) -> Callable[[], None]:
    """Let ``client`` answer what the browser asks for; ``prepared`` are pages by their path."""

    def answer(route: Route) -> None:
        request, path = route.request, route.request.url.removeprefix(HOST)
        if path in prepared:
            route.fulfill(body=prepared[path], content_type="text/html")
            return
        fresh = request.resource_type == "fetch" and request.url == page.url  # what a live page does every two seconds
        if fresh or not request.url.startswith(HOST):  # or a picture of an advertiser's
            route.abort()
            return
        got = client.request(request.method, path, headers={"accept": request.headers.get("accept", "*/*")})
        headers = {k: v for k, v in got.headers.items() if k in ("content-type",)}
        route.fulfill(status=got.status_code, headers=headers, body=got.content)

    page.route("**/*", answer)
    return lambda: page.unroute("**/*", answer)


def violations(page: Page, path: str, name: str) -> Iterator[tuple[str, str, str]]:
    """(address and scheme, rule, place) of each serious violation."""
    page.goto(HOST + path)
    page.wait_for_function("!document.querySelector('[aria-busy=true]')")  # parts that come later are there
    page.evaluate(AXE)
    for scheme, run in (("light", ALL), ("dark", DARK)):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
        if os.environ.get("DSP_SCREENSHOTS"):
            picture = re.sub(r"\W+", "-", f"{name}{path}-{scheme}")[:120] + ".png"
            page.screenshot(path=Path(os.environ["DSP_SCREENSHOTS"]) / picture, full_page=True)
        found: list[dict[str, Any]] = page.evaluate(run)["violations"]
        for v in found:
            if v["impact"] in ("serious", "critical"):
                yield f"{path} {scheme}", v["id"], v["nodes"][0]["html"][:200]


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_no_page_has_a_serious_violation(
    page: Page, full: TestClient, empty: TestClient, anyone: TestClient, lang: str
) -> None:
    found: list[tuple[str, str, str]] = []
    prepared = {f"/refused{i}": refused(full, path, form, lang) for i, (path, form) in enumerate(REFUSED)}
    pages = [path for path in addresses() if path not in PARTS]  # those are seen in their pages
    for client, name, paths in (
        (full, "full", [*pages, *(path for path, _ in ERRORS), *prepared]),
        (empty, "empty", bare()),
        (anyone, "anyone", ["/sign-in", "/enter", "/nowhere"]),
    ):
        client.cookies.set(LANGUAGE, lang)
        done = answered_by(page, client, prepared)
        for path in paths:
            found += violations(page, path, f"{name}-{lang}")
        done()
    assert found == []


def test_a_page_that_some_cannot_read_would_be_found(page: Page, anyone: TestClient) -> None:
    faults = (
        '<html lang="en"><title>x</title><main><h1>x</h1><input><p style="color:#999;background:#aaa">pale</p></main>'
    )
    answered_by(page, anyone, {"/faults": faults})
    found = {(where, rule) for where, rule, _ in violations(page, "/faults", "faults")}
    assert found == {
        ("/faults light", "label"),
        ("/faults light", "color-contrast"),
        ("/faults dark", "color-contrast"),
    }
