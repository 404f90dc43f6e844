"""The API: what marketers do with campaigns, and that a change reaches the compiled snapshot."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import insert, text
from starlette.testclient import TestClient

from dsp.base.config import Config
from dsp.catalog.layout import LI_ID, LIF_PAUSED
from dsp.catalog.publish import publish_if_changed
from dsp.catalog.snapshot import Snapshot
from dsp.console.services import Services
from dsp.ledger.accounts import ADVERTISER, CAMPAIGN, LINE_ITEM
from dsp.ledger.database import open_database
from dsp.ledger.rollups import GRAINS, PAIRED, pair
from dsp.ledger.schema import LINES, MEASURES, ROLLUP_DAYS, ROLLUP_HOURS

V = "/api/v1"


def banner(name: str = "Box") -> dict[str, Any]:
    return {"name": name, "format": "banner", "size": "300x250", "landing": "https://bank.example/", "headline": "Hi"}


def new_line_item(campaign: int, **more: Any) -> dict[str, Any]:
    budget = {"total": "50", "daily": "5"}
    item = {"campaign_id": campaign, "name": "Made here", "offer": "savings", "max_bid_cpm": "3.25", "budget": budget}
    return {**item, "creatives": [banner()], **more}


def wrong_fields(answer: Any) -> set[str]:
    return {f["field"] for f in answer.json()["error"]["fields"]}


def test_a_campaign_is_made_changed_paused_and_undone(owner: TestClient) -> None:
    body = {"advertiser_id": 1, "name": "Winter", "budget": {"total": "100"}, "flight": {"start": "2026-12-01"}}
    made = owner.post(f"{V}/campaigns", json=body)
    assert made.status_code == 201, made.text
    campaign = made.json()["id"]
    assert made.json()["flight"]["start"] == "2026-12-01T00:00:00-05:00"
    item = owner.post(f"{V}/line-items", json=new_line_item(campaign))
    assert item.status_code == 201, item.text
    etag = made.headers["etag"]
    cut = owner.patch(f"{V}/campaigns/{campaign}", json={"budget": {"total": "60"}}, headers={"if-match": etag})
    assert cut.json()["budget"]["total"] == "60"
    assert cut.json()["flight"] == made.json()["flight"]
    assert owner.post(f"{V}/campaigns/{campaign}/pause").json()["status"] == "paused"
    history = owner.get(f"{V}/changes", params={"kind": "campaign", "ref": campaign}).json()["items"]
    assert [c["action"] for c in history] == ["pause", "change", "create"]
    assert history[1]["before"]["budget"]["total"] == "100"
    undone = owner.post(f"{V}/changes/{history[1]['id']}/undo")
    assert undone.status_code == 200, undone.text
    now = owner.get(f"{V}/campaigns/{campaign}").json()
    assert now["budget"]["total"] == "100"
    assert now["status"] == "paused"


def test_what_is_read_can_be_written_back_unchanged(owner: TestClient) -> None:
    for kind in ("advertisers", "campaigns", "line-items"):
        for one in owner.get(f"{V}/{kind}").json()["items"]:
            body = {k: v for k, v in one.items() if k not in ("id", "advertiser_id", "campaign_id")}
            again = owner.patch(f"{V}/{kind}/{one['id']}", json=body, headers={"if-match": "*"})
            assert again.status_code == 200, again.text
            assert again.json() == one


def test_a_line_item_that_looks_for_earlier_applicants_still_does_after_an_edit(owner: TestClient) -> None:
    for stages in ([], ["rejected"]):
        told = owner.patch(f"{V}/line-items/1", json={"suppress": stages}, headers={"if-match": "*"})
        assert told.json()["suppress"] == stages
        owner.post(f"{V}/line-items/1/pause")
        owner.patch(f"{V}/line-items/1", json={"max_bid_cpm": "3"}, headers={"if-match": "*"})
        assert owner.get(f"{V}/line-items/1").json()["suppress"] == stages


def test_a_pause_and_a_budget_cut_are_in_the_next_snapshot(owner: TestClient, config: Config) -> None:
    publish_if_changed(config)
    item = owner.get(f"{V}/line-items").json()["items"][0]
    owner.post(f"{V}/line-items/{item['id']}/pause")
    cut = {"budget": {"total": "7"}}
    owner.patch(f"{V}/line-items/{item['id']}", json=cut, headers={"if-match": "*"})
    path = publish_if_changed(config)
    assert path is not None
    snapshot = Snapshot.load(path)
    row = snapshot.li_i[:, LI_ID].tolist().index(item["id"])
    assert snapshot.meta["line_items"]["total_micros"][row] == 7_000_000
    assert snapshot.meta["line_items"]["status"][row] == "paused"
    assert LIF_PAUSED


def test_wrong_fields_are_named_with_the_remedy_and_nothing_is_saved(owner: TestClient) -> None:
    before = owner.get(f"{V}/line-items/1").json()
    wrong = {"max_bid_cpm": "-1", "targeting": {"geo": {"include": ["Utopia"]}}, "budget": {"total": "1", "daily": "2"}}
    answer = owner.patch(f"{V}/line-items/1", json=wrong, headers={"if-match": "*"})
    assert answer.status_code == 422
    assert wrong_fields(answer) == {"max_bid_cpm", "targeting.geo.include.0", "budget.daily"}
    assert "write USA" in answer.text
    unknown = owner.patch(f"{V}/line-items/1", json={"colour": "red"}, headers={"if-match": "*"})
    assert unknown.status_code == 422
    assert owner.get(f"{V}/line-items/1").json() == before


def test_credit_may_not_be_targeted_by_age_here_either(owner: TestClient) -> None:
    answer = owner.patch(f"{V}/line-items/1", json={"targeting": {"age": ["18-24"]}}, headers={"if-match": "*"})
    assert answer.status_code == 422
    assert "Equal Credit Opportunity Act" in answer.text


def test_a_repeated_post_makes_one_thing(owner: TestClient) -> None:
    body = {"advertiser_id": 1, "name": "Once", "budget": {"total": 5}}
    first, second = (owner.post(f"{V}/campaigns", json=body, headers={"idempotency-key": "k1"}) for _ in range(2))
    assert first.status_code == second.status_code == 201
    assert first.json() == second.json()
    other = owner.post(f"{V}/campaigns", json={**body, "name": "Twice"}, headers={"idempotency-key": "k1"})
    assert other.status_code == 422
    assert owner.post(f"{V}/campaigns", json=body).status_code == 409


def test_a_change_whose_key_cannot_be_kept_is_not_made(owner: TestClient, services: Services) -> None:
    with services.catalog.engine.begin() as connection:  # the disk fills up just as the key is written
        connection.execute(
            text(
                "CREATE TRIGGER full BEFORE INSERT ON console_idempotency WHEN NEW.status > 0 "
                "BEGIN SELECT RAISE(ABORT, 'disk full'); END"
            )
        )
    body, key = {"advertiser_id": 1, "name": "Once", "budget": {"total": 5}}, {"idempotency-key": "k1"}
    before = owner.get(f"{V}/changes").json()["items"]
    assert owner.post(f"{V}/campaigns", json=body, headers=key).status_code == 500
    assert "Once" not in owner.get(f"{V}/campaigns").text
    assert owner.get(f"{V}/changes").json()["items"] == before
    with services.catalog.engine.begin() as connection:
        connection.execute(text("DROP TRIGGER full"))
    assert owner.post(f"{V}/campaigns", json=body, headers=key).status_code == 201


def test_a_refused_post_may_be_mended_under_the_same_key(owner: TestClient) -> None:
    key = {"idempotency-key": "k2"}
    wrong = {"advertiser_id": 1, "name": "Mended", "budget": {"total": "-5"}}
    assert owner.post(f"{V}/campaigns", json=wrong, headers=key).status_code == 422
    right = {**wrong, "budget": {"total": "5"}}
    assert owner.post(f"{V}/campaigns", json=right, headers=key).status_code == 201


def test_one_key_sent_many_times_at_once_makes_one_thing(owner: TestClient) -> None:
    body, key = {"advertiser_id": 1, "name": "Race", "budget": {"total": 5}}, {"idempotency-key": "k3"}
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: owner.post(f"{V}/campaigns", json=body, headers=key), range(6)))
    assert {a.status_code for a in answers} == {201}
    assert len({a.json()["id"] for a in answers}) == 1
    assert len(owner.get(f"{V}/campaigns", params={"q": "Race"}).json()["items"]) == 1


def test_lists_have_pages_and_filters(owner: TestClient) -> None:
    seen, after = [], 0
    while after is not None:
        page = owner.get(f"{V}/line-items", params={"limit": 1, "after": after}).json()
        seen += [item["id"] for item in page["items"]]
        after = page["next"]
    assert seen == [i["id"] for i in owner.get(f"{V}/line-items").json()["items"]]
    assert len(seen) == 4
    found = owner.get(f"{V}/line-items", params={"q": "SAV", "advertiser_id": 2}).json()["items"]
    assert [i["name"] for i in found] == ["Savings"]
    assert owner.get(f"{V}/line-items", params={"q": "%"}).json()["items"] == []
    assert owner.get(f"{V}/line-items", params={"limit": "many"}).status_code == 400


def test_unchanged_things_are_not_sent_again(owner: TestClient) -> None:
    etag = owner.get(f"{V}/campaigns/1").headers["etag"]
    assert owner.get(f"{V}/campaigns/1", headers={"if-none-match": etag}).status_code == 304


@pytest.fixture
def booked(config: Config) -> None:
    """Spend of both advertisers on 20 days, in days, stretches and hours, as the ledger keeps them."""
    engine = open_database(config.path("ledger.db"))
    rows: list[dict[str, Any]] = []
    stretches: dict[tuple[int, int, int, int], int] = {}
    with engine.begin() as connection:
        for day in range(20_000, 20_020):
            for kind, ref, n in (
                (ADVERTISER, 1, 5),
                (ADVERTISER, 2, 7),
                (CAMPAIGN, 1, 5),
                (LINE_ITEM, 1, 5),
                (LINE_ITEM, 3, 7),
                (PAIRED[ADVERTISER], pair(1, 1), 5),
                (PAIRED[ADVERTISER], pair(2, 1), 7),
                (PAIRED[LINE_ITEM], pair(1, 1), 5),
                (PAIRED[LINE_ITEM], pair(3, 1), 7),
                (0, 0, 12),
            ):
                rows.append(_day(kind, 1, day, ref, n))
                for grain in GRAINS[1:]:
                    key = (kind, grain, day - day % grain, ref)
                    stretches[key] = stretches.get(key, 0) + n
            for line, n in ((1, 5), (3, 7)):
                amounts = dict.fromkeys(MEASURES, 0) | {"impressions": n, "spend_micros": n * 1_000_000}
                key_ = {"line_item": line, "hour": day * 24 + 5, "exchange": 1, "creative": 1, "currency": "USD"}
                connection.execute(insert(ROLLUP_HOURS).values(**key_, **amounts))
        rows += [_day(kind, grain, day, ref, n) for (kind, grain, day, ref), n in stretches.items()]
        for line, owner in ((1, 1), (3, 2)):
            row = {"id": line, "campaign": owner, "advertiser": owner, "currency": "USD", "name": "", "margin_ppm": 0}
            connection.execute(insert(LINES).values(**row))
        connection.execute(insert(ROLLUP_DAYS), rows)
    engine.dispose()


def _day(kind: int, grain: int, day: int, ref: int, n: int) -> dict[str, Any]:
    key = {"kind": kind, "grain": grain, "day": day, "ref": ref, "currency": "USD"}
    return {**key, **dict.fromkeys(MEASURES, 0), "impressions": n, "spend_micros": n * 1_000_000}


SPAN = {"start": "2024-10-05", "end": "2024-10-22"}  # days 20001 to 20018: 18 of them, across whole stretches


@pytest.mark.usefixtures("booked")
def test_a_report_adds_each_day_up_once(owner: TestClient) -> None:
    total = owner.get(f"{V}/reports", params={**SPAN, "by": "advertiser"}).json()
    assert [(r["name"], r["impressions"]) for r in total["items"]] == [("Bank", 18 * 5), ("Rival", 18 * 7)]
    daily = owner.get(f"{V}/reports", params={**SPAN, "by": "advertiser", "daily": "true"}).json()["items"]
    assert len(daily) == 36
    assert sum(r["impressions"] for r in daily) == 18 * 12
    assert daily[0]["day"] == "2024-10-05"
    table = owner.get(f"{V}/reports.csv", params={**SPAN, "by": "campaign"}).text
    assert table.splitlines()[1].startswith(",1,Spring,USD,90,90.0")


@pytest.mark.usefixtures("booked")
@pytest.mark.parametrize("by", ["", "advertiser", "campaign", "line_item", "exchange", "creative"])
@pytest.mark.parametrize("daily", ["true", "false"])
def test_a_report_is_of_the_readers_own_advertiser_alone(
    sign_in: Callable[..., TestClient], by: str, daily: str
) -> None:
    answer = sign_in("analyst", 2).get(f"{V}/reports", params={**SPAN, "by": by, "daily": daily})
    assert answer.status_code == 200, answer.text
    spent = sum(row["impressions"] for row in answer.json()["items"])
    assert spent in (0, 18 * 7)
    if by in ("", "advertiser", "exchange"):
        assert spent == 18 * 7


def test_without_books_a_report_says_what_to_do(owner: TestClient, config: Config) -> None:
    config.path("ledger.db").unlink()
    answer = owner.get(f"{V}/reports")
    assert answer.status_code == 503
    assert "start the ledger" in answer.text
