"""From draft through review to live, as the pages show it."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from dsp.console.services import Services

Clients = Callable[..., TestClient]
NEW = {"advertiser_id": "1", "name": "Summer", "total": "400", "daily": "20"}


def form(client: TestClient, **more: str) -> dict[str, str]:
    return {"csrf": client.headers["x-csrf-token"], **more}


def state(client: TestClient, path: str) -> str:
    """What the page's badge says."""
    return re.findall(r'data-status="([^"]+)"', client.get(path).text)[0]


def button(client: TestClient, path: str) -> str:
    """What the page's first button does."""
    return re.findall(r'class="actions">.*?<(?:button|a)[^>]*>([^<]+)<', client.get(path).text, re.DOTALL)[0]


@pytest.fixture
def made(owner: TestClient) -> str:
    """The address of a campaign that was just made."""
    return str(owner.post("/campaigns/new", data=form(owner, **NEW)).url.path)


def test_what_is_made_is_a_draft_until_it_goes_live_and_paused_after_that(owner: TestClient, made: str) -> None:
    assert (state(owner, made), button(owner, made)) == ("draft", "Go live")
    assert "nothing is bid for it until it goes live" in owner.get(made).text
    owner.post(f"{made}/resume", data=form(owner))
    assert (state(owner, made), button(owner, made)) == ("active", "Pause")
    owner.post(f"{made}/pause", data=form(owner))
    assert (state(owner, made), button(owner, made)) == ("paused", "Resume")
    assert "A draft" not in owner.get(made).text


def test_a_draft_stays_one_while_it_is_written(owner: TestClient, made: str) -> None:
    ref = made.rsplit("/", 1)[1]
    owner.patch(f"/api/v1/campaigns/{ref}", json={"name": "Late summer"}, headers={"if-match": "*"})
    assert state(owner, made) == "draft"
    assert owner.get(f"/api/v1/campaigns/{ref}").json()["status"] == "paused"  # for bidders there are no drafts


def test_what_came_with_a_file_or_was_made_live_at_once_is_no_draft(owner: TestClient) -> None:
    owner.post("/campaigns/1/pause", data=form(owner))
    assert state(owner, "/campaigns/1") == "paused"
    body = {"advertiser_id": 1, "name": "At once", "status": "active"}
    ref = owner.post("/api/v1/campaigns", json=body).json()["id"]
    owner.post(f"/campaigns/{ref}/pause", data=form(owner))
    assert state(owner, f"/campaigns/{ref}") == "paused"


def test_copies_and_their_line_items_are_drafts(owner: TestClient) -> None:
    copy = str(owner.post("/campaigns/1/duplicate", data=form(owner)).url.path)
    assert re.findall(r'data-status="([^"]+)"', owner.get(copy).text) == ["draft"] * 3
    child = re.findall(r'href="(/line-items/\d+)"', owner.get(copy).text)[0]
    assert (state(owner, child), button(owner, child)) == ("draft", "Go live")
    assert "Its campaign has to go live, too." in owner.get(child).text


def test_lists_tell_drafts_from_what_was_paused(owner: TestClient, made: str) -> None:
    owner.post("/campaigns/2/pause", data=form(owner))
    drafts, paused = (owner.get("/campaigns", params={"status": s}).text for s in ("draft", "paused"))
    assert "Summer" in drafts
    assert "Autumn" not in drafts
    assert "Autumn" in paused
    assert "Summer" not in paused
    assert 'aria-label="Go live Summer"' in owner.get("/campaigns").text
    assert 'aria-label="Resume Autumn"' in owner.get("/campaigns").text
    assert owner.get("/campaigns?status=draft&lang=zh").text.count("草稿") > 1


def test_a_large_draft_is_sent_for_review_and_live_when_another_approves(
    services: Services, owner: TestClient, sign_in: Clients, made: str
) -> None:
    services.catalog.approval_above = 300.0
    assert button(owner, made) == "Send for review"
    assert "a second person approves before it goes live" in owner.get(made).text
    owner.post(f"{made}/resume", data=form(owner))
    assert (state(owner, made), button(owner, made)) == ("in review", "Review")
    assert "in review" in owner.get("/campaigns").text
    second = sign_in("reviewer", 1)
    assert state(second, made) == "in review"
    second.post("/review/1/approve", data=form(second))
    assert state(owner, made) == "active"


def test_what_was_sent_back_is_a_draft_again(services: Services, owner: TestClient, made: str) -> None:
    services.catalog.approval_above = 300.0
    owner.post(f"{made}/resume", data=form(owner))
    owner.post("/review/1/return", data=form(owner))
    assert (state(owner, made), button(owner, made)) == ("draft", "Send for review")
