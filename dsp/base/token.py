"""The signed token that every notice and click URL carries: what a bid was, so that nobody needs to look it up.

``TOKEN`` is a packed record of 86 bytes; a 16-byte MAC follows; base64url makes exactly ``TOKEN_TEXT_BYTES``
characters without padding, so markup templates have fixed lengths. The person key inside is encrypted with a keystream
of its own key and the bid id, so a token identifies nobody to whom it is shown. Keys carry an id (``kid``): the newest
signs, every listed one verifies, so keys rotate without losing notices in flight.

MAC and keystream are SipHash-2-4-128, a keyed PRF for short inputs, because a batch of bids is sealed by one kernel:
0.5 us a token, where BLAKE2b and base64 call by call took 5.6 (medians of one run, 32 tokens with persons).
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

import numba as nb
import numpy as np
import numpy.typing as npt

from dsp.base.siphash import siphash128

U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]

TOKEN = np.dtype(
    [
        ("kid", "u1"),
        ("flags", "u1"),  # TOKEN_*
        ("exchange", "<u2"),  # exchange id
        ("line_item", "<u4"),
        ("creative", "<u4"),
        ("reserve_micros", "<i8"),  # r: the most this impression may be charged, account currency
        ("bid_cpm_micros", "<i8"),  # the price in the bid, bid currency
        ("currency", "S3"),  # the bid's
        ("arm", "u1"),  # experiment arm
        ("fx", "<f8"),  # account currency per unit of bid currency, frozen
        ("period", "<u4"),  # budget period the slice was granted in
        ("bucket", "<u4"),  # reservation bucket within the lease
        ("lease", "<u4"),
        ("epoch", "<u4"),
        ("bid_id", "<u8"),
        ("time_s", "<u4"),  # when it was bid, unix seconds
        ("media", "u1"),
        ("person", "V16"),  # encrypted person key
        ("at", "u1"),
    ]
)
TOKEN_BYTES = 86
assert TOKEN.itemsize == TOKEN_BYTES, TOKEN.itemsize
MAC_BYTES = 16
TOKEN_TEXT_BYTES = (TOKEN_BYTES + MAC_BYTES) * 4 // 3
assert (TOKEN_BYTES + MAC_BYTES) % 3 == 0

TOKEN_TEST = 1  # a test request: no money, no effects
TOKEN_CONSENT = 2  # the person key may be used
TOKEN_PERSONALISED = 4


class TokenError(ValueError):
    """A token that is not ours: wrong length, alphabet, key or MAC."""


_PERSON = int(TOKEN.fields["person"][1]) if TOKEN.fields is not None else 0
_BID_ID = int(TOKEN.fields["bid_id"][1]) if TOKEN.fields is not None else 0
_FLAGS = 1
_ALPHABET = np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", np.uint8)


@nb.njit(cache=True)
def crypt_person(record: U8, key: U64, stream: U8) -> None:
    """XOR the person key of a record with the keystream of its bid id: encrypts, and decrypts again."""
    siphash128(record[_BID_ID : _BID_ID + 8], 8, key, stream)
    for k in range(16):
        record[_PERSON + k] ^= stream[k]


@nb.njit(cache=True)
def seal_records(n: int, records: U8, mac_key: U64, person_key: U64, texts: U8) -> None:
    """Seal ``records`` uint8[n, TOKEN_BYTES] into ``texts`` uint8[n, TOKEN_TEXT_BYTES]; persons are encrypted in place.

    Keys are uint64[2]. Only records flagged TOKEN_CONSENT hold a person.
    """
    stream = np.empty(16, np.uint8)
    raw = np.empty(TOKEN_BYTES + MAC_BYTES, np.uint8)
    for i in range(n):
        if records[i, _FLAGS] & TOKEN_CONSENT:
            crypt_person(records[i], person_key, stream)
        siphash128(records[i], TOKEN_BYTES, mac_key, stream)
        raw[:TOKEN_BYTES] = records[i]
        raw[TOKEN_BYTES:] = stream
        for k in range((TOKEN_BYTES + MAC_BYTES) // 3):
            word = (np.int64(raw[3 * k]) << 16) | (np.int64(raw[3 * k + 1]) << 8) | np.int64(raw[3 * k + 2])
            texts[i, 4 * k] = _ALPHABET[word >> 18]
            texts[i, 4 * k + 1] = _ALPHABET[(word >> 12) & 63]
            texts[i, 4 * k + 2] = _ALPHABET[(word >> 6) & 63]
            texts[i, 4 * k + 3] = _ALPHABET[word & 63]


class Signer:
    """Seals and opens tokens. ``keys`` maps kid (0..255) to secrets of at least 16 bytes; the highest kid signs."""

    def __init__(self, keys: Mapping[int, bytes]) -> None:
        if not keys or any(len(key) < 16 or not 0 <= kid <= 255 for kid, key in keys.items()):
            raise ValueError("signing keys: need at least one, of at least 16 bytes, with an id of 0..255")
        self.kid = max(keys)
        self.sync_secret = blake2b(b"mac", key=keys[self.kid][:64]).digest()
        self._mac = {kid: _subkey(key, b"token mac") for kid, key in keys.items()}
        self._person = {kid: _subkey(key, b"token person") for kid, key in keys.items()}
        self.keys: tuple[U64, U64] = (self._mac[self.kid], self._person[self.kid])  # as `seal_records` takes them

    def seal(self, record: bytes) -> bytes:
        """``record`` (TOKEN_BYTES, its kid already `self.kid`) as base64url text of TOKEN_TEXT_BYTES."""
        text = np.empty((1, TOKEN_TEXT_BYTES), np.uint8)
        seal_records(1, np.frombuffer(record, np.uint8).reshape(1, TOKEN_BYTES).copy(), *self.keys, text)
        return text.tobytes()

    def open(self, text: bytes | str) -> np.void:
        """The record in a token, its person decrypted. Raises `TokenError` on what this product did not seal."""
        raw_text = text.encode("ascii", "replace") if isinstance(text, str) else text
        if len(raw_text) != TOKEN_TEXT_BYTES:
            raise TokenError(f"token has {len(raw_text)} characters, not {TOKEN_TEXT_BYTES}")
        try:
            raw = base64.b64decode(raw_text, b"-_", validate=True)
        except ValueError as error:
            raise TokenError(f"token is not base64url: {error}") from None
        kid = raw[0]
        if kid not in self._mac:
            raise TokenError(f"token signed with unknown key id {kid}")
        record, mac = np.frombuffer(raw, np.uint8, TOKEN_BYTES).copy(), np.empty(16, np.uint8)
        siphash128(record, TOKEN_BYTES, self._mac[kid], mac)
        if not hmac.compare_digest(mac.tobytes(), raw[TOKEN_BYTES:]):
            raise TokenError("token signature does not match")
        if record[_FLAGS] & TOKEN_CONSENT:
            crypt_person(record, self._person[kid], mac)
        return record.view(TOKEN)[0]


def _subkey(secret: bytes, purpose: bytes) -> U64:
    """A key of 16 bytes for one purpose, uint64[2]."""
    return np.frombuffer(blake2b(purpose, key=secret[:64], digest_size=16).digest(), np.uint64)


def load_signer(path: Path) -> Signer:
    """The signer whose keys are in ``path`` (JSON {"kid": hex}); made with a fresh key, mode 0600, when missing."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{secrets.token_hex(4)}")
        temporary.touch(mode=0o600)
        temporary.write_text(json.dumps({"1": secrets.token_hex(32)}))
        try:
            path.hardlink_to(temporary)  # atomic: the first process wins
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    return Signer({int(kid): bytes.fromhex(key) for kid, key in json.loads(path.read_text()).items()})
