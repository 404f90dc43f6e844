"""A wrong file names file, line and field, says what to write, and changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from catalog_file import GOOD, edited, line_of
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from dsp.catalog import tables
from dsp.catalog.source import CatalogError, Source
from dsp.catalog.store import apply_file, current_revision, open_catalog
from dsp.catalog.types import CatalogFile

CAMPAIGN = "        budget: {total: 1000.10, daily: 100}\n"


def experiment(arms: str, line_items: str = "[]", name: str = "E") -> tuple[str, str]:
    """Old and new text: the campaign with an experiment."""
    row = f"          - {{name: {name}, line_items: {line_items}, arms: [{arms}]}}\n"
    return CAMPAIGN, CAMPAIGN + "        experiments:\n" + row


# old text, new text, field, part of the message
WRONG = [
    ("margin: 20.5", "margn: 20.5", "offers[0].margn", "unknown field"),
    ("    lender: Bank\n    margin: 20.5\n", "    margin: 20.5\n", "offers[0]", "lender is missing"),
    ("ead: 500", "ead: [500]", "offers[0].ead", "Expected `int | float | str`, got `array`"),
    ("margin: 20.5", "margin: -20.5", "offers[0].margin", "not an amount of money of 0 or more"),
    ("margin: 20.5", "margin: lots", "offers[0].margin", "'lots' is not an amount"),
    ("lgd: 0.4", "lgd: 40", "offers[0].lgd", "write a number from 0 to 1"),
    ("product: deposit", "product: deposits", "offers[1].product", "unknown product 'deposits'; write one of loan"),
    ("name: savings", "name: loan", "offers[1].name", "'loan' is there twice"),
    ("rates: {USD: 1, EUR: 1.08}", "rates: {USD: 1.1, EUR: 1.08}", "currencies.rates.USD", "write 1"),
    ("EUR: 1.08", "EUR: -1", "currencies.rates.EUR", "-1 is not a rate"),
    ("EUR: 1.08", "euro: 1.08", "currencies.rates.euro", "write three capitals"),
    ("currency: EUR,", "currency: GBP,", "exchanges[1].currency", "unknown currency 'GBP'"),
    ("id: 2,", "id: 1,", "exchanges[1].id", "1 is 'alpha' already"),
    ("id: 2,", "id: 70000,", "exchanges[1].id", "write 1 to 65535"),
    ("name: alpha,", "name: Al/pha,", "exchanges[0].name", "part of a URL"),
    ("auction: second", "auction: third", "exchanges[1].auction", "write first or second"),
    ("auction: second", "allowance_ms: 300", "exchanges[1].allowance_ms", "below tmax_ms"),
    ("auction: second", "exp_s: 0", "exchanges[1].exp_s", "1 to 86400"),
    ("rich: 7", "rich: 2000", "segments.rich", "write 1 to 1023"),
    ("rich: 7", "rich: [7]", "segments.rich", "not a segment number"),
    ("rich: 7", "rich: 8", "segments.rich", "number 8 is 'women' already"),
    ("demographic: gender", "demographic: sex", "segments.women", "unknown demographic 'sex'"),
    ("exchange: alpha, floor", "exchange: omega, floor", "deals[0].exchange", "'omega'; write one of alpha"),
    ("floor: 2.5", "at: 4", "deals[0].at", "no auction type"),
    ("domain: [www.Bank.example]", "domain: bank.example", "advertisers[0].domain", "write a list"),
    ("domain: [www.Bank.example]", "domain: ['https://bank.example']", "advertisers[0].domain[0]", "without http://"),
    ("domain: [www.Bank.example]", "domain: []", "advertisers[0].domain", "is empty"),
    ("category: [IAB13-2]", "category: [finance]", "advertisers[0].category[0]", "write IAB13"),
    ("seat: seat-1", "seat: ' '", "advertisers[0].seat", "is empty"),
    ("seat: seat-1", "seat: 12", "advertisers[0].seat", "put it in quotes"),
    ("timezone: America/New_York", "timezone: New York", "advertisers[0].timezone", "write an IANA name"),
    ("end: 2026-03-31", "end: 2026-02-01", "advertisers[0].campaigns[0].flight.end", "not after the start"),
    ("end: 2026-03-31", "end: soon", "advertisers[0].campaigns[0].flight.end", "write 2026-01-31"),
    ("daily: 100}", "daily: 0}", "advertisers[0].campaigns[0].budget.daily", "above 0"),
    ("daily: 100}", "daily: 5000}", "advertisers[0].campaigns[0].budget.daily", "more than the total"),
    ("total: 1000.10", "total: 1e400", "advertisers[0].campaigns[0].budget.total", "not an amount"),
    (*experiment("{name: a, share: 0.5}"), "EX[0].arms", "1 arms; write 2 to 8"),
    (*experiment("{name: a, share: 0.5}, {name: a, share: 0.5}"), "EX[0].arms[1].name", "'a' is there twice"),
    (*experiment("{name: a, share: 0.7}, {name: b, share: 0.5}"), "EX[0].arms", "sum to 1.2, more than everybody"),
    (*experiment("{name: a, share: half}, {name: b, share: 0.5}"), "EX[0].arms[0].share", "a number from 0 to 1"),
    (*experiment("{name: a, share: 0, bid: x}, {name: b, share: 0}"), "EX[0].arms[0].bid", "from 0.01 to 10"),
    (*experiment("{name: a, share: 0, bid: nan}, {name: b, share: 0}"), "EX[0].arms[0].bid", "from 0.01 to 10"),
    (*experiment("{name: a, share: 0, bid: 2, control: true}, {name: b, share: 0}"), "EX[0].arms[0].control", "is"),
    (*experiment("{name: a, share: 0, creatives: [X]}, {name: b, share: 0}"), "EX[0].arms[0].creatives[0]", "Box"),
    (*experiment("{name: a, share: 0, offers: [X]}, {name: b, share: 0}"), "EX[0].arms[0].offers[0]", "loan, savings"),
    (*experiment("{name: a, share: 0}, {name: b, share: 0}", "[Loan]"), "EX[0].line_items[0]", "write one of Loans"),
    ("offer: loan", "offer: lone", "LI[0].offer", "unknown offer 'lone'; write one of loan, savings"),
    ("max_bid_cpm: 2", "max_bid_cpm: 0", "LI[1].max_bid_cpm", "above 0"),
    ("max_bid_cpm: 2", "max_bid_cpm: true", "LI[1].max_bid_cpm", "Expected"),
    ("deals: [deal-1]", "deals: [deal-2]", "LI[1].deals[0]", "unknown deal"),
    ("start: 2026-03-10T08:00", "start: 2027-03-10T08:00", "LI[1].flight", "never run"),
    ("include: [USA/CA]", "include: [California]", "LI[0].targeting.geo.include[0]", "write USA, USA/CA"),
    ("include: [rich]", "include: [ritch]", "LI[0].targeting.segments.include[0]", "unknown segment 'ritch'"),
    ("{mon-fri: 8-22}", "{monday: 8-22}", "LI[0].targeting.daypart.monday", "unknown day"),
    ("{mon-fri: 8-22}", "{mon-fri: 8}", "LI[0].targeting.daypart.mon-fri", "write \"8-22\""),
    ("daypart: {mon-fri: 8-22}", "devices: [phones]", "LI[0].targeting.devices[0]", "unknown device 'phones'"),
    ("daypart: {mon-fri: 8-22}", "exchanges: [gamma]", "LI[0].targeting.exchanges[0]", "write one of alpha, beta"),
    ("daypart: {mon-fri: 8-22}", "income: [7]", "LI[0].targeting.income[0]", "1 (lowest) to 6"),
    ("daypart: {mon-fri: 8-22}", "sites: {allow: [https://x.example]}", "LI[0].targeting.sites.allow[0]", "a domain"),
    ("daypart: {mon-fri: 8-22}", "zips: [90012]", "LI[0].targeting.zips", "unknown field"),
    ("daypart: {mon-fri: 8-22}", "age: [18-24]", "LI[0].targeting.age", "Equal Credit Opportunity Act"),
    ("include: [rich]", "include: [rich, women]", "LI[0].targeting.segments.include[1]", "by gender"),
    ("include: [rich]", "exclude: [women]", "LI[0].targeting.segments.exclude[0]", "by gender"),
    ("sizes: [300x250, 320x50]", "size: 300by250", "CR.size", "write 300x250"),
    ("sizes: [300x250, 320x50]", "sizes: [300x250, big]", "CR.sizes[1]", "write 300x250"),
    ("sizes: [300x250, 320x50]", "attr: [1]", "CR.size", "needs size or sizes"),
    ("format: banner", "format: baner", "CR.format", "write banner, native or video"),
    ("landing: https://bank.example/loans", "landing: bank.example/loans", "CR.landing", "write https://"),
    ("headline: Loans", "secure: true\n                markup: <img src='http://x.example'>", "CR.markup", "secure"),
    ("headline: Loans", "language: de", "CR.language", "line item's is en"),
    ("headline: Loans", "color: blue", "CR.color", "write #0b3d91"),
    ("duration_s: 15", "duration_s: 0", "LI[1].creatives[0].duration_s", "write its seconds"),
    ("duration_s: 15", "{duration_s: 15, protocol: 1}".strip("{}").replace(", ", "\n                "),
     "LI[1].creatives[0].protocol", "write 2 (VAST 2.0)"),
    ("media: https://cdn.bank.example/a.mp4", "native: {title: x}", "LI[1].creatives[0].media", "is missing"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "field", "message"), WRONG, ids=[f"{w[2]} {w[1][:25]}" for w in WRONG])
def test_a_wrong_file_names_line_and_field_and_changes_nothing(engine, tmp_path, old, new, field, message):
    file = tmp_path / "campaigns.yaml"
    before = _everything(engine)
    text = edited((old, new))
    file.write_text(text)
    with pytest.raises(CatalogError) as raised:
        apply_file(engine, file)
    field = field.replace("EX", "advertisers[0].campaigns[0].experiments")
    field = field.replace("CR", "LI[0].creatives[0]").replace("LI", "advertisers[0].campaigns[0].line_items")
    found = [line for line in str(raised.value).splitlines() if f": {field}: " in line]
    assert found, raised.value
    assert message in found[0]
    written_at = found[0].removeprefix(f"{file}:").split(":")[0]
    pairs = enumerate(zip(text.splitlines(), GOOD.splitlines(), strict=False), 1)
    changed = next((i for i, (a, b) in pairs if a != b), len(text.splitlines()))
    if "missing" not in message and "needs" not in message:  # those are told at what lacks the field
        assert abs(int(written_at) - changed) <= 1, found[0]
    assert _everything(engine) == before


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """A database that has GOOD, for tests that change nothing."""
    directory = tmp_path_factory.mktemp("catalog")
    (directory / "good.yaml").write_text(GOOD)
    engine = open_catalog(directory / "catalog.db")
    apply_file(engine, directory / "good.yaml")
    yield engine
    engine.dispose()


def _everything(engine) -> dict[str, list[tuple]]:
    with engine.connect() as connection:
        return {
            t.name: [tuple(r) for r in connection.execute(select(t).order_by(*t.primary_key.columns))]
            for t in tables.metadata.sorted_tables
        }


def test_all_problems_are_told_at_once_in_the_order_of_lines(tmp_path):
    text = edited(
        ("margin: 20.5", "margn: 20.5"), ("seat: seat-1", "seat: 1"), ("format: banner", "format: baner"),
        ("lgd: 0.4", "lgd: {x: 1}"), ("media: https", "medea: https"),
    )  # fmt: skip
    with pytest.raises(CatalogError) as raised:
        Source("c.yaml", text, CatalogFile)
    parts = ("margn", "lgd: {", "seat: 1", "baner", "medea")
    assert [int(line.split(":")[1]) for line in str(raised.value).splitlines()] == [line_of(text, p) for p in parts]


def test_cross_checks_are_told_at_once_too(tmp_path):
    text = edited(
        ("offer: loan", "offer: nothing"), ("deals: [deal-1]", "deals: [deal-9]"), ("total: 500", "total: -5")
    )
    engine = open_catalog(tmp_path / "c.db")
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(CatalogError) as raised:
        apply_file(engine, tmp_path / "c.yaml")
    assert [int(line.split(":")[1]) for line in str(raised.value).splitlines()] == [
        line_of(text, part) for part in ("offer: nothing", "total: -5", "deal-9")
    ]
    assert current_revision(engine) == 0
    engine.dispose()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1, 2", ":1: not YAML"),
        ("offers:\n\t- x", ":2: not YAML"),
        ("offers: *nowhere", "not YAML: found undefined alias"),
        ("- 1", "Expected `object`, got `array`"),
        ("5", "Expected `object`, got `int`"),
        ("offers: []\noffers: []", ":2: offers: written twice"),
        ("? [a, b]\n: 1", "not YAML"),
        ("a: !!python/object:os.system 1", "not YAML"),
        ("[" * 3000, "not YAML"),
        ("offers: {1: 2}", "offers: Expected `array`"),
    ],
)
def test_what_is_not_a_catalog_is_told_so(text, message):
    with pytest.raises(CatalogError, match=r"^c\.yaml") as raised:
        Source("c.yaml", text, CatalogFile)
    assert message in str(raised.value)


def test_files_that_cannot_be_read(tmp_path):
    engine = open_catalog(tmp_path / "c.db")
    (tmp_path / "latin.yaml").write_bytes(b"offers: \xff")
    for name, message in (("none.yaml", "No such file"), ("latin.yaml", "not UTF-8")):
        with pytest.raises(CatalogError, match=message):
            apply_file(engine, tmp_path / name)
    engine.dispose()


def test_scalars_mean_what_they_look_like():
    source = Source("c.yaml", "segments: {no: 08, on: 1, 12: 2, 2026-01-01: 3, '8:30': 4}", CatalogFile)
    assert source.value.segments == {"no": 8, "on": 1, "12": 2, "2026-01-01": 3, "8:30": 4}


def test_an_empty_file_is_a_catalog_without_anything():
    assert Source("c.yaml", "", CatalogFile).value.advertisers == ()


def test_merge_keys_are_resolved_and_keep_their_lines():
    text = "offers:\n  - &o {name: a, product: loan, lender: l}\n  - <<: *o\n    name: b\n    margn: 1\n"
    with pytest.raises(CatalogError, match=r"c\.yaml:5: offers\[1\]\.margn"):
        Source("c.yaml", text, CatalogFile)
    assert [o.name for o in Source("c.yaml", text.replace("    margn: 1\n", ""), CatalogFile).value.offers] == [
        "a",
        "b",
    ]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_mangled_file_is_read_or_refused_but_never_crashes(data):
    lines = GOOD.splitlines(keepends=True)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        kind = data.draw(st.sampled_from(["drop", "double", "value", "cut"]))
        if kind == "drop":
            del lines[at]
        elif kind == "double":
            lines.insert(at, lines[at])
        elif kind == "value":
            junk = data.draw(
                st.sampled_from(["[]", "{}", "null", "-1", "'x'", "1e309", ".nan", "&a", "*a", "[[", "0x1F"])
            )
            lines[at] = lines[at].split(":")[0] + ": " + junk + "\n"
        else:
            lines[at] = lines[at][: data.draw(st.integers(0, len(lines[at])))] + "\n"
    try:
        Source("c.yaml", "".join(lines), CatalogFile)
    except CatalogError as error:
        assert str(error).startswith("c.yaml:")  # noqa: PT017  (either outcome is fine, a crash is not)


def test_age_targeting_is_fine_where_the_law_allows_it_or_for_other_products(tmp_path):
    engine = open_catalog(tmp_path / "c.db")
    file = tmp_path / "c.yaml"
    abroad = edited(("include: [USA/CA]", "include: [DEU]"), ("daypart: {mon-fri: 8-22}", "age: [18-24]"))
    file.write_text(abroad)
    apply_file(engine, file)
    file.write_text(edited(("deals: [deal-1]", "targeting: {age: [18-24], geo: {include: [USA]}}")))
    apply_file(engine, file)
    everywhere = edited(
        ("geo: {include: [USA/CA]}", "geo: {exclude: [USA]}"), ("daypart: {mon-fri: 8-22}", "age: [18-24]")
    )
    file.write_text(everywhere)
    with pytest.raises(CatalogError, match="Canadian Human Rights Act"):
        apply_file(engine, file)
    file.write_text(everywhere.replace("exclude: [USA]", "exclude: [USA, CAN]"))
    apply_file(engine, file)
    engine.dispose()


def test_an_offers_product_makes_a_line_item_credit_without_saying_so(tmp_path):
    engine = open_catalog(tmp_path / "c.db")
    file = tmp_path / "c.yaml"
    file.write_text(
        edited(("            special_category: credit\n", ""), ("daypart: {mon-fri: 8-22}", "age: [18-24]"))
    )
    with pytest.raises(CatalogError, match=r"targeting\.age: credit may not be targeted by age"):
        apply_file(engine, file)
    engine.dispose()


def test_references_may_point_to_what_an_earlier_file_defined(tmp_path):
    engine = open_catalog(tmp_path / "c.db")
    first, second = GOOD.split("advertisers:\n")
    for name, text in (("a.yaml", first), ("b.yaml", "advertisers:\n" + second)):
        (tmp_path / name).write_text(text)
    with pytest.raises(CatalogError, match="unknown offer"):
        apply_file(engine, tmp_path / "b.yaml")
    apply_file(engine, tmp_path / "a.yaml")
    apply_file(engine, tmp_path / "b.yaml")
    engine.dispose()


def test_example_of_a_message():
    with pytest.raises(CatalogError) as raised:
        Source("campaigns.yaml", edited(("margin: 20.5", "margn: 20.5")), CatalogFile)
    assert str(raised.value) == (
        "campaigns.yaml:12: offers[0].margn: unknown field; check the spelling, or take it out"
    )  # fmt: skip


def test_the_path_of_a_file_is_shown_as_given(tmp_path: Path):
    file = tmp_path / "x.yaml"
    file.write_text("nothing: 1")
    engine = open_catalog(tmp_path / "c.db")
    with pytest.raises(CatalogError) as raised:
        apply_file(engine, str(file))
    assert str(raised.value).startswith(f"{file}:1: nothing: unknown field")
    engine.dispose()


def test_a_line_item_is_in_one_running_experiment_at_a_time(engine, tmp_path):
    arms = "{name: a, share: 0.5}, {name: b, share: 0.5}"
    old, new = experiment(arms, "[Loans]")
    second = experiment(arms, "[Loans, Savings]", "F")[1].splitlines()[-1] + "\n"
    file = tmp_path / "campaigns.yaml"
    file.write_text(edited((old, new + second)))
    with pytest.raises(CatalogError, match=r"'Loans' is in experiment 'E' already; end that first"):
        apply_file(engine, file)
    file.write_text(edited((old, new.replace("name: E,", "name: E, status: ended,") + second)))
    apply_file(engine, file)
