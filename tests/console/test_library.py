"""Offers, exchanges, deals and segments over the API: written, checked, and never seen by another client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from dsp.base.config import Config
from dsp.catalog.publish import publish_if_changed
from dsp.catalog.snapshot import Snapshot

V = "/api/v1"
NEW: dict[str, dict[str, Any]] = {
    "offers": {
        "name": "Gold card",
        "product": "credit_card",
        "lender": "Bank",
        "margin": "12.5",
        "lgd": 0.4,
        "ead": 900,
    },
    "exchanges": {"name": "gamma", "id": 3, "token": "very secret", "currency": "EUR"},
    "deals": {"id": "deal/2", "exchange": "beta", "floor": "1.25", "currency": "EUR"},
    "segments": {"name": "travellers", "number": 9},
}
CHANGES: dict[str, dict[str, Any]] = {
    "offers": {"margin": 13, "payouts": {"click": "0.5"}},
    "exchanges": {"qps": 900, "token": "another secret"},
    "deals": {"floor": "2"},
    "segments": {"demographic": "age"},
}
KEYS = {"offers": "id", "exchanges": "id", "deals": "id", "segments": "number"}
WRONG: dict[str, dict[str, Any]] = {
    "offers": {"product": "magic", "lgd": 7, "margin": "-1"},
    "exchanges": {"qps": -1, "exp_s": 0},
    "deals": {"exchange": "nowhere", "at": 9},
    "segments": {"demographic": "shoe size"},
}


@pytest.mark.parametrize("kind", list(NEW))
def test_it_is_made_read_changed_listed_and_undone(owner: TestClient, kind: str) -> None:
    made = owner.post(f"{V}/{kind}", json=NEW[kind])
    assert made.status_code == 201, made.text
    one = f"{V}/{kind}/{made.json()[KEYS[kind]]}"
    assert owner.get(one).json() == made.json()
    assert owner.post(f"{V}/{kind}", json=NEW[kind]).status_code == 409
    changed = owner.patch(one, json=CHANGES[kind], headers={"if-match": made.headers["etag"]})
    assert changed.status_code == 200, changed.text
    stale = owner.patch(one, json=CHANGES[kind], headers={"if-match": made.headers["etag"] + "x"})
    assert stale.status_code == 412
    assert owner.patch(one, json=CHANGES[kind]).status_code == 428
    listed = owner.get(f"{V}/{kind}", params={"limit": 500}).json()
    assert changed.json() in listed["items"]
    assert listed["total"] == len(listed["items"])
    first = owner.get(f"{V}/changes", params={"limit": 1}).json()["items"][0]
    assert (first["action"], first["kind"]) == ("change", kind.removesuffix("s"))
    undone = owner.post(f"{V}/changes/{first['id']}/undo")
    assert undone.status_code == 200, undone.text
    assert owner.get(one).json() == made.json()


@pytest.mark.parametrize("kind", list(NEW))
def test_what_is_wrong_is_named_and_not_saved(owner: TestClient, kind: str) -> None:
    answer = owner.post(f"{V}/{kind}", json=NEW[kind] | WRONG[kind])
    assert answer.status_code == 422
    named = {f["field"] for f in answer.json()["error"]["fields"]}
    assert named & (set(WRONG[kind]) | {"number"}), named
    assert owner.get(f"{V}/{kind}", params={"q": str(NEW[kind].get("name") or NEW[kind]["id"])}).json()["items"] == []


@pytest.mark.parametrize("kind", list(NEW))
def test_lists_have_pages_and_a_search(owner: TestClient, kind: str) -> None:
    owner.post(f"{V}/{kind}", json=NEW[kind])
    every = owner.get(f"{V}/{kind}", params={"limit": 500}).json()["items"]
    found: list[Any] = []
    offset: int | None = 0
    while offset is not None:
        page = owner.get(f"{V}/{kind}", params={"limit": 1, "offset": offset}).json()
        found += page["items"]
        offset = page["next"]
    assert found == every
    assert len(every) > 1
    assert owner.get(f"{V}/{kind}", params={"q": "%"}).json()["items"] == []


def test_a_token_is_never_shown(owner: TestClient, config: Config) -> None:
    made = owner.post(f"{V}/exchanges", json=NEW["exchanges"])
    owner.patch(f"{V}/exchanges/3", json=CHANGES["exchanges"], headers={"if-match": "*"})
    texts = [made.text, owner.get(f"{V}/exchanges").text, owner.get(f"{V}/changes").text]
    assert all("secret" not in text for text in texts)
    assert made.json()["token_set"] is True
    owner.patch(f"{V}/exchanges/3", json={"qps": 7}, headers={"if-match": "*"})  # and stays when others change
    path = publish_if_changed(config)
    assert path is not None
    tokens = {x["id"]: x["token"] for x in Snapshot.load(path).meta["exchanges"]}
    assert tokens[3] == "another secret"


def test_an_exchange_takes_its_profile_by_name_or_whole_and_never_from_a_file(owner: TestClient) -> None:
    assert owner.post(f"{V}/exchanges", json=NEW["exchanges"]).json()["profile"]["openrtb"] == "2.6"
    whole = {"openrtb": "2.5", "qps": 50}
    made = owner.post(f"{V}/exchanges", json={"name": "delta", "id": 4, "profile": whole}).json()
    assert (made["qps"], made["profile"]["qps"]) == (50, 50)
    for wrong in ("/etc/passwd", "../../x.yaml", "nothing", {"qps": -5}):
        answer = owner.post(f"{V}/exchanges", json={"name": "eps", "id": 5, "profile": wrong})
        assert answer.status_code == 422
        assert answer.json()["error"]["fields"][0]["field"].startswith("profile")


@pytest.mark.parametrize("kind", ["offers", "deals", "segments"])
def test_a_trader_writes_the_own_advertisers_and_no_other_client_learns_of_it(
    owner: TestClient, sign_in: Callable[..., TestClient], kind: str
) -> None:
    mine, rival = sign_in("trader", 1), sign_in("trader", 2)
    assert mine.post(f"{V}/{kind}", json=NEW[kind]).status_code == 403  # everybody's
    assert mine.post(f"{V}/{kind}", json=NEW[kind] | {"advertiser_id": 2}).status_code == 404
    made = mine.post(f"{V}/{kind}", json=NEW[kind] | {"advertiser_id": 1})
    assert made.status_code == 201, made.text
    one, name = f"{V}/{kind}/{made.json()[KEYS[kind]]}", str(made.json().get("name") or made.json()["id"])
    assert mine.patch(one, json=CHANGES[kind], headers={"if-match": "*"}).status_code == 200
    assert mine.patch(one, json={"advertiser_id": 0}, headers={"if-match": "*"}).status_code == 403
    for client in (mine, owner):
        assert name in client.get(f"{V}/references").text
    for path in (f"/{kind}", f"/{kind}?q={name}", f"/{kind}?advertiser_id=1", "/references", "/changes?kind=" + kind):
        assert name not in rival.get(V + path).text
    assert rival.get(one).status_code == 404
    assert rival.patch(one, json=CHANGES[kind], headers={"if-match": "*"}).status_code == 404


def test_what_only_anothers_line_items_use_is_hidden_in_references_and_hints_and_cannot_be_used(
    owner: TestClient, sign_in: Callable[..., TestClient]
) -> None:
    for kind in ("offers", "deals", "segments"):
        assert owner.post(f"{V}/{kind}", json=NEW[kind]).status_code == 201
    use = {"offer": "Gold card", "deals": ["deal/2"], "targeting": {"segments": {"exclude": ["travellers"]}}}
    used = owner.patch(f"{V}/line-items/2", json=use, headers={"if-match": "*"})
    assert used.status_code == 200, used.text
    rival = sign_in("trader", 2)
    names = ("Gold card", "deal/2", "travellers")
    assert all(name in sign_in("trader", 1).get(f"{V}/references").text for name in names)
    assert all(name not in rival.get(f"{V}/references").text for name in names)
    tried = rival.patch(f"{V}/line-items/4", json=use, headers={"if-match": "*"})
    unknown = rival.patch(f"{V}/line-items/4", json={"offer": "no such"}, headers={"if-match": "*"})
    assert tried.status_code == unknown.status_code == 422
    assert {"offer", "deals.0", "targeting.segments.exclude.0"} == {f["field"] for f in tried.json()["error"]["fields"]}
    assert "Gold card" not in unknown.text
    assert "loan" in unknown.text


def test_an_ad_is_added_rewritten_and_archived(owner: TestClient) -> None:
    ad = {"name": "Wide", "format": "banner", "landing": "https://bank.example/", "headline": "Hi"}
    made = owner.post(f"{V}/creatives", json={"line_item_id": 1, "spec": ad | {"sizes": ["728x90", "970x250"]}})
    assert made.status_code == 201, made.text
    assert made.json()["spec"]["size"] == "728x90"
    assert (
        owner.get(f"{V}/creatives", params={"line_item_id": 1, "q": "Wide"}).json()["items"][1]["spec"]["size"]
        == "970x250"
    )
    one, spec = f"{V}/creatives/{made.json()['id']}", made.json()["spec"] | {"headline": "Hello"}
    etag = made.headers["etag"]
    changed = owner.patch(one, json={"spec": spec}, headers={"if-match": etag})
    assert changed.json()["spec"]["headline"] == "Hello"
    assert owner.patch(one, json={"spec": spec}, headers={"if-match": etag}).status_code == 412
    wrong = owner.patch(one, json={"spec": spec | {"landing": "nowhere"}}, headers={"if-match": "*"})
    assert {f["field"] for f in wrong.json()["error"]["fields"]} == {"spec.landing"}
    assert owner.post(f"{one}/archive", headers={"if-match": "*"}).json()["status"] == "archived"
    assert owner.patch(one, json={"spec": spec}, headers={"if-match": "*"}).status_code == 409
    assert len(owner.get(f"{V}/line-items/1").json()["creatives"]) == 3
