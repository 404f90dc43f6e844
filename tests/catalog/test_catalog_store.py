"""The catalog in SQL: amounts to the micro, ids that stay, one revision per change."""

from __future__ import annotations

import re
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from catalog_file import GOOD, edited

from dsp.base.caps import ADVERTISER, LINE_ITEM, PRODUCT
from dsp.catalog.compile import compile_catalog
from dsp.catalog.layout import NO_LIMIT_MICROS
from dsp.catalog.records import FOREVER_S
from dsp.catalog.source import CatalogError
from dsp.catalog.store import apply_file, budgets, current_revision, load_catalog, open_catalog, set_status


@pytest.fixture
def engine(tmp_path):
    engine = open_catalog(tmp_path / "deep" / "catalog.db")
    yield engine
    engine.dispose()


@pytest.fixture
def put(engine, tmp_path):
    def apply(text: str = GOOD, **options: bool) -> int:
        (tmp_path / "c.yaml").write_text(text)
        return apply_file(engine, tmp_path / "c.yaml", **options)

    return apply


def new_york(*when: int) -> int:
    return int(datetime(*when, tzinfo=ZoneInfo("America/New_York")).timestamp())


def test_a_file_comes_back_resolved(engine, put):
    assert put() == 1
    catalog = load_catalog(engine)
    assert catalog.revision == 1
    assert {c.code: c.usd for c in catalog.currencies} == {"USD": 1.0, "EUR": 1.08}
    assert [(x.id, x.name, x.auction, x.currency) for x in catalog.exchanges] == [
        (1, "alpha", "first", "USD"), (2, "beta", "second", "EUR"),
    ]  # fmt: skip
    assert [(s.number, s.name, s.demographic) for s in catalog.segments] == [(7, "rich", ""), (8, "women", "gender")]
    assert [(d.id, d.exchange_id, d.floor_micros) for d in catalog.deals] == [("deal-1", 1, 2_500_000)]
    (advertiser,) = catalog.advertisers
    assert advertiser.domains == ("bank.example",)
    assert advertiser.total_micros == NO_LIMIT_MICROS
    (campaign,) = catalog.campaigns
    assert (campaign.total_micros, campaign.daily_micros) == (1_000_100_000, 100_000_000)
    assert (campaign.start_s, campaign.end_s) == (new_york(2026, 3, 1), new_york(2026, 4, 1))
    loans, savings = catalog.line_items
    assert loans.max_bid_micros == 4_255_000
    assert (loans.total_micros, loans.daily_micros) == (500_000_000, NO_LIMIT_MICROS)
    assert (loans.start_s, loans.end_s) == (0, FOREVER_S)
    assert loans.credit
    assert loans.targeting.geo.include == ("USA/CA",)
    assert loans.targeting.daypart == {"mon-fri": "8-22"}
    assert (loans.timezone, loans.language) == ("America/New_York", "en")
    assert not savings.credit
    assert savings.deal_only
    assert savings.start_s == new_york(2026, 3, 10, 8)
    assert [(c.name, c.w, c.h, c.spec.image) for c in catalog.creatives[:2]] == [
        ("Box 300x250", 300, 250, "https://cdn.bank.example/300x250.png"),
        ("Box 320x50", 320, 50, "https://cdn.bank.example/320x50.png"),
    ]
    assert catalog.creatives[2].spec.duration_s == 15
    assert all(c.spec.language == "en" for c in catalog.creatives)


def test_applying_a_file_again_changes_nothing_but_the_revision(engine, put):
    put()
    before = load_catalog(engine)
    assert put() == 2
    after = load_catalog(engine)
    after.revision = 1
    assert after == before


def test_ids_stay_when_things_change(engine, put):
    put()
    before = load_catalog(engine)
    put(
        edited(
            ("max_bid_cpm: 4.255", "max_bid_cpm: 5"), ("margin: 20.5", "margin: 21"), ("[300x250, 320x50]", "[320x50]")
        )
    )
    after = load_catalog(engine)
    assert [li.id for li in after.line_items] == [li.id for li in before.line_items]
    assert after.line_items[0].max_bid_micros == 5_000_000
    assert after.offers[0].margin == 21
    assert after.offers[0].id == before.offers[0].id
    kept = {c.name: c.id for c in after.creatives}
    assert "Box 300x250" not in kept  # archived
    put()
    again = {c.name: c.id for c in load_catalog(engine).creatives}
    assert again == {c.name: c.id for c in before.creatives}  # and back, as who it was


def test_a_partial_file_leaves_the_rest_alone(engine, put):
    put()
    other = "{name: Other, seat: s2, domain: [o.example], category: [IAB3], currency: EUR, timezone: UTC}"
    put(f"advertisers:\n  - {other}\n")
    catalog = load_catalog(engine)
    assert [a.name for a in catalog.advertisers] == ["Bank", "Other"]
    assert [li.status for li in catalog.line_items] == ["active", "active"]


def test_pruning_archives_the_line_items_that_are_not_named(engine, put):
    put()
    put(GOOD.split("          - name: Savings")[0], prune=True)
    assert [(li.name, li.status) for li in load_catalog(engine).line_items] == [
        ("Loans", "active"),
        ("Savings", "archived"),
    ]
    put()
    assert [li.status for li in load_catalog(engine).line_items] == ["active", "active"]


def test_the_currency_of_an_advertiser_is_for_life(put):
    put()
    with pytest.raises(CatalogError, match=r"advertisers\[0\]\.currency: was USD before"):
        put(edited(("currency: USD\n    timezone", "currency: EUR\n    timezone")))


def test_status_changes_raise_the_revision(engine, put):
    put()
    item = load_catalog(engine).line_items[0].id
    assert set_status(engine, item, "paused") == 2
    assert load_catalog(engine).line_items[0].status == "paused"
    for wrong in ((999, "paused"), (item, "asleep")):
        with pytest.raises(CatalogError):
            set_status(engine, *wrong)
    assert current_revision(engine) == 2


def test_budgets_are_given_for_the_ledger(engine, put):
    put()
    start, end = 0, FOREVER_S
    no = NO_LIMIT_MICROS
    assert budgets(engine) == [
        (1, 1, 1, "USD", 500_000_000, no, 1_000_100_000, 100_000_000, "America/New_York", start, end),
        (2, 1, 1, "USD", no, no, 1_000_100_000, 100_000_000, "America/New_York", new_york(2026, 3, 10, 8), end),
    ]


def test_a_database_is_opened_again_as_it_is(tmp_path, engine, put):
    put()
    again = open_catalog(f"sqlite:///{tmp_path / 'deep' / 'catalog.db'}")
    assert current_revision(again) == 1
    assert load_catalog(again) == load_catalog(engine)
    again.dispose()


def test_a_reader_sees_one_revision_while_a_file_is_applied(engine, put):
    put()
    with engine.begin() as reader:
        before = reader.exec_driver_sql("select max_bid_micros from line_item where id = 1").scalar()
        put(edited(("max_bid_cpm: 4.255", "max_bid_cpm: 5")))
        assert reader.exec_driver_sql("select max_bid_micros from line_item where id = 1").scalar() == before
    assert load_catalog(engine).line_items[0].max_bid_micros == 5_000_000


def test_money_settings_come_back_in_micros_and_millionths(engine, put):
    put(
        edited(
            ("currency: USD\n    timezone", "currency: USD\n    agency_margin: 0.15\n    prepaid: true\n    timezone"),
            ("{total: 500}", "{total: 500, hourly: 2.5}\n            spend_per_minute: 1.5"),
            (
                "special_category: credit",
                "special_category: credit\n            tolerance: 0.01"
                "\n            target: {cost: 120, stage: approved}"
                "\n            attribution: {click_days: 7, view_hours: 0}\n            pacing: front",
            ),
        )
    )
    catalog = load_catalog(engine)
    assert (catalog.advertisers[0].margin_ppm, catalog.advertisers[0].prepaid) == (150_000, True)
    loans = catalog.line_items[0]
    assert (loans.hourly_micros, loans.minute_micros, loans.tolerance_ppm) == (2_500_000, 1_500_000, 10_000)
    assert (loans.target_micros, loans.target_stage, loans.pacing) == (120_000_000, "approved", "front")
    assert (loans.click_window_s, loans.view_window_s) == (7 * 86_400, 0)
    assert catalog.line_items[1].hourly_micros == NO_LIMIT_MICROS


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{total: 500}", "{total: 500, hourly: 600}", "600 is more than the total of 500"),
        ("{total: 500}", "{daily: 5, hourly: 6}", "6 is more than the daily of 5"),
        ("{total: 500}", "{total: 500}\n            tolerance: 0.5", "not a share; write a number from 0 to 0.1"),
        ("{total: 500}", "{total: 500}\n            spend_per_minute: 0", "not an amount of money above 0"),
        ("{total: 500}", "{total: 500}\n            target: {cost: 0}", "not an amount of money above 0"),
        ("{total: 500}", "{total: 500}\n            attribution: {click_days: 400}", "write days from 0 to 90"),
        ("{total: 500}", "{total: 500}\n            pacing: fast", "even, front or asap"),
        ("seat: seat-1", "seat: seat-1\n    agency_margin: -1", "not a share"),
    ],
)
def test_wrong_money_settings_are_refused(put, old, new, message):
    with pytest.raises(CatalogError, match=message):
        put(edited((old, new)))


def test_a_catalog_of_an_earlier_release_gets_the_new_columns(tmp_path, put, engine):
    put()
    with engine.begin() as connection:
        for column in ("minute_micros", "tolerance_ppm", "hourly_micros", "frequency"):
            connection.exec_driver_sql(f"ALTER TABLE line_item DROP COLUMN {column}")
        for column in ("margin_ppm", "prepaid", "frequency", "product_frequency"):
            connection.exec_driver_sql(f"ALTER TABLE advertiser DROP COLUMN {column}")
    again = open_catalog(tmp_path / "deep" / "catalog.db")
    catalog = load_catalog(again)
    again.dispose()
    assert (catalog.line_items[0].hourly_micros, catalog.line_items[0].tolerance_ppm) == (NO_LIMIT_MICROS, 0)
    assert (catalog.advertisers[0].margin_ppm, catalog.advertisers[0].prepaid) == (0, False)
    assert (catalog.advertisers[0].product_frequency, catalog.line_items[0].frequency) == ({}, ())


def test_frequency_caps_of_every_level_reach_the_snapshot(put, engine):
    put(
        edited(
            ("currency: USD\n    timezone", "currency: USD\n    frequency: [{cap: 9, per: week}]\n"
             "    product_frequency: {loan: [{cap: 6, per: day}]}\n    timezone"),
            ("special_category: credit", "special_category: credit\n            frequency: [{cap: 3, per: day}, "
             "{cap: 1, per: hour}]"),
        )
    )  # fmt: skip
    catalog = load_catalog(engine)
    arrays, _ = compile_catalog(catalog, 1, "https://x.example", 1_790_000_000)
    caps, spans = arrays["caps"], arrays["cr_caps"]
    assert len(spans) == len(arrays["cr_i"])
    item = catalog.line_items[0]
    first, last = spans[0].tolist()
    rows = caps[first:last].tolist()
    assert rows[:2] == [[LINE_ITEM, item.id, 86_400, 3], [LINE_ITEM, item.id, 3_600, 1]]
    assert [ADVERTISER, catalog.advertisers[0].id, 604_800, 9] in rows
    assert ([PRODUCT, 0, 86_400, 6] in rows) == (catalog.offers[0].product == "loan")


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ("frequency: [{cap: 0, per: day}]", "0 is no cap; write 1 to 100"),
        ("frequency: [{cap: 2, per: year}]", "write minute, hour, day, week or flight"),
        ("frequency: [{cap: 2, per: day}, {cap: 3, per: day}]", "day is there twice"),
        ("product_frequency: {bond: [{cap: 2, per: day}]}", "unknown product 'bond'"),
    ],
)
def test_wrong_caps_are_refused(put, new, message):
    with pytest.raises(CatalogError, match=re.escape(message)):
        put(edited(("seat: seat-1", f"seat: seat-1\n    {new}")))
