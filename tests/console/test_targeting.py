"""The targeting builder: what it shows is what it saves; what is typed is checked and forecast before anything is."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from dsp.base.config import Config
from dsp.catalog import names
from dsp.catalog.types import AllowBlock, IncludeExclude, Targeting
from dsp.console.pages import targeting

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
    body = targeting.typed(posted(one))
    assert msgspec.convert(body["targeting"], Targeting) == wanted
    assert (body["frequency"], body["deals"]) == (caps, ["a"])


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


@pytest.mark.parametrize(("daily", "said"), [("0.01", "The budget ends first"), ("1000000", "The traffic ends first")])
def test_a_forecast_says_what_ends_first(traffic: Config, owner: TestClient, daily: str, said: str) -> None:
    fixed = owner.patch(f"{V}/line-items/1", json={"strategy": "fixed"}, headers={"if-match": "*"})
    assert fixed.status_code == 200
    told = save(owner, "/line-items/1/forecast", max_bid_cpm="50", total="", daily=daily).text
    assert said in told, told


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
