"""One person at a time: find by an identifier, show, export, forget, and prove that nothing is left.

An erasure takes out the profile with every identity key that points to it, the frequency state under the person number
and under each key, wipes the freed bytes of both files, tells the workers' caches to empty themselves, and then scans
every file of the data directory for the identifier and its keys, raw and as hex.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import numpy.typing as npt

from dsp.audience.aerospike_store import AerospikeWriter, connect
from dsp.audience.cipher import RecordCipher
from dsp.audience.columns import ID_COLUMNS, NEVER_D, HashText
from dsp.audience.frequency import EVENT_BYTES, HEADER_BYTES, N_PRODUCTS, S_LIFECYCLE, sound
from dsp.audience.hot import tell_forgotten
from dsp.audience.identity import KIND_EID, identity_key, load_peppers
from dsp.audience.lmdb_frequency import LmdbFrequencyWriter, frequency_path, person_subject
from dsp.audience.lmdb_pages import ids_of_slots
from dsp.audience.lmdb_store import IDS, MAP_BYTES, PEOPLE, profiles_path
from dsp.audience.lmdb_writer import LmdbWriter
from dsp.audience.profile import LIFECYCLE, PROFILE, PROFILE_BYTES, SCHEMA
from dsp.audience.store import KEY_BYTES, StoreError
from dsp.base.caps import KINDS
from dsp.base.config import Config

SCAN_BYTES = 1 << 24


@dataclass
class Erasure:
    """What an erasure did, and the scan that proves it."""

    profiles: int = 0
    ids: int = 0
    states: int = 0
    events: int = 0  # of the books and the decision log that said whose they were
    files: int = 0
    bytes: int = 0
    traces: list[str] = field(default_factory=list)  # files that still hold something


def keys_of_identifier(
    config: Config, text: str, column: str, scope: str = "", hash_text: HashText | None = None
) -> list[bytes]:
    """The identity keys of an identifier, one per pepper; ``column`` as in a file to load, ``scope`` likewise.

    Raises `StoreError` where the identifier is nobody's or its scope is missing.
    """
    entry = next((entry for entry in ID_COLUMNS if entry[0] == column), None)
    if entry is None:
        raise StoreError(f"unknown kind {column!r}; one of {', '.join(c for c, _, _ in ID_COLUMNS)}")
    _, kind, scope_column = entry
    name = scope_column[1:] if scope_column.startswith("=") else scope
    if scope_column and not name:
        raise StoreError(f"{column} needs its {scope_column}")
    number = 0
    if kind == KIND_EID:
        if hash_text is None:
            raise StoreError(f"{column} needs the hash of its source")
        number = hash_text(name)
    elif scope_column:
        if not name.isdigit():
            raise StoreError(f"{scope_column} is a number, not {name!r}")
        number = int(name)
    peppers = load_peppers(config.path("secrets", "pepper.json"))
    keys = [identity_key(kind, text, pepper, number) for _, pepper in sorted(peppers.keys.items(), reverse=True)]
    if not all(keys):
        raise StoreError("this identifier stands for nobody")
    return keys


class People:
    """The people of a data directory, for single look-ups and erasure; not for the hot path. A context manager."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._cipher = RecordCipher.from_environment()
        self._remote: AerospikeWriter | None = None
        if config.audience.store == "aerospike":
            client = connect(config.audience.aerospike_hosts, 1000)
            self._remote = AerospikeWriter((), config.audience.namespace, cipher=self._cipher, client=client)

    def __enter__(self) -> People:
        return self

    def __exit__(self, *_: object) -> None:
        if self._remote is not None:
            self._remote.close()

    def find(self, keys: list[bytes]) -> dict[str, Any] | None:
        """All that is known of the person behind the first of ``keys`` that resolves, readable; None: nobody."""
        for key in keys:
            if self._remote is not None:
                bins = self._remote.get(key)
                if bins is not None:
                    ids = len(bins.get("i", b"")) // KEY_BYTES
                    return describe(bytes(bins.get("p", b"")), ids, [bytes(bins.get("f", b""))])
                continue
            slot, ids_found = self._slot(key)
            states = self._states([key] if slot is None else [person_subject_of(self._raw(slot)), *ids_found])
            if slot is not None or states:
                return describe(b"" if slot is None else self._raw(slot), len(ids_found), states)
        return None

    def forget(
        self, keys: list[bytes], identifier: str = "", forget_events: Callable[[set[bytes]], int] = lambda _: 0
    ) -> Erasure:
        """Erase the person behind ``keys``, then look for traces. Raises `StoreError`.

        ``forget_events`` takes the subjects out of books and log, which this package doesn't know.
        """
        done = Erasure()
        needles, subjects = set(keys), set(keys)
        if self._remote is not None:
            for key in keys:
                bins = self._remote.get(key)
                if bins is not None and len(bins.get("p", b"")) == PROFILE_BYTES:
                    subjects.add(person_subject_of(bytes(bins["p"])))
            removed = sum(self._remote.forget(key) for key in keys)
            done.profiles, done.ids = min(removed, 1), removed
        elif (profiles_path(self.config.root) / "data.mdb").exists():
            for key in keys:
                slot, ids = self._slot(key)
                if slot is not None:
                    needles.update(ids)
                    subjects.update([person_subject_of(self._raw(slot)), *ids])
                    done.profiles += 1
                    done.ids += len(ids)
            with LmdbWriter(profiles_path(self.config.root), cipher=self._cipher) as writer:
                for key in keys:
                    writer.delete(np.frombuffer(key, np.uint8).reshape(1, 1, KEY_BYTES))
                writer.finish()
                writer.wipe()
        if (frequency_path(self.config.root) / "data.mdb").exists():
            states = LmdbFrequencyWriter(frequency_path(self.config.root))
            done.states = states.forget(subjects)
            states.wipe()
            states.close()
        done.events = forget_events(subjects)
        tell_forgotten(self.config.root)
        scan(self.config.root, sorted(needles | spellings(identifier)), done)
        return done

    def _slot(self, key: bytes) -> tuple[bytes | None, list[bytes]]:
        """(slot of the person with this key or None, all keys of the person)."""
        path = profiles_path(self.config.root)
        with _environment(path) as env:
            if env is None:
                return None, []
            with env.begin(db=env.open_db(IDS, create=False)) as txn:
                slot = txn.get(key)
        if slot is None:
            return None, []
        ids = ids_of_slots(path, IDS, [int.from_bytes(slot, "little")], KEY_BYTES)
        return slot, [row.tobytes() for row in ids]

    def _raw(self, slot: bytes) -> bytes:
        """The record in a slot, decrypted."""
        with _environment(profiles_path(self.config.root)) as env:
            assert env is not None
            with env.begin(db=env.open_db(PEOPLE, create=False, integerkey=True)) as txn:
                raw = txn.get(slot) or b""
        if self._cipher is not None and len(raw) == PROFILE_BYTES:
            rows = np.frombuffer(raw, np.uint8).reshape(1, PROFILE_BYTES).copy()
            self._cipher.open(rows)
            return rows.tobytes()
        return raw

    def _states(self, subjects: list[bytes]) -> list[bytes]:
        path = frequency_path(self.config.root)
        with _environment(path, 0) as env:
            if env is None:
                return []
            with env.begin() as txn:
                return [state for state in map(txn.get, subjects) if state is not None]


@contextlib.contextmanager
def _environment(path: Path, tables: int = 4) -> Iterator[lmdb.Environment | None]:
    """A read-only LMDB environment, or None where the file isn't there."""
    if not (path / "data.mdb").exists():
        yield None
        return
    env = lmdb.open(str(path), readonly=True, create=False, max_dbs=tables, map_size=MAP_BYTES, readahead=False)
    try:
        yield env
    finally:
        env.close()


def person_subject_of(raw: bytes) -> bytes:
    """The frequency subject of a plain record."""
    return person_subject(int(np.frombuffer(raw, PROFILE)["person"][0])) if len(raw) == PROFILE_BYTES else b"\0" * 16


def describe(raw: bytes, ids: int, states: list[bytes]) -> dict[str, Any]:
    """A record and its frequency states as plain values, by the schema's names; unknown ones are left out."""
    out: dict[str, Any] = {"identifiers": ids}
    if len(raw) == PROFILE_BYTES:
        row = np.frombuffer(raw, PROFILE)[0]
        for one in SCHEMA.fields:
            names = one.column_names
            values = np.atleast_1d(row[one.name]).tolist()
            for name, value in zip(names, values, strict=False):
                if value != one.unknown:
                    out[name] = value
        count = min(int(row["n_segments"]), 16)
        out["segments"] = [
            {"number": int(n), **({} if d == NEVER_D else {"until": str(_day(int(d)))})}
            for n, d in zip(row["segments"][:count], row["segment_expiry_d"][:count], strict=True)
        ]
        out["person"] = int(row["person"])
        out["lifecycle"] = [LIFECYCLE[int(stage)] if stage < len(LIFECYCLE) else "?" for stage in row["lifecycle"]]
    out["shown"] = [shown for state in states if sound(state) for shown in _history(state)]
    out["conversions"] = [
        {"product": p, "stage": LIFECYCLE[state[S_LIFECYCLE + p]]}
        for state in states if sound(state) for p in range(N_PRODUCTS) if 0 < state[S_LIFECYCLE + p] < len(LIFECYCLE)
    ]  # fmt: skip
    return out


def _history(state: bytes) -> Iterator[dict[str, Any]]:
    """What a state says was shown and billed."""
    for at in range(HEADER_BYTES, HEADER_BYTES + state[1] * EVENT_BYTES, EVENT_BYTES):
        words = [int.from_bytes(state[at + 4 * k : at + 4 * k + 4], "little") for k in range(5)]
        yield {
            "time": datetime.fromtimestamp(words[0], UTC).isoformat(),
            **dict(zip(KINDS, [*words[1:], state[at + 20]], strict=True)),
        }


def _day(days: int) -> Any:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=days)).date()


def spellings(identifier: str) -> set[bytes]:
    """An identifier as it may have been written down."""
    if len(identifier) < 6:  # too short to be told from chance
        return set()
    return {text.encode() for text in (identifier, identifier.lower(), identifier.upper(), identifier.replace("-", ""))}


def scan(root: Path, needles: list[bytes], done: Erasure, progress: Callable[[int], None] = lambda files: None) -> None:
    """Look for ``needles``, as they are and as hex, in every file below ``root``; the secrets hold none by design."""
    wanted = [*needles, *(n.hex().encode() for n in needles if len(n) == KEY_BYTES)]
    for directory, _, names in os.walk(root):
        for name in names:
            path = Path(directory) / name
            size = path.stat().st_size
            done.files += 1
            done.bytes += size
            progress(done.files)
            if not size:
                continue
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                if any(mapped.find(needle) >= 0 for needle in wanted):
                    done.traces.append(str(path.relative_to(root)))


def people_blocks(config: Config, block: int = 1 << 16) -> Iterator[npt.NDArray[np.void]]:
    """All profiles of the LMDB store, plain, PROFILE[n] at a time; one consistent state."""
    cipher = RecordCipher.from_environment()
    with _environment(profiles_path(config.root)) as env:
        if env is None:
            return
        with env.begin(db=env.open_db(PEOPLE, create=False, integerkey=True)) as txn:
            rows: list[bytes] = []
            for raw in txn.cursor().iternext(keys=False):
                if len(raw) == PROFILE_BYTES:
                    rows.append(raw)
                if len(rows) == block:
                    yield _plain(rows, cipher)
                    rows = []
            if rows:
                yield _plain(rows, cipher)


def _plain(rows: list[bytes], cipher: RecordCipher | None) -> npt.NDArray[np.void]:
    raw = np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), PROFILE_BYTES).copy()
    if cipher is not None:
        cipher.open(raw)
    return raw.view(PROFILE)[:, 0]
