"""The columns of a compiled catalog, and its meta."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from catalog_file import GOOD, edited

from dsp.catalog import layout as ly
from dsp.catalog.compile import compile_catalog, heads, prior_value
from dsp.catalog.records import Offer
from dsp.catalog.store import apply_file, load_catalog, open_catalog
from dsp.openrtb.hashing import hash_text

NOW_S = datetime(2026, 3, 2, tzinfo=UTC).timestamp()


@pytest.fixture
def compiled(tmp_path):
    def build(text: str = GOOD):
        (tmp_path / "c.yaml").write_text(text)
        engine = open_catalog(tmp_path / "c.db")
        apply_file(engine, tmp_path / "c.yaml")
        catalog = load_catalog(engine)
        engine.dispose()
        return catalog, *compile_catalog(catalog, 5, "https://dsp.example/", NOW_S)

    return build


def test_line_item_columns(compiled):
    catalog, a, meta = compiled()
    loans, savings = a["li_i"]
    campaign = catalog.campaigns[0]
    assert loans[ly.LI_ID] == 1
    assert loans[ly.LI_CAMPAIGN] == campaign.id
    assert meta["advertisers"][loans[ly.LI_ADVERTISER]]["domains"] == ("bank.example",)
    assert ly.PRODUCTS[loans[ly.LI_PRODUCT]] == "loan"
    assert loans[ly.LI_MAX_BID] == 4_255_000
    assert meta["currencies"][loans[ly.LI_CURRENCY]] == "USD"
    assert (loans[ly.LI_START_S], loans[ly.LI_END_S]) == (campaign.start_s, campaign.end_s)
    assert (savings[ly.LI_START_S], savings[ly.LI_END_S]) == (catalog.line_items[1].start_s, campaign.end_s)
    assert meta["seats"][loans[ly.LI_SEAT]] == "seat-1"
    assert a["seat_hash"][loans[ly.LI_SEAT]] == hash_text("seat-1")
    assert loans[ly.LI_FLAGS] == ly.LIF_CREDIT | ly.LIF_NEEDS_PROFILE
    assert savings[ly.LI_FLAGS] == ly.LIF_DEAL_ONLY
    assert (loans[ly.LI_CREATIVE0], loans[ly.LI_CREATIVES]) == (0, 2)
    assert (savings[ly.LI_CREATIVE0], savings[ly.LI_CREATIVES]) == (2, 1)
    assert a["cr_i"][:, ly.CR_LINE_ITEM].tolist() == [0, 0, 1]
    assert loans[ly.LI_LOAD] == 31
    assert savings[ly.LI_LOAD] == 15
    np.testing.assert_allclose(a["li_v"][0, [ly.LIV_MARGIN, ly.LIV_LGD, ly.LIV_EAD]], [20.5, 0.4, 500])


def test_exchange_and_currency_columns(compiled):
    _, a, meta = compiled()
    codes = a["cur_code"].tolist()
    assert codes == [b"EUR", b"USD"]
    assert a["cur_usd"].tolist() == [1.08, 1.0]
    assert a["cur_hash"].tolist() == [hash_text("EUR"), hash_text("USD")]
    alpha, beta = a["ex_i"]
    assert (alpha[ly.EX_ID], alpha[ly.EX_AUCTION], alpha[ly.EX_BILLABLE]) == (1, 1, 0)
    assert codes[beta[ly.EX_CURRENCY]] == b"EUR"
    assert beta[ly.EX_AUCTION] == 2
    assert (alpha[ly.EX_TMAX_MS], alpha[ly.EX_ALLOWANCE_MS], alpha[ly.EX_EXP_S]) == (200, 20, 300)
    assert [(x["id"], x["name"], x["token"]) for x in meta["exchanges"]] == [(1, "alpha", "t"), (2, "beta", "")]


def test_meta_has_what_the_ledger_needs(compiled):
    catalog, _, meta = compiled()
    item = meta["line_items"][0]
    assert item == {
        "id": 1, "name": "Loans", "campaign_id": 1, "advertiser_id": 1, "offer_id": 1, "product": "loan",
        "currency": "USD",
        "total_micros": 500_000_000, "daily_micros": ly.NO_LIMIT_MICROS, "timezone": "America/New_York",
        "start_s": catalog.campaigns[0].start_s, "end_s": catalog.campaigns[0].end_s,
        "pacing": "even", "status": "active",
        "hourly_micros": ly.NO_LIMIT_MICROS, "minute_micros": 0, "tolerance_ppm": 0,
        "target_micros": 0, "target_stage": "", "click_window_s": 30 * 86_400, "view_window_s": 86_400,
    }  # fmt: skip
    assert meta["campaigns"][0]["total_micros"] == 1_000_100_000
    assert meta["campaigns"][0]["currency"] == "USD"
    assert meta["creatives"][2] == {
        "id": 3, "name": "Clip", "line_item_id": 2, "landing": "https://bank.example/savings", "w": 0, "h": 0,
        "format": "video",
    }  # fmt: skip
    assert (meta["version"], meta["revision"], meta["public_url"]) == (5, 1, "https://dsp.example")
    assert meta["segments"][1] == {"name": "women", "number": 8, "demographic": "gender"}
    assert meta["valid_until_s"] == datetime(2026, 3, 8, 7, tzinfo=UTC).timestamp()


def test_without_dayparts_a_snapshot_stays_valid(compiled):
    _, _, meta = compiled(edited(("daypart: {mon-fri: 8-22}", "os: [ios]")))
    assert meta["valid_until_s"] > NOW_S + 10 * 365 * 86400


@pytest.mark.parametrize(
    ("old", "new", "paused"),
    [
        ("max_bid_cpm: 2", "max_bid_cpm: 2\n            status: paused", [False, True]),
        ("- name: Spring", "- name: Spring\n        status: paused", [True, True]),
        ("deals: [deal-1]", "deals: [deal-1]", [False, False]),
    ],
)
def test_paused_line_items_stay_but_are_flagged(compiled, old, new, paused):
    _, a, _ = compiled(edited((old, new)))
    assert [bool(f & ly.LIF_PAUSED) for f in a["li_i"][:, ly.LI_FLAGS]] == paused


def offer(**values: float) -> Offer:
    base = dict.fromkeys(
        ("margin", "lgd", "ead", "payout_click", "payout_apply", "payout_approve", "payout_fund"), 0.0
    )  # fmt: skip
    return Offer(1, "o", "loan", "l", "USD", **{**base, **values})


@pytest.mark.parametrize(
    ("values", "strategy", "needed"),
    [
        ({"payout_click": 1}, "value", 1),
        ({"payout_apply": 1}, "value", 1 | 2),
        ({"payout_approve": 1, "payout_click": 1}, "value", 1 | 2 | 4),
        ({"payout_fund": 1}, "value", 1 | 2 | 4 | 8),
        ({"margin": 1}, "value", 1 | 2 | 4 | 8),
        ({"margin": 1, "lgd": 0.5, "ead": 10}, "value", 31),
        ({"payout_click": 1, "lgd": 0.5, "ead": 10}, "value", 1),
        ({"margin": 1}, "fixed", 0),
    ],
)
def test_only_the_heads_that_an_offer_needs_are_loaded(values, strategy, needed):
    assert heads(offer(**values), strategy) == needed


def test_the_prior_is_the_designs_value_formula():
    o = offer(margin=20, lgd=0.5, ead=600, payout_click=0.1, payout_apply=0.2, payout_approve=0.3, payout_fund=0.4)
    click, apply, approve, fund, default = 0.0015, 0.06, 0.5, 0.7, 0.04
    expected = click * (0.1 + apply * (0.2 + approve * (0.3 + fund * (0.4 + 20 - default * 0.5 * 600))))
    assert prior_value(o) == pytest.approx(expected)


def test_a_fixed_bids_prior_is_the_bid(compiled):
    _, a, _ = compiled(edited(("max_bid_cpm: 2", "max_bid_cpm: 2\n            strategy: fixed")))
    assert a["li_i"][:, ly.LI_STRATEGY].tolist() == [0, 1]
    assert a["li_v"][1, ly.LIV_PRIOR] == pytest.approx(0.002)
