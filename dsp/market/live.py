"""The market against a running bidder: opens auctions at a steady rate, settles them, and sends what follows.

Open loop: auction i is due at i / rate whatever the bidder does; when too many are unanswered, further ones are skipped
and counted, so a slow bidder shows as skipped auctions and latency, never as a quietly slower market.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dsp.market.notices import Books, Courier
from dsp.market.responses import problems, read_response
from dsp.market.supply import Scene
from dsp.market.wire import Ask, Heard
from dsp.market.world import World

MAX_IN_FLIGHT = 256
TICK_S = 0.002
CATCH_UP_S = 0.1  # auctions that are later than this are not opened at all
RECENT = 4096  # answers that the shown percentiles are of


@dataclass
class Tally:
    """What happened so far; plain counts, so a display may read them at any moment."""

    started: float = field(default_factory=time.perf_counter)
    asked: int = 0
    answered: int = 0
    bids: int = 0  # responses with at least one bid
    offers: int = 0  # bids in them
    wins: int = 0
    timeouts: int = 0
    errors: int = 0  # statuses other than 200, 204 and none in time
    invalid: int = 0  # responses that an exchange would refuse
    skipped: int = 0
    longest_pause_s: float = 0.0  # of the market itself: latencies beyond it may be its own fault
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)  # by wire and status, 0: none in time
    problems: Counter[str] = field(default_factory=Counter)
    value_usd: float = 0.0  # true expected worth of what was won
    seconds: list[float] = field(default_factory=list)  # latency of every answer

    def percentiles_ms(self, recent: bool = False) -> tuple[float, float]:
        """(p50, p99) of the latency in ms, of all answers or the last `RECENT`; zeros without any."""
        sample = self.seconds[-RECENT:] if recent else self.seconds
        if not sample:
            return 0.0, 0.0
        p50, p99 = np.percentile(sample, (50, 99)) * 1000
        return float(p50), float(p99)

    def rate(self) -> float:
        """Answers per second since the start."""
        return self.answered / max(time.perf_counter() - self.started, 1e-9)


@dataclass
class LiveMarket:
    """One run: a world, the wires to its bidder with their shares of the traffic, and the courier of notices."""

    world: World
    wires: Sequence[tuple[str, Ask, float]]  # name, how to ask, share
    courier: Courier
    books: Books
    tally: Tally = field(default_factory=Tally)

    async def run(self, seconds: float, requests_per_s: float, first: int = 0) -> None:
        """Hold auctions ``first``, first + 1, ... for a while; returns when all are answered."""
        cumulative = np.cumsum([share for _, _, share in self.wires])
        cumulative /= cumulative[-1]
        loop = asyncio.get_running_loop()
        begun = loop.time()
        flying: set[asyncio.Task[None]] = set()
        opened = 0
        while (elapsed := loop.time() - begun) < seconds:
            due = int(elapsed * requests_per_s)
            late = due - opened - int(CATCH_UP_S * requests_per_s)
            if late > 0:  # the market itself was held up: not the bidder's fault, so not made up for by a burst
                self.tally.skipped += late
                opened += late
            while opened < due:
                if len(flying) >= MAX_IN_FLIGHT:
                    self.tally.skipped += due - opened
                    opened = due
                    break
                index = first + opened
                wire = int(np.searchsorted(cumulative, (index * 0.6180339887) % 1.0, side="right"))
                name, ask, _ = self.wires[min(wire, len(self.wires) - 1)]
                task = asyncio.create_task(self._auction(index, name, ask))
                flying.add(task)
                task.add_done_callback(flying.discard)
                opened += 1
                if opened % 8 == 0:
                    await asyncio.sleep(0)  # answers first: a burst must not delay what has arrived
            resumed = loop.time() + TICK_S
            await asyncio.sleep(TICK_S)
            self.tally.longest_pause_s = max(self.tally.longest_pause_s, loop.time() - resumed)
        if flying:
            await asyncio.gather(*flying)

    async def _auction(self, index: int, wire: str, ask: Ask) -> None:
        scene = self.world.factory.scene(index)
        venue = self.world.factory.venues[scene.venue]
        self.tally.asked += 1
        heard = await ask(scene, venue)
        self.tally.statuses[wire, heard.status] += 1
        self._hear(scene, heard)

    def _hear(self, scene: Scene, heard: Heard) -> None:
        """Count an answer, and settle what it bids."""
        tally, venue = self.tally, self.world.factory.venues[scene.venue]
        if heard.status == 0:
            tally.timeouts += 1
            return
        tally.answered += 1
        tally.seconds.append(heard.seconds)
        if heard.status == 204:
            return
        if heard.status != 200:
            tally.errors += 1
            return
        try:
            response = read_response(heard.payload, heard.format)
        except ValueError as error:
            tally.invalid += 1
            tally.problems[str(error)] += 1
            return
        if not response.get("seatbid"):
            return
        found = problems(scene, venue, response)
        if found:
            tally.invalid += 1
            tally.problems.update(found)
            return
        tally.bids += 1
        self._settle(scene, response)

    def _settle(self, scene: Scene, response: dict[str, Any]) -> None:
        sales = self.world.sell(scene, response)
        self.tally.offers += len(sales)
        seats = {bid["id"]: seat.get("seat", "") for seat in response["seatbid"] for bid in seat["bid"]}
        for sale in sales:
            if not sale.settlement.won:
                self.courier.report(sale, [], seats[sale.bid["id"]])
        won = [sale for sale in sales if sale.settlement.won]
        if not won:
            return
        self.tally.wins += len(won)
        p = self.world.probabilities(won, np.full(len(won), time.time() / 3600 % 24))
        self.tally.value_usd += float(self.world.value_cpm_usd(won, p).sum()) / 1000
        for sale, row in zip(won, p.tolist(), strict=True):
            self.courier.report(sale, self.world.deeds(sale, row), seats[sale.bid["id"]])
