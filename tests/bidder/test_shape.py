"""Traffic shaping through the engine: what is refused, what is explored, who knows what, and what the report says."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from test_scenarios import BASE, Stage, merge

from dsp.base.config import Config, ShapingConfig
from dsp.base.metrics import Metrics
from dsp.bidder.answer import BID
from dsp.bidder.engine import Engine
from dsp.bidder.meters import Meters
from dsp.bidder.shape import REFUSED, TRIED, Cells, Shaping
from dsp.bidder.shaped import shaping_report
from dsp.openrtb.codes import NBR_NOT_WORTH
from dsp.openrtb.columns import FMT_JSON

SETTINGS = ShapingConfig(mode="refuse", explore=0.02, give_up=0.003)
UNSOLD = {"imp": [{**BASE["request"]["imp"][0], "banner": {"format": [{"w": 88, "h": 31}]}}]}
DEAR = {"imp": [{**BASE["request"]["imp"][0], "bidfloor": 500.0}]}


class Traffic:
    """One engine with shaping, and requests to it on a clock of its own."""

    def __init__(self, engine: Engine, settings: ShapingConfig = SETTINGS, path: Path | None = None) -> None:
        self.engine = engine
        self.now_ns = 1_780_000_000 * 10**9
        start = engine.clock()
        engine.clock = lambda: start + self.now_ns - 1_780_000_000 * 10**9
        self.shaping = engine.shaping = Shaping(settings, engine.metrics, 7, path)

    def ask(self, n: int, *changes: dict[str, Any]) -> list[int]:
        """The no-bid reasons (0 for a bid) of ``n`` rounds of the base request with each of these changes."""
        bodies = [json.dumps(request(change)).encode() for change in changes]
        said: list[int] = []
        for _ in range(n):
            self.now_ns += 10**8
            answers = self.engine.decide(bodies, [FMT_JSON] * len(bodies), [0] * len(bodies), None, True)
            said += [0 if kind == BID else json.loads(payload)["nbr"] for kind, payload in answers]
        return said

    def counts(self) -> tuple[int, int]:
        """(refused, explored) so far."""
        shaped = self.engine.metrics.counter("dsp_shaped_requests_total").sum(axis=0)
        return int(shaped[REFUSED]), int(shaped[TRIED])


def request(change: dict[str, Any], publisher: str = "pub-1") -> dict[str, Any]:
    base = merge(BASE["request"], {"site": {"publisher": {"id": publisher}}})
    return dict(merge(base, change))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(tmp_path_factory.mktemp("shape"))


@pytest.fixture
def traffic(stage: Stage) -> Traffic:
    return Traffic(stage.engine(copy.deepcopy(BASE)))


def of_publisher(name: str, **change: Any) -> dict[str, Any]:
    return {"site": {"publisher": {"id": name}}, **change}


def test_traffic_that_never_brings_a_bid_is_refused_and_the_rest_is_not(traffic: Traffic) -> None:
    good, dear = of_publisher("good"), of_publisher("dear", **DEAR)
    traffic.ask(600, good, dear)
    refused, explored = traffic.counts()
    said = traffic.ask(400, good, dear)
    assert set(said[::2]) == {0}
    assert said[1::2].count(NBR_NOT_WORTH) == traffic.counts()[0] - refused > 370
    assert 0 < traffic.counts()[1] - explored < 30


def test_a_format_without_a_creative_is_refused_on_a_publisher_never_seen(traffic: Traffic) -> None:
    traffic.ask(600, of_publisher("good"), of_publisher("other", **UNSOLD))
    assert NBR_NOT_WORTH in traffic.ask(3, of_publisher("new", **UNSOLD))
    assert traffic.ask(3, of_publisher("new")) == [0, 0, 0]


def test_what_becomes_worth_it_is_found_by_exploring(traffic: Traffic) -> None:
    turned = of_publisher("turns")
    traffic.ask(600, of_publisher("good"), of_publisher("turns", **DEAR))
    assert traffic.ask(20, of_publisher("turns", **DEAR)).count(NBR_NOT_WORTH) > 15
    traffic.ask(1500, of_publisher("good"), turned)
    assert traffic.ask(20, turned).count(0) == 20


def test_nothing_is_learned_while_nothing_may_be_bid(traffic: Traffic) -> None:
    good = of_publisher("good")
    traffic.ask(300, good, good)
    available = traffic.engine.slices.available.copy()
    traffic.engine.slices.available[:] = 0
    traffic.engine._live_at_ns = 0
    traffic.ask(1500, good)
    assert traffic.counts() == (0, 0)
    traffic.engine.slices.available[:] = available
    traffic.engine._live_at_ns = 0
    assert set(traffic.ask(5, good)) == {0}


def test_requests_marked_as_tests_are_never_refused(traffic: Traffic) -> None:
    traffic.ask(600, of_publisher("good"), of_publisher("dear", **DEAR))
    said = traffic.ask(50, of_publisher("dear", **DEAR, test=1))
    assert NBR_NOT_WORTH not in said


def test_the_explored_say_what_refusing_loses_and_what_it_saves(stage: Stage) -> None:
    """Where no request could pay for its processing all is refused, and lost is what all of it would have brought."""
    settings = ShapingConfig(mode="refuse", explore=0.25, usd_per_million=1e6, memory_s=1e6)
    traffic = Traffic(stage.engine(copy.deepcopy(BASE)), settings)
    lost, saved = (traffic.engine.metrics.counter(f"dsp_shaped_{name}_micros_total") for name in ("lost", "saved"))
    assert set(traffic.ask(500, of_publisher("good"))) == {0}
    traffic.ask(4000, of_publisher("good"))
    refused, explored = traffic.counts()
    assert 900 < explored < 1100
    assert int(saved.sum()) == refused * 10**9  # CPM micros: a dollar each
    one = 0.1 * 4e6  # a bid of 4 USD per thousand at its buyer's own price
    assert int(lost.sum()) == pytest.approx(refused * one, rel=0.15)


def test_watching_refuses_nothing_and_says_what_it_would(stage: Stage) -> None:
    traffic = Traffic(stage.engine(copy.deepcopy(BASE)), replace(SETTINGS, mode="watch"))
    said = traffic.ask(1000, of_publisher("good"), of_publisher("dear", **DEAR))
    assert NBR_NOT_WORTH not in said
    refused, explored = traffic.counts()
    assert refused == 0
    assert explored > 300


def test_workers_know_what_their_fellows_learned_and_what_the_last_process_did(stage: Stage, tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = Traffic(stage.engine(copy.deepcopy(BASE)), path=run / "shape-http0.cells")
    first.ask(700, of_publisher("good"), of_publisher("dear", **DEAR))
    for name in ("http1", "http0"):
        other = Traffic(stage.engine(copy.deepcopy(BASE)), path=run / f"shape-{name}.cells")
        other.now_ns = first.now_ns
        assert other.ask(50, of_publisher("dear", **DEAR)).count(NBR_NOT_WORTH) > 40
        assert set(other.ask(5, of_publisher("good"))) == {0}


def test_what_is_no_file_of_cells_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "shape-http0.cells"
    path.write_bytes(b"from another release")
    assert not Cells.create(path).rows.any()
    assert Cells.read(path) is not None


def test_the_report_names_the_traffic_that_is_refused(stage: Stage, tmp_path: Path) -> None:
    config = Config(data_dir=str(tmp_path), shaping=SETTINGS)
    engine = stage.engine(copy.deepcopy(BASE))
    engine.meters = Meters(Metrics.create(tmp_path / "run" / "bidder-http-0.metrics", "bidder"))
    engine.metrics.name_labels("exchange", engine.plan.exchange_names)
    traffic = Traffic(engine, path=tmp_path / "run" / "shape-http0.cells")
    dear = of_publisher("dear", **DEAR)
    traffic.ask(900, of_publisher("good"), dear)
    line = {"time_ms": 1, "exchange": "alpha", "stands_for": 1, "body": request(dear)}
    sample = tmp_path / "log" / "requests" / "http0.jsonl"
    sample.parent.mkdir(parents=True)
    sample.write_text(json.dumps(line))
    report = shaping_report(config, engine.plan, engine.clock())
    refused, explored = traffic.counts()
    assert report["exchanges"]["alpha"]["refused"] == report["total"]["refused"] == refused > 300
    assert report["total"]["explored"] == explored
    assert report["total"]["saved_usd"] == pytest.approx(refused * 0.05e-6)
    assert len(report["refused_cells"]) == 1
    cell = report["refused_cells"][0]
    assert [cell[k] for k in ("exchange", "publisher", "format", "geo")] == ["alpha", "dear", "banner 300x250", "USA"]
