"""The in-process market on the real engine, catalog and books."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from dsp.audience.store import EmptyStore
from dsp.base.config import Config, LedgerConfig
from dsp.catalog.publish import catalog_path, publish
from dsp.catalog.snapshot import Snapshot
from dsp.catalog.store import apply_file, load_catalog, open_catalog
from dsp.log.decisions import read_decisions
from dsp.log.outcomes import BILLING, LOSS, WIN, read_outcomes
from dsp.market.demo import example_catalog
from dsp.market.people import People
from dsp.market.profiles import write_profiles
from dsp.market.simulate import Summary, simulate
from dsp.market.world import World, venues_of
from dsp.model.bootstrap import bootstrap_model

Setting = tuple[Config, World, Snapshot]
END_S = 1_780_000_000.0


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    config = Config(
        data_dir=str(tmp_path_factory.mktemp("market")), ledger=LedgerConfig(public_url="https://notices.example")
    )
    engine = open_catalog(catalog_path(config))
    apply_file(engine, example_catalog())
    snapshot, catalog = Snapshot.load(publish(config)), load_catalog(engine)
    engine.dispose()
    people = People.generate(3000, 1)
    assert write_profiles(config, people) == people.known.sum()
    bootstrap_model(config)
    return config, World.make(people, 1, snapshot, catalog, config.bidder.vendor_id), snapshot


@pytest.fixture(scope="module")
def logged(setting: Setting) -> Summary:
    config, world, snapshot = setting
    return simulate(config, world, snapshot, 1500, explore=8.0, end_s=END_S)


def test_the_catalogs_exchanges_become_venues(setting: Setting) -> None:
    config, world, _ = setting
    engine = open_catalog(catalog_path(config))
    venues = {venue.name: venue for venue in venues_of(load_catalog(engine))}
    engine.dispose()
    assert {name: venue.at for name, venue in venues.items()} == {"alpha": 1, "beta": 2, "gamma": 1}
    assert venues["gamma"].countries == ("CHN",)
    assert venues["gamma"].billed_on_win
    assert any(venue.deals for venue in venues.values())
    assert world.factory.venues == tuple(venues.values())


def test_the_example_bids_often_and_wins_sometimes(logged: Summary) -> None:
    assert logged.requests == 1500
    assert logged.answered > 0.6 * logged.requests
    assert 0.05 < logged.wins / logged.bids < 0.9
    assert logged.spend_usd > 0
    assert logged.regret_usd > 0


def test_every_bid_is_logged_and_has_one_end(setting: Setting, logged: Summary) -> None:
    config = setting[0]
    decisions = read_decisions(config.path("log", "decisions"))
    outcomes = read_outcomes(config.path("log", "outcomes"))
    assert len(decisions["bid_id"]) == logged.bids == len(set(decisions["bid_id"].tolist()))
    kinds = np.bincount(outcomes["kind"], minlength=10)
    assert kinds[WIN] == kinds[BILLING] == logged.wins
    assert kinds[LOSS] == logged.bids - logged.wins
    ends = outcomes["bid_id"][(outcomes["kind"] == WIN) | (outcomes["kind"] == LOSS)]
    assert sorted(ends.tolist()) == sorted(decisions["bid_id"].tolist())
    assert decisions["time_ms"].min() / 1000 >= END_S - 3 * 86_400 - 1
    assert decisions["time_ms"].max() / 1000 <= END_S


def test_people_on_record_are_recognised(setting: Setting) -> None:
    config, world, snapshot = setting
    known = simulate(config, world, snapshot, 600, log=False, end_s=END_S)
    strangers = simulate(config, world, snapshot, 600, log=False, end_s=END_S, store=EmptyStore())
    assert known.answered > strangers.answered


def test_the_same_seed_gives_the_same_market(setting: Setting) -> None:
    config, world, snapshot = setting
    first, again = (simulate(config, world, snapshot, 400, log=False, end_s=END_S) for _ in range(2))
    assert first == again


def test_nothing_is_logged_unless_asked(setting: Setting, logged: Summary) -> None:
    config, world, snapshot = setting
    before = sorted(Path(config.data_dir, "log").rglob("*"))
    simulate(config, world, snapshot, 64, log=False)
    assert sorted(Path(config.data_dir, "log").rglob("*")) == before


def test_books_in_memory_reconcile_and_pilots_stop_at_their_budget(setting: Setting) -> None:
    config, world, snapshot = setting
    config = msgspec.structs.replace(config, ledger=msgspec.structs.replace(config.ledger, sync_s=0.01))
    summary = simulate(config, world, snapshot, 3000, explore=20.0, ledger=True, log=False)
    assert summary.wins > 0
    assert summary.posted == dict(summary.charges)
    budgets = {item["id"]: item.get("total_micros") for item in snapshot.meta["line_items"]}
    for line_item, spent in summary.posted.items():
        assert budgets[line_item] is None or spent <= budgets[line_item]
