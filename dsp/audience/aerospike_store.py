"""Profiles and frequency states in Aerospike: many machines, one batched read per engine batch.

One record per identity key in the set "people": bin ``p`` the profile, ``f`` the frequency state, ``i`` all identity
keys of the person. So a request's read resolves identity, profile and frequency in one round trip, at the price of
keeping a profile once per id; an update writes all of a person's records. The subject of frequency is the identity key
that resolved; a billing finds the others by ``i``. A stranger's state is a record with ``f`` alone.

Timeouts come from the batch's budget and are never longer than ``timeout_ms``; nothing is retried inside it (a second
try would be late; the next batch is the retry). The client reports a dead server as results of single keys, which are
counted here as an error of the batch. What frequency writes never touches the record's time to live.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import aerospike
import numpy as np
import numpy.typing as npt
from aerospike import exception as ex
from aerospike_helpers.batch import records as batch
from aerospike_helpers.operations import operations

from dsp.audience.cipher import RecordCipher
from dsp.audience.frequency import Shown, States, add_event, set_lifecycle
from dsp.audience.profile import P_PERSON, PROFILE_BYTES, PROFILE_VERSION
from dsp.audience.store import I64, KEY_BYTES, MAX_KEYS, U8, StoreError, StoreStats, settle_rows
from dsp.base.logs import logger

SET = "people"
PROFILE_BIN, STATE_BIN, IDS_BIN = "p", "f", "i"
_BINS = [PROFILE_BIN, STATE_BIN]
OK, NOT_FOUND = 0, 2
AGAIN = (3, 5, 14)  # another generation, created meanwhile, key busy: a hot key
TRIES = 8  # of a frequency write that somebody else's write came between
DEFAULT_TIMEOUT_MS = 10
WRITE_TIMEOUT_MS = 1_000
WRITE_PEOPLE = 500  # per batched write
_NOBODY = bytes(PROFILE_BYTES)
_WRITING = {"total_timeout": 10 * WRITE_TIMEOUT_MS, "socket_timeout": 10 * WRITE_TIMEOUT_MS, "max_retries": 1}

log = logger(__name__)


def connect(hosts: Sequence[str], timeout_ms: int = DEFAULT_TIMEOUT_MS) -> Any:
    """A client of the cluster that ``hosts`` ("name:port") belong to. Raises `StoreError` where none answers."""
    pairs = [(host.rpartition(":")[0], int(host.rpartition(":")[2])) for host in hosts]
    read = {"total_timeout": timeout_ms, "socket_timeout": timeout_ms, "max_retries": 0}
    write = {"total_timeout": WRITE_TIMEOUT_MS, "socket_timeout": WRITE_TIMEOUT_MS, "max_retries": 1}
    config = {
        "hosts": pairs,
        "policies": {"batch": read, "read": write, "write": write, "operate": write, "remove": write},
        "connect_timeout": WRITE_TIMEOUT_MS,
        "tend_interval": 250,  # how soon a node that came back is noticed
        "max_error_rate": 0,  # the guard above is our circuit breaker
    }
    try:
        return aerospike.client(config).connect()
    except ex.AerospikeError as error:
        raise StoreError(f"Aerospike at {', '.join(hosts)}: {error.msg or error}") from error


class AerospikeStore:
    """A `ProfileStore`; the frequency states that came along are taken by `states`. One per thread."""

    def __init__(
        self,
        hosts: Sequence[str],
        namespace: str = "dsp",
        *,
        timeout_ms: int = DEFAULT_TIMEOUT_MS,
        cipher: RecordCipher | None = None,
        client: Any = None,
    ) -> None:
        """Connect now if the cluster answers, else with the first read that finds it (`StoreError` until then)."""
        self.stats = StoreStats()
        self.budget_ms: float = timeout_ms  # of the next read; the caller may lower it from the bid's deadline
        self.timeout_ms = timeout_ms
        self._hosts, self._namespace, self._cipher = tuple(hosts), namespace, cipher
        self._client = client
        self._policies: dict[int, dict[str, int]] = {}
        self._states: list[bytes | None] = []
        self._asked: I64 = np.zeros(0, np.int64)
        self._subjects: list[bytes] = []
        if client is None:
            try:
                self._client = connect(hosts, timeout_ms)
            except StoreError as error:
                log.warning("bidding without profiles until the store answers", error=str(error))

    def read(self, keys: U8, wanted: I64, out: U8, found: I64, keys_per_person: int = MAX_KEYS) -> None:
        """See `ProfileStore.read`. One round trip, at most ``budget_ms`` (and ``timeout_ms``) long."""
        n = len(found)
        m = n * keys_per_person
        self.stats.reads += 1
        self._states, self._subjects = [None] * n, [b""] * n
        self._asked = np.zeros(n, np.int64)
        rows: list[bytes] = [_NOBODY] * n
        positions = wanted[:m].nonzero()[0].tolist()
        if positions:
            self.stats.keys += len(positions)
            self._look_up(keys[:m].tobytes(), positions, keys_per_person, rows)
        out.data.cast("B")[: n * PROFILE_BYTES] = b"".join(rows)
        if self._cipher is not None:
            self._cipher.open(out[:n])
        good, bad = settle_rows(out, found)
        self.stats.found += good
        self.stats.corrupt += bad

    def states(self, n: int, bits: I64, mask: int, out: States) -> None:
        """The states read along with the last batch, for people i < n with ``bits[i] & mask``; others aren't known."""
        out.known[:n] = 0
        for i in range(min(n, len(self._states))):
            if bits[i] & mask and self._asked[i]:
                out.put(i, self._states[i])
                out.subjects[i] = np.frombuffer(self._subjects[i], np.uint8)

    def close(self) -> None:
        """Close the connections; idempotent."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _look_up(self, raw: bytes, positions: list[int], per: int, rows: list[bytes]) -> None:
        """Fill ``rows`` and the batch's states from one batched read."""
        names = [raw[p * KEY_BYTES : (p + 1) * KEY_BYTES] for p in positions]
        unique = list(dict.fromkeys(names))  # a hot person twice in a batch is read once
        records = self._fetch(unique)
        got = dict(zip(unique, records, strict=True))
        for position, name in zip(positions, names, strict=True):
            row = position // per
            if not self._asked[row]:
                self._asked[row], self._subjects[row] = 1, name
            if rows[row] is not _NOBODY:
                continue
            bins = got[name]
            if bins is None:
                continue
            profile = bins.get(PROFILE_BIN)
            if isinstance(profile, bytes) and len(profile) == PROFILE_BYTES:
                rows[row] = profile
                self._subjects[row], self._states[row] = name, bins.get(STATE_BIN)
            elif profile is not None:
                self.stats.corrupt += 1
            elif self._subjects[row] == name:
                self._states[row] = bins.get(STATE_BIN)

    def _fetch(self, names: list[bytes]) -> list[dict[str, Any] | None]:
        """The bins of each key, None where there is no record. Raises `StoreError` where any key got no answer."""
        if self._client is None:
            self._client = connect(self._hosts, self.timeout_ms)
        try:
            answer = self._client.batch_read(
                [(self._namespace, SET, bytearray(name)) for name in names], _BINS, self._policy()
            )
        except ex.AerospikeError as error:
            raise StoreError(f"Aerospike: {error.msg or error}") from error
        out: list[dict[str, Any] | None] = []
        for record in answer.batch_records:
            if record.result == OK:
                out.append(record.record[2])
            elif record.result == NOT_FOUND:
                out.append(None)
            else:
                raise StoreError(f"Aerospike: result {record.result} of a key")
        return out

    def _policy(self) -> dict[str, int]:
        """The policy of a read that may take what is left of the budget, in whole milliseconds."""
        left_ms = max(1, min(self.timeout_ms, int(self.budget_ms)))
        policy = self._policies.get(left_ms)
        if policy is None:
            policy = {"total_timeout": left_ms, "socket_timeout": left_ms, "max_retries": 0}
            self._policies[left_ms] = policy
        return policy


class AerospikeWriter:
    """Writes profiles, frequency and erasure. One per thread."""

    bulk = False  # every write is an update of a store in use

    def __init__(
        self,
        hosts: Sequence[str],
        namespace: str = "dsp",
        *,
        ttl_s: int = 0,
        cipher: RecordCipher | None = None,
        client: Any = None,
    ) -> None:
        """``ttl_s``: how long a profile lives after it was last loaded; 0 for ever. Raises `StoreError`."""
        self._client = client if client is not None else connect(hosts, WRITE_TIMEOUT_MS)
        self._namespace, self._cipher = namespace, cipher
        self._ttl = ttl_s if ttl_s else aerospike.TTL_NEVER_EXPIRE

    def write(self, records: npt.NDArray[np.void], keys: U8, given: U8 | None = None) -> None:
        """Write people; arguments as `LmdbWriter.write`. States stay. Raises `StoreError`."""
        if not keys.any(axis=(1, 2)).all():
            raise ValueError("a person without an identity key could never be found")
        for start in range(0, len(records), WRITE_PEOPLE):
            part = records[start : start + WRITE_PEOPLE].copy()
            part["version"] = PROFILE_VERSION
            self._write_part(part, keys[start : start + WRITE_PEOPLE], given)

    def _write_part(self, records: npt.NDArray[np.void], keys: U8, given: U8 | None) -> None:
        """One batched read of who is there, one batched write of who shall be."""
        plain = records.view(np.uint8).reshape(len(records), PROFILE_BYTES)
        people = [[one.tobytes() for one in row if one.any()] for row in keys]
        known = self._read_many([name for names in people for name in names])
        states: list[Any] = []
        for i, names in enumerate(people):
            old = next((known[name] for name in names if PROFILE_BIN in known.get(name, {})), None)
            states.append(next((known[name][STATE_BIN] for name in names if STATE_BIN in known.get(name, {})), None))
            if old is not None:
                names += [name for name in _split(old.get(IDS_BIN)) if name not in names]
                before = np.frombuffer(bytes(old[PROFILE_BIN]), np.uint8)
                if given is not None and len(before) == PROFILE_BYTES:
                    before = before.reshape(1, PROFILE_BYTES).copy()
                    if self._cipher is not None:
                        self._cipher.open(before)
                    plain[i, 1:] = np.where(given[1:] > 0, plain[i, 1:], before[0, 1:])
            if not records["person"][i]:
                plain[i, P_PERSON : P_PERSON + 8] = np.frombuffer(names[0][:8], np.uint8)
        if self._cipher is not None:
            self._cipher.seal(plain)
        self._write_many(
            (name, _operations(plain[i].tobytes(), b"".join(names), states[i]))
            for i, names in enumerate(people)
            for name in names
        )

    def _read_many(self, names: list[bytes]) -> dict[bytes, dict[str, Any]]:
        """The bins of those of ``names`` that there are."""
        try:
            answer = self._client.batch_read([self._key(name) for name in names], [*_BINS, IDS_BIN], _WRITING)
        except ex.AerospikeError as error:
            raise StoreError(f"Aerospike: {error.msg or error}") from error
        found = {}
        for name, record in zip(names, answer.batch_records, strict=True):
            if record.result == OK:
                found[name] = dict(record.record[2])
            elif record.result != NOT_FOUND:
                raise StoreError(f"Aerospike: result {record.result} of a key")
        return found

    def _write_many(self, rows: Iterable[tuple[bytes, list[Any]]]) -> None:
        policy = {"ttl": self._ttl}
        asked = batch.BatchRecords([batch.Write(self._key(name), ops, policy=policy) for name, ops in rows])
        try:
            answer = self._client.batch_write(asked, _WRITING)
        except ex.AerospikeError as error:
            raise StoreError(f"Aerospike: {error.msg or error}") from error
        bad = [record.result for record in answer.batch_records if record.result != OK]
        if bad:
            raise StoreError(f"Aerospike: {len(bad)} records not written, first result {bad[0]}")

    def delete(self, keys: U8) -> int:
        """Remove the people that uint8[n, k, KEY_BYTES] name, with all their ids; how many were there."""
        gone = 0
        for row in keys:
            gone += int(sum(self.forget(one.tobytes()) for one in row[row.any(axis=1)]) > 0)
        return gone

    def checkpoint(self) -> None:
        """Nothing to do: what was answered is written."""

    def finish(self) -> None:
        """Nothing to do: what was answered is written."""

    def count(self, shown: Iterable[tuple[bytes, Shown]]) -> None:
        """Add billed impressions (subject, what was shown) under every id of the person. Raises `StoreError`."""
        for subject, one in shown:
            self._change(subject, partial(add_event, shown=one))

    def convert(self, reached: Iterable[tuple[bytes, int, int]]) -> None:
        """Conversions: (subject, product, LIFECYCLE index). Raises `StoreError`."""
        for subject, product, stage in reached:
            self._change(subject, partial(set_lifecycle, product=product, stage=stage))

    def get(self, name: bytes) -> dict[str, Any] | None:
        """The bins under an identity key, decrypted; None where there is none. Raises `StoreError`."""
        bins = self._get(name)
        if bins is not None and self._cipher is not None and len(bins.get(PROFILE_BIN, b"")) == PROFILE_BYTES:
            plain = np.frombuffer(bytes(bins[PROFILE_BIN]), np.uint8).reshape(1, PROFILE_BYTES).copy()
            self._cipher.open(plain)
            bins = {**bins, PROFILE_BIN: plain.tobytes()}
        return bins

    def forget(self, name: bytes) -> int:
        """Remove every record of the person behind ``name``; how many. Raises `StoreError`."""
        bins = self._get(name)
        if bins is None:
            return 0
        removed = 0
        for one in {name, *_split(bins.get(IDS_BIN))}:
            try:
                self._client.remove(self._key(one))
                removed += 1
            except ex.RecordNotFound:
                pass
            except ex.AerospikeError as error:
                raise StoreError(f"Aerospike: {error.msg or error}") from error
        return removed

    def close(self) -> None:
        """Close the connections; idempotent."""
        self._client.close()

    def _change(self, subject: bytes, change: Any) -> None:
        """Change the state of a subject's person: first under the person's first id, then under the others alike.

        The first id's generation decides: a write that came between means once more. One ledger writes, so between two
        of its changes all ids of a person agree.
        """
        bins = self._get(subject) or {}
        names = _split(bins.get(IDS_BIN)) or [subject]
        state = self._change_first(names[0], change)
        for other in dict.fromkeys([*names[1:], subject]):
            if other != names[0]:
                policy = {"exists": aerospike.POLICY_EXISTS_UPDATE, "ttl": aerospike.TTL_DONT_UPDATE}
                try:
                    self._client.put(self._key(other), {STATE_BIN: state}, {}, policy)
                except ex.RecordNotFound:
                    continue
                except ex.AerospikeError as error:
                    raise StoreError(f"Aerospike: {error.msg or error}") from error

    def _change_first(self, name: bytes, change: Any) -> bytes:
        for _ in range(TRIES):
            try:
                try:
                    _, meta, bins = self._client.get(self._key(name))
                    policy = {"gen": aerospike.POLICY_GEN_EQ, "ttl": aerospike.TTL_DONT_UPDATE}
                except ex.RecordNotFound:
                    meta, bins = {"gen": 0}, {}
                    policy = {"exists": aerospike.POLICY_EXISTS_CREATE, "ttl": self._ttl}
                state: bytes = change(bytes(bins.get(STATE_BIN, b"")))
                self._client.put(self._key(name), {STATE_BIN: state}, {"gen": meta["gen"]}, policy)
                return state
            except ex.AerospikeError as error:
                if error.code not in AGAIN:
                    raise StoreError(f"Aerospike: {error.msg or error}") from error
        raise StoreError(f"Aerospike: a state changed {TRIES} times while it was written")

    def _get(self, name: bytes) -> dict[str, Any] | None:
        try:
            return dict(self._client.get(self._key(name))[2])
        except ex.RecordNotFound:
            return None
        except ex.AerospikeError as error:
            raise StoreError(f"Aerospike: {error.msg or error}") from error

    def _put(self, name: bytes, bins: dict[str, Any], policy: dict[str, Any]) -> None:
        try:
            self._client.put(self._key(name), bins, {}, policy)
        except ex.AerospikeError as error:
            raise StoreError(f"Aerospike: {error.msg or error}") from error

    def _key(self, name: bytes) -> tuple[str, str, bytearray]:
        return (self._namespace, SET, bytearray(name))


def _operations(profile: bytes, ids: bytes, state: Any) -> list[Any]:
    """What a record of a person is written as; a state goes to ids that are new to it, and stays with the others."""
    out = [operations.write(PROFILE_BIN, profile), operations.write(IDS_BIN, ids)]
    return out if state is None else [*out, operations.write(STATE_BIN, state)]


def _split(ids: Any) -> list[bytes]:
    """Identity keys out of the bin that holds them all."""
    raw = bytes(ids or b"")
    return [raw[at : at + KEY_BYTES] for at in range(0, len(raw), KEY_BYTES)]


def hosts_from(text: str) -> tuple[str, ...]:
    """``DSP_AEROSPIKE_HOSTS`` and alike: "host:port,host:port"."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def writer_put_raw(writer: AerospikeWriter, name: bytes, profile: bytes, ids: bytes = b"") -> None:
    """Store bytes as they are, valid or not: for repair and for tests of damage."""
    writer._put(name, {PROFILE_BIN: profile, IDS_BIN: ids or name}, {"ttl": aerospike.TTL_NEVER_EXPIRE})
