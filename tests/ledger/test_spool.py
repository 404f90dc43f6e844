import os

import msgspec
import pytest
from ledger_world import World

from dsp.ledger.notices import read_notice
from dsp.ledger.spool import Spool, SpoolFullError


@pytest.fixture(scope="module")
def notices():
    world = World(":memory:")
    made = [
        read_notice(world.signer, "b", world.token(bid_id=(1 << 64) - i).decode(), {"p": "5"}, world.clock.time_ms())
        for i in range(1, 10)
    ]
    world.books.close()
    return made


def keep(directory, notices) -> None:
    spool = Spool(directory, 1 << 20)
    spool.append(notices)
    spool.close()


def spool_bytes(notice) -> int:
    return 8 + len(msgspec.msgpack.encode(notice))


def drain(spool: Spool, n: int = 4) -> list:
    found = []
    while taken := spool.take(n):
        found += taken
        spool.taken(len(taken))
    return found


def test_what_was_appended_comes_back_in_order_and_the_files_are_gone(tmp_path, notices):
    spool = Spool(tmp_path, 1 << 20)
    spool.append(notices[:5])
    spool.append(notices[5:])
    assert spool.pending == 9
    assert drain(spool) == notices
    assert spool.pending == 0
    assert list(tmp_path.iterdir()) == []


def test_a_new_process_finds_what_the_last_one_kept(tmp_path, notices):
    keep(tmp_path, notices)
    again = Spool(tmp_path, 1 << 20)
    assert again.pending == 9
    assert drain(again) == notices


def test_a_torn_record_ends_a_file_and_nothing_else(tmp_path, notices):
    keep(tmp_path, notices[:3])
    (file,) = tmp_path.iterdir()
    os.truncate(file, file.stat().st_size - 7)  # as a crash in the middle of a write leaves it
    again = Spool(tmp_path, 1 << 20)
    again.append(notices[3:5])
    assert drain(again) == notices[:2] + notices[3:5]


@pytest.mark.parametrize("at", [0, 4, 8, 20])
def test_a_damaged_record_is_never_taken_for_a_notice(tmp_path, notices, at):
    keep(tmp_path, notices[:1])
    (file,) = tmp_path.iterdir()
    data = bytearray(file.read_bytes())
    data[at] ^= 0xFF
    file.write_bytes(data)
    assert drain(Spool(tmp_path, 1 << 20)) == []


def test_what_was_taken_but_not_booked_comes_again(tmp_path, notices):
    spool = Spool(tmp_path, 1 << 20)
    spool.append(notices)
    spool.take(4)
    spool.rewind()
    assert drain(spool) == notices


def test_the_bound_refuses_and_keeps_what_is_there(tmp_path, notices):
    spool = Spool(tmp_path, 500)
    kept = 0
    while (kept + 1) * spool_bytes(notices[0]) <= 500:
        spool.append([notices[kept]])
        kept += 1
    with pytest.raises(SpoolFullError, match="its bound is 500"):
        spool.append([notices[kept]])
    assert spool.pending == kept > 1
    assert drain(spool) == notices[:kept]
    spool.append(notices[:1])  # there is room again
    assert spool.pending == 1
    spool.close()


def test_a_disk_that_fails_keeps_nothing_of_the_failed_group(tmp_path, notices, monkeypatch):
    spool = Spool(tmp_path, 1 << 20)
    spool.append(notices[:2])
    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        spool.append(notices[2:4])
    monkeypatch.setattr(os, "fdatasync", real)
    spool.append(notices[4:6])
    assert drain(spool) == notices[:2] + notices[4:6]
