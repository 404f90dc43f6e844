"""An explanation says what the engine did: the same bid, the value formula, and for each loser the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_scenarios import BASE, Stage, merge

from dsp.bidder.answer import BID
from dsp.bidder.explain import explain
from dsp.openrtb.columns import FMT_JSON


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(tmp_path_factory.mktemp("explain"))


def scenario(**change: Any) -> dict[str, Any]:
    """The base scenario with a second line item that bids its value."""
    catalog = json.loads(json.dumps(BASE["catalog"], default=str))
    item = catalog["advertisers"][0]["campaigns"][0]["line_items"][0]
    catalog["advertisers"][0]["campaigns"][0]["line_items"].append(merge(item, {"name": "second", **change}))
    return {**BASE, "catalog": catalog}


def test_the_bid_explained_is_the_bid_made(stage: Stage) -> None:
    engine = stage.engine(scenario(max_bid_cpm="1.00"))
    body = json.dumps(BASE["request"]).encode()
    kind, payload = engine.decide([body], [FMT_JSON], [0])[0]
    told = explain(engine, body, FMT_JSON, 0)
    assert kind == BID
    made = json.loads(payload)["seatbid"][0]["bid"][0]
    assert told["answer"] == "bid"
    (winner,) = [row for row in told["candidates"] if row["result"] == "bids"]
    assert winner["bid"] == pytest.approx(made["price"])
    assert told["candidates"][0] is winner
    assert set(winner["scores"]) == {"click", "apply", "approve", "fund", "default"}
    assert 0.0 < winner["win_chance"] < 1.0
    surplus = (winner["worth_usd"] - winner["bid"]) * winner["win_chance"]
    assert winner["surplus_usd"] == pytest.approx(surplus, rel=1e-3, abs=1e-6)
    assert (winner["bid"] > winner["price_to_win_usd"]) == (winner["win_chance"] > 0.5)
    losers = [row for row in told["candidates"] if row is not winner]
    assert losers
    assert all("surplus" in row["result"] or "worth" in row["result"] for row in losers)
    json.dumps(told)
    engine.close()


def test_of_two_lenders_the_offer_worth_more_for_this_person_bids(stage: Stage) -> None:
    catalog = json.loads(json.dumps(BASE["catalog"], default=str))
    risky = {"name": "risky", "product": "loan", "lender": "Other", "margin": 400, "lgd": 0.6, "ead": 5_000}
    catalog["offers"].append(risky)
    items = catalog["advertisers"][0]["campaigns"][0]["line_items"]
    items[0]["strategy"] = "value"
    items.append(merge(items[0], {"name": "second", "offer": "risky"}))
    engine = stage.engine({**BASE, "catalog": catalog})
    request = json.loads(json.dumps(BASE["request"]))
    request["imp"][0]["bidfloor"] = 0.01
    told = explain(engine, json.dumps(request).encode(), FMT_JSON, 0)
    first, second = told["candidates"]
    assert first["result"] == "bids"
    assert first["value"] > second["value"]
    assert {first["lender"], second["lender"]} == {"Lender", "Other"}
    assert first["offer"] in second["result"]
    assert first["lender"] in second["result"]
    for row in (first, second):
        assert sum(row["expected"].values()) == pytest.approx(row["value"], rel=1e-5)
    (row,) = [row for row in (first, second) if row["offer"] == "risky"]
    assert row["expected"]["default"] < 0 < row["expected"]["margin"]
    engine.close()


def test_a_floor_above_everything_is_named_with_both_figures(stage: Stage) -> None:
    engine = stage.engine(scenario())
    request = json.loads(json.dumps(BASE["request"]))
    request["imp"][0]["bidfloor"] = 900.0
    told = explain(engine, json.dumps(request).encode(), FMT_JSON, 0)
    assert told["answer"] == "no bid"
    assert told["why"] == "our price is below the floor"
    assert all("less than the floor of 900" in row["result"] for row in told["candidates"])
    engine.close()


def test_no_candidate_and_bad_input_say_why(stage: Stage, tmp_path: Path) -> None:
    engine = stage.engine(scenario())
    blocked = json.dumps({**BASE["request"], "badv": ["lender.example"]}).encode()
    assert explain(engine, blocked, FMT_JSON, 0)["why"] == "our ads are blocked by the request"
    bad = explain(engine, b'{"id": 1', FMT_JSON, 0)
    assert bad["answer"] == "bad request"
    assert bad["why"]
    engine.close()
