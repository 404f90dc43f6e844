"""The whole circle of frequency: bids of the engine, notices to the ledger, and what the next request sees."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from dsp.audience.frequency import Shown
from dsp.audience.inflight import LINGER_S
from dsp.audience.lmdb_frequency import LmdbFrequencyWriter, frequency_path
from dsp.audience.profile import LIFECYCLE
from dsp.base.config import BidderConfig, Config
from dsp.base.metrics import Metrics
from dsp.base.token import TOKEN_TEXT_BYTES
from dsp.bidder.answer import BID, NO_BID
from dsp.bidder.engine import Engine
from dsp.bidder.slices import Slices
from dsp.ledger.news import AudienceNews
from dsp.ledger.notices import read_notice
from dsp.ledger.ticket import Notice

sys.path.insert(0, str(Path(__file__).parents[1] / "bidder"))
from test_scenarios import BASE, OFFSET, Stage, body_of, merge

START_S = 1_772_626_200
STRANGER = {"device": {"ifa": "8c1b2d3e-0000-4000-8000-0000000000ff"}}


class World:
    """An engine and the ledger's news over one data directory, with one clock."""

    def __init__(self, root: Path, line_item: dict[str, Any], profile: dict[str, Any]) -> None:
        self.stage = Stage(root)
        catalog = copy.deepcopy(BASE["catalog"])
        items = catalog["advertisers"][0]["campaigns"][0]["line_items"]
        items[0] = merge(items[0], {"allow_uncapped": False, **line_item})
        self.now_s = START_S
        snapshot = self.stage.snapshot(catalog, self.now_s)
        people = self.stage.people(merge(BASE["person"], {"profile": profile}))
        self.config = Config(data_dir=people.data_dir, bidder=BidderConfig(log_decisions=False))
        (people.root / "secrets").mkdir(parents=True, exist_ok=True)
        (people.root / "secrets" / "pepper.json").write_bytes((root / "secrets" / "pepper.json").read_bytes())
        self.news = AudienceNews(self.config)
        self.news.attach(snapshot)
        self.engine = Engine.open(
            self.config, snapshot=snapshot, scorer=self.stage.scorer, signer=self.stage.signer,
            slices=Slices.fixed(snapshot.li_i[:, 0].copy(), 10**12), metrics=Metrics.memory(),
            clock=lambda: self.now_s * 10**9,
        )  # fmt: skip
        self.snapshot = snapshot

    def bid(self, change: dict[str, Any] | None = None) -> str | None:
        """The token of the bid that a request gets, None without one."""
        body = body_of(merge(BASE["request"], change or {}), "json")
        kind, payload = self.engine.decide([body], [OFFSET["json"]], [0], None, True)[0]
        assert kind in (BID, NO_BID)
        if kind != BID:
            return None
        text = payload.decode()
        start = text.index("/b/") + 3
        return text[start : start + TOKEN_TEXT_BYTES]

    def notice(self, path: str, token: str, **query: str) -> Notice:
        return read_notice(self.stage.signer, path, token, query, self.now_s * 1000, {})

    def tell(self, path: str, token: str | None, **query: str) -> None:
        assert token is not None
        self.news.tell([self.notice(path, token, **query)])

    def close(self) -> None:
        self.engine.close()
        self.news.close()


@pytest.fixture
def made(tmp_path: Path) -> Any:
    worlds: list[World] = []

    def make(line_item: dict[str, Any], **profile: Any) -> World:
        worlds.append(World(tmp_path / str(len(worlds)), line_item, profile))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()


class LmdbOf:
    """The states of a world, by the writer it has open."""

    def __init__(self, world: World) -> None:
        writer = world.news._writer
        assert isinstance(writer, LmdbFrequencyWriter)
        self.writer = writer

    def __enter__(self) -> LmdbFrequencyWriter:
        return self.writer

    def __exit__(self, *_: object) -> None:
        pass


TWO_A_DAY = {"frequency": [{"cap": 2, "per": "day"}]}


def test_a_cap_holds_through_bids_billings_and_days(made: Any) -> None:
    world = made(TWO_A_DAY)
    first, second = world.bid(), world.bid()
    assert first
    assert second
    assert world.bid() is None  # two in flight
    world.tell("b", first, p="2")
    world.now_s += LINGER_S + 1
    assert world.bid() is None  # one billed, one in flight
    world.tell("b", second, p="2")
    world.now_s += LINGER_S + 1
    assert world.bid() is None
    assert world.news.counted == 2
    world.now_s += 86_400
    assert world.bid()  # another day


def test_a_loss_makes_room_and_an_unanswered_bid_does_in_time(made: Any) -> None:
    world = made({"frequency": [{"cap": 1, "per": "week"}]})
    token = world.bid()
    assert world.bid() is None
    world.tell("l", token, r="102")
    assert world.bid()
    assert world.bid() is None
    world.now_s += 60  # the exchange's exp
    assert world.bid()


def test_a_stranger_is_capped_by_identifier(made: Any) -> None:
    world = made(TWO_A_DAY)
    for _ in range(2):
        world.tell("b", world.bid(STRANGER), p="2")
        world.now_s += LINGER_S + 1
    assert world.bid(STRANGER) is None
    assert world.bid()  # somebody else
    assert world.bid({"device": {"ifa": None}}) is None  # nobody: it can't be counted, and the line item says capped


def test_without_permission_to_count_a_capped_line_item_stays_out(made: Any) -> None:
    world = made(TWO_A_DAY)
    assert world.bid({"regs": {"coppa": 1}}) is None
    open_to_all = made({**TWO_A_DAY, "allow_uncapped": True})
    for _ in range(4):
        token = open_to_all.bid({"regs": {"coppa": 1}})
        assert token
        open_to_all.tell("b", token, p="2")
    assert open_to_all.news.counted == 0
    with LmdbOf(open_to_all) as states:
        assert states.people() == 0


def test_an_applicant_stops_seeing_the_apply_ad_with_the_next_request(made: Any) -> None:
    world = made({})
    token = world.bid()
    world.tell("p", token, e="registered")
    assert world.bid()
    world.tell("p", token, e="applied")
    assert world.bid() is None
    assert world.news.converted == 2


@pytest.mark.parametrize("stage", ["rejected", "delinquent", "existing_customer"])
def test_suppression_by_profile(made: Any, stage: str) -> None:
    lifecycle = [LIFECYCLE.index(stage), 0, 0, 0, 0]
    assert made({}, lifecycle=lifecycle).bid() is None
    assert made({"suppress": ["applied"]}, lifecycle=lifecycle).bid()  # a line item that wants them
    assert made({}, lifecycle=[0, lifecycle[0], 0, 0, 0]).bid()  # of another product


def test_a_blacklisted_device_is_shown_nothing(made: Any) -> None:
    assert made({"suppress": []}, suppress=8).bid() is None


def test_consent_on_record_ends(made: Any) -> None:
    """In China the record decides: after its last day the person is unknown, and the segment no longer matches."""
    china = {"device": {"geo": {"country": "CHN", "region": None, "city": None}}, "regs": {"ext": {"pipl": 1}}}
    line_item = {"targeting": {"segments": {"include": ["in-market"]}}}
    today = START_S // 86_400
    assert made(line_item, consent_until_d=today).bid(china)
    assert made(line_item, consent_until_d=today - 1).bid(china) is None


def test_a_store_that_cannot_be_written_is_counted_and_refuses_nothing(made: Any, tmp_path: Path) -> None:
    """The file of states is damaged: nobody is known, so only what isn't capped is shown; notices are taken."""
    path = frequency_path(tmp_path / "0" / "people-1")
    path.mkdir(parents=True)
    (path / "data.mdb").write_bytes(b"not a database" * 1000)
    world = made({**TWO_A_DAY, "allow_uncapped": True})
    assert world.engine.audience.frequency.errors == 1
    token = world.bid()
    failed = world.news.failed
    world.tell("b", token, p="2")
    assert (world.news.counted, world.news.failed - failed) == (0, 0)  # nobody to count
    strict = made(TWO_A_DAY)
    token = strict.bid()
    strict.news.close()
    strict.news._open = lambda: (_ for _ in ()).throw(OSError("disk"))  # type: ignore[method-assign]
    strict.tell("b", token, p="2")
    assert (strict.news.counted, strict.news.failed) == (0, 1)


def test_a_notice_of_an_unknown_line_item_is_left_alone(made: Any) -> None:
    world = made(TWO_A_DAY)
    notice = world.notice("b", world.bid(), p="2")
    world.news.tell([notice._replace(ticket=notice.ticket._replace(line_item=99))])
    assert world.news.counted == 0


def test_people_already_counted_are_met_as_such(made: Any) -> None:
    world = made(TWO_A_DAY)
    item = int(world.snapshot.li_i[0, 0])
    person = (1).to_bytes(8, "little") + bytes(8)
    with LmdbOf(world) as states:
        states.count([(person, Shown(START_S - 5, 1, item, 1, 1, 0))] * 2)
    assert world.bid() is None


def test_a_person_loaded_under_the_last_pepper_is_met_while_both_are_valid(made: Any) -> None:
    line_item = {"targeting": {"segments": {"include": ["in-market"]}}}
    world = made(line_item)
    assert world.bid()
    file = world.config.path("secrets", "pepper.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), "2": "5" * 32}))
    world.engine.close()
    world.engine = Engine.open(
        world.config, snapshot=world.snapshot, scorer=world.stage.scorer, signer=world.stage.signer,
        slices=Slices.fixed(world.snapshot.li_i[:, 0].copy(), 10**12), metrics=Metrics.memory(),
        clock=lambda: world.now_s * 10**9,
    )  # fmt: skip
    assert world.bid()
    assert world.bid(STRANGER) is None
