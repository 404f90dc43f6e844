"""GPP sections: found by the header, read where they lie, refused where they make no sense."""

import numpy as np
import pytest
from consent_strings import gpp, tcf, usnat
from hypothesis import given
from hypothesis import strategies as st

from dsp.audience.gpp import KEPT, REFUSED, gpp_section, us_national, us_privacy


def section(text: str | bytes, number: int) -> str | None:
    raw = text.encode() if isinstance(text, str) else text
    buffer = np.frombuffer(b"~DB" + raw + b"~~", np.uint8)
    off, length = gpp_section(buffer, 3, len(raw), number)
    assert length >= 0
    assert 3 <= off <= off + length <= 3 + len(raw)
    return buffer[off : off + length].tobytes().decode("latin-1") if length else None


def national(text: str) -> int:
    raw = np.frombuffer(b"C" + text.encode() + b"C", np.uint8)
    return int(us_national(raw, 1, len(text)))


def privacy(text: str | bytes) -> int:
    raw = text.encode() if isinstance(text, str) else text
    return int(us_privacy(np.frombuffer(b"1" + raw + b"YYY", np.uint8), 1, len(raw)))


TCF = "CPXxRfAPXxRfAAfKABENB-CgAAAAAAAAAAYgAAAAAAAA"  # the GPP specification's own examples


def test_published_headers() -> None:
    assert section(f"DBABMA~{TCF}", 2) == TCF
    assert section(f"DBACNYA~{TCF}~1YNN", 2) == TCF
    assert section(f"DBACNYA~{TCF}~1YNN", 6) == "1YNN"
    assert section("DBABLA~BVQqAAAAAgA.QA", 7) == "BVQqAAAAAgA.QA"
    assert section("DBABLA~BVQqAAAAAgA.QA", 8) is None


def test_ranges_of_sections() -> None:
    text = gpp({2: "two", 6: "six", 7: "seven", 8: "eight", 20: "twenty"})
    assert [section(text, n) for n in (2, 6, 7, 8, 20)] == ["two", "six", "seven", "eight", "twenty"]
    assert [section(text, n) for n in (1, 3, 5, 9, 19, 21)] == [None] * 6


@pytest.mark.parametrize("text", ["", "~", "~~", "DBABLA", "DBABLA~", "AAAA~x", "DCABLA~x", "DBAB~x", "D!ABLA~x"])
def test_a_header_that_makes_no_sense_has_no_sections(text: str) -> None:
    assert section(text, 7) is None


@given(st.dictionaries(st.integers(1, 40), st.sampled_from(["a", "bb.c", ""]), max_size=8), st.integers(0, 64))
def test_any_sections_are_found(sections: dict[int, str], number: int) -> None:
    assert section(gpp(sections), number) == (sections.get(number) or None)


@given(st.binary(max_size=60), st.integers(-3, 300))
def test_garbage_is_never_an_error(raw: bytes, number: int) -> None:
    section(raw, number)
    section(b"DB" + raw, number)


def test_us_national_choices() -> None:
    assert national("BVQqAAAAAgA.QA") == KEPT
    assert national("BVVVVVVVVWA.YA") == REFUSED
    assert national(usnat()) == KEPT
    assert national(usnat(sale=0, sharing=0, targeted=0)) == KEPT
    assert national(usnat(version=2)) == KEPT
    for refusal in ({"sale": 1}, {"sharing": 1}, {"targeted": 1}, {"child": 1}, {"gpc": 1}, {"version": 3}):
        assert national(usnat(**refusal)) == REFUSED
    assert national(usnat(gpc=0)) == KEPT
    assert national(usnat(version=2, child=1)) == REFUSED
    assert national(usnat(sale=3)) == REFUSED  # no such choice


def test_a_us_national_section_cut_short_is_refused() -> None:
    text = usnat()
    assert all(national(text[:length]) == REFUSED for length in range(9))


@pytest.mark.parametrize("text", ["1YNN", "1YN-", "1---", "1NNY", "1ynn"])
def test_us_privacy_kept(text: str) -> None:
    assert privacy(text) == KEPT


@pytest.mark.parametrize("text", ["1YYN", "1-Y-", "1yyn", "", "1YN", "1YNNN", "2YNN", "1Y?N", b"1\xff\x00\xfe", "aaaa"])
def test_us_privacy_refused(text: str | bytes) -> None:
    assert privacy(text) == REFUSED


def test_the_tcf_encoder_and_the_section_agree() -> None:
    text = tcf({1}, {1500})
    assert section(gpp({2: text, 7: usnat()}), 2) == text
