"""The small kernels under the walkers, each against a plain statement of what it should give."""

import json
import random

import numpy as np
import pytest

from dsp.base.memory import PADDING
from dsp.openrtb.countries import ALPHA3
from dsp.openrtb.hashing import hash_bytes, hash_text
from dsp.openrtb.number import (
    BAD_MONEY,
    clamp_int32,
    decimal_to_double,
    decimal_to_int,
    degree_micros,
    price_micros,
    scan_number,
)
from dsp.openrtb.text import country_hash, exact_hash, hash_at, is_utf8, unescape


def held(raw: bytes, room: int = 0) -> np.ndarray:
    """``raw`` with a zero byte and padding behind it."""
    return np.frombuffer(raw + bytes(room + PADDING), np.uint8).copy()


def test_the_hash_by_address_is_the_hash_of_the_catalog() -> None:
    rng = random.Random(1)
    for length in [*range(40), 200]:
        raw = bytes(rng.randrange(256) for _ in range(length))
        text = held(b"xy" + raw)
        assert hash_at(text.ctypes.data, 2, length) == hash_bytes(text, 2, length) == hash_text(raw)


def test_exact_hash_tells_case_and_length_apart() -> None:
    seen = set()
    for raw in (b"", b"a", b"A", b"a\0", b"\0a", b"abcdefgh", b"abcdefgh\0", b"abcdefghi"):
        text = held(raw + b"junk")
        seen.add(exact_hash(text.ctypes.data, 0, len(raw)))
    assert len(seen) == 8


@pytest.mark.parametrize(
    "raw",
    [b"", b"abc", "é日本\U0001f600\U0010ffff\u07ff\uffff".encode(), b"\x80", b"\xc0\x80", b"\xc1\xbf",
     b"\xe0\x80\x80",
     b"\xed\xa0\x80", b"\xf0\x80\x80\x80", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xe2\x82", b"\xf0\x9f\x98",
     b"a\xff",
     b"\xc3", b"\xe2\x28\xa1", b"\xed\x9f\xbf", b"\xee\x80\x80"],
)  # fmt: skip
def test_utf8_is_what_python_decodes(raw: bytes) -> None:
    try:
        raw.decode()
        wanted = True
    except UnicodeDecodeError:
        wanted = False
    text = held(raw + b"\x80\x80")
    assert is_utf8(text.ctypes.data, 0, len(raw)) == wanted


def test_unescape_gives_what_json_gives() -> None:
    rng = random.Random(2)
    for _ in range(500):
        value = "".join(chr(rng.choice((rng.randrange(128), rng.randrange(0xD800), 0x10000 + rng.randrange(99999)))) for _ in range(rng.randrange(30)))  # fmt: skip # noqa: E501
        raw = json.dumps(value, ensure_ascii=rng.random() < 0.5)[1:-1].encode()
        text = held(raw, room=len(raw))
        length = unescape(text.ctypes.data, 0, len(raw), len(raw))
        assert text[len(raw) : len(raw) + length].tobytes().decode() == value
    for lone in (rb"\ud800", rb"\udc00", rb"\ud800x", rb"\ud800\n", rb"\ud800\ud800", rb"\udbff\u0041"):
        text = held(lone, room=len(lone))
        assert unescape(text.ctypes.data, 0, len(lone), len(lone)) < 0


def test_every_two_letter_country_is_its_three_letters() -> None:
    for two, three in ALPHA3.items():
        text = held(two.encode())
        assert country_hash(text.ctypes.data, 0, 2) == hash_text(three)
    assert len(ALPHA3) == 250


def test_a_decimal_becomes_the_nearest_double() -> None:
    rng = random.Random(3)
    for _ in range(5000):
        mantissa = rng.randrange(10 ** rng.randrange(1, 19))
        exponent = rng.randrange(-22, 5)
        assert decimal_to_double(mantissa, exponent) == float(f"{mantissa}e{exponent}")
    for exponent in (-400, -330, -310, -100, 100, 300, 500):
        got, wanted = decimal_to_double(123456789, exponent), float(f"123456789e{exponent}")
        assert got == pytest.approx(wanted, rel=1e-14)


def test_the_micros_of_a_price_are_the_smallest_that_reach_it() -> None:
    rng = random.Random(4)
    for _ in range(5000):
        price = rng.choice((rng.random(), rng.random() * 1e3, round(rng.random() * 50, 2), rng.random() * 1e9))
        micros = price_micros(price)
        assert micros / 1e6 >= price
        assert (micros - 1) / 1e6 < price
    assert [price_micros(x) for x in (0.0, -1.0, 5e-324, 1e12)] == [0, 0, 1, 10**18]
    assert [price_micros(x) for x in (float("nan"), float("inf"), 1.0001e12)] == [BAD_MONEY] * 3
    assert price_micros(float("-inf")) == 0


def test_degrees_become_millionths() -> None:
    assert [degree_micros(x) for x in (0.0, 52.5200066, -0.0000004, -73.9)] == [0, 52_520_007, 0, -73_900_000]
    assert [degree_micros(x) for x in (float("nan"), 1e9, -361.0)] == [0, 0, 0]


def test_integers_are_truncated_and_clamped() -> None:
    assert clamp_int32(1 << 40) == (1 << 31) - 1
    top = (1 << 31) - 1
    for text, wanted in {
        "0": 0, "7": 7, "-7": -7, "1.9": 1, "-1.9": -1, "12e2": 1200, "125e-2": 1, "1e30": top, "-1e30": -top - 1,
        "0e999999999": 0, "1e-999999999": 0, "99999999999999999999": top, "2147483648": top, "0.0": 0,
    }.items():  # fmt: skip
        body = held(text.encode())
        end, negative, mantissa, exponent = scan_number(body.ctypes.data, 0)
        assert end == len(text)
        assert decimal_to_int(negative, mantissa, exponent) == wanted


@pytest.mark.parametrize("text", ["-", "1.", ".5", "1e", "1e+", "-a", "1.e5", "--1", "+1"])
def test_what_is_no_json_number_is_none(text: str) -> None:
    body = held(text.encode())
    assert scan_number(body.ctypes.data, 0)[0] < 0
