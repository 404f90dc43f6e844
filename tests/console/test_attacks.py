"""What must be refused or made inert: wrong roles, foreign advertisers, forged requests, stale writes, hostile text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
from console_names import OWNER, PASSWORD
from sqlalchemy import select
from starlette.testclient import TestClient

from dsp.catalog import tables
from dsp.console import tables as own
from dsp.console.api import OPERATIONS
from dsp.console.edge import COOKIE, MOST_BYTES
from dsp.console.services import Services

V = "/api/v1"
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'; DROP TABLE campaign; --",
    "1' OR '1'='1",
    "{{7*7}}${7*7}",
    "javascript:alert(1)",
    '=HYPERLINK("http://evil")',
    "\x00\x07",
    "é" * 201,
)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: f"{o.method} {o.path}")
def test_nobody_gets_nothing(anyone: TestClient, operation: Any) -> None:
    answer = anyone.request(
        operation.method, V + operation.path.replace("{id}", "1").replace("{key}", "deal-1"), json={}
    )
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "signed_out"


def writes() -> Iterator[tuple[str, str, dict[str, Any]]]:
    yield "POST", "/campaigns", {"advertiser_id": 1, "name": "x", "budget": {"total": 1}}
    yield "PATCH", "/campaigns/1", {"budget": {"total": 1}}
    yield "PATCH", "/line-items/1", {"max_bid_cpm": 1}
    yield "PATCH", "/advertisers/1", {"budget": {"total": 1}}
    for action in ("pause", "resume", "archive"):
        yield "POST", f"/campaigns/1/{action}", {}
        yield "POST", f"/line-items/1/{action}", {}
    ad = {"name": "x", "format": "banner", "size": "300x250", "landing": "https://bank.example/", "headline": "x"}
    yield "POST", "/creatives", {"line_item_id": 1, "spec": ad}
    yield "PATCH", "/creatives/1", {"spec": ad}
    yield "POST", "/creatives/1/archive", {}
    yield "POST", "/offers", {"name": "x", "product": "loan", "lender": "x", "advertiser_id": 1}
    yield "POST", "/deals", {"id": "x", "exchange": "alpha", "advertiser_id": 1}
    yield "POST", "/segments", {"name": "x", "number": 20, "advertiser_id": 1}


@pytest.mark.parametrize(("method", "path", "body"), list(writes()))
@pytest.mark.parametrize("role", ["analyst", "reviewer"])
def test_who_may_only_read_changes_nothing(
    sign_in: Callable[..., TestClient], role: str, method: str, path: str, body: dict[str, Any]
) -> None:
    client = sign_in(role, 1)
    assert client.request(method, V + path, json=body, headers={"if-match": "*"}).status_code == 403


def shared_writes() -> Iterator[tuple[str, str, dict[str, Any]]]:
    yield "POST", "/exchanges", {"name": "gamma", "id": 9}
    yield "PATCH", "/exchanges/1", {"qps": 1}
    yield "PATCH", "/exchanges/1", {"token": "mine"}
    yield "POST", "/offers", {"name": "x", "product": "loan", "lender": "x"}
    yield "PATCH", "/offers/1", {"margin": 99}
    yield "PATCH", "/deals/deal-1", {"floor": 99}
    yield "PATCH", "/segments/7", {"demographic": "age"}


@pytest.mark.parametrize("role", ["owner", "admin", "trader", "analyst", "reviewer"])
@pytest.mark.parametrize(("method", "path", "body"), list(shared_writes()))
def test_what_is_everybodys_is_not_changed_by_one_clients_people(
    sign_in: Callable[..., TestClient], role: str, method: str, path: str, body: dict[str, Any]
) -> None:
    client = sign_in(role, 1)
    assert client.request(method, V + path, json=body, headers={"if-match": "*"}).status_code == 403


@pytest.mark.parametrize(("method", "path", "body"), list(writes()))
def test_a_foreign_advertiser_does_not_even_exist(
    sign_in: Callable[..., TestClient], method: str, path: str, body: dict[str, Any]
) -> None:
    client = sign_in("admin", 2)
    assert client.request(method, V + path, json=body, headers={"if-match": "*"}).status_code == 404
    assert client.get(V + "/campaigns/1").status_code == 404
    for kind in ("advertisers", "campaigns", "line-items", "creatives", "changes"):
        text = client.get(f"{V}/{kind}").text
        assert '"advertiser_id":1' not in text
        assert "Bank" not in text.replace("Bank.example", "")
    assert client.get(V + "/creatives?advertiser_id=1").json()["items"] == []


def test_an_advertisers_admin_makes_users_for_it_alone(sign_in: Callable[..., TestClient]) -> None:
    client = sign_in("admin", 2)

    def make(roles: dict[str, str]) -> int:
        return client.post(
            V + "/users", json={"email": "new@bank.example", "password": PASSWORD, "roles": roles}
        ).status_code

    assert make({"1": "analyst"}) == 403
    assert make({"0": "analyst"}) == 403
    assert make({"2": "owner"}) == 403
    assert make({"2": "trader"}) == 201
    assert all("1" not in user["roles"] for user in client.get(V + "/users").json()["items"])
    assert sign_in("trader", 2).get(V + "/users").status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"x-csrf-token": ""},
        {"x-csrf-token": "forged"},
        {"origin": "https://evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_a_request_that_our_pages_did_not_make_is_refused(owner: TestClient, headers: dict[str, str]) -> None:
    answer = owner.post(V + "/campaigns/1/pause", headers=headers)
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "csrf"
    assert owner.get(V + "/campaigns/1").json()["status"] == "active"


def test_another_users_token_does_not_do(owner: TestClient, sign_in: Callable[..., TestClient]) -> None:
    token = sign_in().headers["x-csrf-token"]
    assert owner.post(V + "/campaigns/1/pause", headers={"x-csrf-token": token}).status_code == 403


def test_a_stale_etag_is_refused(owner: TestClient) -> None:
    etag = owner.get(V + "/campaigns/1").headers["etag"]
    change = {"budget": {"total": "900"}}
    assert owner.patch(V + "/campaigns/1", json=change, headers={"if-match": etag}).status_code == 200
    late = owner.patch(V + "/campaigns/1", json={"budget": {"total": "1"}}, headers={"if-match": etag})
    assert late.status_code == 412
    assert owner.get(V + "/campaigns/1").json()["budget"]["total"] == "900"
    assert owner.patch(V + "/campaigns/1", json=change).status_code == 428


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_refused_or_stored_as_what_it_is(owner: TestClient, services: Services, text: str) -> None:
    answers = [
        owner.post(V + "/campaigns", json={"advertiser_id": 1, "name": text, "budget": {"total": 5}}),
        owner.get(V + "/campaigns", params={"q": text[:200]}),
        owner.get(V + "/line-items", params={"status": text}),
        owner.get(V + "/changes", params={"kind": text}),
        owner.get(V + "/reports", params={"by": text, "start": text}),
        owner.post(V + "/keys", json={"name": text, "scopes": [text]}),
        owner.post(V + "/users", json={"email": text, "password": text, "roles": {"0": text}}),
        owner.post(V + "/offers", json={"name": text, "product": "loan", "lender": text, "currency": text}),
        owner.post(V + "/exchanges", json={"name": text, "id": 9, "token": text, "seat": text, "currency": text}),
        owner.post(V + "/deals", json={"id": text, "exchange": text, "floor": text}),
        owner.post(V + "/segments", json={"name": text, "number": 99, "demographic": text}),
        owner.patch(V + "/offers/1", json={"lender": text}, headers={"if-match": "*"}),
        owner.patch(V + "/exchanges/1", json={"seat": text, "token": text}, headers={"if-match": "*"}),
        owner.patch(
            V + "/users/1", json={"password": text, "roles": {"0": text}}, headers={"if-match": text.encode().hex()}
        ),
        *(owner.get(f"{V}/{kind}", params={"q": text[:200]}) for kind in ("offers", "deals", "creatives", "users")),
        owner.get(f"{V}/deals/{quote(text)}"),
        owner.post(V + "/campaigns/1/pause", headers={"idempotency-key": text.encode().hex()}),
    ]
    item = owner.get(V + "/line-items/1").json()
    for name, value in item.items():
        if isinstance(value, str):
            answers.append(owner.patch(V + "/line-items/1", json={name: text}, headers={"if-match": "*"}))
    targeting = {"geo": {"include": [text]}, "sites": {"allow": [text]}, "segments": {"include": [text]}}
    answers.append(owner.patch(V + "/line-items/1", json={"targeting": targeting}, headers={"if-match": "*"}))
    ad = {**item["creatives"][0], "headline": text}
    answers.append(owner.patch(V + "/line-items/1", json={"creatives": [ad]}, headers={"if-match": "*"}))
    for answer in answers:
        assert answer.status_code < 500, answer.text
        assert answer.headers["content-type"].partition(";")[0] in ("application/json", "text/csv")
        assert answer.headers["x-content-type-options"] == "nosniff"
    with services.catalog.engine.connect() as connection:
        assert len(connection.execute(select(tables.campaign)).all()) >= 2
        names = set(connection.scalars(select(tables.campaign.c.name)))
    if answers[0].status_code == 201:
        assert text in names


def test_a_body_of_100_mb_is_refused_without_reading_it(owner: TestClient) -> None:
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 1 << 20
            yield bytes(1 << 20)

    declared = owner.post(V + "/campaigns", content=b"x", headers={"content-length": "100000000"})
    assert declared.status_code == 413
    chunked = owner.post(V + "/campaigns", content=body(), headers={"content-type": "application/json"})
    assert chunked.status_code == 413
    assert chunked.json()["error"]["code"] == "too_large"
    assert MOST_BYTES == 1 << 20


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"\xff", b'"x"', b"null", b'{"advertiser_id": 1e400}'])
def test_a_body_that_is_no_json_is_told_so(owner: TestClient, body: bytes) -> None:
    assert owner.post(V + "/campaigns", content=body).status_code in (400, 422)


def test_every_answer_has_the_safety_headers(owner: TestClient, anyone: TestClient) -> None:
    for answer in (owner.get(V + "/me"), anyone.get(V + "/me"), anyone.get("/nowhere"), anyone.get("/healthz")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-frame-options"] == "DENY"


def test_a_disabled_user_is_out_at_once(owner: TestClient, services: Services) -> None:
    with services.catalog.engine.begin() as connection:
        connection.execute(own.user.update().values(disabled=True))
    assert owner.get(V + "/me").status_code == 401
    assert COOKIE in owner.cookies
    assert OWNER.email == "setup"
