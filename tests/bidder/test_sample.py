"""The kept sample of requests: nothing of the person, a bound on its size, and good enough to decide again."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
from test_scenarios import BASE, Stage

from dsp.bidder import sample
from dsp.bidder.answer import BID
from dsp.bidder.sample import RequestSample, read_sample, scrubbed
from dsp.openrtb.columns import FMT_JSON, FMT_PROTOBUF
from dsp.openrtb.convert import json_to_pb

_PERSON = {
    "user": {
        **{"id": "SECRET1", "buyeruid": "SECRET2", "yob": 1980, "keywords": "SECRET3", "consent": "kept"},
        **{"eids": [{"source": "SECRET4"}], "ext": {"consent": "kept", "eids": [{"source": "SECRET5"}]}},
    },
    "device": {
        **{"ifa": "SECRET6", "ip": "SECRET7", "ipv6": "SECRET8", "didmd5": "SECRET9", "os": "ios"},
        **{"geo": {"country": "USA", "lat": 12.3456, "zip": "SECRET10"}, "ext": {"caid": "SECRET11"}},
    },
}


def test_nothing_of_the_person_is_kept_on_either_wire() -> None:
    request = {**BASE["request"], **_PERSON}
    for fmt, body in (
        (FMT_JSON, json.dumps(request).encode()),
        (FMT_PROTOBUF, json_to_pb(request).SerializeToString()),
    ):
        kept = scrubbed(body, fmt)
        assert kept is not None
        text = json.dumps(kept)
        assert "SECRET" not in text
        assert "12.34" not in text
        assert kept["device"]["geo"]["country"] == "USA"
        assert kept["user"]["consent"] == "kept"
    assert scrubbed(b"{", FMT_JSON) is None
    assert scrubbed(b"[1]", FMT_JSON) is None


def test_one_request_a_second_is_kept_and_stands_for_the_rest(tmp_path: Path) -> None:
    engine = Stage(tmp_path).engine(BASE)
    body = json.dumps(BASE["request"]).encode()
    taker, names = RequestSample(tmp_path / "log", "w", 1_000_000_000), engine.plan.exchange_names
    taker.take(engine.batch, names, 0, 10**9, 1000)
    assert read_sample(tmp_path / "log", 10) == []  # nobody has asked anything yet
    for n in range(1, 5):
        engine.decide([body], [FMT_JSON], [0])
        taker.take(engine.batch, names, 100 * n, n * 600_000_000 + 10**9, 1000 * n)
    found = read_sample(tmp_path / "log", 10)
    assert [(s.time_ms, s.stands_for, s.exchange) for s in found] == [(3000, 200, names[0]), (1000, 100, names[0])]
    kind, _ = engine.decide([msgspec.json.encode(found[0].body)], [FMT_JSON], [0])[0]
    assert kind == BID
    engine.close()


def test_the_sample_never_outgrows_two_files(tmp_path: Path) -> None:
    engine = Stage(tmp_path).engine(BASE)
    engine.decide([json.dumps(BASE["request"]).encode()], [FMT_JSON], [0])
    taker = RequestSample(tmp_path / "log", "w", 1)
    for n in range(1, 2 * sample.MOST + 20):
        taker.take(engine.batch, engine.plan.exchange_names, n, n * 10, n)
    files = sorted((tmp_path / "log").iterdir())
    assert [file.name for file in files] == ["w.jsonl", "w.old.jsonl"]
    assert sum(file.read_bytes().count(b"\n") for file in files) <= 2 * sample.MOST
    assert [s.time_ms for s in read_sample(tmp_path / "log", 1)] == [2 * sample.MOST + 19]
    engine.close()
