"""The signed token that every notice and click URL carries: what a bid was, so that nobody needs to look it up.

``TOKEN`` is a packed record of 86 bytes; 16 bytes of keyed BLAKE2b follow; base64url makes exactly ``TOKEN_TEXT_BYTES``
characters without padding, so markup templates have fixed lengths. The person key inside is encrypted with a keystream
from the same secret and the bid id, so a token identifies nobody to whom it is shown. Keys carry an id (``kid``): the
newest signs, every listed one verifies, so keys rotate without losing notices in flight.
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

import numpy as np

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


class Signer:
    """Seals and opens tokens. ``keys`` maps kid (0..255) to secrets of at least 16 bytes; the highest kid signs."""

    def __init__(self, keys: Mapping[int, bytes]) -> None:
        if not keys or any(len(key) < 16 or not 0 <= kid <= 255 for kid, key in keys.items()):
            raise ValueError("signing keys: need at least one, of at least 16 bytes, with an id of 0..255")
        self.kid = max(keys)
        self._mac = {kid: blake2b(b"mac", key=key[:64]).digest() for kid, key in keys.items()}
        self._stream = {kid: blake2b(b"person", key=key[:64]).digest() for kid, key in keys.items()}
        self._key = self._mac[self.kid]

    @property
    def mac_key(self) -> bytes:
        """The key that seals, for the encoder's inlined copy of `seal`."""
        return self._key

    def seal(self, record: bytes) -> bytes:
        """``record`` (TOKEN_BYTES, its kid already `self.kid`) as base64url text of TOKEN_TEXT_BYTES."""
        return base64.urlsafe_b64encode(record + blake2b(record, key=self._key, digest_size=MAC_BYTES).digest())

    def open(self, text: bytes | str) -> np.void:
        """The record in a token. Raises `TokenError` on anything that this product did not seal."""
        raw_text = text.encode("ascii", "replace") if isinstance(text, str) else text
        if len(raw_text) != TOKEN_TEXT_BYTES:
            raise TokenError(f"token has {len(raw_text)} characters, not {TOKEN_TEXT_BYTES}")
        try:
            raw = base64.b64decode(raw_text, b"-_", validate=True)
        except ValueError as error:
            raise TokenError(f"token is not base64url: {error}") from None
        record, mac = raw[:TOKEN_BYTES], raw[TOKEN_BYTES:]
        key = self._mac.get(record[0])
        if key is None:
            raise TokenError(f"token signed with unknown key id {record[0]}")
        if not hmac.compare_digest(blake2b(record, key=key, digest_size=MAC_BYTES).digest(), mac):
            raise TokenError("token signature does not match")
        return np.frombuffer(record, TOKEN)[0]

    def person_stream(self, bid_id: int, kid: int | None = None) -> bytes:
        """16 bytes to XOR a person key with, unique to this bid; the same call encrypts and decrypts."""
        key = self._stream[self.kid if kid is None else kid]
        return blake2b(bid_id.to_bytes(8, "little"), key=key, digest_size=16).digest()


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
