"""Whatever a page does, the API does: pairs that must name every form, and what the newer operations answer."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from dsp.base.config import Config
from dsp.console import pages
from dsp.console.api import OPERATIONS
from dsp.console.services import Services

V = "/api/v1"
PATCHED = {"campaigns": "PATCH /campaigns/{id}", "line-items": "PATCH /line-items/{id}"}
BY_API = {  # a page's form -> the operation that does the same
    **{f"/{k}/{{id:int}}": v for k, v in PATCHED.items()},
    **{
        f"/{k}/{{id:int}}/{what}": f"POST /{k}/{{id}}/{what}"
        for k in PATCHED
        for what in ("pause", "resume", "duplicate")
    },
    **{f"/{k}/bulk": f"POST /{k}/bulk" for k in PATCHED},
    "/campaigns/new": "POST /campaigns",
    "/campaigns/{id:int}/new-line-item": "POST /line-items",
    "/changes/{id:int}/undo": "POST /changes/{id}/undo",
    "/line-items/{id:int}/new-creative": "POST /creatives",
    "/line-items/{id:int}/forecast": "GET /line-items/{id}/reach",  # of what is saved
    "/campaigns/{id:int}/new-line-item/forecast": "GET /line-items/{id}/reach",
    "/reports/save": "POST /saved-reports",
    "/reports/saved/{id:int}/remove": "POST /saved-reports/{id}/remove",
    "/reports/jobs": "POST /report-jobs",
    "/exchanges/{id:int}/bill": "POST /exchanges/{id}/bill",
    "/review/{id:int}/approve": "POST /reviews/{id}/approve",
    "/review/{id:int}/return": "POST /reviews/{id}/return",
    "/experiments/{id:int}/end": "PATCH /experiments/{id}",
    "/users": "POST /users",
    "/keys": "POST /keys",
    "/keys/{id:int}/revoke": "POST /keys/{id}/revoke",
}
PEOPLE_ONLY = {  # of a session, or of what is being typed: a program has no use for them
    "/sign-in", "/enter", "/sign-out", "/security", "/line-items/{id:int}/try-creative",
    *(f"/{kind}/{{id:int}}/check" for kind in PATCHED), "/campaigns/new/check",
    "/campaigns/{id:int}/new-line-item/check",
}  # fmt: skip


def test_every_form_of_the_pages_has_its_operation(services: Services) -> None:
    known = {f"{o.method} {o.path}" for o in OPERATIONS}
    posted = {route.path for route in pages.routes(services) if "POST" in (route.methods or set())}
    assert posted - PEOPLE_ONLY == set(BY_API)
    assert set(BY_API.values()) <= known


def test_many_are_changed_at_once_or_none(owner: TestClient) -> None:
    done = owner.post(f"{V}/campaigns/bulk", json={"ids": [1, 2], "action": "total", "budget": "-99.9999%"})
    assert done.status_code == 422, done.text  # nothing would be left of it
    before = owner.get(f"{V}/campaigns/1").json()["budget"]
    done = owner.post(f"{V}/campaigns/bulk", json={"ids": [1, 2], "action": "total", "budget": "750"})
    assert done.json() == {"changed": 2}
    assert owner.get(f"{V}/campaigns/1").json()["budget"] != before
    gone = owner.post(f"{V}/line-items/bulk", json={"ids": [1, 999], "action": "pause"})
    assert gone.status_code == 404
    assert owner.get(f"{V}/line-items/1").json()["status"] == "active"
    assert owner.post(f"{V}/line-items/bulk", json={"ids": [], "action": "pause"}).status_code == 422


def test_a_copy_is_another_one_with_its_line_items_and_made_once_for_a_key(owner: TestClient) -> None:
    one = owner.get(f"{V}/campaigns/1").json()
    made = owner.post(f"{V}/campaigns/1/duplicate", headers={"idempotency-key": "k"})
    assert made.status_code == 201, made.text
    again = owner.post(f"{V}/campaigns/1/duplicate", headers={"idempotency-key": "k"})
    assert again.json()["id"] == made.json()["id"] != one["id"]
    assert (made.json()["status"], made.json()["budget"]) == ("paused", one["budget"])
    counts = [
        len(owner.get(f"{V}/line-items", params={"campaign_id": i}).json()["items"]) for i in (1, made.json()["id"])
    ]
    assert counts[0] == counts[1] > 0


def test_reach_is_what_the_page_says(traffic: Config, owner: TestClient) -> None:
    changes = {"targeting": {"geo": {"include": ["USA"]}}, "max_bid_cpm": "50", "strategy": "fixed"}
    assert owner.patch(f"{V}/line-items/1", json=changes, headers={"if-match": "*"}).status_code == 200
    told = owner.get(f"{V}/line-items/1/reach").json()
    assert (told["requests"], told["wanted"], told["bids"], told["cpm"]) == (4, 3, 2, 50)
    assert told["left_out"] == [{"what": "geo", "requests": 1}]


def test_reach_without_traffic_says_what_to_wait_for(owner: TestClient) -> None:
    refused = owner.get(f"{V}/line-items/1/reach")
    assert refused.status_code == 503
    assert "no traffic" in refused.json()["error"]["message"]


def test_audiences_are_the_readers_own(owner: TestClient, sign_in: Any) -> None:
    found = owner.get(f"{V}/audiences").json()
    assert [one["name"] for one in found["segments"]]
    assert found["people"] == found["consent"]["looked_at"] == 0  # nobody was loaded
    rival = sign_in("trader", 2).get(f"{V}/audiences").json()
    assert {row["id"] for row in rival["suppressed"]} < {row["id"] for row in found["suppressed"]}


@pytest.mark.parametrize("text", ["", "nonsense", "bid_id\n1\n", "bid_id,amount\n1,x\n", "\0"])
def test_a_bill_that_is_none_is_refused(owner: TestClient, text: str) -> None:
    answer = owner.post(f"{V}/exchanges/1/bill", json={"csv": text})
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]["fields"][0]["field"] == "csv"


def test_a_bill_is_compared_with_the_books(owner: TestClient, sign_in: Any) -> None:
    bill = {"csv": "bid_id,amount\n" + "0" * 32 + ",1.50\n"}
    found = owner.post(f"{V}/exchanges/1/bill", json=bill)
    assert found.status_code in (200, 422), found.text
    if found.status_code == 200:
        assert (found.json()["billed"], found.json()["booked"]) == (1, 0)
    assert sign_in("trader", 1).post(f"{V}/exchanges/1/bill", json=bill).status_code == 403
