"""JSON and protobuf say the same after conversion; what doesn't fit is dropped, never an error."""

import gzip
import json
from pathlib import Path

import pytest

from dsp.openrtb.convert import json_to_pb, json_to_response_pb, pb_to_json
from dsp.openrtb.types import REQUEST, RESPONSE, Bid, BidRequest, BidResponse, Imp, SeatBid, encode
from dsp.pb.com.iabtechlab.openrtb.v2 import openrtb_pb2

CORPUS = Path(__file__).parents[3] / "shared" / "openrtb" / "requests.jsonl.gz"


def test_flags_become_bool_and_come_back_as_numbers() -> None:
    message = json_to_pb({"id": "r", "test": 1, "imp": [{"id": "1", "secure": 0, "instl": True}]})
    assert message.test is True
    assert message.imp[0].HasField("secure")
    assert pb_to_json(message) == {"id": "r", "test": 1, "imp": [{"id": "1", "secure": 0, "instl": 1}]}


def test_numbers_and_strings_are_taken_for_one_another() -> None:
    message = json_to_pb({"id": 7, "tmax": "120", "device": {"geo": {"zip": 10115, "lat": "1.5"}}, "bcat": "IAB1"})
    assert pb_to_json(message) == {
        "id": "7",
        "tmax": 120,
        "device": {"geo": {"zip": "10115", "lat": 1.5}},
        "bcat": ["IAB1"],
    }


def test_what_does_not_fit_is_dropped() -> None:
    request = {
        "id": "r", "tmax": "soon", "at": 1 << 40, "site": 5, "imp": [7, {"id": None, "bidfloor": float("nan")}],
        "bcat": [None, {}], "unknown": {"a": 1}, "cur": ["\ud800"], "device": {"ua": []},
    }  # fmt: skip
    assert pb_to_json(json_to_pb(request)) == {"id": "r", "imp": [{}], "device": {}}


def test_pipl_travels_in_our_extension() -> None:
    request = {"id": "r", "regs": {"ext": {"gdpr": 1, "pipl": 1}}}
    assert pb_to_json(openrtb_pb2.BidRequest.FromString(json_to_pb(request).SerializeToString())) == request


def test_responses_convert_both_ways() -> None:
    bid = Bid(id="b", impid="1", price=1.25, adomain=["a.com"], w=300, h=250, mtype=1)
    response = json.loads(encode(BidResponse(id="r", cur="USD", seatbid=[SeatBid(seat="s", group=0, bid=[bid])])))
    assert pb_to_json(json_to_response_pb(response)) == response
    assert RESPONSE.decode(encode(response)).seatbid[0].bid[0] == bid


def test_types_write_only_what_is_said_and_ignore_the_unknown() -> None:
    request = BidRequest(id="r", imp=[Imp(id="1", secure=0)], test=1)
    assert json.loads(encode(request)) == {"id": "r", "imp": [{"id": "1", "secure": 0}], "test": 1}
    assert REQUEST.decode(b'{"id":"r","imp":[{"id":"1","secure":0,"x":{}}],"test":1,"y":2}') == request


def test_every_real_request_converts() -> None:
    if not CORPUS.exists():
        pytest.skip(f"{CORPUS} is missing: the real requests are needed to convert them")
    with gzip.open(CORPUS) as file:
        for line in file:
            row = json.loads(line)
            message = json_to_pb(json.loads(row["body"]))
            again = json_to_pb(pb_to_json(message))
            assert again == message, row["name"]
