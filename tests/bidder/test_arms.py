"""People are split evenly, for good and anew in every experiment; who is held out costs nothing and is known."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_engine import decide, request, second_version
from test_scenarios import BASE, Stage

from dsp.base.metrics import Metrics
from dsp.bidder.answer import BID
from dsp.bidder.arms import units_of
from dsp.bidder.engine import Engine
from dsp.bidder.meters import Meters
from dsp.log.decisions import DecisionWriter, read_decisions
from dsp.model.features import SPEC_HASH

TOKEN = re.compile(r"/b/([\w-]{136})\?")
PEOPLE = 20_000
SUBJECTS = np.random.default_rng(11).integers(0, 256, (PEOPLE, 16), np.uint8)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(tmp_path_factory.mktemp("arms"))


def scenario(*arms: dict[str, Any], name: str = "lift", line_items: tuple[str, ...] = ()) -> dict[str, Any]:
    out = copy.deepcopy(dict(BASE))
    campaign = out["catalog"]["advertisers"][0]["campaigns"][0]
    campaign["experiments"] = [{"name": name, "arms": list(arms), "line_items": list(line_items)}]
    return out


def logged(engine: Engine, directory: Path) -> None:
    engine.decisions = DecisionWriter(directory, "t", SPEC_HASH, "1")


def person(i: int) -> bytes:
    device = {**BASE["request"]["device"], "ifa": f"8c1b2d3e-0000-4000-8000-{i:012x}"}
    return request(id=f"r{i}", device=device)


def ask(engine: Engine, people: range) -> list[int]:
    """How each is answered."""
    kinds: list[int] = []
    for at in range(people.start, people.stop, 50):
        kinds += [kind for kind, _ in decide(engine, *[person(i) for i in range(at, min(at + 50, people.stop))])]
    return kinds


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 2**32 - 1), st.floats(0.02, 0.98))
def test_a_share_of_the_people_is_that_share_in_every_experiment(experiment: int, share: float) -> None:
    _, draw = units_of(SUBJECTS, experiment)
    inside = float((draw < share).sum())
    assert abs(inside - PEOPLE * share) < 5 * (PEOPLE * share * (1 - share)) ** 0.5


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 2**32 - 2), st.integers(1, 2**20))
def test_the_draws_of_two_experiments_have_nothing_to_do_with_one_another(one: int, apart: int) -> None:
    other = (one + apart) % 2**32 or 1
    a, b = units_of(SUBJECTS, one), units_of(SUBJECTS, other)
    assert abs(np.corrcoef(a[1], b[1])[0, 1]) < 5 / PEOPLE**0.5
    assert (a[0] == b[0]).mean() < 0.001
    table = np.histogram2d(a[1], b[1], bins=4)[0]
    chi2 = ((table - PEOPLE / 16) ** 2 / (PEOPLE / 16)).sum()
    assert chi2 < 60  # 15 degrees of freedom: one in three million


@settings(deadline=None)
@given(st.binary(min_size=16, max_size=16), st.integers(1, 2**32 - 1))
def test_a_person_is_drawn_the_same_way_every_time(subject: bytes, experiment: int) -> None:
    row = np.frombuffer(subject, np.uint8)
    first, again = units_of(row[None], experiment), units_of(np.stack([row, row[::-1]]), experiment)
    assert (first[0][0], first[1][0]) == (again[0][0], again[1][0])
    assert 0.0 <= first[1][0] < 1.0


def test_arms_fill_by_their_shares_stay_the_same_and_are_in_log_and_token(stage: Stage, tmp_path: Path) -> None:
    engine = stage.engine(scenario({"name": "half", "share": 0.3, "bid": 0.5}, {"name": "usual", "share": 0.5}))
    logged(engine, tmp_path)
    arms_told = []
    for _ in range(2):
        for i in range(600):
            kind, payload = decide(engine, person(i))[0]
            assert kind == BID
            match = TOKEN.search(payload.decode())
            assert match is not None
            arms_told.append(int(stage.signer.open(match.group(1))["arm"]))
    engine.close()
    log = read_decisions(tmp_path)
    arms = log["arm"].reshape(2, 600)
    assert log["arm"].tolist() == arms_told
    assert (arms[0] == arms[1]).all()
    assert (log["unit"].reshape(2, 600)[0] == log["unit"].reshape(2, 600)[1]).all()
    counts = np.bincount(arms[0], minlength=3)
    for k, share in ((0, 0.2), (1, 0.3), (2, 0.5)):
        assert abs(counts[k] - 600 * share) < 5 * (600 * share * (1 - share)) ** 0.5
    assert set(log["bid_cpm_micros"][log["arm"] == 1]) == {2_000_000}
    assert set(log["bid_cpm_micros"][log["arm"] != 1]) == {4_000_000}
    assert ((log["experiment"] == 0) == (log["arm"] == 0)).all()
    assert len(set(log["unit"][log["arm"] > 0].tolist())) == counts[1] + counts[2]
    assert not log["unit"][log["arm"] == 0].any()


def test_who_is_held_out_is_logged_with_price_and_costs_nothing(stage: Stage, tmp_path: Path) -> None:
    engine = stage.engine(scenario({"name": "held", "share": 0.5, "control": True}, {"name": "shown", "share": 0.5}))
    metrics = Metrics.memory()
    engine.meters = Meters(metrics)
    logged(engine, tmp_path)
    before = int(engine.slices.available.sum())
    kinds = ask(engine, range(400))
    spent = before - int(engine.slices.available.sum())
    engine.close()
    log = read_decisions(tmp_path, ghosts=True)
    held = log["ghost"] == 1
    assert kinds.count(BID) == int((~held).sum())
    assert int(metrics.counter("dsp_ghost_bids_total").sum()) == int(held.sum())
    assert spent == 4_000 * kinds.count(BID)
    assert len(log["bid_id"]) == 400  # everybody is decided on, one way or the other
    assert len(set(log["bid_id"].tolist())) == 400
    assert set(log["bid_cpm_micros"].tolist()) == {4_000_000}
    assert (log["reserve_micros"] == 4_000).all()
    assert set(log["arm"][held].tolist()) == {1}
    assert set(log["arm"][~held].tolist()) == {2}
    assert abs(int(held.sum()) - 200) < 5 * 10
    assert len(read_decisions(tmp_path)["bid_id"]) == kinds.count(BID)  # training reads bids only


def test_a_line_item_leaves_one_ghost_in_a_response_and_none_of_a_test(stage: Stage, tmp_path: Path) -> None:
    engine = stage.engine(scenario({"name": "held", "share": 1, "control": True}, {"name": "shown", "share": 0}))
    logged(engine, tmp_path)
    imp = BASE["request"]["imp"][0]
    decide(engine, request(imp=[imp, {**imp, "id": "imp-2"}, {**imp, "id": "imp-3"}]), request(test=1))
    engine.close()
    assert read_decisions(tmp_path, ghosts=True)["ghost"].tolist() == [1]


def test_another_salt_draws_everybody_anew(stage: Stage, tmp_path: Path) -> None:
    arms = []
    for salt in ("", "again"):
        changed = scenario({"name": "a", "share": 0.5}, {"name": "b", "share": 0.5})
        changed["catalog"]["advertisers"][0]["campaigns"][0]["experiments"][0]["salt"] = salt
        engine = stage.engine(changed)
        logged(engine, tmp_path / f"s{salt}")
        ask(engine, range(300))
        engine.close()
        log = read_decisions(tmp_path / f"s{salt}")
        arms.append((log["experiment"][0], log["arm"]))
    assert arms[0][0] != arms[1][0]
    assert 0.35 < (arms[0][1] == arms[1][1]).mean() < 0.65


def test_a_shadowing_model_scores_and_prices_the_people_of_its_arm(stage: Stage, tmp_path: Path) -> None:
    change = scenario({"name": "new", "share": 0.5, "model": "challenger"}, {"name": "usual", "share": 0.5})
    item = change["catalog"]["advertisers"][0]["campaigns"][0]["line_items"][0]
    del item["strategy"]
    change["catalog"]["offers"][0]["payouts"] = {"apply": 5000}
    engine = stage.engine(change)
    logged(engine, tmp_path)
    other = second_version(stage)
    engine.models.challenge(other, 0.0)
    ask(engine, range(200))
    engine.models.challenge(None, 0.0)
    ask(engine, range(200, 220))
    engine.close()
    log = read_decisions(tmp_path)
    first, last = slice(0, 200), slice(200, 220)
    assert len(log["model"]) == 220
    assert ((log["model"][first] == other.version) == (log["arm"][first] == 1)).all()
    assert 60 < (log["arm"][first] == 1).sum() < 140
    assert (log["model"][last] == engine.scorer.version).all()
    assert (log["arm"][last] != 1).all()  # without a challenger its arm is as no arm


def test_what_explain_says_of_a_person_who_is_held_out(stage: Stage) -> None:
    from dsp.bidder.explain import explain
    from dsp.openrtb.columns import FMT_JSON

    engine = stage.engine(scenario({"name": "held", "share": 1, "control": True}, {"name": "shown", "share": 0}))
    told = explain(engine, json.dumps(BASE["request"]).encode(), FMT_JSON, 0)
    assert told["why"] == "held out by an experiment"
    assert told["candidates"][0]["result"].startswith("would have bid 4, but its person is held out by arm 1")
