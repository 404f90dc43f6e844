"""Prices that exchanges encrypt: from the text in a notice to CPM micros, or a refusal that says why.

    google   16 bytes IV, 8 bytes price XOR HMAC-SHA1(encryption key, IV), 4 bytes HMAC-SHA1(integrity key, price IV),
             base64url without padding; the price is CPM micros, big endian (Google's real-time bidding documentation,
             "Decrypt price confirmations")
    aes-gcm  12 bytes nonce, a decimal CPM, 16 bytes tag; base64url
    aes-ecb  a decimal CPM with PKCS 7 padding, base64url or hexadecimal: what some exchanges still use. It proves
             nothing about who wrote it; the bound on a price (`notices.ABSURD_TIMES_BID`) is all that limits it

Keys are in ``secrets/price.json``, {exchange id: {"scheme", "keys": [..]}}, the newest first; every listed key opens,
so they rotate without a restart: the file is read again when it changes. A key is base64url text, for google a pair
{"encryption", "integrity"}. One IV or nonce belongs to one bid: seen again with another, it is a replay.
"""

from __future__ import annotations

import base64
import hmac
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.padding import PKCS7

from dsp.base.money import parse_micros

GOOGLE_BYTES = 28
SEEN = 1 << 17  # IVs remembered, the oldest forgotten first; a notice itself is booked once in any case
TEXT_MAX = 200


class PriceError(ValueError):
    """A price that can't be believed; ``reason`` is its counter: price_short, price_key or price_replayed."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Pair(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Google's two keys, base64url."""

    encryption: str
    integrity: str


class Scheme(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one exchange encrypts."""

    scheme: Literal["google", "aes-gcm", "aes-ecb"]
    keys: list[Pair | str]


def decode64(text: str) -> bytes:
    """Base64url, padded or not. Raises ValueError."""
    return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)


def google_open(raw: bytes, encryption: bytes, integrity: bytes) -> int | None:
    """CPM micros, None with other keys."""
    iv, hidden, signature = raw[:16], raw[16:24], raw[24:]
    pad = hmac.digest(encryption, iv, "sha1")
    price = bytes(a ^ b for a, b in zip(hidden, pad, strict=False))
    if not hmac.compare_digest(hmac.digest(integrity, price + iv, "sha1")[:4], signature):
        return None
    return int.from_bytes(price, "big")


def google_seal(micros: int, iv: bytes, encryption: bytes, integrity: bytes) -> str:
    """What the exchange does; for tests, the certifier and the market."""
    price = micros.to_bytes(8, "big")
    hidden = bytes(a ^ b for a, b in zip(price, hmac.digest(encryption, iv, "sha1"), strict=False))
    signature = hmac.digest(integrity, price + iv, "sha1")[:4]
    return base64.urlsafe_b64encode(iv + hidden + signature).decode().rstrip("=")


def gcm_open(raw: bytes, key: bytes) -> int | None:
    """CPM micros, None with another key."""
    try:
        return parse_micros(AESGCM(key).decrypt(raw[:12], raw[12:], None).decode("ascii"))
    except (InvalidTag, ValueError):
        return None


def ecb_open(raw: bytes, key: bytes) -> int | None:
    """CPM micros, None where what comes out is no decimal."""
    decryptor = Cipher(algorithms.AES(key), modes.ECB()).decryptor()
    unpad = PKCS7(128).unpadder()
    try:
        return parse_micros((unpad.update(decryptor.update(raw)) + unpad.finalize()).decode("ascii"))
    except ValueError:
        return None


class Prices:
    """The keys of all exchanges, and the IVs seen. One thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = -1
        self._expected: dict[int, str] = {}
        self._schemes: dict[int, tuple[str, list[tuple[bytes, ...]]]] = {}
        self._seen: OrderedDict[bytes, int] = OrderedDict()
        self.refresh()

    def refresh(self) -> None:
        """Read the file again if it changed. Raises ValueError (keys stay as they were) where it can't be used."""
        try:
            stamp = self._path.stat().st_mtime_ns
        except FileNotFoundError:
            self._schemes, self._stamp = {}, -1
            return
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            given = msgspec.json.decode(self._path.read_bytes(), type=dict[int, Scheme])
            self._schemes = {exchange: (each.scheme, [_key(each.scheme, k) for k in each.keys])
                             for exchange, each in given.items()}  # fmt: skip
        except (ValueError, OSError) as error:
            raise ValueError(f"{self._path}: {error}") from error

    def expect(self, schemes: Mapping[int, str]) -> None:
        """Hear how exchanges' profiles say that prices come ("plain" or a scheme), by exchange id."""
        self._expected = {exchange: scheme for exchange, scheme in schemes.items() if scheme != "plain"}

    def encrypted(self, exchange: int) -> bool:
        """Whether this exchange's prices are: by its keys, or by its profile, for which keys may be missing."""
        return exchange in self._schemes or exchange in self._expected

    def open(self, exchange: int, text: str, bid: int) -> int:
        """The CPM micros in ``text``, of the bid with this id. Raises `PriceError`."""
        scheme, keys = self._schemes.get(exchange, ("", []))
        if not keys or self._expected.get(exchange, scheme) != scheme:
            wanted = self._expected.get(exchange, scheme)
            raise PriceError(
                "price_key", f"this exchange's prices come in {wanted}: put its keys into {self._path.name}"
            )
        raw = _raw(scheme, text)
        least, exact = {"google": (GOOGLE_BYTES, GOOGLE_BYTES), "aes-gcm": (29, 0), "aes-ecb": (16, 0)}[scheme]
        if len(raw) < least or (exact and len(raw) != exact) or (scheme == "aes-ecb" and len(raw) % 16):
            raise PriceError("price_short", f"the encrypted price has {len(raw)} bytes: not whole")
        for key in keys:
            if scheme == "google":
                price = google_open(raw, *key)
            else:
                price = gcm_open(raw, *key) if scheme == "aes-gcm" else ecb_open(raw, *key)
            if price is not None:
                if scheme != "aes-ecb":
                    self._once(raw[:16] if scheme == "google" else raw[:12], bid)
                return price
        raise PriceError("price_key", "no key of this exchange opens the price; see secrets/price.json")

    def _once(self, iv: bytes, bid: int) -> None:
        before = self._seen.setdefault(iv, bid)
        if before != bid:
            raise PriceError("price_replayed", "this encrypted price came with another bid before")
        if len(self._seen) > SEEN:
            self._seen.popitem(last=False)


def _key(scheme: str, key: Pair | str) -> tuple[bytes, ...]:
    if scheme == "google":
        if not isinstance(key, Pair):
            raise ValueError("google's keys come in pairs: encryption, integrity")
        return decode64(key.encryption), decode64(key.integrity)
    if isinstance(key, Pair) or len(decode64(key)) not in (16, 24, 32):
        raise ValueError(f"a key of {scheme} is 16, 24 or 32 bytes as base64url text")
    return (decode64(key),)


def _raw(scheme: str, text: str) -> bytes:
    try:
        if len(text) > TEXT_MAX:
            raise ValueError
        if scheme == "aes-ecb" and len(text) % 32 == 0 and all(c in "0123456789abcdefABCDEF" for c in text):
            return bytes.fromhex(text)
        return decode64(text)
    except ValueError:
        raise PriceError("price_short", "the encrypted price is not base64url text") from None
