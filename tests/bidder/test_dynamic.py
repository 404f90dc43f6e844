"""Dynamic creatives through the engine: only approved parts, never below the floor, and the better part is found."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from test_engine import request
from test_scenarios import BASE, Stage

from dsp.bidder.answer import BID
from dsp.bidder.engine import Engine
from dsp.catalog.dynamic import combinations, expand
from dsp.catalog.source import CatalogError
from dsp.catalog.store import apply_file, load_catalog, open_catalog
from dsp.catalog.types import Creative, Dynamic, Part
from dsp.control.bandit import FLOOR, shares
from dsp.log.decisions import DecisionWriter, read_decisions
from dsp.log.outcomes import APPLIED, BILLING, CLICK, OUTCOME_FIELDS
from dsp.model.correction import Correction, creative_shares, slots_of
from dsp.model.features import SPEC_HASH
from dsp.openrtb.columns import FMT_JSON

HEADLINES = [
    {"name": "plain", "text": "A loan", "status": "approved"},
    {"name": "fast", "text": "Money in {days}", "status": "approved"},
    {"name": "cheap", "text": "From {rate}", "status": "approved"},
    {"name": "wild", "text": "Everybody gets one", "status": "rejected"},
    {"name": "new", "text": "Not looked at yet"},
]
CTAS = [{"name": "apply", "text": "Apply", "status": "approved"}, {"name": "see", "text": "See", "status": "approved"}]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(tmp_path_factory.mktemp("dynamic"))


def scenario(headlines: list[dict[str, Any]], **creative: Any) -> dict[str, Any]:
    out = copy.deepcopy(dict(BASE))
    out["catalog"]["offers"][0]["facts"] = {"rate": "4.9 %", "days": "two days"}
    ad = out["catalog"]["advertisers"][0]["campaigns"][0]["line_items"][0]["creatives"][0]
    ad.update(creative, dynamic={"headline": headlines, "cta": CTAS})
    return out


def ask(engine: Engine, n: int) -> list[str]:
    """The markup of ``n`` bids."""
    out = []
    for at in range(0, n, 50):
        bodies = [request(id=f"r{at + i}") for i in range(50)]
        for kind, payload in engine.decide(bodies, [FMT_JSON] * 50, [0] * 50):
            assert kind == BID
            out.append(json.loads(payload)["seatbid"][0]["bid"][0]["adm"])
    return out


def test_only_approved_parts_are_ever_served_and_facts_are_in_place(stage: Stage) -> None:
    engine = stage.engine(scenario(HEADLINES))
    served = ask(engine, 600)
    engine.close()
    texts = "".join(served)
    for wanted in ("A loan", "Money in two days", "From 4.9 %", "Apply", "See"):
        assert wanted in texts
    for never in ("Everybody gets one", "Not looked at yet", "{rate}", "{days}"):
        assert never not in texts


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["approved", "pending", "rejected"]), min_size=1, max_size=6), st.data())
def test_no_combination_holds_an_unapproved_part(states: list[Any], data: st.DataObject) -> None:
    parts = tuple(Part(f"p{i}", f"text {i} {state}", state) for i, state in enumerate(states))
    others = tuple(Part(f"c{i}", f"cta {i}", "approved") for i in range(data.draw(st.integers(0, 3))))
    template = Creative("t", "banner", "https://a.example", size="300x250", dynamic=Dynamic(parts, cta=others))
    ads = list(expand(template))
    assert len(ads) == combinations(template) == states.count("approved") * max(1, len(others))
    assert len({ad.name for ad in ads}) == len(ads)
    assert all(ad.headline.endswith("approved") and ad.dynamic is None for ad in ads)


def test_a_part_that_loses_its_approval_is_gone_and_comes_back_under_its_ids(tmp_path: Path) -> None:
    database = open_catalog(tmp_path / "catalog.db")
    file = tmp_path / "catalog.yaml"

    def ads(state: str) -> dict[int, str]:
        changed = scenario([{**HEADLINES[0], "status": state}, HEADLINES[2]])
        file.write_text(yaml.safe_dump(changed["catalog"]))
        apply_file(database, file)
        return {creative.id: creative.name for creative in load_catalog(database).creatives}

    before, without, after = ads("approved"), ads("rejected"), ads("approved")
    assert before == after
    assert set(without.values()) == {"box [cheap/apply]", "box [cheap/see]"}
    assert without.items() <= before.items()
    database.dispose()


def test_too_many_combinations_and_unknown_facts_are_refused_with_the_numbers(tmp_path: Path) -> None:
    database = open_catalog(tmp_path / "catalog.db")
    file = tmp_path / "catalog.yaml"
    many = [{"name": f"h{i}", "text": f"Headline {i}", "status": "approved"} for i in range(33)]
    for headlines, message in (
        (many, "33 headline x 2 cta approved parts make 66 ads; at most 64"),
        ([{**HEADLINES[0], "text": "{fee} only"}], "quotes {fee}, which offer 'loan' has no fact for"),
        ([HEADLINES[3]], "without approved parts only"),
        ([HEADLINES[0], HEADLINES[0]], "'plain' is there twice"),
    ):
        file.write_text(yaml.safe_dump(scenario(headlines)["catalog"]))
        with pytest.raises(CatalogError) as raised:
            apply_file(database, file)
        assert message in str(raised.value)
    database.dispose()


def learn(engine: Engine, log: dict[str, Any], theta: dict[int, tuple[float, float]], seed: int) -> None:
    """Let people click and apply as ``theta`` (by creative: multiples of 0.2 and of 0.3) has it, then share anew."""
    rng = np.random.default_rng(seed)
    log["p"][:] = (0.2, 0.3, 0, 0, 0)
    rows = []
    for bid, creative in zip(log["bid_id"].tolist(), log["creative"].tolist(), strict=True):
        rows.append((bid, BILLING))
        if rng.random() < 0.2 * theta[creative][0]:
            rows.append((bid, CLICK))
            if rng.random() < 0.3 * theta[creative][1]:
                rows.append((bid, APPLIED))
    outcomes = {name: np.zeros(len(rows), dtype) for name, (dtype, _) in OUTCOME_FIELDS.items()}
    outcomes["bid_id"][:], outcomes["kind"][:] = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    outcomes["time_ms"][:] = log["time_ms"].max(initial=0)
    slots = slots_of(engine.plan.snapshot)
    ids, split = creative_shares(log, outcomes, shares, seed, slots)
    engine._correction = Correction(creatives=ids.tolist(), shares=split.tolist())
    engine._apply_correction()


def test_the_better_part_is_found_and_none_falls_below_the_floor(stage: Stage, tmp_path: Path) -> None:
    engine = stage.engine(scenario(HEADLINES, sizes=["300x250", "728x90"], size=""))
    engine.decisions = DecisionWriter(tmp_path, "t", SPEC_HASH, "1")
    names = {int(c["id"]): str(c["name"]) for c in engine.plan.snapshot.meta["creatives"]}
    # "fast" is clicked most, but those who click apply seldom; "cheap" brings most applications.
    theta = {"plain": (1.0, 1.0), "fast": (1.6, 0.3), "cheap": (1.2, 1.5)}
    of = {number: theta[name.split("[")[1].split("/")[0]] for number, name in names.items()}
    rounds, size = 8, 1_000
    for seed in range(rounds):
        ask(engine, size)
        engine.decisions.flush()
        learn(engine, read_decisions(tmp_path), of, seed)
    engine.close()
    log = read_decisions(tmp_path)
    part = np.array([names[number].split("[")[1].split("/")[0] for number in log["creative"].tolist()])
    first, last = part[:size], part[-2 * size :]
    found = {name: ((first == name).mean(), (last == name).mean()) for name in theta}
    print(f"seeds 0..{rounds - 1}: share of each headline, first and last rounds: {found}")
    assert found["cheap"][0] == pytest.approx(1 / 3, abs=0.08)
    assert found["cheap"][1] > 0.7
    assert found["fast"][1] < 0.2
    fitting = 6  # ads of one size
    assert log["propensity"].min() >= FLOOR / fitting - 1e-5
    counts = np.unique(log["creative"], return_counts=True)[1]
    assert len(counts) == fitting
    assert counts.min() > 0.5 * FLOOR / fitting * rounds * size
    served = {number: (log["creative"][-2 * size :] == number).mean() for number in set(log["creative"].tolist())}
    told = {n: log["propensity"][-2 * size :][log["creative"][-2 * size :] == n].mean() for n in served}
    for number, share in served.items():  # what is logged is what was done
        assert share == pytest.approx(told[number], abs=0.1)
