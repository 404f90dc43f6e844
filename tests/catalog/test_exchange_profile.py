"""Exchange profiles: found by name, in a file or in place, told off by line and field, and inside the snapshot."""

from __future__ import annotations

from pathlib import Path

import pytest
from catalog_file import GOOD, edited

from dsp.catalog.compile import compile_catalog
from dsp.catalog.layout import EX_NO_BID, EX_QPS, EX_TMAX_MS, NO_BIDS
from dsp.catalog.profile import Profile, read_profile, shipped, shipped_names
from dsp.catalog.records import Exchange
from dsp.catalog.source import CatalogError
from dsp.catalog.store import apply_file, load_catalog, open_catalog

OURS = """\
about: an exchange of this test
tmax_ms: 90
no_bid: nbr
request:
  fields: {imp.ext.ours.floor: imp.bidfloor}
  floor_unit: "0.01"
"""


def applied(directory: Path, text: str) -> list[Exchange]:
    (directory / "c.yaml").write_text(text)
    engine = open_catalog(directory / "catalog.db")
    try:
        apply_file(engine, directory / "c.yaml")
        return load_catalog(engine).exchanges
    finally:
        engine.dispose()


def test_a_profile_file_travels_whole_into_the_snapshot_and_an_exchange_overrides_it(tmp_path: Path) -> None:
    (tmp_path / "ours.yaml").write_text(OURS)
    text = edited(("id: 1, token: t, currency: USD", "id: 1, token: t, profile: ours.yaml, qps: 50"))
    exchanges = applied(tmp_path, text)
    assert exchanges[0].profile == read_profile(tmp_path / "ours.yaml")
    assert (exchanges[0].tmax_ms, exchanges[0].qps, exchanges[0].exp_s) == (90, 50, 300)
    assert (exchanges[1].profile, exchanges[1].tmax_ms) == (Profile(about=shipped("openrtb").about), 200)
    engine = open_catalog(tmp_path / "catalog.db")
    catalog = load_catalog(engine)
    engine.dispose()
    arrays, _ = compile_catalog(catalog, 1, "https://dsp.example", 1.78e9)
    assert arrays["dialect_first"].tolist() == [0, -1]
    assert len(arrays["dialect_words"]) > 0
    assert arrays["ex_i"][:, [EX_TMAX_MS, EX_QPS]].tolist() == [[90, 50], [200, 0]]
    assert [NO_BIDS[k] for k in arrays["ex_i"][:, EX_NO_BID]] == ["nbr", "204"]


def test_a_profile_can_stand_in_the_catalog_file(tmp_path: Path) -> None:
    text = edited(("id: 1, token: t", "id: 1, profile: {tmax_ms: 70, request: {numeric_ids: true}}, token: t"))
    profile = applied(tmp_path, text)[0].profile
    assert (profile.tmax_ms, profile.request.numeric_ids) == (70, True)


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("tmax_ms: 90", "tmax_ms: soon", 2, "tmax_ms: "),
        ("tmax_ms: 90", "tmax_ms: 10", 1, "allowance_ms: must be 0 or more and below tmax_ms"),
        ("no_bid: nbr", "no_bid: silence", 3, "no_bid: "),
        ("no_bid: nbr", "no_bits: nbr", 3, "no_bits: "),
        ("no_bid: nbr", "notices: [win]", 3, "notices: has no 'billing', which is the notice that is charged"),
        ("no_bid: nbr", "bid: {price: 3}", 3, "bid.price: is written by the bidder itself"),
        ("no_bid: nbr", "banned_categories: [Tobacco]", 3, "is not an IAB category"),
        ("no_bid: nbr", "fee: 1.5", 3, "fee: 1.5 is not a share"),
        ("no_bid: nbr", "required: [love]", 3, "required"),
        ("no_bid: nbr", "price_macro: a&b", 3, "is not a macro"),
        ("imp.bidfloor", "imp.bidflor", 5, "is no field of OpenRTB that the bidder reads"),
        ('"0.01"', '"a cent"', 6, "request.floor_unit: 'a cent' is not a decimal"),
        ("imp.ext.ours.floor", "imp.ext.#x.floor", 5, "is not the number of a protobuf field"),
    ],
)
def test_a_wrong_profile_file_is_told_with_file_line_and_field(
    tmp_path: Path, old: str, new: str, line: int, message: str
) -> None:
    (tmp_path / "ours.yaml").write_text(OURS.replace(old, new))
    text = edited(("id: 1, token: t", "id: 1, profile: ours.yaml, token: t"))
    with pytest.raises(CatalogError) as caught:
        applied(tmp_path, text)
    assert f"ours.yaml:{line}: " in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("written", "line", "message"),
    [
        ("profile: nosuch", 3, "exchanges[0].profile: no profile 'nosuch'; there are "),
        ("profile: {tmax_ms: 70, exp_s: 0}", 3, "exchanges[0].profile.exp_s: must be 1 to 86400"),
        ("profile: {request: {fields: {imp.x: tmax}}}", 3, "belongs to another level"),
        ("ips: [10.0.0.0/8, 10.0.0.1/8]", 3, "exchanges[0].ips[1]"),
        ("fee: much", 3, "exchanges[0].fee: 'much' is not a share"),
        ("client_header: CN=a", 3, "client_header: is not a header"),
        ("seats: {a: x, b: x}", 3, "must be a seat of its own"),
        ("profile: nosuch.yaml", 0, "nosuch.yaml: No such file"),
    ],
)
def test_a_wrong_profile_in_the_catalog_file_is_told_there(
    tmp_path: Path, written: str, line: int, message: str
) -> None:
    with pytest.raises(CatalogError) as caught:
        applied(tmp_path, edited(("id: 1, token: t", f"id: 1, {written}, token: t")))
    assert message in str(caught.value)
    assert not line or f"c.yaml:{line}: " in str(caught.value)


@pytest.mark.parametrize("name", shipped_names())
def test_every_shipped_profile_is_sound_and_says_what_it_is(tmp_path: Path, name: str) -> None:
    assert shipped(name).about
    exchanges = applied(tmp_path, GOOD.replace("id: 1, token: t", f"id: 1, profile: {name}, token: t"))
    assert exchanges[0].profile == shipped(name)
