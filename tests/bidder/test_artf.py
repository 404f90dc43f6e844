"""The ARTF agent: golden pairs (``artf/*.yaml`` over the scenarios' base), deadlines, and what is malformed."""

from __future__ import annotations

import csv
import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st
from test_scenarios import BASE, Stage, merge, shaped

from dsp.audience.lmdb_store import open_profiles
from dsp.audience.open import open_audience
from dsp.base.config import ArtfConfig, BidderConfig, Config
from dsp.base.metrics import ARTF_INTENTS, ARTF_OUTCOMES, Metrics
from dsp.bidder.artf import BAD, LATE, NOTHING, PROPOSED, SHED, ArtfEngine
from dsp.bidder.plan import PlanError
from dsp.openrtb import artf as wire
from dsp.openrtb.convert import json_to_pb
from dsp.pb.com.iabtechlab.bidstream.mutation.services.v1 import service_pb2
from dsp.pb.com.iabtechlab.bidstream.mutation.v1 import mutation_pb2 as pb
from dsp.pb.com.iabtechlab.openrtb.v2 import openrtb_pb2

FILES = sorted((Path(__file__).parent / "artf").glob("*.yaml"))
SHARED = Path(__file__).parents[3] / "shared" / "artf"
MS = 1_000_000


class Clock:
    """Monotonic time that a test moves; every look at it takes ``step`` nanoseconds."""

    def __init__(self) -> None:
        self.now, self.step = 10**12, 0

    def __call__(self) -> int:
        self.now += self.step
        return self.now


class Agent:
    def __init__(self, stage: Stage, golden: dict[str, Any], **settings: Any) -> None:
        scenario = merge({k: BASE[k] for k in ("now", "catalog", "person", "request")}, golden)
        scenario["catalog"] = shaped(scenario, golden)
        now = dt.datetime.fromisoformat(str(scenario["now"]))
        snapshot = stage.snapshot(scenario["catalog"], now.timestamp())
        artf = ArtfConfig(**{"exchange": "alpha", "segments": {"in-market": "finance-7"}, **settings})
        config = Config(data_dir=str(stage.root), bidder=BidderConfig(log_decisions=False), artf=artf)
        self.request, self.metrics, self.tick = scenario["request"], Metrics.memory(), Clock()
        self.engine = ArtfEngine(
            config, snapshot=snapshot, audience=open_audience(config, open_profiles(stage.people(scenario["person"]))),
            scorer=stage.scorer, metrics=self.metrics, clock=lambda: int(now.timestamp() * 1e9), tick=self.tick,
        )  # fmt: skip

    def ask(self, golden: dict[str, Any], **more: Any) -> bytes:
        asked = golden["ask"]
        message = pb.RTBRequest(
            lifecycle=asked["lifecycle"], id="ask-1", tmax=5, applicable_intents=asked["intents"],
            bid_request=json_to_pb(self.request), **more,
        )  # fmt: skip
        if "response" in golden:
            json_format.ParseDict(golden["response"], message.bid_response)
        return message.SerializeToString()

    def say(self, bodies: list[bytes], arrived_ns: int | None = None, left_ns: int = 0) -> list[tuple[int, bytes]]:
        answers: dict[int, tuple[int, bytes]] = {}

        def send(i: int, outcome: int, payload: bytes) -> None:
            assert i not in answers
            answers[i] = outcome, payload

        arrived = [self.tick.now if arrived_ns is None else arrived_ns] * len(bodies)
        self.engine.decide(bodies, arrived, [left_ns] * len(bodies), send)
        return [answers[i] for i in range(len(bodies))]

    def counts(self) -> dict[str, int]:
        counted = self.metrics.counter("dsp_artf_requests_total")
        return {name: int(n) for name, n in zip(ARTF_OUTCOMES, counted, strict=True) if n}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(tmp_path_factory.mktemp("artf"))


SEGMENTS = yaml.safe_load((Path(__file__).parent / "artf" / "segments.yaml").read_text())
SHADE = yaml.safe_load((Path(__file__).parent / "artf" / "shade.yaml").read_text())


def proposed(payload: bytes) -> list[dict[str, Any]]:
    response = pb.RTBResponse.FromString(payload)
    assert (response.id, response.metadata.api_version) == ("ask-1", "1.0")
    return [json_format.MessageToDict(m, preserving_proto_field_name=True) for m in response.mutations]


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_golden_pair(stage: Stage, file: Path) -> None:
    golden = yaml.safe_load(file.read_text())
    agent = Agent(stage, golden)
    ((outcome, payload),) = agent.say([agent.ask(golden)])
    made = proposed(payload)
    for each in made:
        if "adjust_bid" in each:
            each["adjust_bid"]["price"] = pytest.approx(each["adjust_bid"]["price"], abs=0.04)  # the grid of bids
    assert made == golden["mutations"]
    assert outcome == (PROPOSED if golden["mutations"] else NOTHING)
    assert {pb.Intent.Value(m["intent"]) for m in made} <= {pb.Intent.Value(i) for i in golden["ask"]["intents"]}
    assert agent.metrics.counter("dsp_artf_mutations_total").sum() == len(golden["mutations"])


def test_what_is_proposed_is_only_ever_applicable(stage: Stage) -> None:
    agent = Agent(stage, SEGMENTS | {"response": SHADE["response"]})
    every = [intent for intent in pb.Intent.values() if intent]
    for lifecycle in pb.Lifecycle.values():
        for mask in range(1 << len(every)):
            intents = [intent for k, intent in enumerate(every) if mask >> k & 1]
            golden = {"ask": {"lifecycle": lifecycle, "intents": intents}, "response": SHADE["response"]}
            ((_, payload),) = agent.say([agent.ask(golden)])
            got = {m.intent for m in pb.RTBResponse.FromString(payload).mutations}
            assert got <= set(intents) & ({1, 2, 3} if lifecycle == 1 else {6} if lifecycle == 2 else set())


def test_a_batch_of_different_requests_is_answered_one_by_one(stage: Stage) -> None:
    agent = Agent(stage, SEGMENTS)
    bodies = [agent.ask(SEGMENTS), b"\xff\xff", agent.ask(SHADE), b""] * 16
    answers = agent.say(bodies)
    assert [outcome for outcome, _ in answers] == [PROPOSED, BAD, PROPOSED, NOTHING] * 16
    assert {m["intent"] for m in proposed(answers[0][1])} == {"ACTIVATE_SEGMENTS"}
    assert {m["intent"] for m in proposed(answers[62][1])} == {"BID_SHADE"}
    assert agent.counts() == {"proposed": 32, "bad": 16, "nothing": 16}
    of_intent = agent.metrics.counter("dsp_artf_mutations_total")
    assert of_intent[ARTF_INTENTS.index("segments")] == of_intent[ARTF_INTENTS.index("bid_shade")] == 16


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"\xff", "not an RTBRequest"),
        (b"\x12\x7fx", "not an RTBRequest"),
        (b"\x12\x01\xff", "id is not valid UTF-8"),
        (b"\x3a\x01\x80", "not an RTBRequest"),
        (b"\x2a\x02\x12\x05", "not an RTBRequest"),
        (b"\x22\x00\x22\x00", "given twice"),
        (b"\x08\x01\x3a\x01\x01\x22\x03\x0a\x01r", "bid_request: the request has no imp"),
        (b"\x08\x01\x3a\x01\x01\x22\x03\x0a\x05r", "bid_request: "),
    ],
)
def test_malformed_input_is_refused_with_what_is_wrong(stage: Stage, body: bytes, text: str) -> None:
    agent = Agent(stage, SEGMENTS)
    ((outcome, payload),) = agent.say([body])
    assert outcome == BAD
    assert text in payload.decode()
    assert agent.counts() == {"bad": 1}


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_mangled_bytes_are_refused_or_answered_and_hurt_nobody_else(stage: Stage, data: st.DataObject) -> None:
    if not AGENTS:
        AGENTS.append(Agent(stage, SEGMENTS))
    (agent,) = AGENTS
    body = bytearray(data.draw(st.sampled_from([agent.ask(SEGMENTS), agent.ask(SHADE)])))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    length = data.draw(st.integers(1, len(body)))
    good = agent.ask(SEGMENTS)
    first, (outcome, payload), last = agent.say([good, bytes(body[:length]), good])
    assert first == last == (PROPOSED, first[1])
    if outcome != BAD:
        pb.RTBResponse.FromString(payload)


AGENTS: list[Agent] = []  # one for all examples


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_the_envelope_reads_as_the_official_library_reads_it(data: st.DataObject) -> None:
    text = st.text(max_size=5)
    bids = st.lists(
        st.builds(
            openrtb_pb2.BidResponse.Bid, id=text, impid=text, price=st.floats(allow_nan=False), dealid=text,
            mtype=st.integers(0, 4), crid=text,
        ),
        max_size=4,
    )  # fmt: skip
    seats = st.lists(st.builds(openrtb_pb2.BidResponse.SeatBid, seat=text, bid=bids), max_size=3)
    message = data.draw(
        st.builds(
            pb.RTBRequest, lifecycle=st.integers(0, 2), id=text, tmax=st.integers(-5, 500),
            bid_request=st.builds(openrtb_pb2.BidRequest, id=text),
            bid_response=st.builds(openrtb_pb2.BidResponse, id=text, seatbid=seats),
            applicable_intents=st.lists(st.integers(0, 8), max_size=9),
        )
    )  # fmt: skip
    raw = message.SerializeToString()
    rows = np.zeros((2, wire.M_WIDTH), np.int64)
    found = np.zeros((2 * wire.MAX_BIDS, wire.MB_WIDTH), np.int64)
    body = np.frombuffer(bytearray(raw + raw + b"\0"), np.uint8)
    wire.decode_artf(body, np.array([len(raw), 2 * len(raw)]), 2, rows, found)
    for row in rows:
        assert row[wire.M_STATUS] == wire.OK
        assert (row[wire.M_LIFECYCLE], row[wire.M_TMAX]) == (message.lifecycle, message.tmax)
        assert cut(body, row, wire.M_ID_OFF) == message.id.encode()
        assert cut(body, row, wire.M_REQUEST_OFF) == message.bid_request.SerializeToString()
        assert int(row[wire.M_INTENTS]) == sum(1 << i for i in set(message.applicable_intents) if i)
        expected = [(seat.seat, bid) for seat in message.bid_response.seatbid for bid in seat.bid]
        first = int(row[wire.M_BID0])
        assert int(row[wire.M_BIDN]) == len(expected)
        for b, (seat, bid) in enumerate(expected, first):
            said = (seat, bid.id, bid.impid, bid.dealid)
            columns = (wire.MB_SEAT_OFF, wire.MB_ID_OFF, wire.MB_IMP_OFF, wire.MB_DEAL_OFF)
            assert tuple(cut(body, found[b], column).decode() for column in columns) == said
            assert found[b].view(np.float64)[wire.MB_PRICE] == bid.price
            assert found[b, wire.MB_MTYPE] == bid.mtype


def cut(text: Any, row: Any, column: int) -> bytes:
    off, length = int(row[column]), int(row[column + 1])
    return bytes(text[off : off + length])


def test_a_request_without_enough_time_left_gets_no_mutations_at_once(stage: Stage) -> None:
    agent = Agent(stage, SEGMENTS)
    agent.engine.expected_ns = 1.5 * MS
    body = agent.ask(SEGMENTS)  # tmax 5, of which the way takes 1
    late = agent.say([body], arrived_ns=agent.tick.now - 3 * MS)[0]
    assert (late[0], proposed(late[1])) == (SHED, [])
    agent.engine.expected_ns = 1.5 * MS
    assert agent.say([body], arrived_ns=agent.tick.now - 2 * MS)[0][0] == PROPOSED


def test_what_is_declined_is_answered_with_its_id_and_no_mutations(stage: Stage) -> None:
    agent = Agent(stage, SEGMENTS)
    answers: list[tuple[int, int, bytes]] = []
    agent.engine.decline([agent.ask(SEGMENTS), b"\xff"], lambda *answer: answers.append(answer))
    assert [(i, outcome) for i, outcome, _ in answers] == [(0, SHED), (1, SHED)]
    assert proposed(answers[0][2]) == []
    assert agent.counts() == {"shed": 2}


def test_nothing_is_answered_after_tmax(stage: Stage) -> None:
    agent = Agent(stage, SEGMENTS)
    body = agent.ask(SEGMENTS)
    assert agent.say([body], arrived_ns=agent.tick.now - 6 * MS) == [(LATE, b"")]
    agent.tick.step = MS  # the deciding itself takes too long
    answers = agent.say([body] * 8)
    assert answers[-1] == (LATE, b"")
    sent = agent.counts()
    assert sent["late"] >= 2
    assert agent.metrics.counter("dsp_artf_mutations_total").sum() == sent.get("proposed", 0)


def test_the_callers_own_deadline_holds_where_it_is_nearer(stage: Stage) -> None:
    agent = Agent(stage, SEGMENTS)
    body = agent.ask(SEGMENTS)
    assert agent.say([body], arrived_ns=agent.tick.now - 2 * MS, left_ns=2 * MS) == [(LATE, b"")]
    assert agent.say([body], arrived_ns=agent.tick.now - 2 * MS, left_ns=50 * MS)[0][0] == PROPOSED


def test_a_request_without_tmax_has_the_configured_one(stage: Stage) -> None:
    agent = Agent(stage, SEGMENTS, tmax_ms=20)
    message = pb.RTBRequest.FromString(agent.ask(SEGMENTS))
    message.ClearField("tmax")
    body = message.SerializeToString()
    assert agent.say([body], arrived_ns=agent.tick.now - 15 * MS)[0][0] == PROPOSED
    assert agent.say([body], arrived_ns=agent.tick.now - 20 * MS)[0][0] == LATE


def test_one_slow_batch_does_not_refuse_all_that_follow(stage: Stage) -> None:
    agent = Agent(stage, SEGMENTS)
    body = agent.ask(SEGMENTS)
    agent.tick.step = 50 * MS
    for _ in range(50):
        agent.say([body])
    agent.tick.step = 0
    for _ in range(50):
        outcome = agent.say([body])[0][0]
    assert outcome == PROPOSED


def test_settings_that_do_not_fit_the_catalog_say_so(stage: Stage) -> None:
    with pytest.raises(PlanError, match=r"artf\.exchange.*'gamma'"):
        Agent(stage, SEGMENTS, exchange="gamma")
    with pytest.raises(PlanError, match=r"artf\.segments.*nobody"):
        Agent(stage, SEGMENTS, segments={"nobody": "1"})


def test_warming_counts_nothing(stage: Stage) -> None:
    agent = Agent(stage, SEGMENTS)
    agent.engine.warm()
    assert agent.counts() == {}
    assert agent.say([agent.ask(SEGMENTS)])[0][0] == PROPOSED


@pytest.mark.skipif(not SHARED.exists(), reason=f"{SHARED} is missing: the framework's fields are needed to compare")
def test_every_field_and_number_is_the_frameworks() -> None:
    package = "com.iabtechlab.bidstream.mutation.v1."
    with (SHARED / "fields.csv").open() as file:
        for row in csv.DictReader(file):
            if row["message"].startswith("service"):
                assert row["message"].split()[1] in service_pb2.DESCRIPTOR.services_by_name
                continue
            if row["message"].startswith("RTBRequest.Ext"):
                continue
            descriptor = pb.DESCRIPTOR.message_types_by_name[row["message"]]
            found = descriptor.fields_by_name[row["name"]]
            assert found.number == int(row["number"])
            assert found.is_repeated == (row["label"] == "repeated")
            assert (found.containing_oneof.name if found.containing_oneof else "") == row["oneof"]
            kind = found.message_type or found.enum_type
            if kind is not None:
                assert kind.full_name in (row["type"].lstrip("."), package + row["type"])
    with (SHARED / "enums.csv").open() as file:
        for row in csv.DictReader(file):
            outer, _, inner = row["enum"].rpartition(".")
            enums = (
                pb.DESCRIPTOR.message_types_by_name[outer].enum_types_by_name
                if outer
                else pb.DESCRIPTOR.enum_types_by_name
            )
            assert enums[inner].values_by_name[row["name"]].number == int(row["number"])
