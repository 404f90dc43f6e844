"""Records at rest: unreadable without the key, and readable through a change of keys."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st
from store_conformance import record

from dsp.audience.cipher import FIRST, KEYS_VARIABLE, LAST, CipherError, RecordCipher
from dsp.audience.profile import P_KEY_ID, P_NONCE, PROFILE_BYTES

KEY_1, KEY_2 = bytes(range(32)), bytes(range(32, 64))


def rows(*persons: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    return np.frombuffer(b"".join(record(p) for p in persons), np.uint8).reshape(-1, PROFILE_BYTES).copy()


@settings(deadline=None, max_examples=20)
@given(persons=st.lists(st.integers(1, 2**40), min_size=0, max_size=40))
def test_what_is_sealed_opens_again(persons: list[int]) -> None:
    plain, sealed = rows(*persons), rows(*persons)
    cipher = RecordCipher({1: KEY_1})
    cipher.seal(sealed)
    assert not (sealed[:, FIRST:LAST] == plain[:, FIRST:LAST]).all(axis=1).any()
    RecordCipher({1: KEY_1}).open(sealed)
    assert (sealed == plain).all()


def test_it_is_aes_in_counter_mode() -> None:
    """The library's own counter mode, with our nonce as the counter's upper half, decrypts it."""
    sealed = rows(7)
    RecordCipher({3: KEY_1}).seal(sealed)
    nonce = sealed[0, P_NONCE : P_NONCE + 8].tobytes()
    decryptor = Cipher(algorithms.AES(KEY_1), modes.CTR(nonce + bytes(8))).decryptor()
    assert decryptor.update(sealed[0, FIRST:LAST].tobytes()) == rows(7)[0, FIRST:LAST].tobytes()


def test_the_same_record_never_looks_the_same_twice() -> None:
    cipher = RecordCipher({1: KEY_1})
    seen = set()
    for _ in range(3):
        sealed = rows(*[7] * 50)
        cipher.seal(sealed)
        seen.update(row.tobytes() for row in sealed)
    assert len(seen) == 150


def test_keys_rotate() -> None:
    old = rows(1, 2)
    RecordCipher({1: KEY_1}).seal(old)
    both = RecordCipher({1: KEY_1, 2: KEY_2})
    new = rows(3, 4)
    both.seal(new)
    assert new[:, P_KEY_ID].tolist() == [2, 2]
    mixed = np.concatenate([old, new, rows(5)])
    both.open(mixed)
    assert (mixed == rows(1, 2, 3, 4, 5)).all()


def test_without_the_key_nothing_is_read() -> None:
    sealed = rows(1)
    RecordCipher({1: KEY_1}).seal(sealed)
    before = sealed.copy()
    RecordCipher({2: KEY_2}).open(sealed)
    assert (sealed == before).all()
    RecordCipher({1: KEY_2}).open(sealed)
    assert (sealed[0] != rows(1)[0]).any()


def test_keys_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(KEYS_VARIABLE, raising=False)
    assert RecordCipher.from_environment() is None
    monkeypatch.setenv(KEYS_VARIABLE, f"1:{KEY_1.hex()},2:{KEY_2.hex()}")
    cipher = RecordCipher.from_environment()
    assert cipher is not None
    assert cipher.current == 2
    for text in ("nonsense", "1:abcd", f"0:{KEY_1.hex()}", f"300:{KEY_1.hex()}", f"1:{KEY_1.hex()},"):
        monkeypatch.setenv(KEYS_VARIABLE, text)
        with pytest.raises(CipherError) as caught:
            RecordCipher.from_environment()
        assert KEY_1.hex() not in str(caught.value)
