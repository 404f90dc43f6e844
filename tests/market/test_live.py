"""The live driver against a scripted bidder and a ledger that acknowledges everything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import pytest
from scripted_server import serving
from world_fixture import VENUES, bid_for, make_world, response_to

from dsp.base.money import impression_micros
from dsp.market.http_client import HttpClient
from dsp.market.live import MAX_IN_FLIGHT, LiveMarket
from dsp.market.notices import Books, Courier
from dsp.market.supply import Scene
from dsp.market.venues import Venue
from dsp.market.wire import Heard
from dsp.openrtb.columns import FMT_JSON

Answer = Callable[[Scene], Heard]


async def acknowledge(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.readuntil(b"\r\n\r\n"):
        writer.write(b"HTTP/1.1 204 X\r\n\r\n")


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    """What compiles at its first use would hold the market up, and it skips what is late."""
    impression_micros(1)


def trade(answer: Answer, seconds: float = 0.5, rate: float = 200.0, delay_s: float = 0.0) -> LiveMarket:
    async def run() -> LiveMarket:
        async with serving(acknowledge) as port:
            client, books = HttpClient("127.0.0.1", port), Books()
            courier = Courier(client, books)

            async def ask(scene: Scene, venue: Venue) -> Heard:
                await asyncio.sleep(delay_s)
                return answer(scene)

            market = LiveMarket(make_world(), [("test", ask, 1.0)], courier, books)
            await market.run(seconds, rate)
            await courier.settled(20.0)
            await courier.close()
            await client.close()
            return market

    return asyncio.run(run())


def bid(scene: Scene) -> Heard:
    response = response_to(scene, VENUES[scene.venue].currency, *(
        bid_for(scene, k, 15.0, mtype={1: 1, 2: 2, 8: 4}[slot.media & -slot.media], dur=15)
        for k, slot in enumerate(scene.slots) if not slot.private
    ))  # fmt: skip
    if not response["seatbid"][0]["bid"]:
        return Heard(204, b"", FMT_JSON, 0.001)
    return Heard(200, msgspec.json.encode(response), FMT_JSON, 0.001)


def test_bids_are_settled_told_and_booked() -> None:
    market = trade(bid)
    tally, books = market.tally, market.books
    assert tally.invalid == 0, tally.problems
    assert tally.asked == tally.answered > 20
    assert tally.bids > 0
    assert 0 < tally.wins < tally.offers
    assert books.events["win"] == books.events["billing"] == tally.wins
    assert books.events["loss"] == tally.offers - tally.wins
    assert books.spend_micros > 0
    assert tally.value_usd != 0
    assert market.courier.pending == market.courier.failed == 0


@pytest.mark.parametrize(
    ("heard", "count"),
    [
        (Heard(204, b"", FMT_JSON, 0.001), "answered"),
        (Heard(0, b"", FMT_JSON, 0.2), "timeouts"),
        (Heard(503, b"", FMT_JSON, 0.001), "errors"),
        (Heard(200, b"{", FMT_JSON, 0.001), "invalid"),
        (Heard(200, b'{"id":"x","seatbid":[{"bid":[{"impid":"1"}]}]}', FMT_JSON, 0.001), "invalid"),
    ],
)
def test_each_kind_of_answer_is_counted(heard: Heard, count: str) -> None:
    tally = trade(lambda scene: heard, 0.2).tally
    assert getattr(tally, count) == tally.asked > 5
    assert tally.wins == tally.bids == 0


def test_a_slow_bidder_makes_the_market_skip_not_wait() -> None:
    tally = trade(lambda scene: Heard(204, b"", FMT_JSON, 0.5), 0.5, 4 * MAX_IN_FLIGHT, delay_s=1.0).tally
    assert tally.asked <= MAX_IN_FLIGHT
    assert tally.skipped > 0


def test_percentiles_are_of_all_or_of_the_last() -> None:
    tally = trade(lambda scene: Heard(204, b"", FMT_JSON, 0.002), 0.2).tally
    assert tally.percentiles_ms() == pytest.approx((2.0, 2.0))
    tally.seconds.clear()
    assert tally.percentiles_ms(recent=True) == (0.0, 0.0)
