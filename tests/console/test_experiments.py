"""Experiments over the REST API: who may see and change them, what is refused, and the same figures as the CLI's."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from experiment_log import ARMS, log
from starlette.testclient import TestClient
from typer.testing import CliRunner

from dsp.base.config import Config
from dsp.catalog.publish import publish_if_changed
from dsp.cli.main import app
from dsp.console.services import Services

API = "/api/v1/experiments"
ANY = {"if-match": "*"}
LIFT = {"campaign_id": 1, "name": "lift", "arms": ARMS}

SignIn = Callable[..., TestClient]


@pytest.fixture
def lift(owner: TestClient) -> dict[str, Any]:
    """An experiment of campaign 1, as it was answered."""
    made = owner.post(API, json=LIFT)
    assert made.status_code == 201, made.text
    found: dict[str, Any] = made.json()
    return found


def test_an_experiment_is_added_to_a_campaign_read_changed_and_ended(owner: TestClient, lift: dict[str, Any]) -> None:
    assert (lift["name"], lift["status"], lift["campaign"], lift["advertiser_id"]) == ("lift", "active", "Spring", 1)
    one = f"{API}/{lift['id']}"
    read = owner.get(one)
    assert read.json() == {**lift, "results": None}
    assert read.headers["etag"] == owner.get("/api/v1/campaigns/1").headers["etag"]
    assert owner.get("/api/v1/campaigns/1").json()["experiments"][0]["name"] == "lift"
    changed = owner.patch(one, json={"line_items": ["Loans"]}, headers={"if-match": read.headers["etag"]})
    assert (changed.status_code, changed.json()["line_items"]) == (200, ["Loans"])
    ended = owner.patch(one, json={"status": "ended"}, headers={"if-match": changed.headers["etag"]})
    assert (ended.json()["status"], ended.json()["id"]) == ("ended", lift["id"])
    assert ended.json()["line_items"] == ["Loans"]


def test_a_change_is_in_the_history_of_the_campaign_and_is_undone(owner: TestClient, lift: dict[str, Any]) -> None:
    one = f"{API}/{lift['id']}"
    assert owner.patch(one, json={"status": "ended"}, headers=ANY).status_code == 200
    last = owner.get("/api/v1/changes").json()["items"][0]
    assert (last["kind"], last["ref"], last["action"]) == ("campaign", 1, "change")
    undone = owner.post(f"/api/v1/changes/{last['id']}/undo")
    assert undone.status_code == 200, undone.text
    assert owner.get(one).json()["status"] == "active"


def test_the_list_has_pages_and_filters(owner: TestClient, lift: dict[str, Any]) -> None:
    others = [{**LIFT, "campaign_id": 2, "name": name} for name in ("bids", "colours")]
    ids = sorted([lift["id"], *(owner.post(API, json=body).json()["id"] for body in others[:1])])
    owner.patch(f"{API}/{lift['id']}", json={"status": "ended"}, headers=ANY)
    first = owner.get(API, params={"limit": 1}).json()
    second = owner.get(API, params={"limit": 1, "after": first["next"]}).json()
    assert [one["id"] for one in first["items"] + second["items"]] == ids
    assert second["next"] is None

    def names(**query: Any) -> list[str]:
        return [one["name"] for one in owner.get(API, params=query).json()["items"]]

    assert names(q="LIF") == names(status="ended") == names(campaign_id=1) == names(advertiser_id=1) == ["lift"]
    assert names(campaign_id=2) == names(status="active") == ["bids"]
    assert names(q="%") == []


@pytest.mark.parametrize(
    ("wrong", "field", "says"),
    [
        ({"arms": ARMS[:1]}, "arms", "1 arms; write 2 to 8"),
        ({"arms": [ARMS[1], {**ARMS[2], "share": 0.7}]}, "arms", "more than everybody"),
        ({"arms": [ARMS[0], {**ARMS[0], "share": 0.1}]}, "arms.1.name", "is there twice"),
        ({"arms": [ARMS[0], {"name": "x", "share": 10**400}]}, "arms.1.share", "is not a share"),
        ({"arms": [ARMS[0], {"name": "x", "share": "nan"}]}, "arms.1.share", "is not a share"),
        ({"arms": [ARMS[0], {**ARMS[1], "creatives": ["Circle"]}]}, "arms.1.creatives.0", "unknown creative 'Circle'"),
        ({"arms": [ARMS[0], {**ARMS[1], "offers": ["card"]}]}, "arms.1.offers.0", "unknown offer 'card'"),
        ({"arms": [{**ARMS[0], "bid": 2}, ARMS[1]]}, "arms.0.control", "a control arm is shown nothing"),
        ({"line_items": ["Mortgages"]}, "line_items.0", "unknown line item 'Mortgages'"),
        ({"name": " "}, "name", "1 to 200 visible"),
        ({"name": "other"}, "line_items", "is in experiment 'lift' already; end that first"),
    ],
)
def test_what_is_wrong_is_named(
    owner: TestClient, lift: dict[str, Any], wrong: dict[str, Any], field: str, says: str
) -> None:
    owner.patch(f"{API}/{lift['id']}", json={"line_items": ["Loans"]}, headers=ANY)
    body = {**LIFT, "name": "another", "line_items": ["Savings"], **wrong}
    if wrong.get("name") == "other":
        body["line_items"] = []
    refused = owner.post(API, json=body)
    assert refused.status_code == 422, refused.text
    (problem,) = refused.json()["error"]["fields"]
    assert problem["field"] == field
    assert says in problem["message"]


def test_ads_and_offers_are_named_as_in_a_file(owner: TestClient) -> None:
    arms = [{"name": "a", "share": 0.5, "creatives": ["Box"]}, {"name": "b", "share": 0.5, "offers": ["loan"]}]
    made = owner.post(API, json={**LIFT, "line_items": ["Loans"], "arms": arms})
    assert made.status_code == 201, made.text
    assert [arm.get("creatives") for arm in made.json()["arms"]] == [["Box"], None]
    taken = owner.post(API, json={**LIFT, "line_items": ["Savings"]})
    assert (taken.status_code, taken.json()["error"]["code"]) == (409, "exists")


def test_an_experiment_of_what_is_gone_can_still_be_ended(owner: TestClient) -> None:
    made = owner.post(API, json={**LIFT, "line_items": ["Loans"]}).json()
    assert owner.patch("/api/v1/line-items/1", json={"name": "Credit"}, headers=ANY).status_code == 200
    again = owner.patch(f"{API}/{made['id']}", json={"arms": ARMS}, headers=ANY)
    assert "unknown line item 'Loans'" in again.text
    assert owner.patch(f"{API}/{made['id']}", json={"status": "ended"}, headers=ANY).json()["status"] == "ended"


def test_a_stale_or_missing_etag_is_refused(owner: TestClient, lift: dict[str, Any]) -> None:
    one = f"{API}/{lift['id']}"
    seen = {"if-match": owner.get(one).headers["etag"]}
    owner.patch("/api/v1/campaigns/1", json={"budget": {"total": 5}}, headers=ANY)
    assert owner.patch(one, json={"status": "ended"}, headers=seen).status_code == 412
    assert owner.patch(one, json={"status": "ended"}).status_code == 428
    assert owner.post(API, json={**LIFT, "campaign_id": 1, "name": "x"}, headers=seen).status_code in (412, 422)
    assert owner.get(one).json()["status"] == "active"


def test_foreign_experiments_are_not_there(sign_in: SignIn, lift: dict[str, Any]) -> None:
    rival = sign_in("owner", 2)
    one = f"{API}/{lift['id']}"
    assert rival.get(API).json()["items"] == []
    assert rival.get(one).status_code == 404
    assert rival.patch(one, json={"status": "ended"}, headers=ANY).status_code == 404
    assert rival.post(API, json={**LIFT, "name": "mine"}).status_code == 404


def test_only_roles_that_may_write_change_them_and_who_may_report_sees_results(
    sign_in: SignIn, config: Config, lift: dict[str, Any]
) -> None:
    publish_if_changed(config)
    one = f"{API}/{lift['id']}"
    for role, writes, reports in (
        *(("trader", True, True), ("admin", True, True)),
        *(("analyst", False, True), ("reviewer", False, False)),
    ):
        client = sign_in(role, 1)
        assert (client.get(one).json()["results"] is not None) == reports, role
        status = client.patch(one, json={"status": "active"}, headers=ANY).status_code
        assert status == (200 if writes else 403), role
        made = client.post(API, json={**LIFT, "name": role, "campaign_id": 1})
        assert made.status_code == (422 if writes else 403), role  # in `lift` already


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "'; DROP TABLE campaign; --", "{{7*7}}", "../../etc"])
def test_hostile_text_is_kept_as_it_is(owner: TestClient, text: str) -> None:
    arms = [{"name": text, "share": 0.5}, {"name": f"{text} 2", "share": "0.5"}]
    made = owner.post(API, json={**LIFT, "name": text, "salt": text, "arms": arms})
    assert made.status_code == 201, made.text
    read = owner.get(f"{API}/{made.json()['id']}").json()
    assert (read["name"], read["salt"], read["arms"][0]["name"]) == (text, text, text)
    assert owner.get(API, params={"q": text}).json()["items"][0]["id"] == read["id"]


def test_results_are_the_ones_of_the_command_line(
    owner: TestClient, config: Config, lift: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_if_changed(config)
    log(config, lift["id"])
    read = owner.get(f"{API}/{lift['id']}")
    assert read.status_code == 200, read.text
    results = read.json()["results"]
    assert [arm["people"] for arm in results["arms"]] == [134, 133, 133]
    assert [arm["ghost_bids"] for arm in results["arms"]] == [268, 0, 0]
    assert results["base"] == "a"  # what held-out people did is not known
    assert results["arms"][1]["funded"] > 0
    assert results["compared"]["held out"] == {}
    assert results["compared"]["b"]["clicks per thousand people"]["lift"] is not None
    monkeypatch.setenv("DSP_DATA_DIR", config.data_dir)
    done = CliRunner().invoke(app, ["experiment", "report", "lift", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert {key: told[key] for key in results} == results


def test_figures_are_fresh_though_the_campaign_did_not_change(owner: TestClient, lift: dict[str, Any]) -> None:
    one = f"{API}/{lift['id']}"
    etag = owner.get(one).headers["etag"]
    assert owner.get(one, headers={"if-none-match": etag}).status_code == 200


def test_one_experiment_is_read_at_a_time(
    owner: TestClient, services: Services, config: Config, lift: dict[str, Any]
) -> None:
    publish_if_changed(config)
    one = f"{API}/{lift['id']}"
    with services.trials._busy:
        busy = owner.get(one)
        assert busy.status_code == 503
        assert busy.json()["error"]["message"] == "other experiments are still being read; try again soon"
        assert busy.headers["retry-after"] == "5"
        assert owner.get(one, params={"results": "false"}).json()["results"] is None
    assert owner.get(one).json()["results"] is not None
    with services.trials._busy:
        assert owner.get(one).status_code == 200  # read a moment ago


def test_a_change_of_a_line_item_leaves_its_campaigns_experiments(owner: TestClient, lift: dict[str, Any]) -> None:
    assert owner.patch("/api/v1/line-items/1", json={"max_bid_cpm": 3}, headers=ANY).status_code == 200
    assert owner.get("/api/v1/campaigns/1").json()["experiments"][0]["name"] == "lift"
    assert owner.get(f"{API}/{lift['id']}").json()["status"] == "active"


def test_the_page_says_what_it_shows_and_stops_it(owner: TestClient, config: Config, lift: dict[str, Any]) -> None:
    publish_if_changed(config)
    log(config, lift["id"])
    one = f"/experiments/{lift['id']}"
    assert f'href="{one}"' in owner.get("/experiments").text
    shown = owner.get(f"{one}/results").text
    assert "No difference between b and a is proven yet." in shown
    assert "369.00" in shown  # what people of arm a are worth
    assert "尚未证实 b 与 a 之间有差别" in owner.get(f"{one}/results?lang=zh").text
    assert "Stop the experiment" in owner.get(f"{one}?lang=en").text
    assert owner.post(f"{one}/end", data={"csrf": "forged"}).status_code == 403
    ended = owner.post(f"{one}/end", data={"csrf": owner.headers["x-csrf-token"]})
    assert "everybody is bid for as usual" in ended.text
    assert "Stop the experiment" not in ended.text
    assert owner.get(API + f"/{lift['id']}").json()["status"] == "ended"


def test_who_may_not_report_sees_arms_without_figures_and_no_button(sign_in: SignIn, lift: dict[str, Any]) -> None:
    one, reviewer = f"/experiments/{lift['id']}", sign_in("reviewer", 1)
    page = reviewer.get(one).text
    assert "held out" in page
    assert "What it shows" not in page
    assert "Stop the experiment" not in page
    assert reviewer.get(f"{one}/results").status_code == 403
    assert reviewer.post(f"{one}/end", data={"csrf": reviewer.headers["x-csrf-token"]}).status_code == 403
    rival = sign_in("owner", 2)
    assert [rival.get(path).status_code for path in (one, f"{one}/results")] == [404, 404]


def test_hostile_names_are_inert_in_pages(owner: TestClient, config: Config) -> None:
    text = "<b>{arm.__class__}{0}"
    arms = [{"name": text, "share": 0.5}, {"name": f"{text} 2", "share": 0.5}]
    made = owner.post(API, json={**LIFT, "name": text, "arms": arms, "line_items": ["Loans"]}).json()
    publish_if_changed(config)
    log(config, made["id"])
    for path in ("/experiments", f"/experiments/{made['id']}", f"/experiments/{made['id']}/results"):
        page = owner.get(path)
        assert page.status_code == 200
        assert "<b>" not in page.text
        assert "&lt;b&gt;{arm.__class__}{0}" in page.text
