"""Requests of the market: reproducible, valid against the OpenRTB schema, and of the promised mix."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsp.market.people import ALLOWED, LIMITED, REFUSED, Mix, People
from dsp.market.places import COUNTRIES
from dsp.market.supply import RequestFactory, Scene
from dsp.market.venues import Deal, Venue
from dsp.openrtb.columns import BANNER, NATIVE, VIDEO
from dsp.openrtb.convert import pb_to_json
from dsp.pb.com.iabtechlab.openrtb.v2 import openrtb_pb2

SCHEMA = Path(__file__).parents[2].parent / "shared/openrtb/openrtb26_BidRequest.schema.json"
VENUES = (
    Venue("alpha", at=1, weight=2, deals=(Deal("d-1", 3.0, wseat=("s1",)), Deal("d-2", 9.0, media=VIDEO))),
    Venue("beta", at=2, weight=1),
    Venue("lion", at=1, currency="CNY", usd=0.14, countries=("CHN",)),
)


@pytest.fixture(scope="module")
def factory() -> RequestFactory:
    return RequestFactory(People.generate(20_000, 1), 1, VENUES, blocked_advertisers=("bank.example",))


@pytest.fixture(scope="module")
def scenes(factory: RequestFactory) -> list[Scene]:
    return [factory.scene(i) for i in range(3000)]


def test_request_i_does_not_depend_on_what_was_asked_before(factory: RequestFactory) -> None:
    other = RequestFactory(People.generate(20_000, 1), 1, VENUES, blocked_advertisers=("bank.example",))
    assert [other.body(i) for i in (2999, 0, 700)] == [factory.body(i) for i in (2999, 0, 700)]


def test_another_seed_makes_other_requests(factory: RequestFactory) -> None:
    other = RequestFactory(factory.people, 2, VENUES)
    assert all(other.body(i) != factory.body(i) for i in range(50))


def test_bodies_are_distinct_and_of_full_size(factory: RequestFactory) -> None:
    bodies = [factory.body(i) for i in range(2000)]
    assert len(set(bodies)) == 2000
    assert np.median([len(body) for body in bodies]) >= 1800


def test_requests_match_the_schema(scenes: list[Scene]) -> None:
    if not SCHEMA.exists():
        pytest.skip(f"needs {SCHEMA.name} beside the repository")
    schema = json.loads(SCHEMA.read_text())
    for scene in scenes[:1000]:
        check(json.loads(json.dumps(scene.body)), schema, schema, "request")


def check(value: Any, schema: dict[str, Any], root: dict[str, Any], path: str) -> None:
    """The subset of draft-07 that the OpenRTB schema uses; every member must also be one that the schema names."""
    if "$ref" in schema:
        target: Any = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        schema = target
    for option in ("anyOf", "oneOf", "allOf"):
        assert option not in schema or isinstance(schema[option], list)
    kinds = schema.get("type")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds:
        python = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool}
        assert any(isinstance(value, python.get(kind, type(None))) for kind in kinds), (
            f"{path}: {value!r} is no {kinds}"
        )
    if "enum" in schema:
        assert value in schema["enum"], f"{path}: {value!r}"
    if isinstance(value, dict):
        missing = [name for name in schema.get("required", []) if name not in value]
        assert not missing, f"{path}: lacks {missing}"
        properties = schema.get("properties", {})
        for name, member in value.items():
            if name in properties:
                check(member, properties[name], root, f"{path}.{name}")
            else:
                assert not properties or name == "ext" or schema.get("additionalProperties") is not False, (
                    f"{path}.{name}"
                )
    if isinstance(value, list) and "items" in schema:
        for number, member in enumerate(value):
            check(member, schema["items"], root, f"{path}[{number}]")


def test_every_request_is_structurally_sound(scenes: list[Scene]) -> None:
    for scene in scenes:
        body = scene.body
        assert ("site" in body) != ("app" in body)
        assert [imp["id"] for imp in body["imp"]] == [slot.id for slot in scene.slots]
        assert len({imp["id"] for imp in body["imp"]}) == len(body["imp"])
        for imp, slot in zip(body["imp"], scene.slots, strict=True):
            offered = sum(
                bit for name, bit in (("banner", BANNER), ("video", VIDEO), ("native", NATIVE)) if name in imp
            )
            assert offered == slot.media > 0
            if "native" in imp:
                assert json.loads(imp["native"]["request"])["assets"]


def test_most_requests_come_with_a_known_person(scenes: list[Scene]) -> None:
    assert np.mean([scene.joinable for scene in scenes]) >= 0.9


def test_activity_is_zipf_distributed(scenes: list[Scene]) -> None:
    counts = sorted(Counter(scene.person for scene in scenes).values(), reverse=True)
    assert counts[0] > 5
    assert sum(counts[: len(counts) // 10]) > 0.25 * len(scenes)


def test_imps_are_sometimes_many_mixed_and_private(scenes: list[Scene]) -> None:
    assert 1.1 < np.mean([len(scene.slots) for scene in scenes]) < 1.6
    media = Counter(slot.media for scene in scenes for slot in scene.slots)
    assert {BANNER, VIDEO, NATIVE, BANNER | NATIVE, BANNER | VIDEO} <= set(media)
    assert any(slot.deals for scene in scenes for slot in scene.slots)
    assert any(slot.private for scene in scenes for slot in scene.slots)
    assert all(deal.media & slot.media for scene in scenes for slot in scene.slots for deal in slot.deals)


def test_a_venue_sells_only_its_countries_in_its_currency(scenes: list[Scene]) -> None:
    lion = [scene for scene in scenes if VENUES[scene.venue].name == "lion"]
    assert lion
    assert {scene.body["device"]["geo"]["country"] for scene in lion} == {"CHN"}
    assert {scene.body["cur"][0] for scene in lion} == {"CNY"}


def test_privacy_choices_show_in_the_request() -> None:
    people = People.generate(5000, 4, Mix(refused=0.2, limited=0.2))
    factory = RequestFactory(people, 4, VENUES)
    seen = set()
    for i in range(1500):
        scene = factory.scene(i)
        body, choice = scene.body, int(people.privacy[scene.person])
        country = COUNTRIES[int(people.country[scene.person])].code
        seen.add((country, choice))
        if choice == LIMITED:
            assert body["device"]["lmt"] == 1
            assert "buyeruid" not in body["user"]
            assert body["device"].get("ifa", "").strip("0-") == ""
        if choice != ALLOWED:
            assert not scene.joinable
            assert "eids" not in body["user"]
        if country in ("DEU", "GBR"):
            assert body["regs"]["gdpr"] == 1
            assert len(body["user"]["consent"]) > 30
        elif country == "USA":
            assert body["regs"]["us_privacy"] == ("1YYN" if choice == REFUSED else "1YNN")
    assert len(seen) == 12


def test_protobuf_bodies_carry_the_same_request(factory: RequestFactory, scenes: list[Scene]) -> None:
    for i in range(60):
        message = openrtb_pb2.BidRequest.FromString(factory.body_pb(i))
        back, body = pb_to_json(message), scenes[i].body
        assert back["id"] == body["id"]
        assert [imp["id"] for imp in back["imp"]] == [imp["id"] for imp in body["imp"]]
        assert back["device"]["ua"] == body["device"]["ua"]
        assert back["user"].get("buyeruid") == body["user"].get("buyeruid")
        assert back["bcat"] == body["bcat"]
