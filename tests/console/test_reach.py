"""Why a line item does not spend: where recent requests end, by the engine's own decision, and the remedy."""

from __future__ import annotations

from starlette.testclient import TestClient

from dsp.base.config import Config


def test_without_traffic_it_says_what_to_wait_for(owner: TestClient) -> None:
    assert "no traffic has been seen yet" in owner.get("/line-items/1/reach").text
    assert "尚无流量" in owner.get("/line-items/1/reach?lang=zh").text


def test_each_way_to_lose_a_request_is_named_with_its_share(traffic: Config, owner: TestClient) -> None:
    changes = {"targeting": {"geo": {"include": ["USA"]}}, "max_bid_cpm": "50", "strategy": "fixed"}
    changed = owner.patch("/api/v1/line-items/1", json=changes, headers={"if-match": "*"})
    assert changed.status_code == 200, changed.text
    told = owner.get("/line-items/1/reach").text
    assert "no creative of an offered format or size" in told
    assert "all URLs https" in told
    assert "50.0\u00a0%" in told, told  # two of four are bid on
    assert "25.0\u00a0%" in told  # geo keeps one out, alone
    assert "geo" in told


def test_what_holds_it_back_by_itself_is_a_list_with_links(owner: TestClient) -> None:
    owner.post("/line-items/1/pause", data={"csrf": owner.headers["x-csrf-token"]})
    told = owner.get("/line-items/1/why").text
    assert 'the line item is active: <strong class="bad">no</strong>' in told
    assert "Resume it." in told
