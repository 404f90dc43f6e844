"""Encrypted prices: published vectors, rotation, and what must not be believed."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.padding import PKCS7
from hypothesis import given
from hypothesis import strategies as st
from ledger_world import START_MS, World, simple_plan

from dsp.ledger.notices import RefusedError, read_notice
from dsp.ledger.prices import PriceError, Prices, decode64, ecb_open, gcm_open, google_open, google_seal

# Google's own: the key pair and ciphertexts that its documentation and open-source library test with.
ENCRYPTION = "skU7Ax_NL5pPAFyKdkfZjZz2-VhIN8bjj1rVFOaJ_5o="
INTEGRITY = "arO23ykdNqUQ5LEoQ0FVmPkBd7xB5CO89PDZlSjpFxo="
VECTORS = {
    "YWJjMTIzZGVmNDU2Z2hpN7fhCuPemCce_6msaw": 100,
    "YWJjMTIzZGVmNDU2Z2hpN7fhCuPemCAWJRxOgA": 1900,
    "YWJjMTIzZGVmNDU2Z2hpN7fhCuPemC32prpWWw": 2700,
}
PAIR = {"encryption": ENCRYPTION, "integrity": INTEGRITY}
OTHER = {
    "encryption": base64.urlsafe_b64encode(b"e" * 32).decode(),
    "integrity": base64.urlsafe_b64encode(b"i" * 32).decode(),
}
AES_KEY = base64.urlsafe_b64encode(b"0123456789abcdef").decode()


def keys(path: Path, scheme: str, *each: Any, exchange: int = 1) -> Path:
    file = path / "price.json"
    aside = path / "price.new"
    aside.write_text(json.dumps({exchange: {"scheme": scheme, "keys": each}}))
    aside.replace(file)
    return file


@pytest.mark.parametrize(("text", "micros"), VECTORS.items())
def test_googles_published_prices_open_and_seal(tmp_path: Path, text: str, micros: int) -> None:
    assert Prices(keys(tmp_path, "google", PAIR)).open(1, text, 7) == micros
    assert google_seal(micros, decode64(text)[:16], decode64(ENCRYPTION), decode64(INTEGRITY)) == text


def test_aes_by_the_block_of_fips_197(tmp_path: Path) -> None:
    # FIPS 197, appendix C.1: the library we use is AES, seen through our own decryption's mode.
    key, plain = bytes(range(16)), bytes.fromhex("00112233445566778899aabbccddeeff")
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    assert encryptor.update(plain).hex() == "69c4e0d86a7b0430d8cdb78070b4c55a"
    padder = PKCS7(128).padder()
    text = padder.update(b"2.75") + padder.finalize()
    sealed = Cipher(algorithms.AES(b"0123456789abcdef"), modes.ECB()).encryptor().update(text)
    prices = Prices(keys(tmp_path, "aes-ecb", AES_KEY))
    assert prices.open(1, sealed.hex(), 1) == prices.open(1, base64.urlsafe_b64encode(sealed).decode(), 1) == 2_750_000
    assert ecb_open(sealed, bytes(16)) is None


def test_gcm_opens_its_own_and_nothing_else(tmp_path: Path) -> None:
    key, nonce = decode64(AES_KEY), bytes(12)
    sealed = nonce + AESGCM(key).encrypt(nonce, b"1.5", None)
    assert Prices(keys(tmp_path, "aes-gcm", AES_KEY)).open(1, base64.urlsafe_b64encode(sealed).decode(), 1) == 1_500_000
    assert gcm_open(sealed, bytes(16)) is None
    assert gcm_open(sealed[:-1], key) is None


@given(st.integers(0, 2**63 - 1), st.binary(min_size=16, max_size=16), st.integers(0, 27), st.integers(1, 255))
def test_a_changed_byte_is_another_price_never_this_one(micros: int, iv: bytes, at: int, change: int) -> None:
    pair = decode64(ENCRYPTION), decode64(INTEGRITY)
    raw = bytearray(decode64(google_seal(micros, iv, *pair)))
    assert google_open(bytes(raw), *pair) == micros
    raw[at] ^= change
    assert google_open(bytes(raw), *pair) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("YWJjMTIzZGVmNDU2Z2hpN7fhCuPemCce_6msa", "price_short"),
        ("", "price_short"),
        ("5.25", "price_short"),
        ("!" * 38, "price_short"),
        ("A" * 1000, "price_short"),
        ("YWJjMTIzZGVmNDU2Z2hpN7fhCuPemCce_6msaa", "price_key"),
    ],
)
def test_what_is_cut_or_foreign_is_refused_with_its_reason(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(PriceError) as refused:
        Prices(keys(tmp_path, "google", PAIR)).open(1, text, 1)
    assert refused.value.reason == reason


def test_keys_rotate_without_a_restart(tmp_path: Path) -> None:
    text = next(iter(VECTORS))
    prices = Prices(tmp_path / "price.json")
    assert not prices.encrypted(1)
    for stamp, (pairs, opens) in enumerate([((PAIR,), True), ((OTHER, PAIR), True), ((OTHER,), False)]):
        file = keys(tmp_path, "google", *pairs)
        os.utime(file, ns=(stamp, stamp))
        prices.refresh()
        if opens:
            assert prices.open(1, text, 1) == 100
        else:
            with pytest.raises(PriceError, match="no key"):
                prices.open(1, text, 1)


def test_a_file_that_cannot_be_used_is_named_and_the_keys_stay(tmp_path: Path) -> None:
    prices = Prices(keys(tmp_path, "google", PAIR))
    for stamp, broken in enumerate([("google", "not a pair"), ("aes-ecb", "c2hvcnQ="), ("rot13", "x")]):
        file = keys(tmp_path, *broken)
        os.utime(file, ns=(stamp, stamp))
        with pytest.raises(ValueError, match=r"price\.json"):
            prices.refresh()
        assert prices.open(1, next(iter(VECTORS)), 1) == 100


def test_notices_carry_encrypted_prices_and_a_replayed_one_is_refused(world: World, tmp_path: Path) -> None:
    world.adopt(simple_plan())
    first = world.token()
    second = world.token()
    exchange = read_notice(world.signer, "b", first.decode(), {}, START_MS).ticket.exchange
    prices = Prices(keys(tmp_path, "google", PAIR, exchange=exchange))
    price = google_seal(2_500_000, b"i" * 16, decode64(ENCRYPTION), decode64(INTEGRITY))
    for path in ("n", "b", "b"):  # of one bid, and repeated
        notice = read_notice(world.signer, path, first.decode(), {"p": price}, START_MS, {}, prices)
        assert notice.price_micros == 2_500_000
    for text, reason in [(price, "price_replayed"), (price[:-2], "price_short"), ("1.5", "price_short")]:
        with pytest.raises(RefusedError) as refused:
            read_notice(world.signer, "b", second.decode(), {"p": text}, START_MS, {}, prices)
        assert (refused.value.status, refused.value.reason) == (400, reason)
    unfilled = read_notice(world.signer, "b", second.decode(), {"p": "${AUCTION_PRICE}"}, START_MS, {}, prices)
    assert unfilled.price_micros == -1


def test_where_a_profile_says_that_prices_are_encrypted_a_plain_one_is_not_believed(tmp_path: Path) -> None:
    prices = Prices(tmp_path / "price.json")
    prices.expect({1: "google", 2: "plain"})
    assert (prices.encrypted(1), prices.encrypted(2)) == (True, False)
    with pytest.raises(PriceError, match="come in google: put its keys into") as caught:
        prices.open(1, "2.5", 7)
    assert caught.value.reason == "price_key"
    keys(tmp_path, "aes-ecb", AES_KEY)
    prices.refresh()
    with pytest.raises(PriceError, match="come in google"):  # keys of another scheme than the profile's
        prices.open(1, next(iter(VECTORS)), 7)
    keys(tmp_path, "google", PAIR)
    prices.refresh()
    assert prices.open(1, next(iter(VECTORS)), 7) == 100
