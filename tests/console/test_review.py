"""Above a threshold a campaign goes live by two people, whichever way the first one tries."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from dsp.console.services import Services

Clients = Callable[..., TestClient]


@pytest.fixture
def asker(services: Services, sign_in: Clients) -> TestClient:
    """A trader in a system where more than 500 dollars need a second person; the campaign (1,000.10) is paused."""
    client = sign_in("trader", 1)
    assert client.post("/api/v1/campaigns/1/pause").status_code == 200
    services.catalog.approval_above = 500.0
    return client


def status(client: TestClient) -> str:
    return str(client.get("/api/v1/campaigns/1").json()["status"])


def form(client: TestClient) -> dict[str, str]:
    return {"csrf": client.headers["x-csrf-token"]}


def test_no_way_around_the_second_person(asker: TestClient) -> None:
    refused = asker.post("/api/v1/campaigns/1/resume")
    assert refused.status_code == 409
    assert refused.json()["error"]["code"] == "approval"
    new = {"advertiser_id": 1, "name": "Live at once", "budget": {"total": 600}}
    assert asker.post("/api/v1/campaigns", json=new).status_code == 409
    assert asker.post("/api/v1/campaigns", json={**new, "budget": {}}).status_code == 409  # no limit is more than any
    small = asker.post("/api/v1/campaigns", json={**new, "budget": {"total": 400}})
    assert small.status_code == 201
    raised = {"budget": {"total": 600}}
    where = f"/api/v1/campaigns/{small.json()['id']}"
    assert asker.patch(where, json=raised, headers={"if-match": "*"}).status_code == 409
    assert asker.patch(where, json={"budget": {"total": 450}}, headers={"if-match": "*"}).status_code == 200


def test_it_is_live_when_another_approves_and_not_before(asker: TestClient, sign_in: Clients) -> None:
    assert "waits for a second person" in asker.post("/campaigns/1/resume", data=form(asker)).text
    assert status(asker) == "paused"
    assert asker.post("/review/1/approve", data=form(asker)).status_code == 403  # a trader, and who asked
    stranger, second = sign_in("admin", 2), sign_in("reviewer", 1)
    assert stranger.post("/review/1/approve", data=form(stranger)).status_code == 404
    assert "Spring" in second.get("/review").text
    assert second.post("/review/1/approve", data=form(second)).status_code == 200
    assert status(asker) == "active"
    assert second.post("/review/1/approve", data=form(second)).status_code == 409
    assert asker.get("/api/v1/changes").json()["items"][0]["action"] == "approve"


def test_what_was_changed_after_asking_is_not_approved(asker: TestClient, sign_in: Clients) -> None:
    asker.post("/campaigns/1/resume", data=form(asker))
    more = {"budget": {"total": 900_000}}
    assert asker.patch("/api/v1/campaigns/1", json=more, headers={"if-match": "*"}).status_code == 200
    second = sign_in("admin", 1)
    assert second.post("/review/1/approve", data=form(second)).status_code == 412
    assert status(asker) == "paused"


def test_not_even_an_owner_approves_what_they_asked_for(asker: TestClient, owner: TestClient) -> None:
    owner.post("/campaigns/1/resume", data=form(owner))
    assert owner.post("/review/1/approve", data=form(owner)).status_code == 403
    assert owner.post("/review/1/return", data=form(owner)).status_code == 200
    assert status(asker) == "paused"
