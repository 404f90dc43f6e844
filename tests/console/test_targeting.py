"""The targeting builder: what it shows is what it saves; what is typed is checked and forecast before anything is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from dsp.base.config import Config
from dsp.bidder.sample import Sampled
from dsp.catalog import names
from dsp.catalog.store import read_catalog
from dsp.catalog.types import AllowBlock, IncludeExclude, Targeting
from dsp.console import reach
from dsp.console.pages import targeting
from dsp.console.services import Services

V = "/api/v1"
FORM = {"name": "Prospecting", "offer": "loan", "pacing": "even", "max_bid_cpm": "8", "controls": "1"}
text = (
    st.text(st.characters(categories=("L", "N", "P", "S", "Zs")), min_size=1, max_size=12).map(str.strip).filter(bool)
)
some = st.lists(text, max_size=3, unique=True).map(tuple)
inside = st.builds(IncludeExclude, include=some, exclude=some)
places = st.builds(AllowBlock, allow=some, block=some)
span = st.sampled_from(["8-22", "13:30-18", "22-2", "0-24"])
hours = st.dictionaries(
    st.sampled_from(["mon", "mon-fri", "weekend", "daily"]), span | st.lists(span, min_size=2, max_size=3)
)


def few(choices: Any) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(st.sampled_from(list(choices)), max_size=3, unique=True).map(tuple)


any_targeting = st.builds(
    Targeting, geo=inside, devices=few(names.DEVICES), os=few(names.OSES), browsers=few(names.BROWSERS),
    connections=few(names.CONNECTIONS), languages=some, channels=few(names.CHANNELS), sites=places, apps=places,
    publishers=places, categories=inside, daypart=hours, exchanges=some, segments=inside, age=few(names.AGE_BANDS),
    income=few(names.INCOME_BANDS),
)  # fmt: skip


def posted(one: dict[str, Any]) -> dict[str, list[str]]:
    """What a browser sends of the controls as they are shown."""
    lines = {name for name, control in targeting.CONTROLS.items() if control.kind == "lines"}
    return {name: ["\r\n".join(v)] if name in lines else v for name, v in targeting.shown(one).items()}


@given(
    any_targeting,
    st.lists(st.builds(dict, cap=st.integers(1, 99), per=st.sampled_from(["hour", "day", "flight"])), max_size=2),
)
def test_what_the_controls_show_is_what_they_save(wanted: Targeting, caps: list[dict[str, Any]]) -> None:
    one = {"targeting": msgspec.to_builtins(wanted), "frequency": caps, "deals": ["a"]}
    body = targeting.typed(posted(one), {})
    assert msgspec.convert(body["targeting"], Targeting) == wanted
    assert (body["frequency"], body["deals"]) == (caps, ["a"])


@given(any_targeting, st.randoms(use_true_random=False))
def test_what_nobody_touched_is_kept_to_the_letter_in_whatever_order_a_browser_sends_it(
    wanted: Targeting, random: Any
) -> None:
    one = {"targeting": msgspec.to_builtins(wanted), "frequency": [], "deals": ["b", "a"]}
    form = {name: random.sample(values, len(values)) for name, values in posted(one).items()}
    body = targeting.typed(form, one)
    assert msgspec.convert(body["targeting"], Targeting) == wanted
    assert body["deals"] == ["b", "a"]


def test_every_part_of_targeting_has_a_control() -> None:
    parts = {name.split(".")[1] for name in targeting.CONTROLS if name.startswith("targeting.")}
    assert parts == set(Targeting.__struct_fields__)


def save(client: TestClient, path: str = "/line-items/1", **changes: Any) -> Any:
    one = client.get(f"{V}/line-items/1")
    form = {"csrf": client.headers["x-csrf-token"], "etag": one.headers["etag"], **FORM, **changes}
    return client.post(path, data=form, follow_redirects=False)


def test_a_form_saves_what_was_chosen_and_leaves_its_ads_alone(owner: TestClient) -> None:
    ads = owner.get(f"{V}/line-items/1").json()["creatives"]
    chosen = {
        "targeting.geo.include": "USA/CA\nUSA/NY",
        "targeting.devices": ["phone", "tablet"], "targeting.income": ["5", "6"],
        "targeting.daypart": "mon-fri 8-12, 13:30-18\nsat 9-20", "frequency": "3 per day",
    }  # fmt: skip
    answer = save(owner, **chosen)
    assert answer.status_code == 303, answer.text
    one = owner.get(f"{V}/line-items/1").json()
    assert one["targeting"] == {
        "geo": {"include": ["USA/CA", "USA/NY"]}, "devices": ["phone", "tablet"], "income": [5, 6],
        "daypart": {"mon-fri": ["8-12", "13:30-18"], "sat": "9-20"},
    }  # fmt: skip
    assert one["frequency"] == [{"cap": 3, "per": "day"}]
    assert one["creatives"] == ads
    shown = owner.get("/line-items/1").text
    assert 'value="phone" checked' in shown
    assert "USA/CA\nUSA/NY</textarea>" in shown


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("targeting.geo.include", "USA\nUtopia", "Utopia"),
        ("targeting.daypart", "mon 25-26", "25"),
        ("targeting.daypart", "someday 8-9", "someday"),
        ("frequency", "often", "3 per day"),
        ("max_bid_cpm", "-1", ""),
    ],
)
def test_what_saving_would_refuse_is_said_while_one_types(owner: TestClient, field: str, value: str, said: str) -> None:
    before = owner.get(f"{V}/line-items/1").json()
    tried = save(owner, "/line-items/1/check", **{field: value})
    assert tried.status_code == 200, tried.text
    wrong = tried.json()["wrong"]
    assert list(wrong) == [field]
    assert said in wrong[field]
    refused = save(owner, **{field: value})
    assert refused.status_code == 422
    marked = refused.text.partition(f'id="e-{field}">')[2].partition("</span>")[0]
    assert marked
    assert owner.get(f"{V}/line-items/1").json() == before


def test_trying_keeps_nothing_and_says_nothing_of_what_is_right(owner: TestClient) -> None:
    before, changes = owner.get(f"{V}/line-items/1").json(), owner.get(f"{V}/changes").json()
    count = len(owner.get(f"{V}/line-items").json()["items"])
    assert save(owner, "/line-items/1/check", **{"targeting.os": "ios"}).json() == {"wrong": {}, "problem": ""}
    new = save(owner, "/campaigns/1/new-line-item/check", name="Another", **{"targeting.geo.include": "Utopia"})
    assert list(new.json()["wrong"]) == ["targeting.geo.include"]
    taken = save(owner, "/campaigns/1/new-line-item/check", name=before["name"])
    assert "is taken" in taken.json()["problem"]
    assert owner.get(f"{V}/line-items/1").json() == before
    assert owner.get(f"{V}/changes").json() == changes
    assert len(owner.get(f"{V}/line-items").json()["items"]) == count


def test_a_forecast_is_of_what_is_typed_and_saves_nothing(traffic: Config, owner: TestClient) -> None:
    before = owner.get(f"{V}/line-items/1").json()
    wide = save(owner, "/line-items/1/forecast", max_bid_cpm="50").text
    narrow = save(owner, "/line-items/1/forecast", max_bid_cpm="50", **{"targeting.geo.include": "FRA"}).text
    assert "Of 4 recent requests" in wide
    assert "Kept out by one part of the targeting alone" not in wide
    assert "Kept out by one part of the targeting alone" in narrow
    new = save(owner, "/campaigns/1/new-line-item/forecast", name="Another").text
    assert "Of 4 recent requests" in new  # without ads: wanted, and not bid on
    assert "no creative of an offered format" in new
    wrong = save(owner, "/line-items/1/forecast", max_bid_cpm="-1").text
    assert "recent requests" not in wrong
    assert owner.get(f"{V}/line-items/1").json() == before


@pytest.mark.parametrize("path", ["/line-items/1", "/campaigns/1/new-line-item"])
def test_without_scripts_the_form_comes_back_as_typed_with_its_forecast(
    traffic: Config, owner: TestClient, path: str
) -> None:
    typed = {"name": "Half typed", "targeting.geo.include": "FRA", "targeting.os": "ios", "etag": '"as-seen"'}
    told = save(owner, f"{path}/forecast", **typed)
    assert 'name="etag" value="&#34;as-seen&#34;"' in told.text  # saving it still asks whether somebody changed it
    assert "Of 4 recent requests" in told.text
    assert 'value="Half typed"' in told.text
    assert ">FRA</textarea>" in told.text
    assert 'name="targeting.os" value="ios" checked' in told.text
    wrong = save(owner, f"{path}/forecast", **(typed | {"targeting.geo.include": "Utopia"}))
    assert 'aria-invalid="true"' in wrong.text
    assert "Half typed" in wrong.text
    part = owner.post(
        f"{path}/forecast",
        data={"csrf": owner.headers["x-csrf-token"], **FORM, **typed},
        headers={"x-part": "forecast"},
    )
    assert "Of 4 recent requests" in part.text
    assert "<form" not in part.text


@pytest.mark.parametrize(("daily", "said"), [("0.01", "The budget ends first"), ("1000000", "The traffic ends first")])
def test_a_forecast_says_what_ends_first(traffic: Config, owner: TestClient, daily: str, said: str) -> None:
    owner.patch(f"{V}/campaigns/1", json={"budget": {"total": 10**9}}, headers={"if-match": "*"})
    fixed = owner.patch(f"{V}/line-items/1", json={"strategy": "fixed"}, headers={"if-match": "*"})
    assert fixed.status_code == 200
    told = save(owner, "/line-items/1/forecast", max_bid_cpm="50", total="", daily=daily).text
    assert said in told, told


def test_deals_are_taken_and_left_and_bought_alone_or_beside_the_open_auction(owner: TestClient) -> None:
    def kept(**form: Any) -> tuple[Any, Any]:
        etag = owner.get(f"{V}/line-items/2").headers["etag"]
        answer = save(owner, "/line-items/2", name="Savings", offer="savings", max_bid_cpm="2", etag=etag, **form)
        assert answer.status_code == 303, answer.text
        one = owner.get(f"{V}/line-items/2").json()
        return one["deals"], one["deal_only"]

    assert 'name="deal_only" value="yes" checked' in owner.get("/line-items/2").text
    assert kept(deals="deal-1") == (["deal-1"], False)
    assert 'name="deal_only" value="yes">' in owner.get("/line-items/2").text
    assert kept(deals="deal-1", deal_only="yes") == (["deal-1"], True)
    assert kept(deal_only="yes") == ([], False)


def test_one_of_the_references_is_ticked_without_losing_another(owner: TestClient) -> None:
    shown = owner.get("/line-items/1").text
    assert 'type="checkbox" name="targeting.segments.include" value="rich" checked' in shown
    assert 'type="checkbox" name="targeting.exchanges" value="beta"' in shown
    assert "<select multiple" not in shown


def test_a_forecast_counts_the_campaigns_budget_and_other_currencies(traffic: Config, owner: TestClient) -> None:
    owner.patch(f"{V}/line-items/1", json={"strategy": "fixed"}, headers={"if-match": "*"})
    forecast = "/line-items/1/forecast"
    told = save(owner, forecast, max_bid_cpm="50", total="900", daily="").text
    assert "Its campaign&#39;s daily budget is" in told or "Its campaign's daily budget is" in told
    assert "Its total budget lasts at least" in told
    file = Path(traffic.path("log", "requests"), "w.jsonl")
    seen = [msgspec.json.decode(line, type=Sampled) for line in file.read_bytes().splitlines()]
    euros = [msgspec.structs.replace(one, exchange="beta", body={**one.body, "cur": ["EUR"]}) for one in seen]
    file.write_bytes(b"\n".join(map(msgspec.json.encode, euros)))  # its budget is in dollars
    told = save(owner, forecast, max_bid_cpm="50", total="", daily="0.01", **{"targeting.geo.include": "USA"}).text
    assert "EUR</strong> CPM" in told, told
    assert "The budget ends first" in told


def test_a_forecast_that_has_to_wait_too_long_says_so(
    traffic: Config, owner: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "_PATIENCE_S", 0.0)
    with reach._LOCK:
        assert "another forecast is being made" in save(owner, "/line-items/1/forecast").text
    assert "Of 4 recent requests" in save(owner, "/line-items/1/forecast").text


def test_a_forecast_reads_one_line_item_however_many_there_are(services: Services) -> None:
    with services.catalog.engine.connect() as connection:
        alone, everything = read_catalog(connection, 2), read_catalog(connection)
    assert [one.id for one in alone.line_items] == [2]
    assert {c.line_item_id for c in alone.creatives} == {2}
    assert alone.line_items == [one for one in everything.line_items if one.id == 2]
    assert alone.creatives == [c for c in everything.creatives if c.line_item_id == 2]


def test_a_copy_has_the_targeting_and_is_edited_with_the_same_controls(owner: TestClient) -> None:
    owner.post("/line-items/1/duplicate", data={"csrf": owner.headers["x-csrf-token"]})
    one, copy = owner.get(f"{V}/line-items").json()["items"][0], owner.get(f"{V}/line-items").json()["items"][-1]
    assert copy["targeting"] == one["targeting"]
    answer = owner.get(f"/line-items/{copy['id']}")
    assert 'name="targeting.segments.include" value="rich" checked' in answer.text
    scheduled = {"start": "2026-03-05T08:00", "end": "2026-03-20T20:00", "targeting.segments.include": "rich"}
    etag = owner.get(f"{V}/line-items/{copy['id']}").headers["etag"]
    kept = save(owner, f"/line-items/{copy['id']}", name=copy["name"], etag=etag, **scheduled)
    assert kept.status_code == 303, kept.text
    after = owner.get(f"{V}/line-items/{copy['id']}").json()
    assert after["flight"]["start"].startswith("2026-03-05T08:00")
    assert after["targeting"] == {"segments": {"include": ["rich"]}}


@pytest.mark.parametrize("control", list(targeting.CONTROLS))
def test_hostile_text_in_a_control_stays_text(owner: TestClient, control: str) -> None:
    hostile = "<script>alert(1)</script>\"'"
    for path in ("/line-items/1", "/line-items/1/check", "/line-items/1/forecast"):
        answer = save(owner, path, **{control: hostile})
        assert answer.status_code in (200, 303, 422), (path, answer.status_code)
        if answer.headers.get("content-type", "").startswith("text/html"):
            assert "<script>alert" not in answer.text
    assert "<script>alert" not in owner.get("/line-items/1").text


def test_who_may_not_edit_may_not_try(sign_in: Any) -> None:
    for client, status in ((sign_in("analyst", 1), 403), (sign_in("trader", 2), 404)):
        for path in ("/line-items/1/check", "/line-items/1/forecast", "/campaigns/1/new-line-item/check"):
            answer = client.post(path, data={"csrf": client.headers["x-csrf-token"], **FORM})
            assert answer.status_code == status, path
