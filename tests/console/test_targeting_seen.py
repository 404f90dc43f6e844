"""The line-item editor in a real browser: targeting by keyboard, wrong fields said while typing, a forecast, saved."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect
from starlette.testclient import TestClient

from dsp.base.config import Config

HOST = "http://console.test"


@pytest.fixture
def editor(page: Page, owner: TestClient, traffic: Config) -> Page:
    """The editor of line item 1; what the browser asks for is answered in this process."""

    def answer(route: Route) -> None:
        asked = route.request
        headers = {k: v for k, v in asked.headers.items() if k in ("accept", "content-type", "cookie", "x-part")}
        path = asked.url.removeprefix(HOST)
        got = owner.request(asked.method, path, headers=headers, content=asked.post_data_buffer, follow_redirects=False)
        kept = {k: v for k, v in got.headers.items() if k in ("content-type", "location", "set-cookie")}
        route.fulfill(status=got.status_code, headers=kept, body=got.content)

    everyone = {"targeting": {}}
    assert owner.patch("/api/v1/line-items/1", json=everyone, headers={"if-match": "*"}).status_code == 200
    page.route("**/*", answer)
    page.goto(f"{HOST}/line-items/1")
    return page


def keep(page: Page, name: str) -> None:
    if os.environ.get("DSP_SCREENSHOTS"):
        page.screenshot(path=Path(os.environ["DSP_SCREENSHOTS"]) / f"{name}.png", full_page=True)


def test_a_line_item_is_targeted_by_keyboard_and_foreseen_before_it_is_saved(editor: Page, owner: TestClient) -> None:
    places = editor.get_by_label("Only in these places")
    places.press("Control+A")
    editor.keyboard.type("Utopia")
    said = editor.locator('[id="e-targeting.geo.include"]')
    expect(said).to_contain_text("Utopia")  # half a second after the last key
    expect(places).to_have_attribute("aria-invalid", "true")
    keep(editor, "editor-wrong")
    places.press("Control+A")
    editor.keyboard.type("USA\nFRA")
    expect(said).to_be_empty()
    on_what = editor.locator("summary", has_text="On what")
    on_what.focus()
    if on_what.evaluate("each => !each.parentElement.open"):
        editor.keyboard.press("Enter")
    phone = editor.get_by_role("checkbox", name="phone", exact=True)
    phone.focus()
    editor.keyboard.press("Space")
    before = owner.get("/api/v1/line-items/1").json()
    editor.get_by_role("button", name="Forecast").press("Enter")
    expect(editor.locator("#forecast")).to_contain_text("Of 4 recent requests")
    expect(editor.locator("#forecast")).to_contain_text("devices")  # which keeps those out that say nothing of theirs
    keep(editor, "editor-forecast")
    assert owner.get("/api/v1/line-items/1").json() == before
    editor.get_by_role("button", name="Save").press("Enter")
    editor.wait_for_url("**/line-items/1?done=saved")
    targeting = owner.get("/api/v1/line-items/1").json()["targeting"]
    assert targeting["geo"]["include"] == ["USA", "FRA"]
    assert targeting["devices"] == ["phone"]
    expect(editor.get_by_role("checkbox", name="phone", exact=True)).to_be_checked()
