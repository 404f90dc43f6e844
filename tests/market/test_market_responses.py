"""What the market refuses of a bid response."""

from __future__ import annotations

import json

import pytest
from world_fixture import VENUES, bid_for, make_world, response_to

from dsp.market.responses import problems, read_response
from dsp.market.supply import Scene
from dsp.openrtb.columns import BANNER, FMT_JSON, FMT_PROTOBUF
from dsp.openrtb.convert import json_to_response_pb


@pytest.fixture(scope="module")
def scene() -> Scene:
    factory = make_world().factory
    scenes = (factory.scene(i) for i in range(1000))
    return next(
        s for s in scenes
        if s.slots[0].media == BANNER and s.venue == 0 and not s.slots[0].deals and s.body["imp"][0]["secure"]
    )  # fmt: skip


def test_a_fine_response_has_no_problems_on_either_wire(scene: Scene) -> None:
    response = response_to(scene, "USD", bid_for(scene, 0, 50.0))
    for payload, format_ in (
        (json.dumps(response).encode(), FMT_JSON),
        (json_to_response_pb(response).SerializeToString(), FMT_PROTOBUF),
    ):
        assert problems(scene, VENUES[0], read_response(payload, format_)) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"impid": "99"}, "impid of no imp"),
        ({"price": 0.0001}, "price below the floor"),
        ({"adm": ""}, "no adm"),
        ({"crid": ""}, "no crid"),
        ({"mtype": 2}, "a format that was not offered"),
        ({"w": 1, "h": 1}, "a banner size that was not offered"),
        ({"dealid": "x"}, "a deal that was not offered"),
        ({"adm": "<img src='http://plain.example/a.png'>"}, "an insecure ad"),
        ({"adomain": ["{blocked}"]}, "a blocked advertiser"),
    ],
)
def test_each_fault_is_named(scene: Scene, change: dict[str, object], problem: str) -> None:
    if change.get("adomain") == ["{blocked}"]:
        change = {"adomain": [scene.body["badv"][0].upper()]}
    response = response_to(scene, "USD", bid_for(scene, 0, 50.0) | change)
    assert problem in problems(scene, VENUES[0], response)


def test_a_namespace_is_not_an_insecure_address(scene: Scene) -> None:
    vast = '<VAST xmlns:xs="http://www.w3.org/2001/XMLSchema" version="4.0"></VAST>'
    assert problems(scene, VENUES[0], response_to(scene, "USD", bid_for(scene, 0, 50.0, adm=vast))) == []


def test_whole_response_faults(scene: Scene) -> None:
    good = response_to(scene, "USD", bid_for(scene, 0, 50.0))
    assert "id is not the request's" in problems(scene, VENUES[0], good | {"id": "x"})
    assert problems(scene, VENUES[0], good | {"cur": "JPY"}) == ["cur 'JPY' was not offered"]
    assert problems(scene, VENUES[0], good | {"seatbid": [{"bid": []}]}) == ["a seat without bids"]


@pytest.mark.parametrize(("payload", "format_"), [(b"{", FMT_JSON), (b"[]", FMT_JSON), (b"\xff\xff\xff", FMT_PROTOBUF)])
def test_garbage_is_a_value_error(payload: bytes, format_: int) -> None:
    with pytest.raises(ValueError, match="response is not"):
        read_response(payload, format_)
