"""A person leaves the books: the money stays, and nothing says whose it was."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import select

from dsp.audience.lmdb_frequency import person_subject
from dsp.base.config import Config
from dsp.ledger.database import open_database
from dsp.ledger.forget import forget_people
from dsp.ledger.schema import EVENTS

PERSON = 0x5CA1AB1E0DDBA11


def test_events_stay_and_their_person_goes(tmp_path: Path) -> None:
    config = Config(data_dir=str(tmp_path))
    assert forget_people(config, [person_subject(PERSON)]) == 0  # no books yet
    engine = open_database(tmp_path / "ledger.db")
    row = {"time_ms": 1, "line_item": 1, "creative": 1, "exchange": 1, "price_micros": 7, "value_micros": 0}
    with engine.begin() as connection:
        for bid, person in ((1, PERSON), (2, PERSON), (3, 77), (4, None)):
            connection.execute(EVENTS.insert().values(bid_id=bid, kind=2, person=person, **row))
    engine.dispose()
    assert forget_people(config, [person_subject(PERSON)]) == 2
    engine = open_database(tmp_path / "ledger.db")
    with engine.begin() as connection:
        people = connection.execute(select(EVENTS.c.bid_id, EVENTS.c.person).order_by(EVENTS.c.bid_id)).all()
    engine.dispose()
    assert [tuple(one) for one in people] == [(1, None), (2, None), (3, 77), (4, None)]
    for path in tmp_path.iterdir():
        assert PERSON.to_bytes(8, "big") not in path.read_bytes(), path
