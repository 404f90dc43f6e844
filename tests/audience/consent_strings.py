"""Encoders and a plain decoder of TCF v2 core strings and GPP strings, written from the IAB's field lists for tests.

Slow and literal on purpose: bit strings of "0" and "1". The product's readers are compared with these.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
Restriction = tuple[int, int, Sequence[tuple[int, int]]]  # purpose, type, vendor ranges


def bits(value: int, width: int) -> str:
    return format(value, f"0{width}b")


def text_of(stream: str) -> str:
    stream += "0" * (-len(stream) % 6)
    return "".join(ALPHABET[int(stream[i : i + 6], 2)] for i in range(0, len(stream), 6))


def ranges(spans: Sequence[tuple[int, int]]) -> str:
    out = bits(len(spans), 12)
    for first, last in spans:
        out += "1" + bits(first, 16) + bits(last, 16) if last > first else "0" + bits(first, 16)
    return out


def vendors(ids: Iterable[int], as_ranges: bool) -> str:
    ids = sorted(ids)
    largest = ids[-1] if ids else 0
    if as_ranges:
        return bits(largest, 16) + "1" + ranges([(i, i) for i in ids])
    return bits(largest, 16) + "0" + "".join("1" if i in ids else "0" for i in range(1, largest + 1))


def tcf(
    purposes: Iterable[int] = (),
    vendor_ids: Iterable[int] = (),
    *,
    as_ranges: bool = False,
    interests: Iterable[int] = (),
    restrictions: Sequence[Restriction] = (),
    version: int = 2,
) -> str:
    """A core segment; ``interests`` are the vendors with legitimate interest."""
    wanted = set(purposes)
    stream = bits(version, 6) + bits(17_000_000_000, 36) * 2
    stream += bits(27, 12) + bits(1, 12) + bits(0, 6)  # CMP id, version, screen
    stream += bits(4, 6) + bits(13, 6) + bits(100, 12) + bits(4, 6) + "1" + "0" + bits(0, 12)
    stream += "".join("1" if p in wanted else "0" for p in range(1, 25))
    stream += "1" * 24 + "0" + bits(3, 6) + bits(4, 6)  # every purpose under legitimate interest: must not count
    stream += vendors(vendor_ids, as_ranges) + vendors(interests, as_ranges)
    stream += bits(len(restrictions), 12)
    for purpose, kind, spans in restrictions:
        stream += bits(purpose, 6) + bits(kind, 2) + ranges(spans)
    return text_of(stream)


class _ShortError(Exception):
    pass


class _Stream:
    def __init__(self, text: bytes) -> None:
        self.bits = ""
        for byte in text:
            if chr(byte) not in ALPHABET:
                raise _ShortError
            self.bits += bits(ALPHABET.index(chr(byte)), 6)
        self.at = 0

    def take(self, width: int) -> int:
        if self.at + width > len(self.bits):
            raise _ShortError
        self.at += width
        return int(self.bits[self.at - width : self.at], 2)

    def spans(self) -> list[tuple[int, int]]:
        out = []
        for _ in range(self.take(12)):
            is_range = self.take(1)
            first = self.take(16)
            last = self.take(16) if is_range else first
            if first < 1 or last < first:
                raise _ShortError
            out.append((first, last))
        return out

    def vendors(self, vendor: int) -> bool:
        largest = self.take(16)
        if self.take(1):
            return any(first <= vendor <= last for first, last in self.spans())
        at = self.at
        self.at += largest  # cut short after our bit is told by the next field
        if 1 <= vendor <= largest:
            if at + vendor > len(self.bits):
                raise _ShortError
            return self.bits[at + vendor - 1] == "1"
        return False


def tcf_reference(text: bytes, vendor: int) -> set[int] | None:
    """Purposes that ``vendor`` may rely on consent for; None where the string is malformed."""
    try:
        stream = _Stream(text.split(b".")[0])
        if stream.take(6) != 2:
            return None
        stream.at = 152
        packed = stream.take(24)
        stream.at = 213
        if not stream.vendors(vendor):
            return set()
        purposes = {p for p in range(1, 25) if packed >> (24 - p) & 1}
        stream.vendors(vendor)
        for _ in range(stream.take(12)):
            purpose, kind = stream.take(6), stream.take(2)
            if any(first <= vendor <= last for first, last in stream.spans()) and kind != 1:
                purposes.discard(purpose)
    except _ShortError:
        return None
    return purposes


def fibonacci(number: int) -> str:
    """The Fibonacci code (Zeckendorf, low first, closed by a 1)."""
    terms = [1, 2]
    while terms[-1] <= number:
        terms.append(terms[-1] + terms[-2])
    out = ""
    for term in reversed([t for t in terms if t <= number]):
        if term <= number:
            number -= term
            out = "1" + out
        else:
            out = "0" + out
    return out + "1"


def gpp(sections: dict[int, str]) -> str:
    """A GPP string of these sections."""
    header = bits(3, 6) + bits(1, 6)
    spans: list[list[int]] = []
    for section in sorted(sections):
        if spans and spans[-1][1] == section - 1:
            spans[-1][1] = section
        else:
            spans.append([section, section])
    header += bits(len(spans), 12)
    last = 0
    for first, end in spans:
        header += ("1" if end > first else "0") + fibonacci(first - last)
        if end > first:
            header += fibonacci(end - first)
        last = end
    return "~".join([text_of(header), *(sections[section] for section in sorted(sections))])


def usnat(
    *, version: int = 1, sale: int = 2, sharing: int = 2, targeted: int = 2, child: int = 0, gpc: int | None = None
) -> str:
    """A US national section; choices: 0 not applicable, 1 opted out (child: no consent), 2 not."""
    stream = bits(version, 6) + "01" * 6 + bits(sale, 2) + bits(sharing, 2) + bits(targeted, 2)
    stream += "00" * (12 if version == 1 else 16) + bits(child, 2) * (2 if version == 1 else 3) + "00" * 4
    return text_of(stream) + ("" if gpc is None else "." + text_of("01" + str(gpc)))
