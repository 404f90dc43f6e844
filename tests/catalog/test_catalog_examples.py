"""The shipped catalogs: they apply, they are what they say, and the other parts' worlds fit them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

import dsp.catalog
from dsp.catalog import layout as ly
from dsp.catalog.compile import compile_catalog
from dsp.catalog.records import Catalog
from dsp.catalog.store import apply_file, load_catalog, open_catalog
from dsp.openrtb.columns import BANNER, NATIVE, VIDEO

EXAMPLES = Path(dsp.catalog.__file__).parent / "example"
SHARED = Path(__file__).parents[2].parent / "shared"


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    def _load(name: str) -> Catalog:
        engine = open_catalog(tmp_path_factory.mktemp("c") / "c.db")
        apply_file(engine, EXAMPLES / name)
        catalog = load_catalog(engine)
        engine.dispose()
        return catalog

    return _load


def test_the_example_is_five_advertisers_and_about_thirty_line_items(load):
    catalog = load("catalog.yaml")
    assert len(catalog.advertisers) == 5
    assert 28 <= len(catalog.line_items) <= 36
    assert {o.product for o in catalog.offers} == set(ly.PRODUCTS)
    assert {x.name: x.auction for x in catalog.exchanges} == {"alpha": "first", "beta": "second", "gamma": "first"}
    assert {x.currency for x in catalog.exchanges} == {"USD", "EUR", "CNY"}
    assert {c.format for c in catalog.creatives} == {"banner", "native", "video"}
    sizes = {(c.w, c.h) for c in catalog.creatives if c.format == "banner"}
    assert {(300, 250), (320, 50), (728, 90), (160, 600), (300, 600), (970, 250), (320, 480)} <= sizes
    assert {c.spec.duration_s for c in catalog.creatives if c.format == "video"} == {15, 30}
    assert any(item.targeting.daypart for item in catalog.line_items)
    assert any(item.deal_only for item in catalog.line_items)
    now_s = 1.8e9
    for item in catalog.line_items:
        assert item.start_s <= now_s < item.end_s, item.name
        assert item.total_micros < ly.NO_LIMIT_MICROS, item.name


def test_some_budgets_are_small_enough_to_run_out_in_a_minute(load):
    small = [item for item in load("catalog.yaml").line_items if item.total_micros < 10_000_000]
    assert len(small) >= 4
    for item in small:  # but a few hundred impressions at the highest price
        assert item.total_micros * 1000 / item.max_bid_micros > 80


def test_the_example_compiles(load):
    arrays, meta = compile_catalog(load("catalog.yaml"), 1, "https://dsp.example", 1.8e9)
    assert arrays["cr_i"][:, ly.CR_SECURE].all()
    assert (arrays["li_v"][:, ly.LIV_PRIOR] > 0).all()
    assert np.all(arrays["li_i"][:, ly.LI_CREATIVES] > 0)
    assert meta["valid_until_s"] > 1.8e9


def test_the_example_speaks_of_the_markets_segments_and_venues(load):
    profiles = pytest.importorskip("dsp.market.profiles")
    catalog = load("catalog.yaml")
    assert {s.name: s.number for s in catalog.segments} == profiles.SEGMENTS


def test_everything_wants_everything(load):
    catalog = load("everything.yaml")
    for item in catalog.line_items:
        assert item.strategy == "fixed"
        assert item.allow_uncapped
        assert item.targeting == type(item.targeting)()
    arrays, _ = compile_catalog(catalog, 1, "https://dsp.example", 1.8e9)
    assert not arrays["dim_used"][: ly.DIM_INCOME + 1].any()
    every = {(int(c[ly.CR_LINE_ITEM]), int(c[ly.CR_MEDIA])) for c in arrays["cr_i"]}
    assert every == {(i, m) for i in range(len(catalog.line_items)) for m in (BANNER, VIDEO, NATIVE)}


def test_everything_has_every_banner_size_of_the_real_requests(load):
    corpus = SHARED / "openrtb" / "requests.jsonl.gz"
    if not corpus.exists():
        pytest.skip("the corpus of real requests is not here")
    have = {(c.w, c.h) for c in load("everything.yaml").creatives if c.format == "banner"}
    wanted = set()
    with gzip.open(corpus, "rt") as lines:
        for line in lines:
            record = json.loads(line)
            if record["class"] != "ok":
                continue
            for imp in json.loads(record["body"])["imp"]:
                banner = imp.get("banner") or {}
                wanted |= {(f.get("w"), f.get("h")) for f in [banner, *(banner.get("format") or [])]}
    real = {(w, h) for w, h in wanted if isinstance(w, int) and isinstance(h, int) and w > 0 and h > 0}
    assert len(real) > 40
    assert real <= have
