"""SipHash-2-4-128 against the authors' vectors and a plain Python rendering of the paper."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dsp.base.siphash import siphash128

MASK = (1 << 64) - 1
# github.com/veorq/SipHash vectors.h, vectors_sip128: key 00..0f, message i = bytes 00..i-1
VECTORS = (Path(__file__).parent / "siphash128_vectors.txt").read_text().split()


def siphash128_reference(message: bytes, key: bytes) -> bytes:
    """The paper's algorithm on Python integers, with the reference code's 128-bit finalisation."""
    k0, k1 = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
    v = [
        k0 ^ 0x736F6D6570736575,
        k1 ^ 0x646F72616E646F6D ^ 0xEE,
        k0 ^ 0x6C7967656E657261,
        k1 ^ 0x7465646279746573,
    ]

    def rotl(x: int, b: int) -> int:
        return (x << b | x >> 64 - b) & MASK

    def rounds(n: int) -> None:
        for _ in range(n):
            v[0] = v[0] + v[1] & MASK
            v[2] = v[2] + v[3] & MASK
            v[1] = rotl(v[1], 13) ^ v[0]
            v[3] = rotl(v[3], 16) ^ v[2]
            v[0] = rotl(v[0], 32)
            v[2] = v[2] + v[1] & MASK
            v[0] = v[0] + v[3] & MASK
            v[1] = rotl(v[1], 17) ^ v[2]
            v[3] = rotl(v[3], 21) ^ v[0]
            v[2] = rotl(v[2], 32)

    padded = message + bytes(7 - len(message) % 8) + bytes([len(message) & 255])
    for at in range(0, len(padded), 8):
        m = int.from_bytes(padded[at : at + 8], "little")
        v[3] ^= m
        rounds(2)
        v[0] ^= m
    v[2] ^= 0xEE
    rounds(4)
    first = v[0] ^ v[1] ^ v[2] ^ v[3]
    v[1] ^= 0xDD
    rounds(4)
    second = v[0] ^ v[1] ^ v[2] ^ v[3]
    return first.to_bytes(8, "little") + second.to_bytes(8, "little")


def hashed(message: bytes, key: bytes) -> bytes:
    out = np.zeros(16, np.uint8)
    text = np.frombuffer(message + b"\0", np.uint8)
    siphash128(text, len(message), np.frombuffer(key, "<u8").astype(np.uint64), out)
    return out.tobytes()


def test_reference_vectors() -> None:
    assert len(VECTORS) == 64
    key = bytes(range(16))
    for length, vector in enumerate(VECTORS):
        assert hashed(bytes(range(length)), key).hex() == vector
        assert siphash128_reference(bytes(range(length)), key).hex() == vector


@given(st.binary(max_size=300), st.binary(min_size=16, max_size=16))
def test_any_message_and_key_agree_with_the_paper(message: bytes, key: bytes) -> None:
    assert hashed(message, key) == siphash128_reference(message, key)
