"""The consent encoder, read back bit by bit as the TCF specification lays it out."""

from __future__ import annotations

import base64

import pytest

from dsp.market.consent import ALL_PURPOSES, tcf_string, usnat_string


class Reader:
    def __init__(self, text: str) -> None:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        self.bits = "".join(f"{byte:08b}" for byte in raw)
        self.at = 0

    def take(self, width: int) -> int:
        self.at += width
        assert self.at <= len(self.bits)
        return int(self.bits[self.at - width : self.at], 2) if width else 0


def vendors_of(reader: Reader) -> set[int]:
    top = reader.take(16)
    if not reader.take(1):
        return {vendor for vendor in range(1, top + 1) if reader.take(1)}
    found: set[int] = set()
    for _ in range(reader.take(12)):
        is_range, first = reader.take(1), reader.take(16)
        last = reader.take(16) if is_range else first
        found |= set(range(first, last + 1))
    assert max(found) <= top
    return found


@pytest.mark.parametrize("ranges", [False, True])
@pytest.mark.parametrize("vendors", [(), (1,), (1500,), (1, 2, 3, 9, 700, 1499, 1500)])
@pytest.mark.parametrize("purposes", [(), (1,), (2, 7, 9), ALL_PURPOSES])
def test_a_string_says_what_it_was_made_of(vendors: tuple[int, ...], purposes: tuple[int, ...], ranges: bool) -> None:
    reader = Reader(tcf_string(vendors, purposes, ranges=ranges and bool(vendors)))
    assert reader.take(6) == 2
    reader.at = 6 + 36 + 36 + 12 + 12 + 6 + 12 + 12 + 6 + 1 + 1 + 12
    assert {purpose for purpose in range(1, 25) if reader.take(1)} == set(purposes)
    assert reader.take(24) == 0
    assert reader.take(1) == 0
    reader.take(12)
    assert vendors_of(reader) == set(vendors)
    assert vendors_of(reader) == set()
    assert reader.take(12) == 0
    assert set(reader.bits[reader.at :]) <= {"0"}
    assert len(reader.bits) - reader.at < 8


@pytest.mark.parametrize(("opted_out", "choice"), [(True, 1), (False, 2)])
def test_the_us_section_carries_the_three_opt_outs(opted_out: bool, choice: int) -> None:
    header, section = usnat_string(opted_out=opted_out).split("~")
    assert header == "DBABLA"
    reader = Reader(section)
    assert reader.take(6) == 1
    reader.at = 6 + 12
    assert [reader.take(2) for _ in range(3)] == [choice] * 3
