"""Identity keys: who gets one, in which order, and that the kernel and its twins agree."""

import json
import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from request_rows import Requests
from test_siphash import siphash128_reference

from dsp.audience.identity import (
    EID_STRIDE,
    IDENTITY_COLUMNS,
    KIND_BUYERUID,
    KIND_DIDMD5,
    KIND_DIDSHA1,
    KIND_DPIDMD5,
    KIND_DPIDSHA1,
    KIND_EID,
    KIND_IFA,
    KIND_MACMD5,
    KIND_USER_ID,
    KINDS,
    MAX_ID_BYTES,
    column_numbers,
    identity_key,
    identity_key_many,
    identity_keys,
    load_pepper,
    load_peppers,
)
from dsp.audience.store import MAX_KEYS
from dsp.openrtb.columns import EID_WIDTH, REQUEST_COLUMNS
from dsp.openrtb.hashing import hash_text

PEPPER_BYTES = bytes(range(16))
PEPPER = np.frombuffer(PEPPER_BYTES, "<u8").astype(np.uint64)
SCOPES = np.array([501, 502], np.int64)  # stable numbers of exchanges 0 and 1
IFA = "38400000-8CF0-11BD-B23E-10B96E40000D"
MD5 = "0123456789ABCDEF0123456789ABCDEF"
JOIN = 1


def keys_of(requests: Requests, bits: list[int] | None = None) -> list[list[bytes]]:
    """The wanted keys of every request."""
    n = requests.n
    keys = np.full((n * MAX_KEYS, 16), 7, np.uint8)
    wanted = np.full(n * MAX_KEYS, 7, np.int64)
    allowed = np.array(bits if bits is not None else [JOIN] * n, np.int64)
    batch = requests.batch
    columns = column_numbers(IDENTITY_COLUMNS, REQUEST_COLUMNS)
    identity_keys(batch.req, batch.text, batch.pool, n, columns, SCOPES, PEPPER, allowed, JOIN, keys, wanted)
    assert set(wanted.tolist()) <= {0, 1}
    assert not keys[wanted == 0].any()
    return [[keys[k].tobytes() for k in range(i * MAX_KEYS, (i + 1) * MAX_KEYS) if wanted[k]] for i in range(n)]


def one(**values: object) -> list[bytes]:
    requests = Requests()
    requests.add(**values)
    return keys_of(requests)[0]


def test_match_priority() -> None:
    everything = {
        "BUYERUID": "buyer", "IFA": IFA, "DPIDMD5": MD5, "DIDMD5": MD5[::-1], "DPIDSHA1": "ab" * 20,
        "DIDSHA1": "cd" * 20, "EIDS": [("uidapi.com", "e1")], "USER_ID": "u",
    }  # fmt: skip
    expected = [
        identity_key(KIND_BUYERUID, "buyer", PEPPER, 501),
        identity_key(KIND_IFA, IFA, PEPPER),
        identity_key(KIND_DPIDMD5, MD5, PEPPER),
        identity_key(KIND_DIDMD5, MD5[::-1], PEPPER),
        identity_key(KIND_DPIDSHA1, "ab" * 20, PEPPER),
        identity_key(KIND_DIDSHA1, "cd" * 20, PEPPER),
        identity_key(KIND_EID, "e1", PEPPER, hash_text("uidapi.com")),
        identity_key(KIND_USER_ID, "u", PEPPER, 501),
    ]
    assert len(set(expected)) == len(expected)
    for dropped in range(len(everything)):
        kept = dict(list(everything.items())[dropped:])
        assert one(**kept) == expected[dropped : dropped + MAX_KEYS]


def test_nothing_is_hashed_without_permission() -> None:
    requests = Requests()
    requests.add(IFA=IFA)
    requests.add(IFA=IFA)
    denied, allowed = keys_of(requests, [2, 3])
    assert denied == []
    assert len(allowed) == 1


def test_hexadecimal_ids_match_without_case_and_others_with_it() -> None:
    assert one(IFA=IFA) == one(IFA=IFA.lower())
    assert one(DIDMD5=MD5) == one(DIDMD5=MD5.lower())
    assert one(BUYERUID="Ab") != one(BUYERUID="ab")
    assert one(USER_ID="Ab") != one(USER_ID="ab")


def test_an_id_of_one_exchange_or_source_is_not_anothers() -> None:
    assert one(BUYERUID="x", EXCHANGE=0) != one(BUYERUID="x", EXCHANGE=1)
    assert one(USER_ID="x", EXCHANGE=0) != one(USER_ID="x", EXCHANGE=1)
    assert one(IFA=IFA, EXCHANGE=0) == one(IFA=IFA, EXCHANGE=1)
    assert one(EIDS=[("a.com", "x")]) != one(EIDS=[("b.com", "x")])
    assert one(EIDS=[("a.com", "x"), ("b.com", "x")]) == one(EIDS=[("a.com", "x")]) + one(EIDS=[("b.com", "x")])


@pytest.mark.parametrize("exchange", [-1, 2, 99])
def test_an_unknown_exchange_gives_no_scoped_key(exchange: int) -> None:
    assert one(BUYERUID="x", USER_ID="y", EXCHANGE=exchange) == []


@pytest.mark.parametrize(
    "nobody",
    [
        "", "0", "-", "00000000-0000-0000-0000-000000000000", "000000000000000", "unknown", "NULL", "None",
        "d41d8cd98f00b204e9800998ecf8427e",  # MD5 of nothing
        "D41D8CD98F00B204E9800998ECF8427E",
        "9f89c84a559f573636a47ff8daed0d33",  # MD5 of the all-zero ifa
        "da39a3ee5e6b4b0d3255bfef95601890afd80709",  # SHA1 of nothing
        "x" * (MAX_ID_BYTES + 1),
    ],
)  # fmt: skip
def test_ids_that_stand_for_nobody_are_refused(nobody: str) -> None:
    assert one(IFA=nobody, DIDMD5=nobody, BUYERUID=nobody, USER_ID=nobody, EIDS=[("a.com", nobody)]) == []
    assert identity_key(KIND_IFA, nobody, PEPPER) == b""


def test_a_refused_id_leaves_its_place_to_the_next() -> None:
    assert one(IFA="0", DIDMD5=MD5) == [identity_key(KIND_DIDMD5, MD5, PEPPER)]


def test_the_longest_accepted_id() -> None:
    assert len(one(BUYERUID="y" * MAX_ID_BYTES)) == 1


@given(
    st.sampled_from(range(1, len(KINDS))),
    st.binary(min_size=1, max_size=MAX_ID_BYTES).filter(lambda raw: raw.strip(b"0-")),
    st.integers(-(2**63), 2**63 - 1),
)
def test_keys_are_the_keyed_hash_of_kind_scope_and_id(kind: int, raw: bytes, scope: int) -> None:
    key = identity_key(kind, raw, PEPPER, scope)
    folded = raw.lower() if KIND_IFA <= kind <= KIND_DIDSHA1 or kind == KIND_MACMD5 else raw
    message = bytes([kind]) + (scope % 2**64).to_bytes(8, "little") + folded
    assert key in (siphash128_reference(message, PEPPER_BYTES), b"")
    assert key or raw.lower() in (b"unknown", b"undefined", b"null", b"none", b"nil", b"n/a", b"na")


def test_many_keys_are_one_by_one_keys() -> None:
    texts = [IFA, "0", "abc", b"\xff", ""]
    many = identity_key_many(KIND_IFA, texts, PEPPER)
    for text, key in zip(texts, many, strict=True):
        assert key.tobytes().strip(b"\0") == identity_key(KIND_IFA, text, PEPPER).strip(b"\0")


def test_another_pepper_gives_another_key() -> None:
    other = PEPPER ^ np.uint64(1)
    assert identity_key(KIND_IFA, IFA, PEPPER) != identity_key(KIND_IFA, IFA, other)


def test_columns_are_those_of_the_decoder() -> None:
    assert EID_STRIDE == EID_WIDTH
    for name in IDENTITY_COLUMNS[1:]:
        length = "EIDSN" if name == "EIDS0" else name.replace("_OFF", "_LEN")
        assert REQUEST_COLUMNS.index(length) == REQUEST_COLUMNS.index(name) + 1


def test_peppers_are_made_once_and_kept_private(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "pepper.json"
    first = load_pepper(path)
    assert first.dtype == np.uint64
    assert first.shape == (2,)
    assert load_pepper(path).tolist() == first.tolist()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_the_newest_pepper_makes_keys_and_older_ones_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "pepper.json"
    path.write_text(json.dumps({"1": "00" * 16, "2": PEPPER_BYTES.hex()}))
    peppers = load_peppers(path)
    assert peppers.current.tolist() == PEPPER.tolist()
    assert sorted(peppers.keys) == [1, 2]


@pytest.mark.parametrize("text", ["{}", '{"1": "00"}'])
def test_a_wrong_pepper_file_says_what_is_needed(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pepper.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="32 hex digits"):
        load_peppers(path)
