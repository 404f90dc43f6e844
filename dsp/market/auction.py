"""The auction: rival bidders, and the rules by which one slot is sold.

Prices are CPM micros of the exchange's currency, in steps of ``TICK_MICROS``. `settle` is the whole rule: a bid wins if
it reaches ``min_to_win_micros``, which depends on floor and rivals alone; so winning is monotone in the bid, a second
price never exceeds it, and truthful bidding is optimal at second price.

Rivals are log-normal around what such a slot goes for: format, site quality, and the part of the person's worth that
other bidders see too. Their draws depend on (seed, request, slot) only, never on our bid, so two bidders can be
compared on the very same auctions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dsp.market.imps import Slot
from dsp.market.people import People
from dsp.market.supply import Scene
from dsp.market.venues import Deal, Venue
from dsp.openrtb.columns import NATIVE, VIDEO

TICK_MICROS = 1000  # a thousandth of a currency unit CPM, so one impression costs whole micros
MAX_RIVALS = 6
BLOCK = 256
MAX_SLOTS = 4
FIXED_PRICE = 3  # at of a deal whose floor is the agreed price


class Settlement(NamedTuple):
    """How an auction ended for us."""

    won: bool
    price_micros: int  # what we pay per thousand, 0 if lost
    min_to_win_micros: int  # what would have been enough


def settle(at: int, floor_micros: int, bid_micros: int, rivals_micros: Sequence[int]) -> Settlement:
    """Sell one slot by ``at`` (1 first price, 2 second price, 3 fixed price) to the highest bid at or above the floor.

    Ties go to the rival: it is enough to bid one tick above the best of them, and the floor.
    """
    best = max(rivals_micros, default=-TICK_MICROS)
    enough = max(floor_micros, best + TICK_MICROS, TICK_MICROS)
    if bid_micros < enough:
        return Settlement(False, 0, enough)
    if at == 1:
        return Settlement(True, bid_micros, enough)
    if at == FIXED_PRICE:
        return Settlement(True, min(bid_micros, max(floor_micros, TICK_MICROS)), enough)
    return Settlement(True, enough, enough)


def ticks(cpm: float) -> int:
    """A CPM price in whole currency as CPM micros, rounded to a tick."""
    return round(cpm * 1000) * TICK_MICROS


@dataclass
class Rivals:
    """The other bidders of a market; ``level_usd`` is the CPM around which they bid for an average slot."""

    people: People
    seed: int
    level_usd: float = 3.5
    spread: float = 0.55  # sigma of one rival's log bid

    def __post_init__(self) -> None:
        self._block = -1
        self._noise: list[list[list[float]]] = []
        worth = 0.45 * self.people.wealth + 0.9 * self.people.intent.max(1)
        self._worth = (worth - worth.mean()).astype(np.float32)

    def bids(self, scene: Scene, k: int, venue: Venue) -> list[int]:
        """Rival bids for slot ``k`` of ``scene``, CPM micros of the venue's currency, in no order; maybe none."""
        block, row = divmod(scene.index, BLOCK)
        if block != self._block:
            self._load(block)
        noise = self._noise[row][min(k, MAX_SLOTS - 1)]
        count = int(noise[MAX_RIVALS] * (MAX_RIVALS + 1))
        mean = self._log_level(scene, scene.slots[k]) - math.log(venue.usd)
        return [ticks(math.exp(mean + self.spread * z)) for z in noise[:count]]

    def deal_bids(self, scene: Scene, k: int, venue: Venue, deal: Deal) -> list[int]:
        """Rivals of a deal bid: a deal is sold before the open auction, so only some of them, or none, compete."""
        return self.bids(scene, k, venue)[: 0 if deal.at == FIXED_PRICE else 2]

    def _log_level(self, scene: Scene, slot: Slot) -> float:
        """The mean log CPM in USD of one rival's bid."""
        format_ = 0.9 if slot.media & VIDEO else 0.35 if slot.media & NATIVE else 0.0
        place = 0.15 if slot.pos == 1 else 0.4 if slot.instl else 0.0
        area = 0.12 * math.log(max(slot.w * slot.h, 1) / 75_000)
        worth = 0.9 * float(self._worth[scene.person])
        return math.log(self.level_usd) + format_ + place + area + 0.9 * (scene.site.quality - 0.5) + worth

    def _load(self, block: int) -> None:
        rng = np.random.default_rng([self.seed, 0xA0C7, block])
        noise = np.empty((BLOCK, MAX_SLOTS, MAX_RIVALS + 1))
        noise[..., :MAX_RIVALS] = rng.normal(size=(BLOCK, MAX_SLOTS, MAX_RIVALS))
        noise[..., MAX_RIVALS] = rng.random((BLOCK, MAX_SLOTS))
        self._noise = noise.tolist()
        self._block = block
