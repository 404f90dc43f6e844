"""Consent strings as a consent platform would set them: IAB TCF v2 core strings and the GPP US national section.

The encoder writes only what the market needs (core segment; purposes 1-10; our vendor among others, as a bit
field or as ranges), but what it writes is valid: version 2, every field in place. Sources: IAB Tech Lab "Transparency
and Consent String with Global Vendor & CMP List Formats" v2.2; "Global Privacy Platform", section usnat (id 7).
"""

from __future__ import annotations

import base64
from collections.abc import Iterable

DECISECONDS_2025 = 17_356_896_000  # created and last updated: 2025-01-01T00:00:00Z
ALL_PURPOSES = tuple(range(1, 11))


def tcf_string(
    vendors: Iterable[int], purposes: Iterable[int] = ALL_PURPOSES, *, ranges: bool = False, country: str = "DE"
) -> str:
    """A TCF v2 core string that consents to ``purposes`` (1-24) for ``vendors`` (ids from 1), and to nothing else."""
    granted, wanted = sorted(set(vendors)), set(purposes)
    bits = _Bits()
    bits.add(2, 6)
    bits.add(DECISECONDS_2025, 36)
    bits.add(DECISECONDS_2025, 36)
    bits.add(31, 12)  # cmpId
    bits.add(640, 12)  # cmpVersion
    bits.add(1, 6)  # consentScreen
    bits.letters("EN")
    bits.add(96, 12)  # vendorListVersion
    bits.add(5, 6)  # tcfPolicyVersion
    bits.add(1, 1)  # isServiceSpecific
    bits.add(0, 1)  # useNonStandardTexts
    bits.add(0, 12)  # specialFeatureOptIns
    for purpose in range(1, 25):
        bits.add(int(purpose in wanted), 1)
    bits.add(0, 24)  # purposesLITransparency
    bits.add(0, 1)  # purposeOneTreatment
    bits.letters(country)
    bits.vendors(granted, ranges)
    bits.vendors([], ranges=False)  # legitimate interests
    bits.add(0, 12)  # numPubRestrictions
    return bits.text()


def usnat_string(*, opted_out: bool) -> str:
    """A GPP string with the US national section (gpp_sid 7): opted out of sale, sharing and targeted ads, or not."""
    choice = 1 if opted_out else 2  # 0 n/a, 1 yes, 2 no
    bits = _Bits()
    bits.add(1, 6)
    for _ in range(6):  # notices given: sharing, sale, sharing, targeted ads opt-outs, sensitive data (2)
        bits.add(1, 2)
    for _ in range(3):  # SaleOptOut, SharingOptOut, TargetedAdvertisingOptOut
        bits.add(choice, 2)
    for _ in range(12 + 2 + 1):  # sensitive data, known child, personal data: not applicable
        bits.add(0, 2)
    bits.add(2, 2)  # MspaCoveredTransaction: no
    bits.add(0, 2)
    bits.add(0, 2)
    return f"DBABLA~{bits.text()}"  # the header's Fibonacci-coded section list holds just 7


class _Bits:
    """A big-endian bit string, and its base64url text without padding."""

    def __init__(self) -> None:
        self._value = 0
        self._length = 0

    def add(self, value: int, width: int) -> None:
        assert 0 <= value < 1 << width
        self._value = self._value << width | value
        self._length += width

    def letters(self, code: str) -> None:
        for letter in code.upper():
            self.add(ord(letter) - ord("A"), 6)

    def vendors(self, ids: list[int], ranges: bool) -> None:
        """A vendor section: the largest id, then a bit field or range entries."""
        top = ids[-1] if ids else 0
        self.add(top, 16)
        self.add(int(ranges), 1)
        if not ranges:
            field = 0
            for vendor in ids:
                field |= 1 << (top - vendor)
            self.add(field, top)
            return
        spans = _spans(ids)
        self.add(len(spans), 12)
        for first, last in spans:
            self.add(int(last > first), 1)
            self.add(first, 16)
            if last > first:
                self.add(last, 16)

    def text(self) -> str:
        pad = -self._length % 8
        raw = (self._value << pad).to_bytes((self._length + pad) // 8, "big")
        return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _spans(ids: list[int]) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    for vendor in ids:
        if spans and spans[-1][1] == vendor - 1:
            spans[-1] = (spans[-1][0], vendor)
        else:
            spans.append((vendor, vendor))
    return spans
