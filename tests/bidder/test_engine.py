"""The engine as a whole: batches, swaps, tokens and the log; single behaviours are scenarios."""

from __future__ import annotations

import copy
import json
import re
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from test_scenarios import BASE, Stage

from dsp.base.metrics import Metrics
from dsp.base.token import TOKEN_TEST
from dsp.bidder.answer import BAD, BID, NO_BID, SHED, TOO_LARGE
from dsp.bidder.engine import Engine
from dsp.bidder.meters import Meters
from dsp.bidder.retry import EVERY_NS
from dsp.bidder.rollout import Loaded
from dsp.bidder.slices import Slices
from dsp.catalog.layout import CR_ID
from dsp.catalog.publish import Publisher
from dsp.catalog.store import apply_file, set_status
from dsp.log.decisions import DecisionWriter, read_decisions
from dsp.model.correction import Correction
from dsp.model.features import SHARED, SPEC_HASH
from dsp.model.manifest import MODEL_FILE, Manifest
from dsp.model.registry import current_dir, save_version
from dsp.model.rollout import promote, shadow
from dsp.model.score import Scorer
from dsp.model.winscale import KEYS, WinScale, save_win_scale
from dsp.openrtb.columns import FMT_JSON, FMT_PROTOBUF
from dsp.openrtb.convert import json_to_pb
from dsp.openrtb.limits import MAX_BODY_BYTES

TOKEN = re.compile(r"/b/([\w-]{136})\?")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(tmp_path_factory.mktemp("engine"))


class Clock:
    """Unix nanoseconds as told."""

    def __init__(self) -> None:
        self.now_ns = 1_800_000_000_000_000_000

    def __call__(self) -> int:
        return self.now_ns


def request(**change: Any) -> bytes:
    return json.dumps({**BASE["request"], **change}).encode()


def decide(engine: Engine, *bodies: bytes) -> list[tuple[int, bytes]]:
    return engine.decide(list(bodies), [FMT_JSON] * len(bodies), [0] * len(bodies))


def test_answers_come_in_the_order_of_the_requests_whatever_is_wrong_with_some(stage: Stage) -> None:
    engine = stage.engine(dict(BASE))
    bodies, expected = [], []
    for i in range(200):  # more than a batch
        if i % 5 == 1:
            bodies.append(b'{"id":')
            expected.append(BAD)
        elif i % 5 == 2:
            bodies.append(request(id=f"r{i}", badv=["lender.example"]))
            expected.append(NO_BID)
        elif i == 103:
            bodies.append(b" " * (MAX_BODY_BYTES + 1))
            expected.append(TOO_LARGE)
        else:
            bodies.append(request(id=f"r{i}"))
            expected.append(BID)
    answers = decide(engine, *bodies)
    assert [kind for kind, _ in answers] == expected
    for i, (kind, payload) in enumerate(answers):
        if kind == BID:
            assert json.loads(payload)["id"] == f"r{i}"
        elif kind == BAD:
            assert b"byte" in payload


def test_json_and_protobuf_share_a_batch(stage: Stage) -> None:
    engine = stage.engine(dict(BASE))
    pb = json_to_pb(BASE["request"]).SerializeToString()
    answers = engine.decide([request(), pb] * 8, [FMT_JSON, FMT_PROTOBUF] * 8, [0] * 16)
    assert all(kind == BID for kind, _ in answers)
    assert answers[0][1][:1] == b"{"
    assert answers[1][1][:1] == b"\x0a"


def test_every_bid_has_its_own_id_and_a_token_that_opens_to_what_was_bid(stage: Stage) -> None:
    engine = stage.engine(dict(BASE))
    answers = decide(engine, *[request(id=f"r{i}") for i in range(40)])
    tokens = [stage.signer.open(match.group(1)) for _, p in answers if (match := TOKEN.search(p.decode()))]
    bids = [json.loads(p)["seatbid"][0]["bid"][0] for _, p in answers]
    assert len({bid["id"] for bid in bids}) == 40
    assert [f"{int(token['bid_id']):016x}" for token in tokens] == [bid["id"] for bid in bids]
    assert {(int(t["reserve_micros"]), int(t["bid_cpm_micros"])) for t in tokens} == {(4000, 4_000_000)}
    assert {bytes(t["currency"]) for t in tokens} == {b"USD"}


def test_a_test_request_is_marked_and_reserves_nothing(stage: Stage) -> None:
    engine = stage.engine(dict(BASE))
    before = engine.slices.available.copy()
    (kind, payload), *_ = decide(engine, request(test=1))
    match = TOKEN.search(payload.decode())
    assert kind == BID
    assert match is not None
    assert int(stage.signer.open(match.group(1))["flags"]) & TOKEN_TEST
    assert (engine.slices.available == before).all()


def test_a_slice_is_spent_to_the_last_bid_it_can_pay(stage: Stage) -> None:
    engine = stage.engine({**BASE, "budget_micros": 4000 * 7 + 3999})
    kinds = [kind for _ in range(3) for kind, _ in decide(engine, *[request() for _ in range(5)])]
    assert kinds.count(BID) == 7


def test_an_exchange_over_its_qps_is_shed_and_others_are_not(stage: Stage) -> None:
    catalog = copy.deepcopy(BASE["catalog"])
    catalog["exchanges"][0]["qps"] = 8
    engine = stage.engine({**BASE, "catalog": catalog})
    bodies = [request() for _ in range(40)]
    answers = engine.decide(bodies, [FMT_JSON] * 40, [0, 1] * 20)
    shed = [kind == SHED for kind, _ in answers]
    assert sum(shed[0::2]) >= 15
    assert not any(shed[1::2])


def test_a_new_snapshot_does_not_refill_an_exchanges_qps(stage: Stage, tmp_path: Path) -> None:
    import yaml

    catalog = copy.deepcopy(BASE["catalog"])
    catalog["exchanges"][0]["qps"] = 8
    config = stage.config.__class__(data_dir=str(tmp_path), bidder=stage.config.bidder)
    publisher = Publisher(config)
    file = tmp_path / "catalog.yaml"
    file.write_text(yaml.safe_dump(catalog))
    apply_file(publisher.engine, file)
    publisher.publish()
    first = stage.engine(dict(BASE)).plan.snapshot
    engine = Engine.open(
        config, scorer=stage.scorer, slices=Slices.fixed(first.li_i[:, 0].copy(), 10**12), signer=stage.signer
    )
    engine.decide([request()] * 20, [FMT_JSON] * 20, [0] * 20)
    left, since_ns = float(engine.work.tokens[0]), int(engine.work.tokens_ns[0])
    assert left < 1.0
    before = engine.plan.snapshot.version
    set_status(publisher.engine, int(engine.plan.ids[0]), "paused")
    assert publisher.poll() is not None
    engine.poll()
    assert engine.plan.snapshot.version > before
    assert (float(engine.work.tokens[0]), int(engine.work.tokens_ns[0])) == (left, since_ns)
    engine.close()
    publisher.engine.dispose()


def test_a_late_request_is_not_bid_on(stage: Stage) -> None:
    import time

    engine = stage.engine(dict(BASE))
    now = time.monotonic_ns()
    bodies = [request(), request()]
    answers = engine.decide(bodies, [FMT_JSON] * 2, [0, 0], [now, now - 140_000_000], True)  # of 150 ms, less 10
    assert [kind for kind, _ in answers] == [BID, NO_BID]
    assert json.loads(answers[1][1])["nbr"] == 15


def test_a_changed_catalog_is_swapped_in_between_batches(stage: Stage, tmp_path: Path) -> None:
    import yaml

    config = stage.config.__class__(data_dir=str(tmp_path), bidder=stage.config.bidder)
    publisher = Publisher(config)
    file = tmp_path / "catalog.yaml"
    file.write_text(yaml.safe_dump(BASE["catalog"]))
    apply_file(publisher.engine, file)
    publisher.publish()
    first = stage.engine(dict(BASE)).plan.snapshot
    engine = Engine.open(
        config, scorer=stage.scorer, slices=Slices.fixed(first.li_i[:, 0].copy(), 10**12), signer=stage.signer
    )
    assert decide(engine, request())[0][0] == BID
    line_item = int(engine.plan.ids[0])
    set_status(publisher.engine, line_item, "paused")
    assert publisher.poll() is not None
    assert decide(engine, request())[0][0] == BID  # not before the poll
    engine.poll()
    assert decide(engine, request())[0][0] == NO_BID
    engine.close()
    publisher.engine.dispose()


def test_what_was_bid_is_logged_with_its_features(stage: Stage, tmp_path: Path) -> None:
    engine = stage.engine(dict(BASE))
    engine.decisions = DecisionWriter(tmp_path, "t", SPEC_HASH, "1")
    answers = decide(engine, *[request(id=f"r{i}") for i in range(9)], b"{}")
    engine.close()
    log = read_decisions(tmp_path)
    ids = [int(json.loads(p)["seatbid"][0]["bid"][0]["id"], 16) for kind, p in answers if kind == BID]
    assert log["bid_id"].tolist() == ids
    assert (log["bid_cpm_micros"] == 4_000_000).all()
    assert log["features"].shape == (9, engine.scorer.rows.shape[1])
    assert np.abs(log["features"]).sum() > 0


def second_version(stage: Stage) -> Scorer:
    """The prior model again, under another number."""
    config = stage.config

    def write(directory: Path, version: int) -> None:
        shutil.copytree(current_dir(config), directory, dirs_exist_ok=True)
        manifest = Manifest.load(directory)
        msgspec.structs.replace(manifest, version=version).save(directory)

    return Scorer.load(save_version(config, write))


def test_a_challenger_scores_its_share_of_the_batches_and_the_log_says_which(stage: Stage, tmp_path: Path) -> None:
    engine = stage.engine(dict(BASE))
    engine.decisions = DecisionWriter(tmp_path, "t", SPEC_HASH, "1")
    other = second_version(stage)
    engine.models.challenge(other, 0.25)
    for i in range(100):
        assert decide(engine, request(id=f"r{i}"))[0][0] == BID
    engine.models.challenge(None, 0.0)
    decide(engine, request())
    engine.close()
    models = read_decisions(tmp_path)["model"].tolist()
    assert 24 <= models.count(other.version) <= 26
    assert models[-1] == engine.scorer.version


def test_a_model_that_does_not_load_is_tried_again_and_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Stage(tmp_path)
    config, clock = stage.config, Clock()
    snapshot = stage.engine(dict(BASE)).plan.snapshot
    slices = Slices.fixed(snapshot.li_i[:, 0].copy(), 10**12)
    engine = Engine.open(config, snapshot=snapshot, slices=slices, signer=stage.signer, clock=clock)
    first, broken = engine.scorer.version, second_version(stage)
    graph = config.path("models", f"{broken.version:06d}", MODEL_FILE)
    whole = graph.read_bytes()
    graph.write_bytes(whole[:100])
    promote(config, broken.version, 0.25)
    for _ in range(3):  # seconds apart, all before the file is whole
        engine.poll()
        clock.now_ns += EVERY_NS
    assert engine.models.challenger is None
    assert decide(engine, request())[0][0] == BID
    promote(config, broken.version)
    for _ in range(3):
        engine.poll()
        clock.now_ns += EVERY_NS
    assert engine.scorer.version == first
    assert len(caplog.records) == 2  # once as challenger, once as the current model
    graph.write_bytes(whole)
    engine.poll()
    assert engine.scorer.version == broken.version
    shadow(config, first)
    engine.poll()
    assert engine.models.challenger is not None
    engine.close()


def test_a_shadowing_model_changes_no_answer_and_is_compared_in_metrics(stage: Stage) -> None:
    engine = stage.engine(dict(BASE))
    metrics = Metrics.memory()
    engine.meters = Meters(metrics)
    body = request()
    alone = decide(engine, body)[0][0]
    engine.models.challenge(second_version(stage), 0.0)
    assert all(decide(engine, body)[0][0] == alone for _ in range(64))
    rows = int(metrics.counter("dsp_shadow_rows_total").sum())
    sums = metrics.counter("dsp_shadow_score_millionths_total")
    assert rows > 0
    assert (sums > 0).all()
    np.testing.assert_array_equal(sums[0], sums[1])  # the same model twice


def test_a_bid_follows_what_such_a_slot_goes_for(stage: Stage) -> None:
    """Prices by context that ship with a model are loaded with it, and shade its bids."""
    scenario = copy.deepcopy(dict(BASE))
    item = scenario["catalog"]["advertisers"][0]["campaigns"][0]["line_items"][0]
    del item["strategy"]
    item["max_bid_cpm"] = 50
    engine = stage.engine(scenario)
    ratio = np.geomspace(0.1, 5.0, 100)
    mass = np.diff(1.0 / (1.0 + ratio**-6.0), prepend=0.0, append=1.0)[None]
    decide(engine, request())
    worth = 8e6  # CPM micros, far above the floor
    engine.slices.multiplier[:] = worth / 1e9 / engine.work.value[0]
    bids = []
    for price in (0.2 * worth, 0.6 * worth):
        directory = stage.config.path("models", f"{second_version(stage).version:06d}")
        weights = np.append(np.zeros(SHARED), np.log(price))
        save_win_scale(directory, WinScale(weights, (0.0, 30.0), ratio, mass, np.zeros(KEYS, np.int64)))
        engine.models.current = Loaded.of(Scorer.load(directory))
        decide(engine, request(at=1))
        bids.append(int(engine.work.bid_cpm[0]))
    engine.close()
    assert 0.15 * worth < bids[0] < 0.45 * worth < 0.5 * worth < bids[1] < worth


def test_an_online_correction_moves_value_and_goes_with_its_model(stage: Stage) -> None:
    scenario = copy.deepcopy(dict(BASE))
    item = scenario["catalog"]["advertisers"][0]["campaigns"][0]["line_items"][0]
    del item["strategy"]
    engine = stage.engine(scenario)
    decide(engine, request())
    before = float(engine.work.value[0])
    mine = engine.scorer.version
    engine._correction = Correction(mine, 1, [], (float(np.log(0.5)), 0.0, 0.0, 0.0, 0.0))
    engine._apply_correction()
    decide(engine, request())
    assert float(engine.work.value[0]) == pytest.approx(0.5 * before, rel=0.02)
    engine._correction = Correction(mine + 1, 1, [], (1.0, 1.0, 1.0, 1.0, 1.0))
    engine._apply_correction()
    decide(engine, request())
    assert float(engine.work.value[0]) == before
    engine.close()


def test_creatives_are_shown_by_their_shares_and_the_log_has_the_chance(stage: Stage, tmp_path: Path) -> None:
    scenario = copy.deepcopy(dict(BASE))
    creatives = scenario["catalog"]["advertisers"][0]["campaigns"][0]["line_items"][0]["creatives"]
    creatives.append({**creatives[0], "name": "other", "headline": "Another loan"})
    engine = stage.engine(scenario)
    engine.decisions = DecisionWriter(tmp_path, "t", SPEC_HASH, "1")
    ids = engine.plan.cr_i[:, CR_ID].tolist()
    engine._correction = Correction(creatives=ids, shares=[0.9, 0.1])
    engine._apply_correction()
    for i in range(20):
        decide(engine, *[request(id=f"r{i}-{k}") for k in range(50)])
    engine.close()
    log = read_decisions(tmp_path)
    first = log["creative"] == ids[0]
    assert first.mean() == pytest.approx(0.9, abs=0.04)
    np.testing.assert_allclose(log["propensity"], np.where(first, 0.9, 0.1), atol=1e-5)


def test_every_request_is_counted_once_under_what_became_of_it(stage: Stage) -> None:
    engine = stage.engine(dict(BASE))
    metrics = Metrics.memory()
    engine.meters = Meters(metrics)
    decide(engine, request(), request(badv=["lender.example"]), b"nonsense", request(test=1))
    outcomes = metrics.counter("dsp_bid_requests_total").sum(axis=0)
    assert outcomes[[BID, NO_BID, BAD]].tolist() == [2, 1, 1]
    assert metrics.counter("dsp_bids_total").sum() == 2
    assert metrics.counter("dsp_no_bid_total").sum() == 1


def test_a_traced_batch_says_how_much_and_how_long(stage: Stage) -> None:
    engine = stage.engine(dict(BASE))
    kept: list[tuple[int, int, int, tuple[int, ...]]] = []

    class Kept:
        def offer(self, *batch: Any) -> None:
            kept.append(batch)

    engine.tracer = Kept()  # type: ignore[assignment]
    try:
        assert [kind for kind, _ in decide(engine, request(), request(id="b"), b"{")] == [BID, BID, BAD]
    finally:
        engine.tracer = None
    ((requests, candidates, bids, marks),) = kept
    assert (requests, bids) == (3, 2)
    assert candidates >= 2
    assert list(marks) == sorted(marks)


def test_a_rehearsal_bids_and_leaves_no_trace(stage: Stage, tmp_path: Path) -> None:
    engine = stage.engine(dict(BASE))
    engine.decisions = DecisionWriter(tmp_path, "w0", SPEC_HASH, "1", threaded=False)
    slices, metrics = engine.slices, engine.metrics
    before = [counter.copy() for counter in (slices.available, slices.reserved, engine.work.tokens)]
    with engine.rehearsing() as exchanges:
        assert exchanges == engine.plan.exchange_names
        answers = decide(engine, *[request(id=f"r{i}") for i in range(3)])
    assert [kind for kind, _ in answers] == [BID] * 3
    assert engine.slices is slices
    assert engine.metrics is metrics
    for counter, was in zip((slices.available, slices.reserved, engine.work.tokens), before, strict=True):
        assert counter.tolist() == was.tolist()
    assert engine.decisions.rows == 0
    assert metrics.counter("dsp_bid_requests_total").sum() == 0

    ((kind, payload),) = decide(engine, request())
    assert kind == BID
    assert json.loads(payload)["seatbid"][0]["bid"][0]["id"].endswith("0000000000")  # the first of this engine's ids
    assert slices.reserved.sum() == before[1].sum() + 4000
    assert engine.decisions.rows == 1
    engine.decisions.close()
    assert len(read_decisions(tmp_path)["bid_id"]) == 1
