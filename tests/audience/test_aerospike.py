"""Aerospike, a real one: the conformance suite, frequency in the same trip, and what is Aerospike's own.

``DSP_AEROSPIKE_HOSTS`` ("host:port", a namespace "dsp") names the server; no mock stands in for it.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from store_conformance import Person, StoreConformance, StoreOf, key, read, record
from test_frequency import row_of

from dsp.audience.cipher import RecordCipher
from dsp.audience.frequency import Shown, States, billed
from dsp.audience.profile import LIFECYCLE, P_AGE_BAND, P_LIFECYCLE, PROFILE, PROFILE_BYTES
from dsp.audience.store import KEY_BYTES, StoreError
from dsp.base.caps import LINE_ITEM

HOSTS = os.environ.get("DSP_AEROSPIKE_HOSTS", "")
NEEDS_SERVER = pytest.mark.skipif(not HOSTS, reason="set DSP_AEROSPIKE_HOSTS to test against a real Aerospike server")
pytest.importorskip("aerospike")

import aerospike  # noqa: E402

from dsp.audience.aerospike_store import (  # noqa: E402
    SET,
    AerospikeStore,
    AerospikeWriter,
    connect,
    hosts_from,
    writer_put_raw,
)

NOW = 1_790_000_000
SHOWN = Shown(NOW, 1, 2, 3, 4, 0)
ANYBODY = np.ones(8, np.int64)


@pytest.fixture
def client() -> Iterator[object]:
    opened = connect(hosts_from(HOSTS), 1000)
    opened.truncate("dsp", SET, 0)
    yield opened
    opened.close()


@pytest.fixture
def writer(client: object) -> AerospikeWriter:
    return AerospikeWriter((), client=client)


@pytest.fixture
def store(client: object) -> AerospikeStore:
    return AerospikeStore((), client=client, timeout_ms=1000)


def people(*rows: tuple[list[bytes], bytes]) -> tuple[np.ndarray, np.ndarray]:
    width = max(len(ids) for ids, _ in rows)
    keys = np.zeros((len(rows), width, KEY_BYTES), np.uint8)
    for i, (ids, _) in enumerate(rows):
        for k, one in enumerate(ids):
            keys[i, k] = np.frombuffer(one, np.uint8)
    return np.frombuffer(b"".join(raw for _, raw in rows), PROFILE).copy(), keys


@NEEDS_SERVER
class TestAerospikeConformance(StoreConformance):
    @pytest.fixture
    def store_of(self, writer: AerospikeWriter) -> Iterator[StoreOf]:
        opened: list[AerospikeStore] = []

        def make(people_: list[Person]) -> AerospikeStore:
            for ids, stored in people_:
                for one in ids:
                    writer_put_raw(writer, one, stored, b"".join(ids))
            opened.append(AerospikeStore(hosts_from(HOSTS), timeout_ms=1000))
            return opened[0]

        yield make
        for one in opened:
            one.close()


@NEEDS_SERVER
class TestPeople:
    def test_an_update_reaches_every_id_and_keeps_the_state(
        self, writer: AerospikeWriter, store: AerospikeStore
    ) -> None:
        writer.write(*people(([key(1), key(2)], record(10))))
        writer.count([(key(2), SHOWN)])
        given = np.zeros(PROFILE_BYTES, np.uint8)
        given[P_AGE_BAND] = 255
        changed, keys = people(([key(9), key(1)], record(0, age_band=5, income_band=6)))
        writer.write(changed, keys, given)
        for one in (1, 2, 9):
            found, rows = read(store, [[key(one)]])
            row = np.frombuffer(rows[0], PROFILE)[0]
            assert (found, row["person"], row["age_band"], row["income_band"]) == ([1], 10, 5, 0)
            states = States(1)
            store.states(1, ANYBODY, 1, states)
            assert billed(states.rows[0], LINE_ITEM, 2, 60, NOW) == 1

    def test_forgetting_removes_every_record(self, writer: AerospikeWriter, store: AerospikeStore) -> None:
        writer.write(*people(([key(1), key(2), key(3)], record(10)), ([key(4)], record(20))))
        assert writer.forget(key(2)) == 3
        assert writer.forget(key(2)) == 0
        assert read(store, [[key(1)], [key(2)], [key(3)], [key(4)]])[0] == [0, 0, 0, 1]

    def test_encrypted_records(self, writer: AerospikeWriter, client: object) -> None:
        cipher = RecordCipher({1: secrets.token_bytes(32)})
        sealing = AerospikeWriter((), client=client, cipher=cipher)
        sealing.write(*people(([key(1)], record(10))))
        raw = writer.get(key(1))
        assert raw is not None
        assert raw["p"][1:100] != record(10)[1:100]
        assert read(AerospikeStore((), client=client, timeout_ms=1000, cipher=cipher), [[key(1)]])[0] == [1]
        opened = sealing.get(key(1))
        assert opened is not None
        assert np.frombuffer(opened["p"], PROFILE)["person"][0] == 10
        blind = AerospikeStore((), client=client, timeout_ms=1000)
        assert read(blind, [[key(1)]])[0] == [0]
        assert blind.stats.corrupt == 1


@NEEDS_SERVER
class TestFrequency:
    def test_states_come_with_the_profiles_in_one_trip(self, writer: AerospikeWriter, store: AerospikeStore) -> None:
        writer.write(*people(([key(1), key(2)], record(10)), ([key(3)], record(20))))
        writer.count([(key(1), SHOWN), (key(7), SHOWN), (key(7), SHOWN)])
        found, _ = read(store, [[key(2)], [key(3)], [key(7)], [key(8)], []])
        assert found == [1, 1, 0, 0, 0]
        assert store.stats.reads == 1
        states = States(5)
        store.states(5, np.array([1, 1, 1, 1, 1], np.int64), 1, states)
        assert states.known.tolist() == [1, 1, 1, 1, 0]
        assert [int(billed(states.rows[i], LINE_ITEM, 2, 60, NOW)) for i in range(4)] == [1, 0, 2, 0]
        assert [states.subjects[i].tobytes() for i in range(4)] == [key(2), key(3), key(7), key(8)]
        store.states(5, np.array([0, 1, 0, 0, 0], np.int64), 1, states)
        assert states.known.tolist() == [0, 1, 0, 0, 0]

    def test_a_write_never_touches_the_time_to_live(self, client: object) -> None:
        writer = AerospikeWriter((), client=client, ttl_s=1000)
        writer.write(*people(([key(1), key(2)], record(10))))
        before = [client.get(("dsp", SET, bytearray(key(k))))[1]["ttl"] for k in (1, 2)]  # type: ignore[attr-defined]
        never = AerospikeWriter((), client=client)
        never.count([(key(1), SHOWN)])
        after = [client.get(("dsp", SET, bytearray(key(k))))[1]["ttl"] for k in (1, 2)]  # type: ignore[attr-defined]
        assert all(0 <= b - a <= 5 for a, b in zip(after, before, strict=True))
        assert all(990 <= b <= 1000 for b in before)

    def test_a_hot_person_counted_by_many_at_once_loses_nothing(self, writer: AerospikeWriter) -> None:
        writer.write(*people(([key(1), key(2)], record(10))))
        failed: list[Exception] = []

        def count() -> None:
            mine = AerospikeWriter(hosts_from(HOSTS))
            for _ in range(10):
                try:
                    mine.count([(key(1), SHOWN)])
                except StoreError as error:
                    failed.append(error)
            mine.close()

        threads = [threading.Thread(target=count) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        bins = writer.get(key(1))
        assert bins is not None
        assert billed(row_of(bins["f"]), LINE_ITEM, 2, 60, NOW) == 40 - len(failed)
        assert len(failed) < 10

    def test_a_conversion_is_seen_by_the_next_read(self, writer: AerospikeWriter, store: AerospikeStore) -> None:
        writer.write(*people(([key(1)], record(10))))
        writer.convert([(key(1), 2, LIFECYCLE.index("applied"))])
        read(store, [[key(1)]])
        states = States(1)
        store.states(1, ANYBODY, 1, states)
        assert states.rows[0, 5] == LIFECYCLE.index("applied")
        assert P_LIFECYCLE + 5 < PROFILE_BYTES


def test_a_server_that_is_not_there_is_an_error_not_a_hang() -> None:
    with pytest.raises(StoreError, match=r"127\.0\.0\.1:1"):
        connect(["127.0.0.1:1"])
    store = AerospikeStore(["127.0.0.1:1"])
    with pytest.raises(StoreError):
        read(store, [[key(1)]])
    assert read(store, [[]])[0] == [0]  # nothing wanted: nothing asked
    store.close()
    assert aerospike.TTL_DONT_UPDATE
