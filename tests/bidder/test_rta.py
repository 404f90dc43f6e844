"""RTA: what a media platform's question gets, checked with the official protobuf library on both ends."""

from __future__ import annotations

import copy
import datetime as dt
from hashlib import md5
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_scenarios import BASE, Stage

from dsp.audience.identity import KIND_DIDMD5, KIND_DPIDMD5, KIND_EID, KIND_MACMD5, identity_key
from dsp.audience.lmdb_store import open_profiles, profiles_path
from dsp.audience.lmdb_writer import LmdbWriter
from dsp.audience.open import open_audience
from dsp.audience.profile import LIFECYCLE, PROFILE, SUPPRESS_DEVICE
from dsp.base.config import Config, PlatformConfig, RtaConfig, StrategyConfig
from dsp.base.metrics import RTA_OUTCOMES, Metrics
from dsp.bidder.plan import PlanError
from dsp.bidder.rta import RtaEngine
from dsp.bidder.rta_tally import T_ACCEPTED, T_CPA, T_PCVR, T_WANTED, T_WIDTH, Tallies, read_days
from dsp.bidder.slices import Slices
from dsp.openrtb import rta as wire
from dsp.openrtb.hashing import hash_text
from dsp.pb.tencent.ad.rta.rta_pb2 import RtaRequest, RtaResponse

KNOWN = md5(b"known", usedforsecurity=False).hexdigest()
OTHER = md5(b"other", usedforsecurity=False).hexdigest()
APPLICANT = md5(b"applicant", usedforsecurity=False).hexdigest()
BLOCKED = md5(b"blocked", usedforsecurity=False).hexdigest()
UNASKED = md5(b"unasked", usedforsecurity=False).hexdigest()
CAID = "0123456789caid"


def catalog() -> dict[str, Any]:
    """Three strategies of the exchange "tencent" and a line item that is none."""
    base = copy.deepcopy(BASE["catalog"])
    base["exchanges"].append({"name": "tencent", "id": 3, "currency": "CNY"})
    base["offers"][0].update(margin=200, lgd=0.5, ead=1000)
    item = base["advertisers"][0]["campaigns"][0]["line_items"][0]
    item = {**item, "strategy": "value"}
    only = {"exchanges": ["tencent"]}
    base["advertisers"][0]["campaigns"][0]["line_items"] = [
        {**item, "name": "loans", "targeting": only},
        {**item, "name": "in-market", "targeting": {**only, "segments": {"include": ["in-market"]}}},
        {**item, "name": "cover", "offer": "cover", "targeting": only},
        {**item, "name": "elsewhere", "targeting": {"exchanges": ["alpha"]}},
    ]
    return base


class World:
    def __init__(self, root: Path) -> None:
        self.stage = Stage(root)
        now = dt.datetime.fromisoformat(BASE["now"])
        self.now_s = now.timestamp()
        self.snapshot = self.stage.snapshot(catalog(), self.now_s)
        self.ids = {str(row["name"]): int(row["id"]) for row in self.snapshot.meta["line_items"]}
        self.people = root / "people"
        with LmdbWriter(profiles_path(self.people)) as writer:
            for text, kind, scope, profile in [
                (KNOWN, KIND_DPIDMD5, 0, {"segments": [101]}),
                (CAID, KIND_EID, hash_text("caid"), {"segments": [101]}),
                (APPLICANT, KIND_DIDMD5, 0, {"lifecycle": [LIFECYCLE.index("applied"), 0, 0, 0, 0]}),
                (BLOCKED, KIND_MACMD5, 0, {"suppress": SUPPRESS_DEVICE}),
                (UNASKED, KIND_DPIDMD5, 0, {"consent": 0, "segments": [101]}),
            ]:
                record = np.zeros(1, PROFILE)
                for name in ("intent", "risk", "affinity"):
                    record[name] = 255
                record["consent"], record["segment_expiry_d"] = 3, 65535
                for name, value in profile.items():
                    if name == "segments":
                        record["n_segments"] = len(value)  # type: ignore[arg-type]
                        record["segments"][0, : len(value)] = value  # type: ignore[arg-type]
                    else:
                        record[name] = value
                key = identity_key(kind, text, self.stage.pepper, scope)
                writer.write(record, np.frombuffer(key, np.uint8).reshape(1, 1, 16))

    def engine(self, budget: int = 10**12, **settings: Any) -> RtaEngine:
        platform = PlatformConfig(
            exchange="tencent",
            strategies=(StrategyConfig("L", self.ids["loans"]), StrategyConfig("C", self.ids["cover"], "cpc"),
                        StrategyConfig("M", self.ids["in-market"], "cpa")),
            cache_accept_s=3600, cache_refuse_s=80_000, cache_unknown_s=7200, cache_fresh_s=3601,
        )  # fmt: skip
        platform = msgspec.structs.replace(platform, **settings)
        config = Config(data_dir=str(self.stage.root), rta=RtaConfig(platforms=(platform,)))
        self.metrics = Metrics.memory()
        return RtaEngine(
            config, snapshot=self.snapshot, audience=open_audience(config,
            open_profiles(Config(data_dir=str(self.people)))),
            scorer=self.stage.scorer, slices=Slices.fixed(self.snapshot.li_i[:, 0].copy(), budget),
            metrics=self.metrics, clock=lambda: int(self.now_s * 1e9),
        )  # fmt: skip

    def counts(self) -> dict[str, int]:
        sums = self.metrics.counter("dsp_rta_requests_total").sum(0)
        return {name: int(n) for name, n in zip(RTA_OUTCOMES, sums, strict=True) if n}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("rta"))


def ask(engine: RtaEngine, **device: Any) -> RtaResponse:
    return say(engine, RtaRequest(id="r", device=RtaRequest.Device(os="OS_ANDROID", **device)))


def say(engine: RtaEngine, request: RtaRequest) -> RtaResponse:
    (answer,) = engine.decide(0, [request.SerializeToString()])
    return RtaResponse.FromString(answer)


def test_a_known_person_is_taken_under_every_strategy_that_wants_them(world: World) -> None:
    answer = ask(world.engine(), oaid_md5sum=KNOWN.upper())
    assert (answer.request_id, answer.code) == ("r", 0)
    assert set(answer.out_target_id) == {"L", "C", "M"}
    infos = {info.out_target_id: info for info in answer.target_infos}
    assert 0.2 <= infos["L"].user_weight_factor <= 5
    assert infos["C"].cpc_price >= 1
    assert infos["M"].cpa_price > infos["C"].cpc_price
    assert all(0 < info.pcvr < 1 and info.dsp_tag > 0 for info in infos.values())
    assert answer.response_cache_time == 3600
    assert world.counts() == {"accept": 1}


def test_prices_are_the_value_of_a_click_and_of_an_application_in_fen(world: World) -> None:
    engine = world.engine()
    answer = ask(engine, oaid_md5sum=KNOWN)
    infos = {info.out_target_id: info for info in answer.target_infos}
    # The offer "cover" pays 1 USD for an application and CNY is at 0.125: a click is worth p(apply) * 800 fen.
    assert infos["C"].cpc_price == int(infos["C"].pcvr * 800)


def test_a_stranger_is_taken_only_where_no_profile_is_needed_and_refusals_are_kept_longest(world: World) -> None:
    assert set(ask(world.engine(), oaid_md5sum=OTHER).out_target_id) == {"L", "C"}
    nobody = ask(world.engine(min_price=10**9), oaid_md5sum=OTHER)
    assert (nobody.code, nobody.response_cache_time, list(nobody.out_target_id)) == (1, 7200, [])
    refused = ask(world.engine(min_price=10**9), oaid_md5sum=KNOWN)
    assert (refused.code, refused.response_cache_time) == (1, 80_000)


def test_an_applicant_is_refused_the_product_and_never_cached_as_wanted(world: World) -> None:
    answer = ask(world.engine(), imei_md5sum=APPLICANT)
    assert set(answer.out_target_id) == {"C"}
    assert answer.response_cache_time == 3601


def test_a_suppressed_device_gets_nothing_whatever_it_matches(world: World) -> None:
    assert ask(world.engine(), mac_md5sum=BLOCKED).code == 1


def test_a_profile_without_consent_on_record_is_as_good_as_none(world: World) -> None:
    assert set(ask(world.engine(), oaid_md5sum=UNASKED).out_target_id) == {"L", "C"}


@pytest.mark.parametrize(
    ("device", "known"),
    [
        ({"idfa_md5sum": KNOWN}, True),
        ({"android_id_md5sum": KNOWN}, True),
        ({"oaid_md5sum": KNOWN, "doubtful_ids_list": ["OAID_MD5_DOUBTFUL"]}, False),
        ({"oaid_md5sum": KNOWN, "doubtful_ids_list": ["IMEI_MD5_DOUBTFUL"]}, True),
        ({"oaid_md5sum": KNOWN[:-1]}, False),
        ({"oaid_md5sum": md5(b"", usedforsecurity=False).hexdigest(), "idfa_md5sum": KNOWN}, True),
        ({"imei_md5sum": KNOWN}, False),  # another kind of id
        ({"qaid_infos": [{"version": 2, "qaid": CAID}, {"version": 1, "qaid": "old"}]}, True),
        ({"qaid_infos": [{"version": 1, "qaid": CAID}, {"version": 2, "qaid": "new"}]}, False),
        ({"qaid_infos": [{"version": 2, "qaid": CAID}], "doubtful_ids_list": ["QAID_DOUBTFUL"]}, False),
    ],
)
def test_ids_are_normalised_checked_and_doubtful_ones_left_out(
    world: World, device: dict[str, Any], known: bool
) -> None:
    assert ("M" in ask(world.engine(), **device).out_target_id) is known


def test_of_two_people_the_id_that_comes_first_in_the_platforms_order_decides(world: World) -> None:
    both = {"oaid_md5sum": KNOWN, "imei_md5sum": APPLICANT}
    assert "M" in ask(world.engine(), **both).out_target_id
    answer = ask(world.engine(id_priority=("imei_md5", "oaid_md5")), **both)
    assert set(answer.out_target_id) == {"C"}


def test_second_stage_answers_every_ad_by_its_strategy(world: World) -> None:
    request = RtaRequest(id="r", device={"imei_md5sum": APPLICANT}, request_info={"request_type": "ADLIST_REQUEST"})
    for group, target in [(7, "L"), (8, "C"), (9, "unknown")]:
        request.ad_infos.add(adgroup_id=group, out_target_id=target)
    results = {r.adgroup_id: r for r in say(world.engine(), request).ad_results}
    assert results[7].ignore
    assert not results[8].ignore
    assert results[8].cpc_price >= 1
    assert 9 not in results


def test_a_ping_gets_its_id_and_yes_and_a_test_leaves_no_trace(world: World) -> None:
    engine = world.engine()
    ping = say(engine, RtaRequest(id="p", is_ping=True))
    assert (ping.request_id, ping.code, len(ping.target_infos)) == ("p", 0, 0)
    before = engine._mean.copy()
    test = say(engine, RtaRequest(id="t", is_test=True, device={"oaid_md5sum": KNOWN}))
    assert test.code == 0
    assert world.counts() == {"ping": 1, "test": 1}
    assert world.metrics.counter("dsp_rta_accepts_total").sum() == 0
    assert np.array_equal(before, engine._mean)
    ask(engine, oaid_md5sum=KNOWN)
    assert not np.array_equal(before, engine._mean)


def test_strategies_sums_are_kept_by_the_platforms_days_and_gone_on_with(world: World) -> None:
    directory = world.stage.root / "rta"
    engine = world.engine()
    infos = {info.out_target_id: info for info in ask(engine, oaid_md5sum=KNOWN).target_infos}
    ask(engine, oaid_md5sum=OTHER)  # a stranger: wanted by the two strategies without a segment
    say(engine, RtaRequest(id="r", is_test=True, device=RtaRequest.Device(os="OS_ANDROID", oaid_md5sum=KNOWN)))
    engine.close()
    today = dt.datetime.fromtimestamp(world.now_s + 480 * 60, dt.UTC).date()
    found = read_days(directory, today, today)[today]["tencent"]
    assert {name: each.sums[T_WANTED] for name, each in found.items()} == {"L": 2, "C": 2, "M": 1}
    assert found["M"].sums[T_ACCEPTED] == 1
    assert found["M"].sums[T_CPA] == infos["M"].cpa_price
    assert found["M"].sums[T_PCVR] == pytest.approx(infos["M"].pcvr, rel=1e-3)
    assert found["M"].line_item == world.ids["in-market"]
    again = world.engine()  # the same worker, started again
    ask(again, oaid_md5sum=KNOWN)
    now_s = world.now_s
    try:
        world.now_s = now_s + 86_400
        again.poll()  # midnight has passed: what was counted belongs to yesterday
        ask(again, oaid_md5sum=KNOWN)
        again.close()
    finally:
        world.now_s = now_s
    days = read_days(directory, today, today + dt.timedelta(days=1))
    assert [days[day]["tencent"]["M"].sums[T_WANTED] for day in sorted(days)] == [2, 1]


def test_a_directory_that_cannot_be_written_to_loses_no_sums_and_a_broken_file_stops_nobody(tmp_path: Path) -> None:
    tallies, sums, day = Tallies(tmp_path / "rta", "rta0"), np.zeros((1, T_WIDTH)), dt.date(2026, 3, 4)
    number = (day - dt.date(1970, 1, 1)).days
    (tmp_path / "rta").write_text("no directory")
    sums[0, T_WANTED] = 3
    tallies.add(number, "tencent", [("L", 7)], sums)
    assert not sums.any()
    tallies.keep(0)
    (tmp_path / "rta").unlink()
    sums[0, T_WANTED] = 2
    tallies.add(number, "tencent", [("L", 7)], sums)
    tallies.keep(0)
    assert read_days(tmp_path / "rta", day, day)[day]["tencent"]["L"].sums[T_WANTED] == 5
    next((tmp_path / "rta").iterdir()).write_text("{")
    assert read_days(tmp_path / "rta", day, day) == {day: {}}
    tallies.keep(0)
    assert read_days(tmp_path / "rta", day, day)[day]["tencent"]["L"].sums[T_WANTED] == 5


def test_experiments_take_everybody_or_nobody(world: World) -> None:
    engine = world.engine(experiments={11: "accept", 12: "refuse"})
    for exp, code in [(11, 0), (12, 1), (13, 0)]:
        request = RtaRequest(id="r", device={"oaid_md5sum": KNOWN}, exps=[{"exp_id": exp}])
        answer = say(engine, request)
        assert answer.code == code
        if exp == 11:
            assert all(i.user_weight_factor == 1 for i in answer.target_infos if i.out_target_id == "L")
            assert {i.dsp_tag & 255 for i in answer.target_infos} == {1}


def test_without_money_nobody_is_taken(world: World) -> None:
    assert ask(world.engine(budget=0), oaid_md5sum=KNOWN).code == 1


@pytest.mark.parametrize("accept", [False, True])
def test_what_cannot_be_read_gets_the_default_and_its_id_back(world: World, accept: bool) -> None:
    engine = world.engine(default_accept=accept)
    good = RtaRequest(id="abc", device={"oaid_md5sum": KNOWN}).SerializeToString()
    first, broken, last = (RtaResponse.FromString(a) for a in engine.decide(0, [good, good + b"\x2a\x7f", good]))
    assert first.code == last.code == 0
    assert broken.code == int(not accept)
    shed = RtaResponse.FromString(engine.default_answer(0, good))
    assert (shed.request_id, shed.code) == ("abc", int(not accept))
    assert RtaResponse.FromString(engine.default_answer(0, b"\x0a\x7fx")).code == int(not accept)


def test_a_batch_says_what_its_requests_would_get_alone(world: World) -> None:
    engine = world.engine()
    devices = [{"oaid_md5sum": KNOWN}, {"oaid_md5sum": OTHER}, {"imei_md5sum": APPLICANT}, {"mac_md5sum": BLOCKED}]
    bodies = [RtaRequest(id=f"{i}", device=devices[i % 4]).SerializeToString() for i in range(150)]
    together = [RtaResponse.FromString(a) for a in engine.decide(0, bodies)]
    for body, answer in zip(bodies[:8], together, strict=False):
        alone = RtaResponse.FromString(engine.decide(0, [body])[0])
        assert alone.out_target_id == answer.out_target_id
        assert alone.request_id == answer.request_id


def test_a_platform_that_does_not_fit_the_catalog_is_named(world: World) -> None:
    for wrong, text in [
        ({"exchange": "nowhere"}, "no exchange named"),
        ({"currency": "JPY"}, "no rate for JPY"),
        ({"strategies": (StrategyConfig("x", 99),)}, r"no line items \[99\]"),
        ({"id_priority": ("email",)}, "unknown ids"),
    ]:
        with pytest.raises(PlanError, match=text):
            world.engine(**wrong)


def decoded(bodies: list[bytes]) -> tuple[Any, Any, Any, bytes]:
    n = len(bodies)
    rows = np.zeros((n, wire.A_WIDTH), np.int64)
    exps = np.zeros((n, wire.MAX_EXPS), np.int64)
    ads = np.zeros((n, wire.MAX_ADS, wire.AD_WIDTH), np.int64)
    raw = b"".join(bodies) + b"\0"
    wire.decode_rta(np.frombuffer(bytearray(raw), np.uint8), np.cumsum([len(b) for b in bodies]), n, rows, exps, ads)
    return rows, exps, ads, raw


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=120))
def test_whatever_the_bytes_the_decoder_agrees_with_itself_and_reads_no_further(junk: bytes) -> None:
    rows, _, _, _ = decoded([junk, b"\x0a\x02ok"])
    assert rows[1, wire.A_STATUS] == 0
    assert rows[1, wire.A_ID_LEN] == 2
    assert rows[0, wire.A_ID_OFF] + rows[0, wire.A_ID_LEN] <= len(junk)


ids = st.text("0123456789abcdef", min_size=0, max_size=40)


@settings(max_examples=100, deadline=None)
@given(
    st.builds(
        RtaRequest, id=st.text(max_size=20), is_ping=st.booleans(), is_test=st.booleans(),
        siteset_id=st.integers(0, 2**64 - 1), ad_request_time=st.integers(0, 2**64 - 1),
        device=st.builds(RtaRequest.Device, os=st.sampled_from(range(8)), oaid_md5sum=ids, mac_md5sum=ids,
                         doubtful_ids_list=st.lists(st.sampled_from(range(7)), max_size=4)),
        exps=st.lists(st.builds(RtaRequest.Experiment, exp_id=st.integers(0, 2**32 - 1)), max_size=4),
        ad_infos=st.lists(st.builds(RtaRequest.AdInfo, adgroup_id=st.integers(0, 2**63 - 1), out_target_id=ids),
                          max_size=4),
    )
)  # fmt: skip
def test_the_decoder_reads_what_the_official_library_wrote(request: Any) -> None:
    rows, exps, ads, raw = decoded([request.SerializeToString()])
    row = rows[0]

    def text(column: int) -> str:
        return raw[row[column] : row[column] + row[column + 1]].decode()

    assert row[wire.A_STATUS] == 0
    assert text(wire.A_ID_OFF) == request.id
    assert (row[wire.A_PING], row[wire.A_TEST], row[wire.A_OS]) == (request.is_ping, request.is_test, request.device.os)
    assert text(wire.A_OAID_OFF) == request.device.oaid_md5sum
    assert text(wire.A_MAC_OFF) == request.device.mac_md5sum
    assert row[wire.A_DOUBTFUL] == sum(1 << tag for tag in set(request.device.doubtful_ids_list))
    assert exps[0, : row[wire.A_EXPS]].tolist() == [e.exp_id for e in request.exps]
    assert ads[0, : row[wire.A_ADS], wire.AD_GROUP].tolist() == [a.adgroup_id for a in request.ad_infos]
