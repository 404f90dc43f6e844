"""Above a threshold a campaign goes live by two people, whichever way the first one tries."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from catalog_file import edited
from starlette.testclient import TestClient

from dsp.catalog.source import read_source
from dsp.catalog.types import CatalogFile
from dsp.cli.api_client import ApiClient, RefusedError
from dsp.cli.apply_api import applying
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


# --- ways around ------------------------------------------------------------------------------------------------------


def live(asker: TestClient, sign_in: Clients) -> None:
    """Get campaign 1 approved."""
    asker.post("/campaigns/1/resume", data=form(asker))
    second = sign_in("reviewer", 1)
    waiting = re.findall(r"/review/(\d+)/approve", second.get("/review").text)
    assert second.post(f"/review/{waiting[-1]}/approve", data=form(second)).status_code == 200
    assert status(asker) == "active"


def patch(client: TestClient, path: str, **changes: object) -> int:
    return client.patch(f"/api/v1/{path}", json=changes, headers={"if-match": "*"}).status_code


def test_a_status_is_no_way_around(asker: TestClient) -> None:
    assert patch(asker, "campaigns/1", status="active") == 409
    assert patch(asker, "campaigns/1", status="active", budget={"total": 500}) == 200  # that much one may decide


def test_a_daily_budget_and_a_short_flight_are_no_limit_as_both_can_be_moved(asker: TestClient) -> None:
    small = {"budget": {"daily": 1}, "flight": {"start": "2026-03-01", "end": "2026-03-02"}}
    assert patch(asker, "campaigns/1", status="active", **small) == 409
    assert patch(asker, "campaigns/1", **small) == 200  # while it is paused
    assert "at most 500 USD" in asker.post("/api/v1/campaigns/1/resume").json()["error"]["message"]


def test_what_was_approved_is_not_raised_by_one_person(asker: TestClient, sign_in: Clients) -> None:
    live(asker, sign_in)
    assert patch(asker, "campaigns/1", budget={"total": 1000.11, "daily": 100}) == 409
    assert patch(asker, "campaigns/1", budget={"daily": 100}) == 409
    assert patch(asker, "campaigns/1", flight={"start": "2026-01-01", "end": "2027-01-01"}) == 200  # no more in all
    assert patch(asker, "campaigns/1", budget={"total": 900, "daily": 300}) == 200
    assert patch(asker, "campaigns/1", budget={"total": 1000}) == 409  # nor back to what it was


def test_what_was_approved_without_a_total_is_neither_quickened_nor_prolonged(
    asker: TestClient, sign_in: Clients
) -> None:
    assert patch(asker, "campaigns/1", budget={"daily": 100}) == 200
    live(asker, sign_in)
    assert patch(asker, "campaigns/1", budget={"daily": 101}) == 409
    assert patch(asker, "campaigns/1", flight={"start": "2026-03-01", "end": "2026-04-30"}) == 409
    assert patch(asker, "campaigns/1", flight={"start": "2026-02-01", "end": "2026-03-31"}) == 409
    assert patch(asker, "campaigns/1", flight={}) == 409
    assert patch(asker, "campaigns/1", name="Spring again", budget={"daily": 99}) == 200
    assert patch(asker, "campaigns/1", flight={"start": "2026-03-02", "end": "2026-03-30"}) == 200


def test_bulk_changes_are_no_way_around(asker: TestClient, sign_in: Clients) -> None:
    ticked = {**form(asker), "id": ["1"]}
    assert asker.post("/campaigns/bulk", data={**ticked, "action": "resume"}).status_code == 409
    live(asker, sign_in)
    for budget in ("+10%", "2000", ""):
        assert asker.post("/campaigns/bulk", data={**ticked, "action": "total", "budget": budget}).status_code == 409
    assert asker.post("/campaigns/bulk", data={**ticked, "action": "total", "budget": "-10%"}).status_code == 200


def test_a_copy_of_what_was_approved_is_not_approved(asker: TestClient, sign_in: Clients) -> None:
    live(asker, sign_in)
    where = asker.post("/campaigns/1/duplicate", data=form(asker), follow_redirects=False).headers["location"]
    copy = int(re.findall(r"\d+", where)[0])
    assert asker.get(f"/api/v1/campaigns/{copy}").json()["status"] == "paused"
    assert asker.post(f"/api/v1/campaigns/{copy}/resume").status_code == 409


def test_undo_is_no_way_around(asker: TestClient, sign_in: Clients) -> None:
    pause = asker.get("/api/v1/changes").json()["items"][0]
    assert pause["action"] == "pause"
    assert asker.post(f"/api/v1/changes/{pause['id']}/undo").status_code == 409
    assert asker.post(f"/changes/{pause['id']}/undo", data=form(asker)).status_code == 409
    live(asker, sign_in)
    assert patch(asker, "campaigns/1", budget={"total": 600}) == 200
    less = asker.get("/api/v1/changes").json()["items"][0]
    assert asker.post(f"/api/v1/changes/{less['id']}/undo").status_code == 409
    assert asker.get("/api/v1/campaigns/1").json()["budget"]["total"] == "600"


def test_line_items_spend_within_what_their_campaign_may(asker: TestClient) -> None:
    """However much a line item is given, the campaign's own budget stays, and a paused one stays paused."""
    before = asker.get("/api/v1/campaigns/1").json()
    patch(asker, "line-items/1", budget={"total": 900_000}, status="active")
    asker.post("/api/v1/line-items/1/resume")
    new = asker.get("/api/v1/line-items/1").json() | {"name": "More", "budget": {}, "status": "active"}
    asker.post("/api/v1/line-items", json={k: v for k, v in new.items() if k not in ("id", "advertiser_id")})
    assert asker.get("/api/v1/campaigns/1").json() == before


def test_another_currency_is_no_way_around(asker: TestClient, sign_in: Clients) -> None:
    assert patch(asker, "campaigns/1", budget={"total": 480}) == 200
    assert asker.post("/api/v1/campaigns/1/resume").status_code == 200
    assert patch(sign_in("admin", 1), "advertisers/1", currency="EUR") == 422  # 480 EUR would be 518 USD


def test_a_catalog_file_is_no_way_around(asker: TestClient, owner: TestClient, tmp_path: Path) -> None:
    file = tmp_path / "catalog.yaml"
    file.write_text(edited(("currencies: {date: 2026-01-05, rates: {USD: 1, EUR: 1.08}}", "")))
    api = ApiClient("http://console.test", "")
    api._http = TestClient(owner.app, base_url="http://console.test/api/v1", headers=owner.headers)
    api._http.cookies = owner.cookies
    with pytest.raises(RefusedError, match=r"campaign 'Spring': .*second person"):
        list(applying(api, read_source(file, CatalogFile).value))
    assert status(asker) == "paused"


def test_who_asked_does_not_approve_with_a_key(asker: TestClient, owner: TestClient) -> None:
    owner.post("/campaigns/1/resume", data=form(owner))
    assert owner.post("/api/v1/campaigns/1/resume").status_code == 409
    made = owner.post("/api/v1/keys", json={"name": "own", "scopes": ["read", "write", "admin"]}).json()
    key = {"authorization": f"Bearer {made['secret']}"}
    stranger = TestClient(owner.app)
    assert stranger.post("/api/v1/campaigns/1/resume", headers=key).status_code == 409
    assert stranger.post("/review/1/approve", headers=key).status_code == 403
    assert status(asker) == "paused"


# --- by the API -------------------------------------------------------------------------------------------------------


def test_a_program_asks_and_a_signed_in_person_decides(asker: TestClient, sign_in: Clients) -> None:
    secret = asker.post("/api/v1/keys", json={"name": "robot", "scopes": ["read", "write"]}).json()["secret"]
    robot, key = TestClient(asker.app), {"authorization": f"Bearer {secret}"}
    wanted = {"status": "active", "budget": {"total": 2000, "daily": 100, "hourly": None}}
    asked = robot.post("/api/v1/campaigns/1/review", json=wanted, headers=key)
    assert asked.status_code == 201
    assert status(asker) == "paused"
    reviewer = sign_in("reviewer", 1)
    (waits,) = reviewer.get("/api/v1/reviews").json()["items"]
    assert (waits["campaign"], waits["changes"], waits["mine"]) == ("Spring", wanted, False)
    path = f"/api/v1/reviews/{asked.json()['id']}/approve"
    assert sign_in("admin", 2).post(path).status_code == 404
    assert sign_in("analyst", 1).post(path).status_code == 403
    assert reviewer.post(path).status_code == 200
    assert asker.get("/api/v1/campaigns/1").json()["budget"]["total"] == "2000"
    assert status(asker) == "active"
    assert reviewer.get("/api/v1/reviews").json()["items"] == []


def test_a_key_approves_nothing_whatever_its_scopes(asker: TestClient, sign_in: Clients) -> None:
    asker.post("/api/v1/campaigns/1/review", json={"status": "active"})
    admin = sign_in("admin", 1)
    made = admin.post("/api/v1/keys", json={"name": "all", "scopes": ["read", "write", "admin"]}).json()
    robot, key = TestClient(asker.app), {"authorization": f"Bearer {made['secret']}"}
    for path in ("/api/v1/reviews/1/approve", "/api/v1/reviews/1/return", "/review/1/approve"):
        assert robot.post(path, headers=key).status_code == 403, path
    assert status(asker) == "paused"
    assert admin.post("/api/v1/reviews/1/return").status_code == 200


def test_who_may_not_write_does_not_ask_and_nothing_is_no_change(asker: TestClient, sign_in: Clients) -> None:
    assert sign_in("analyst", 1).post("/api/v1/campaigns/1/review", json={"status": "active"}).status_code == 403
    assert sign_in("trader", 2).post("/api/v1/campaigns/1/review", json={"status": "active"}).status_code == 404
    assert asker.post("/api/v1/campaigns/1/review", json={}).status_code == 422
    assert asker.post("/api/v1/campaigns/1/review", json={"status": "gone"}).status_code == 422


def test_a_request_repeated_with_its_key_asks_once(asker: TestClient, services: Services) -> None:
    ids = {
        asker.post("/api/v1/campaigns/1/review", json={"status": "active"}, headers={"idempotency-key": "k"}).json()[
            "id"
        ]
        for _ in range(2)
    }
    assert len(ids) == 1
