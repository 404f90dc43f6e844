"""The TCF reader against strings others published, an encoder, and a plain decoder on damaged strings."""

import numpy as np
import pytest
from consent_strings import ALPHABET, tcf, tcf_reference
from hypothesis import given, settings
from hypothesis import strategies as st
from iab_tcf import decode_v2

from dsp.audience.tcf import MALFORMED, tcf_purposes

VENDOR = 1500


def read(text: str | bytes, vendor: int = VENDOR, pad: int = 3) -> set[int] | None:
    """The purposes read out of the middle of a larger buffer; None where malformed."""
    raw = text.encode() if isinstance(text, str) else text
    buffer = np.frombuffer(b"C" * pad + raw + b"CCCC", np.uint8)
    purposes = tcf_purposes(buffer, pad, len(raw), vendor)
    return None if purposes == MALFORMED else {p for p in range(1, 25) if purposes >> (p - 1) & 1}


# Strings and their contents as published in the test suites of the IAB's and others' decoders.
PUBLISHED = [
    ("COvFyGBOvFyGBAbAAAENAPCAAOAAAAAAAAAAAEEUACCKAAA", {1, 2, 3}, {2, 6, 8}, {1, 3, 7, 9, 1500}),
    (
        "COvFyGBOvFyGBAbAAAENAPCAAOAAAAAAAAAAAEEUACCKAAA.IFoEUQQgAIQwgIwQABAEAAAAOIAACAIAAAAQAIAgEAACEAAAAAgAQBAAAAAAAGBAAgAA",
        {1, 2, 3}, {2, 6, 8}, {1, 3, 7, 9},
    ),
    (
        "CGL23UdMFJzvuA9ACCENAXCEAC0AAGrAAA5YA5ht7-_d_7_vd-f-nrf4_4A4hM4JCKoK4YhmAqABgAEgAA",
        {3, 5, 6, 8}, {4, 5, 7, 8, 10, 83, 86, 103, 107, 115}, {1, 2, 3, 6, 9, 14, 70, 82, 84, 104, 106, 116},
    ),
    (
        "COw4XqLOw4XqLAAAAAENAXCf-v-gAAAfwIAAACngAI8AEFABgACAA4A.IAPPwAPrwA.QAPPwAPrwA.cAEAPAAAC7gAHw4AAA",
        {1, 2, 3, 4, 5, 6, 7, 8, 9, 11}, {2, 3, 4, 5}, {1, 6, 7},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "purposes", "granted", "refused"), PUBLISHED)
def test_published_strings(text: str, purposes: set[int], granted: set[int], refused: set[int]) -> None:
    for vendor in granted:
        assert read(text, vendor) == purposes
    for vendor in refused:
        assert read(text, vendor) == set()


@pytest.mark.parametrize("as_ranges", [False, True])
def test_bit_field_and_ranges(as_ranges: bool) -> None:
    text = tcf({1, 3, 4, 24}, {3, 1500, 1501}, as_ranges=as_ranges)
    assert read(text, 1500) == {1, 3, 4, 24}
    assert read(text, 3) == {1, 3, 4, 24}
    assert read(text, 1499) == set()
    assert read(text, 2000) == set()


def test_legitimate_interest_is_not_consent() -> None:
    assert read(tcf({1, 3, 4}, {7}, interests={VENDOR})) == set()


@pytest.mark.parametrize(("kind", "left"), [(0, {1, 4}), (1, {1, 3, 4}), (2, {1, 4}), (3, {1, 4})])
def test_a_publisher_restriction_outranks_consent(kind: int, left: set[int]) -> None:
    assert read(tcf({1, 3, 4}, {VENDOR}, restrictions=[(3, kind, [(2, 2), (1400, 1600)])])) == left


def test_a_restriction_on_others_leaves_us_alone() -> None:
    assert read(tcf({1, 3}, {VENDOR}, restrictions=[(3, 0, [(1, 1499)]), (1, 0, [(1501, 1501)])])) == {1, 3}


@pytest.mark.parametrize("version", [0, 1, 3, 63])
def test_other_versions_are_no_consent(version: int) -> None:
    assert read(tcf({1, 3, 4}, {VENDOR}, version=version)) is None


def test_every_truncation_is_no_consent() -> None:
    text = tcf({1, 3, 4}, {3, VENDOR}, as_ranges=True, restrictions=[(2, 0, [(5, 9)])])
    for length in range(len(text)):
        assert not read(text[:length])


@pytest.mark.parametrize("bad", ["+", "/", "=", " ", "\x00", "é"])
def test_a_foreign_character_is_no_consent(bad: str) -> None:
    text = tcf({1, 3, 4}, {VENDOR})
    for at in (0, 30, len(text) - 1, len(text)):
        assert read(text[:at] + bad + text[at + 1 :]) is None


def test_impossible_ranges_are_no_consent() -> None:
    assert read(tcf({1}, {VENDOR}, restrictions=[(2, 0, [(5, 9)])])) == {1}
    assert read(tcf({1}, {VENDOR}, restrictions=[(2, 0, [(0, 5)])])) is None


purpose_sets = st.sets(st.integers(1, 24))
vendor_sets = st.sets(st.integers(1, 1700), max_size=8)
restriction_lists = st.lists(
    st.tuples(
        st.integers(0, 30),
        st.integers(0, 3),
        st.lists(st.tuples(st.integers(1, 1600), st.integers(1, 1600)).map(lambda s: (min(s), max(s))), max_size=3),
    ),
    max_size=3,
)


@given(purpose_sets, vendor_sets, vendor_sets, restriction_lists, st.booleans(), st.data())
def test_damaged_strings_read_as_a_plain_decoder_reads_them(
    purposes: set[int],
    vendor_ids: set[int],
    interests: set[int],
    restrictions: list[tuple[int, int, list[tuple[int, int]]]],
    as_ranges: bool,
    data: st.DataObject,
) -> None:
    text = tcf(purposes, vendor_ids, as_ranges=as_ranges, interests=interests, restrictions=restrictions)
    vendor = data.draw(st.sampled_from(sorted(vendor_ids | {VENDOR})))
    assert read(text, vendor) == tcf_reference(text.encode(), vendor)
    raw = bytearray(text.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] = ord(data.draw(st.sampled_from(ALPHABET + ".")))
    cut = bytes(raw[: data.draw(st.integers(0, len(raw)))])
    assert read(cut, vendor) == tcf_reference(cut, vendor)


@given(st.binary(max_size=200), st.integers(-5, 70000))
def test_garbage_is_never_an_error(raw: bytes, vendor: int) -> None:
    assert read(raw, vendor) == tcf_reference(raw, vendor)


@settings(deadline=None, max_examples=60)
@given(
    purposes=st.sets(st.integers(1, 24)),
    vendors=st.sets(st.integers(1, 60)),
    interests=st.sets(st.integers(1, 20)),
    as_ranges=st.booleans(),
)
def test_a_published_library_reads_the_same(
    purposes: set[int], vendors: set[int], interests: set[int], as_ranges: bool
) -> None:
    """The `iab-tcf` package is the oracle: purposes and vendors of any string, and of the published ones above."""
    ours = tcf(purposes, vendors, as_ranges=as_ranges, interests=interests)
    for text in (ours + "A" * (-len(ours) % 4), *(row[0] for row in PUBLISHED)):  # it wants whole bytes
        theirs = decode_v2(text)
        agreed = {p for p, yes in theirs.purposes_consent.items() if yes}
        for vendor in (1, 7, 20, 59, 60, VENDOR):
            if theirs.num_pub_restrictions == 0:
                assert read(text, vendor) == (agreed if theirs.is_vendor_allowed(vendor) else set())
