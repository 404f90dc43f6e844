"""Caps under fire: many workers, one person, and never more billed than the cap."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from test_frequency import row_of

from dsp.audience.frequency import Shown, add_event
from dsp.audience.inflight import CAPPED, FULL, LINGER_S, RESERVED, WAYS, InFlight, fingerprint, put_word, reserve
from dsp.audience.lmdb_frequency import LmdbFrequencyWriter
from dsp.base.caps import ADVERTISER, CREATIVE, LINE_ITEM

NOW = 1_790_000_000
PERSON = (7).to_bytes(8, "little") + bytes(8)
SUBJECT = np.frombuffer(PERSON, np.uint8)
CAPS = np.array([[LINE_ITEM, 5, 86_400, 2], [ADVERTISER, 9, 3600, 3], [LINE_ITEM, 5, 60, 1]], np.int64)
IDS = (1, 5, 3, 9, 0)  # creative, line item, campaign, advertiser, product


def take(
    table: InFlight, state: bytes | None = None, first: int = 0, last: int = 1, now: int = NOW, hosts: int = 1
) -> int:
    return int(reserve(table.table, SUBJECT, row_of(state), 1, CAPS, first, last, now, now + 300, hosts))


@pytest.fixture
def table(tmp_path: Path) -> InFlight:
    return InFlight(tmp_path / "t", buckets=64)


def test_no_more_in_flight_than_there_is_room_for(table: InFlight) -> None:
    assert [take(table) for _ in range(4)] == [RESERVED, RESERVED, CAPPED, CAPPED]


def test_what_was_billed_takes_room_too(table: InFlight) -> None:
    state = add_event(b"", Shown(NOW - 50, *IDS))
    assert [take(table, state) for _ in range(2)] == [RESERVED, CAPPED]


def test_a_lost_bid_frees_its_room_at_once(table: InFlight) -> None:
    take(table), take(table)
    assert table.lost(PERSON, IDS, NOW + 300) == 1
    assert [take(table) for _ in range(2)] == [RESERVED, CAPPED]
    assert table.lost(PERSON, IDS, NOW + 299) == 0  # of another time: not ours


def test_a_bid_that_nobody_speaks_of_frees_its_room_in_time(table: InFlight) -> None:
    take(table), take(table)
    assert take(table, now=NOW + 299) == CAPPED
    assert take(table, now=NOW + 300) == RESERVED


def test_a_billed_bid_lingers_for_those_who_read_before(table: InFlight) -> None:
    """Its state says one billed; a worker that read the state before that must still be held back."""
    take(table), take(table)
    assert table.billed(PERSON, IDS, NOW + 300, NOW + 10) == 1
    assert take(table, None, now=NOW + 11) == CAPPED  # an old state
    billed = add_event(b"", Shown(NOW + 10, *IDS))
    assert take(table, billed, now=NOW + 10 + LINGER_S) == CAPPED  # one billed, one in flight
    table.lost(PERSON, IDS, NOW + 300)
    assert take(table, billed, now=NOW + 10 + LINGER_S) == RESERVED


def test_all_caps_or_none(table: InFlight) -> None:
    """The advertiser's cap is full: the line item's room must not be used up by trying."""
    full = add_event(add_event(add_event(b"", Shown(NOW - 9, 2, 6, 4, 9, 0)), Shown(NOW - 8, 2, 6, 4, 9, 0)),
                     Shown(NOW - 7, 2, 6, 4, 9, 0))  # fmt: skip
    for _ in range(5):
        assert take(table, full, 0, 2) == CAPPED
    assert not table.table.any()
    assert take(table, None, 0, 2) == RESERVED


def test_two_windows_of_one_thing_share_its_bids_in_flight(table: InFlight) -> None:
    assert [take(table, None, 0, 3) for _ in range(2)] == [RESERVED, CAPPED]  # 2 a day, but 1 a minute
    assert np.count_nonzero(table.table) == 2  # line item, advertiser
    assert table.billed(PERSON, IDS, NOW + 300, NOW) == 2


def test_on_several_hosts_one_bid_at_a_time(table: InFlight) -> None:
    assert [take(table, hosts=3) for _ in range(2)] == [RESERVED, CAPPED]


def test_an_unknown_person_is_capped(table: InFlight) -> None:
    assert reserve(table.table, SUBJECT, row_of(None), 0, CAPS, 0, 1, NOW, NOW + 300, 1) == CAPPED
    assert reserve(table.table, SUBJECT, row_of(None), 0, CAPS, 0, 0, NOW, NOW + 300, 1) == RESERVED  # uncapped


def test_a_full_bucket_refuses(table: InFlight) -> None:
    print64 = fingerprint(SUBJECT, LINE_ITEM, 5)
    for i in range(WAYS):
        assert put_word(table.table, print64 ^ np.uint64(1 << (30 + i)), NOW + 300, NOW) == 1
    assert take(table) == FULL
    assert take(table, now=NOW + 300) == RESERVED


def test_creatives_are_counted_apart(table: InFlight) -> None:
    caps = np.array([[CREATIVE, 1, 60, 1], [CREATIVE, 2, 60, 1]], np.int64)
    for c in (0, 1):
        assert reserve(table.table, SUBJECT, row_of(None), 1, caps, c, c + 1, NOW, NOW + 300, 1) == RESERVED


HAMMER = """
import os, sys, time
from pathlib import Path
import numpy as np
from dsp.audience.frequency import States
from dsp.base.caps import LINE_ITEM
from dsp.audience.inflight import RESERVED, InFlight, reserve
from dsp.audience.lmdb_frequency import LmdbFrequency
from dsp.audience.profile import P_PERSON
root, cap, tries, hosts = Path(sys.argv[1]), *map(int, sys.argv[2:])
caps = np.array([[LINE_ITEM, 5, 86_400, cap]], np.int64)
one, keys, wanted = np.ones(1, np.int64), np.zeros((4, 16), np.uint8), np.zeros(4, np.int64)
profiles, states, now = np.zeros((1, 128), np.uint8), States(1), 1_790_000_000
profiles[0, P_PERSON] = 7
reserve(np.zeros(64, np.uint64), states.subjects[0], states.rows[0], 1, caps, 0, 1, now, now + 9, hosts)  # compile
for me in range(8):
    if os.fork() == 0:
        table, store = InFlight(root / f"host-{me % hosts}.table"), LmdbFrequency(root / "frequency.lmdb")
        for _ in range(tries):
            store.read(1, one, 1, keys, wanted, profiles, one, states)
            now = int(time.time())
            got = reserve(table.table, states.subjects[0], states.rows[0], 1, caps, 0, 1, now, now + 300, hosts)
            if got == RESERVED:
                os.write(1, b"%d %d\\n" % (me % hosts, now + 300))  # a bid goes out; it will be billed or lost
        os._exit(0)
for _ in range(8):
    assert os.wait()[1] == 0
"""


@pytest.mark.parametrize(("hosts", "cap"), [(1, 5), (3, 5)])
def test_eight_workers_hammer_one_person(tmp_path: Path, hosts: int, cap: int) -> None:
    """Each worker bids as often as it is allowed to; every third bid is lost, the others are billed at once by one
    ledger. Billed: never more than the cap on one host, at most cap + h - 1 on h."""
    writer = LmdbFrequencyWriter(tmp_path / "frequency.lmdb")
    tables = [InFlight(tmp_path / f"host-{h}.table") for h in range(hosts)]
    command = [sys.executable, "-c", HAMMER, str(tmp_path), str(cap), "2500", str(hosts)]
    sent = shown = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as workers:
        assert workers.stdout is not None
        for line in workers.stdout:
            host, until_s = map(int, line.split())
            sent += 1
            if sent % 3 == 0:
                assert tables[host].lost(PERSON, IDS, until_s) == 1
                continue
            shown += 1
            now = int(time.time())
            writer.count([(PERSON, Shown(now, *IDS))])
            assert tables[host].billed(PERSON, IDS, until_s, now) == 1
    assert workers.returncode == 0
    writer.close()
    assert 1 <= shown <= cap + hosts - 1
