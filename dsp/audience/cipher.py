"""Encryption of profile records at rest: AES-256 in counter mode, by keys from the environment that rotate.

``DSP_PROFILE_KEYS`` is "id:hex,id:hex", ids 1 to 255, each key of 64 hex digits; the highest id encrypts, every listed
one decrypts, so a key is replaced by adding a new one, rewriting the records (`dsp audience rotate`) and dropping the
old one. Off (no variable) where the volume itself is encrypted. Encrypted is everything but the version byte and what
follows ``key_id``; nonces are unique to a record and its writing: 64 bits from a random start, counted up.

One AES call makes the keystream of a whole batch, so a read of 32 records pays it once. It hides, it does not sign:
who can write the file can destroy profiles, encrypted or not, and damage reads as nobody known.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping

import numba as nb
import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from dsp.audience.profile import P_KEY_ID, P_NONCE, P_VERSION, PROFILE_BYTES

U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]

KEYS_VARIABLE = "DSP_PROFILE_KEYS"
ENCRYPTED = 0x80  # in the version byte
KEY_BYTES = 32
BLOCK = 16
FIRST, LAST = P_VERSION + 1, P_KEY_ID  # what is encrypted
BLOCKS = -(-(LAST - FIRST) // BLOCK)


class CipherError(ValueError):
    """Keys that can't be used; the message says why, never what they are."""


class RecordCipher:
    """Encrypts and decrypts rows of uint8[n, PROFILE_BYTES] in place. One per thread."""

    def __init__(self, keys: Mapping[int, bytes]) -> None:
        """``keys``: key id to 32 bytes. Raises `CipherError`."""
        if not keys or any(not 1 <= kid <= 255 or len(key) != KEY_BYTES for kid, key in keys.items()):
            raise CipherError(f"{KEYS_VARIABLE}: need keys of {2 * KEY_BYTES} hex digits with ids of 1 to 255")
        self.current = max(keys)
        self._streams = {
            kid: Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # of counter blocks: counter mode
            for kid, key in keys.items()
        }
        self._next = secrets.randbits(64)

    @classmethod
    def from_environment(cls) -> RecordCipher | None:
        """The cipher that the environment asks for, None where it asks for none. Raises `CipherError`."""
        text = os.environ.get(KEYS_VARIABLE, "").strip()
        if not text:
            return None
        try:
            pairs = [part.split(":") for part in text.split(",")]
            keys = {int(kid): bytes.fromhex(key) for kid, key in pairs}
        except ValueError:
            raise CipherError(f"{KEYS_VARIABLE}: expected id:hex,id:hex") from None
        return cls(keys)

    def seal(self, records: U8) -> None:
        """Encrypt plain ``records`` with the current key."""
        n = len(records)
        nonces = (np.arange(n, dtype=np.uint64) + np.uint64(self._next & 0xFFFFFFFFFFFFFFFF)).astype("<u8")
        self._next += n
        records[:, P_NONCE : P_NONCE + 8] = nonces.view(np.uint8).reshape(n, 8)
        records[:, P_KEY_ID] = self.current
        self._apply(self.current, records, np.arange(n))
        records[:, P_VERSION] |= ENCRYPTED

    def open(self, records: U8) -> None:
        """Decrypt those of ``records`` that are encrypted; of a key we don't have they stay as they are (corrupt)."""
        sealed = records[:, P_VERSION] >= ENCRYPTED
        if not sealed.any():
            return
        for kid in np.unique(records[sealed, P_KEY_ID]).tolist():
            if kid in self._streams:
                rows = np.flatnonzero(sealed & (records[:, P_KEY_ID] == kid))
                self._apply(kid, records, rows)
                records[rows, P_VERSION] &= ENCRYPTED - 1
                records[rows, P_KEY_ID] = 0
                records[rows, P_NONCE : P_NONCE + 8] = 0

    def _apply(self, kid: int, records: U8, rows: npt.NDArray[np.intp]) -> None:
        """XOR the keystream of ``rows`` onto them."""
        if not len(rows):
            return
        blocks = np.empty((len(rows), BLOCKS, BLOCK), np.uint8)
        counter_blocks(records, rows, blocks)
        stream = np.frombuffer(self._streams[kid].update(blocks.data.cast("B")), np.uint8).reshape(len(rows), -1)
        xor_rows(records, rows, stream)


@nb.njit(cache=True, nogil=True)
def counter_blocks(records: U8, rows: npt.NDArray[np.intp], out: U8) -> None:
    """Counter blocks of AES-CTR: the record's nonce, then the block's number. ``out`` uint8[rows, BLOCKS, BLOCK]."""
    for i in range(rows.shape[0]):
        for b in range(out.shape[1]):
            for k in range(8):
                out[i, b, k] = records[rows[i], P_NONCE + k]
                out[i, b, 8 + k] = np.uint8(0)
            out[i, b, BLOCK - 1] = np.uint8(b)


@nb.njit(cache=True, nogil=True)
def xor_rows(records: U8, rows: npt.NDArray[np.intp], stream: U8) -> None:
    """XOR ``stream`` uint8[m, >= LAST - FIRST] onto the encrypted part of ``rows``."""
    for i in range(rows.shape[0]):
        for k in range(LAST - FIRST):
            records[rows[i], FIRST + k] ^= stream[i, k]


assert P_NONCE + 8 <= PROFILE_BYTES
