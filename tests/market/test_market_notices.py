"""Delivery of notices: macros, retries, order, and books that count what was acknowledged."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from scripted_server import serving
from world_fixture import VENUES, bid_for, make_world, response_to

from dsp.base.money import parse_micros
from dsp.market import notices
from dsp.market.http_client import HttpClient
from dsp.market.notices import Books, Courier, cpm_text, deed_url, fill_macros
from dsp.market.world import Deed, Sale


def sales(venue: int, price: float, count: int) -> list[Sale]:
    world = make_world()
    out: list[Sale] = []
    for i in range(2000):
        scene = world.factory.scene(i)
        if scene.venue == venue and not scene.slots[0].private:
            out += world.sell(scene, response_to(scene, VENUES[venue].currency, bid_for(scene, 0, price)))
        if len(out) == count:
            break
    return out


async def deliver(
    report: Callable[[Courier], None], status_of: Callable[[str, int], int]
) -> tuple[Courier, Books, list[str]]:
    """Run a courier against a server that answers the n-th request of each path with ``status_of(path, n)``."""
    asked: list[str] = []
    seen: Counter[str] = Counter()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            path = head.split(b" ")[1].decode()
            asked.append(path)
            seen[path] += 1
            writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % status_of(path, seen[path]))

    async with serving(script) as port:
        client = HttpClient("127.0.0.1", port)
        books = Books()
        courier = Courier(client, books)
        report(courier)
        await courier.settled(10.0)
        await courier.close()
        await client.close()
    return courier, books, asked


def test_won_bids_are_told_with_their_price_and_booked_to_the_micro() -> None:
    won = [sale for sale in sales(0, 50.0, 20) if sale.settlement.won]
    assert won

    def report(courier: Courier) -> None:
        for sale in won:
            courier.report(sale, [], "seat")

    _, books, asked = asyncio.run(deliver(report, lambda path, n: 204))
    billed = [parse_qs(urlsplit(path).query) for path in asked if path.startswith("/b/")]
    assert all(query["c"] == ["USD"] for query in billed)
    assert sum(parse_micros(query["p"][0]) // 1000 for query in billed) == books.spend_micros
    assert books.spend_micros == sum(sale.charge_micros for sale in won)
    assert sum(books.by_line_item.values()) == books.spend_micros
    assert books.events == {"win": len(won), "billing": len(won)}


def test_an_exchange_that_bills_on_the_win_is_booked_on_the_win() -> None:
    (sale, *_) = [sale for sale in sales(1, 50.0, 5) if sale.settlement.won]
    _, books, _ = asyncio.run(deliver(lambda courier: courier.report(sale, [], "s"), lambda path, n: 204))
    assert books.events == {"win": 1, "billing": 1}
    assert books.spend_micros == sale.charge_micros
    _, books, _ = asyncio.run(
        deliver(lambda courier: courier.send("billing", sale.bid["burl"], sale), lambda path, n: 204)
    )
    assert books.spend_micros == 0


def test_a_notice_is_repeated_until_acknowledged_and_booked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "RETRY_S", 0.01)
    (sale, *_) = [sale for sale in sales(0, 50.0, 5) if sale.settlement.won]
    courier, books, asked = asyncio.run(
        deliver(lambda courier: courier.report(sale, [], "s"), lambda path, n: 503 if n < 3 else 204)
    )
    assert sum(path.startswith("/b/") for path in asked) == 3
    assert books.events["billing"] == 1
    assert books.spend_micros == sale.charge_micros
    assert (courier.pending, courier.failed, courier.retries) == (0, 0, 4)


def test_a_refused_notice_is_given_up_and_counted() -> None:
    (sale, *_) = [sale for sale in sales(0, 50.0, 5) if sale.settlement.won]
    courier, books, _ = asyncio.run(deliver(lambda courier: courier.report(sale, [], "s"), lambda path, n: 403))
    assert (courier.pending, courier.failed) == (0, 2)
    assert courier.refused == {403: 2}
    assert books.spend_micros == 0


def test_losses_tell_reason_and_what_had_won() -> None:
    lost = [sale for sale in sales(0, 0.9, 40) if sale.loss]
    assert lost
    _, books, asked = asyncio.run(
        deliver(lambda courier: [courier.report(sale, [], "s") for sale in lost] and None, lambda path, n: 204)
    )
    queries = [parse_qs(urlsplit(path).query) for path in asked]
    assert sorted(int(q["r"][0]) for q in queries) == sorted(sale.loss for sale in lost)
    assert sorted(parse_micros(q["m"][0]) for q in queries) == sorted(s.settlement.min_to_win_micros for s in lost)
    assert books.events == {"loss": len(lost)}


def test_deeds_follow_in_order_after_the_impression() -> None:
    (sale, *_) = [sale for sale in sales(0, 50.0, 5) if sale.settlement.won]
    deeds = [Deed("click", 0.01, 0.0), Deed("applied", 0.02, 0.0), Deed("funded", 0.02, 6000.0)]
    _, books, asked = asyncio.run(deliver(lambda courier: courier.report(sale, deeds, "s"), lambda path, n: 302))
    kinds = [path.split("?")[0].split("/")[1] for path in asked]
    assert kinds == ["n", "b", "c", "p", "p"]
    assert asked[3].endswith("?e=applied")
    assert asked[4].endswith("?e=funded&v=6000.0")
    assert books.events == {"win": 1, "billing": 1, "click": 1, "applied": 1, "funded": 1}


def test_macros_without_a_value_become_empty() -> None:
    url = "https://x/?p=${AUCTION_PRICE}&l=${AUCTION_LOSS}&m=${AUCTION_MBR}&k=${OTHER}"
    assert fill_macros(url, {"PRICE": "1.5", "LOSS": "102"}) == "https://x/?p=1.5&l=102&m=&k=${OTHER}"


@pytest.mark.parametrize(("micros", "text"), [(0, "0.000000"), (1_234_567, "1.234567"), (12_000_000, "12.000000")])
def test_prices_are_exact_text(micros: int, text: str) -> None:
    assert cpm_text(micros) == text
    assert parse_micros(text) == micros


def test_deeds_go_beside_the_billing_url() -> None:
    burl = "https://h/x/b/TOKEN?p=${AUCTION_PRICE}"
    assert deed_url(burl, Deed("click", 0.1, 0.0)) == "https://h/x/c/TOKEN"
    assert deed_url(burl, Deed("approved", 0.1, 0.0)) == "https://h/x/p/TOKEN?e=approved"


def test_books_split_by_advertiser() -> None:
    books = Books()
    (sale, *_) = [sale for sale in sales(0, 50.0, 5) if sale.settlement.won]
    books.bill(sale)
    books.line_events[1, "billing"] += 1
    found: dict[str, Any] = books.by_advertiser({1: "Bank", 2: "Insurer"})
    assert found["Bank"][0] == pytest.approx(sale.charge_micros / 1e6)
    assert found["Bank"][1]["billing"] == 1
    assert found["Insurer"] == (0.0, Counter())
