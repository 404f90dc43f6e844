"""Who is this: peppered 16-byte keys of the identifiers in a request, in the order in which they are trusted.

An identifier is hashed where it enters and never kept: key = SipHash-2-4-128(pepper, kind || scope || id). ``scope``
keeps apart ids that mean something only to one issuer: the exchange's stable number for buyer uids and user ids, the
source's hash for EIDs, 0 otherwise. Ids that are hexadecimal (ifa and the MD5/SHA1 ones) are folded to lower case,
because sellers disagree about it. Ids that stand for nobody (all zeros, "unknown", the MD5 of nothing) are refused:
profiles joined on them would be a crowd's.

`identity_keys` is the kernel for a batch; `identity_key` and `identity_key_many` are its twins for loaders. Nothing is
hashed of a request whose consent bits don't allow it. Invariant: same id, kind, scope and pepper, same key, both ways.

The kernel reads the request table by column numbers that the caller resolves from the names in ``IDENTITY_COLUMNS``,
so that this package stays below the wire's.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import md5, sha1
from pathlib import Path

import numba as nb
import numpy as np
import numpy.typing as npt

from dsp.audience.store import KEY_BYTES, MAX_KEYS
from dsp.base.siphash import siphash128

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]

# Kinds, part of the hashed message: numbers are for ever. Priority is the order of IDENTITY_COLUMNS, not of these.
KIND_BUYERUID = 1  # scope: exchange
KIND_IFA = 2
KIND_DPIDMD5 = 3
KIND_DIDMD5 = 4
KIND_DPIDSHA1 = 5
KIND_DIDSHA1 = 6
KIND_EID = 7  # scope: hash of the source
KIND_USER_ID = 8  # scope: exchange
KIND_MACMD5 = 9
KINDS = ("", "buyeruid", "ifa", "dpidmd5", "didmd5", "dpidsha1", "didsha1", "eid", "user_id", "macmd5")

MAX_ID_BYTES = 256  # longer ones are refused: nobody's, and a bound on the work
HEADER_BYTES = 9  # kind, scope
EID_STRIDE = 3  # source hash, offset, length: one EID in the pool (openrtb's EID_WIDTH; a test compares)

# Names of openrtb's REQUEST_COLUMNS, in match priority after the exchange; each length follows its offset.
IDENTITY_COLUMNS = (
    "EXCHANGE", "BUYERUID_OFF", "IFA_OFF", "DPIDMD5_OFF", "DIDMD5_OFF", "DPIDSHA1_OFF", "DIDSHA1_OFF", "EIDS0",
    "USER_ID_OFF",
)  # fmt: skip
_COLUMN_KINDS = np.array(
    [0, KIND_BUYERUID, KIND_IFA, KIND_DPIDMD5, KIND_DIDMD5, KIND_DPIDSHA1, KIND_DIDSHA1, KIND_EID, KIND_USER_ID],
    np.int64,
)

# Texts that sellers send for "nobody"; each is refused plain, as MD5 and as SHA1. All zeros and dashes always are.
NOBODY = ("", "0", "unknown", "undefined", "null", "none", "nil", "n/a", "na", "000000000000000",
          "00000000-0000-0000-0000-000000000000", "02:00:00:00:00:00", "9774d56d682e549c")  # fmt: skip


def _nobody_table() -> tuple[U8, I64]:
    """The refused texts, lower-cased, as uint8[m, 40] and their lengths int64[m]."""
    texts = sorted({form for text in NOBODY for form in _forms(text)} - {""})
    table = np.zeros((len(texts), 40), np.uint8)
    for i, text in enumerate(texts):
        table[i, : len(text)] = np.frombuffer(text.encode(), np.uint8)
    return table, np.array([len(text) for text in texts], np.int64)


def _forms(text: str) -> tuple[str, ...]:
    """A text and its digests; of upper case too where there are letters (both are seen)."""
    raws = {text.encode(), text.upper().encode()}
    digests = tuple(f(raw, usedforsecurity=False).hexdigest() for raw in raws for f in (md5, sha1))
    return text, *digests


_NOBODY, _NOBODY_LEN = _nobody_table()


@nb.njit(cache=True, nogil=True)
def _fold(c: np.uint8) -> np.uint8:
    if np.uint8(65) <= c <= np.uint8(90):
        return np.uint8(c + np.uint8(32))
    return c


@nb.njit(cache=True, nogil=True)
def refused(text: U8, off: int, length: int) -> bool:
    """Whether ``text[off:off+length]`` is no one's identifier: empty, too long, all zeros, or in NOBODY."""
    if length <= 0 or length > MAX_ID_BYTES:
        return True
    zeros = True
    for i in range(off, off + length):
        if text[i] != np.uint8(48) and text[i] != np.uint8(45):
            zeros = False
            break
    if zeros:
        return True
    for row in range(_NOBODY_LEN.shape[0]):
        if _NOBODY_LEN[row] != length:
            continue
        same = True
        for j in range(length):
            if _fold(text[off + j]) != _NOBODY[row, j]:
                same = False
                break
        if same:
            return True
    return False


@nb.njit(cache=True, nogil=True)
def put_key(kind: int, scope: int, text: U8, off: int, length: int, pepper: U64, scratch: U8, out: U8) -> None:
    """Write the key of one accepted identifier to ``out`` uint8[16]."""
    scratch[0] = np.uint8(kind)
    for j in range(8):
        scratch[1 + j] = np.uint8((scope >> (8 * j)) & 0xFF)
    folded = KIND_IFA <= kind <= KIND_DIDSHA1 or kind == KIND_MACMD5
    for j in range(length):
        c = text[off + j]
        scratch[HEADER_BYTES + j] = _fold(c) if folded else c
    siphash128(scratch, HEADER_BYTES + length, pepper, out)


@nb.njit(cache=True, nogil=True)
def identity_keys(
    req: I64,
    text: U8,
    pool: I64,
    n: int,
    columns: I64,
    scopes: I64,
    pepper: U64,
    bits: I64,
    mask: int,
    out_keys: U8,
    wanted: I64,
) -> None:
    """Fill the first up to K keys of each of ``n`` requests, by match priority.

    ``req``/``text``/``pool`` are a decoded batch. ``columns`` is `column_numbers(IDENTITY_COLUMNS, ..)`; ``scopes``
    int64[X] gives each exchange index its stable number; ``pepper`` uint64[2]. Request i is hashed only where
    ``bits[i] & mask``. ``out_keys`` uint8[n*K, 16] and ``wanted`` int64[n*K] are overwritten; unwanted keys are zeroed.
    """
    scratch = np.empty(HEADER_BYTES + MAX_ID_BYTES, np.uint8)
    for i in range(n):
        first = i * MAX_KEYS
        count = 0
        if bits[i] & mask:
            exchange = req[i, columns[0]]
            for c in range(1, columns.shape[0]):
                kind = _COLUMN_KINDS[c]
                start = req[i, columns[c]]
                size = req[i, columns[c] + 1]
                entries = 1
                if kind == KIND_EID:
                    entries = size
                for entry in range(entries):
                    if count == MAX_KEYS:
                        break
                    scope, off, length = np.int64(0), start, size
                    if kind == KIND_EID:
                        at = start + entry * EID_STRIDE
                        scope, off, length = pool[at], pool[at + 1], pool[at + 2]
                    elif kind in (KIND_BUYERUID, KIND_USER_ID):
                        if exchange < 0 or exchange >= scopes.shape[0]:
                            continue
                        scope = scopes[exchange]
                    if not refused(text, off, length):
                        put_key(kind, scope, text, off, length, pepper, scratch, out_keys[first + count])
                        wanted[first + count] = 1
                        count += 1
        for k in range(count, MAX_KEYS):
            wanted[first + k] = 0
            out_keys[first + k] = np.uint8(0)


@nb.njit(cache=True, nogil=True)
def _keys_of_texts(kind: int, scope: int, text: U8, starts: I64, pepper: U64, out: U8) -> None:
    """The keys of ``text[starts[j]:starts[j+1]]``; refused ones stay zero."""
    scratch = np.empty(HEADER_BYTES + MAX_ID_BYTES, np.uint8)
    for j in range(starts.shape[0] - 1):
        off, length = starts[j], starts[j + 1] - starts[j]
        if refused(text, off, length):
            out[j] = np.uint8(0)
        else:
            put_key(kind, scope, text, off, length, pepper, scratch, out[j])


def identity_keys_packed(kind: int, text: U8, starts: I64, pepper: U64, exchange: int = 0) -> U8:
    """Keys uint8[n, 16] of ``text[starts[j]:starts[j+1]]``, ``starts`` int64[n + 1]; see `identity_key_many`."""
    out = np.zeros((len(starts) - 1, KEY_BYTES), np.uint8)
    _keys_of_texts(kind, np.int64(exchange), text, starts, pepper, out)
    return out


def identity_key_many(kind: int, texts: Sequence[str | bytes], pepper: U64, exchange: int = 0) -> U8:
    """Keys uint8[len(texts), 16] of identifiers of one kind; all zero where an identifier is refused.

    ``exchange`` is the scope: the exchange's stable number (buyeruid, user_id), the source's hash (eid), else 0.
    """
    raws = [text.encode() if isinstance(text, str) else text for text in texts]
    starts = np.zeros(len(raws) + 1, np.int64)
    np.cumsum([len(raw) for raw in raws], out=starts[1:])
    return identity_keys_packed(kind, np.frombuffer(b"".join(raws) or b"\0", np.uint8), starts, pepper, exchange)


def identity_key(kind: int, text: str | bytes, pepper: U64, exchange: int = 0) -> bytes:
    """The key of one identifier, b"" where it is refused; see `identity_key_many`."""
    key = identity_key_many(kind, [text], pepper, exchange)[0].tobytes()
    return key if any(key) else b""


def column_numbers(names: Sequence[str], columns: Sequence[str]) -> I64:
    """The positions int64[len(names)] of ``names`` in ``columns`` (openrtb's REQUEST_COLUMNS)."""
    return np.array([columns.index(name) for name in names], np.int64)


@dataclass(frozen=True)
class Peppers:
    """The secret peppers by key id: the highest makes keys, the others still find profiles loaded before a rotation."""

    keys: Mapping[int, U64]

    @property
    def current(self) -> U64:
        """The pepper of the highest key id, uint64[2]."""
        return self.keys[max(self.keys)]

    @property
    def last(self) -> U64 | None:
        """The pepper before the current one, while both are valid."""
        older = sorted(self.keys)[:-1]
        return self.keys[older[-1]] if older else None


def load_peppers(path: Path) -> Peppers:
    """The peppers in ``path`` (JSON {"kid": 32 hex digits}); made fresh, mode 0600, when missing. Raises ValueError."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{secrets.token_hex(4)}")
        temporary.touch(mode=0o600)
        temporary.write_text(json.dumps({"1": secrets.token_hex(16)}))
        try:
            path.hardlink_to(temporary)  # atomic: the first process wins
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    keys = {int(kid): bytes.fromhex(key) for kid, key in json.loads(path.read_text()).items()}
    if not keys or any(len(key) != 16 for key in keys.values()):
        raise ValueError(f"{path}: need at least one pepper, each of 32 hex digits")
    return Peppers({kid: np.frombuffer(key, "<u8").astype(np.uint64) for kid, key in keys.items()})


def load_pepper(path: Path) -> U64:
    """The pepper that makes keys now, uint64[2]; see `load_peppers`."""
    return load_peppers(path).current
