"""One market, settled: takes bid responses, sells the slots, and lets the viewers of won ads behave.

Used alike by the in-process simulation and the live driver: they differ in how requests travel and in whose clock runs,
not in what happens. Everything random is a function of (seed, request, slot), so two runs with the same bids see the
same clicks and conversions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dsp.base.money import impression_micros
from dsp.catalog.layout import (
    CR_H,
    CR_ID,
    CR_LINE_ITEM,
    CR_MEDIA,
    CR_W,
    LI_CURRENCY,
    LI_ID,
    LI_PRODUCT,
    LIV_EAD,
)
from dsp.catalog.records import Catalog
from dsp.catalog.snapshot import Snapshot
from dsp.market.auction import Rivals, Settlement, settle, ticks
from dsp.market.people import People, mix64
from dsp.market.supply import RequestFactory, Scene
from dsp.market.truth import APPLY, APPROVE, CLICK, DEFAULT, FUND, Exposures, Truth, impression_value
from dsp.market.venues import Deal, Venue
from dsp.openrtb.columns import BANNER, NATIVE, VIDEO

Json = dict[str, Any]
F64 = npt.NDArray[np.float64]

LOSS_OUTBID = 102
LOSS_BELOW_FLOOR = 100
LOSS_BELOW_DEAL_FLOOR = 101
LOSS_INVALID = 3

# What a viewer may do, in the order it happens; names are those of the conversion postback.
STEPS = ("click", "registered", "applied", "approved", "funded", "defaulted")
ONLY_REGISTERS = 0.25  # of clickers who do not apply


class Ad(NamedTuple):
    """A creative of the bidder, as its response names it (crid)."""

    creative: int  # public id
    row: int  # line item index in the snapshot
    line_item: int  # public id
    product: int
    media: int
    area: float
    ead_usd: float
    usd: float  # one unit of the account's currency in USD


class Sale(NamedTuple):
    """One bid and how its auction ended."""

    scene: Scene
    slot: int  # number of the slot
    bid: Json
    ad: Ad
    venue: Venue
    settlement: Settlement
    loss: int  # OpenRTB loss reason, 0 won

    @property
    def charge_micros(self) -> int:
        """What the won impression costs, micros of the account's currency, half up as the ledger rounds it."""
        micros = impression_micros(self.settlement.price_micros)
        fx = self.venue.usd / self.ad.usd
        return micros if fx == 1.0 else math.floor(micros * fx + 0.5)


class Deed(NamedTuple):
    """Something a viewer did: STEPS name and the seconds that passed since the step before."""

    step: str
    after_s: float
    value: float  # conversions: what the advertiser reports, account currency


@dataclass
class World:
    """A market around one bidder's catalog. Build it with `World.make`."""

    people: People
    factory: RequestFactory
    rivals: Rivals
    truth: Truth
    ads: Mapping[str, Ad]  # by crid
    offers: F64  # li_v of the snapshot
    seed: int

    @classmethod
    def make(
        cls, people: People, seed: int, snapshot: Snapshot, catalog: Catalog, vendor_id: int, worthless: float = 0.0
    ) -> World:
        """The market of ``people`` in which this catalog bids; one world per (people, seed, catalog).

        ``worthless`` is the share of the supply that nobody here can use.
        """
        domains = [advertiser.domains[0] for advertiser in catalog.advertisers if advertiser.domains]
        factory = RequestFactory(
            people, seed, venues_of(catalog), vendor_id=vendor_id, blocked_advertisers=domains, worthless=worthless
        )  # fmt: skip
        ads = ads_of(snapshot)
        return cls(people, factory, Rivals(people, seed), Truth(people, seed), ads, np.asarray(snapshot.li_v), seed)

    def sell(self, scene: Scene, response: Json) -> list[Sale]:
        """Settle every bid of a response (an OpenRTB BidResponse as a dictionary); one slot goes to one bid at most.

        A bid for an unknown slot or with an unknown creative loses as invalid.
        """
        venue = self.factory.venues[scene.venue]
        numbers = {slot.id: k for k, slot in enumerate(scene.slots)}
        sales: list[Sale] = []
        taken: set[int] = set()
        bids = [bid for seat in response.get("seatbid", ()) for bid in seat["bid"]]
        for bid in sorted(bids, key=lambda b: -b["price"]):
            k, ad = numbers.get(bid["impid"], -1), self.ads.get(bid.get("crid", ""))
            if k < 0 or ad is None:
                continue
            if k in taken:
                sales.append(Sale(scene, k, bid, ad, venue, Settlement(False, 0, 0), LOSS_OUTBID))
                continue
            sale = self._settle(scene, k, venue, bid, ad)
            if sale.settlement.won:
                taken.add(k)
            sales.append(sale)
        return sales

    def _settle(self, scene: Scene, k: int, venue: Venue, bid: Json, ad: Ad) -> Sale:
        slot = scene.slots[k]
        price = ticks(bid["price"])
        deal = next((d for d in slot.deals if d.id == bid.get("dealid")), None)
        if deal is not None:
            usd = 1.0 if deal.currency == "USD" else venue.usd
            floor, rivals, at = (
                ticks(deal.floor * usd / venue.usd),
                self.rivals.deal_bids(scene, k, venue, deal),
                deal.at,
            )
        else:
            floor, rivals, at = ticks(slot.floor), self.rivals.bids(scene, k, venue), venue.at
        if (slot.private and deal is None) or (deal is None and "dealid" in bid):
            return Sale(scene, k, bid, ad, venue, Settlement(False, 0, 0), LOSS_INVALID)
        settlement = settle(at, floor, price, rivals)
        loss = 0
        if not settlement.won:
            below = LOSS_BELOW_FLOOR if deal is None else LOSS_BELOW_DEAL_FLOOR
            loss = below if price < floor else LOSS_OUTBID
        return Sale(scene, k, bid, ad, venue, settlement, loss)

    def probabilities(self, sales: Sequence[Sale], utc_hour: F64) -> F64:
        """The true funnel of these ads shown to these people, float64[n, 5]."""
        shown = [(s.ad.product, s.ad.line_item, s.ad.creative, s.ad.ead_usd, s.ad.media) for s in sales]
        return self.truth.funnel(Exposures.of([s.scene for s in sales], [s.slot for s in sales], shown, utc_hour))

    def value_cpm_usd(self, sales: Sequence[Sale], p: F64) -> F64:
        """True expected worth of the impressions in USD per thousand, float64[n]."""
        rows = self.offers[[s.ad.row for s in sales]]
        return impression_value(p, rows) * np.array([s.ad.usd for s in sales]) * 1000

    def behave(self, sales: Sequence[Sale], utc_hour: F64) -> list[list[Deed]]:
        """What the viewer of each won ad does, in order; nothing for most."""
        if not sales:
            return []
        p = self.probabilities(sales, utc_hour).tolist()
        return [self.deeds(sale, row) if sale.settlement.won else [] for sale, row in zip(sales, p, strict=True)]

    def deeds(self, sale: Sale, p: list[float]) -> list[Deed]:
        """What the viewer of a won ad does, given the true funnel ``p`` (five probabilities)."""
        deeds: list[Deed] = []
        start = mix64(mix64(self.seed << 32 ^ 0xDEED) ^ sale.scene.index << 3 ^ sale.slot)
        if start / 2**64 >= p[CLICK]:
            return deeds
        u = [mix64(start + k) / 2**64 for k in range(12)]
        deeds.append(Deed("click", 0.1 + 0.9 * u[6], 0.0))
        applies = u[1] < p[APPLY]
        if applies or u[5] < ONLY_REGISTERS:
            deeds.append(Deed("registered", 0.2 + 0.4 * u[7], 0.0))
        for step, stage, wait in (
            ("applied", APPLY, 8),
            ("approved", APPROVE, 9),
            ("funded", FUND, 10),
            ("defaulted", DEFAULT, 11),
        ):
            if u[stage] >= p[stage]:
                break
            amount = sale.ad.ead_usd / sale.ad.usd if step == "funded" else 0.0
            deeds.append(Deed(step, 0.2 + 1.0 * u[wait], round(amount, 2)))
        return deeds


def ads_of(snapshot: Snapshot) -> dict[str, Ad]:
    """The snapshot's creatives by crid."""
    out: dict[str, Ad] = {}
    line_items, creatives = snapshot.li_i.tolist(), snapshot.cr_i.tolist()
    usd, ead = snapshot.cur_usd.tolist(), snapshot.li_v[:, LIV_EAD].tolist()
    for creative in creatives:
        row = creative[CR_LINE_ITEM]
        item = line_items[row]
        rate = usd[item[LI_CURRENCY]]
        out[str(creative[CR_ID])] = Ad(
            creative[CR_ID],
            row,
            item[LI_ID],
            item[LI_PRODUCT],
            creative[CR_MEDIA],
            float(creative[CR_W] * creative[CR_H] or 75_000),
            ead[row] * rate,
            rate,
        )
    return out


def venues_of(catalog: Catalog) -> tuple[Venue, ...]:
    """The exchanges of a catalog as venues: those that pay in yuan sell Chinese inventory, others everybody else's."""
    usd = {currency.code: currency.usd for currency in catalog.currencies}
    chinese = any(exchange.currency == "CNY" for exchange in catalog.exchanges)
    venues = []
    for number, exchange in enumerate(catalog.exchanges):
        abroad = ("USA", "GBR", "DEU") if chinese else ()
        venues.append(
            Venue(
                name=exchange.name,
                at=2 if exchange.auction == "second" else 1,
                currency=exchange.currency,
                usd=usd.get(exchange.currency, 1.0),
                weight=1.0 / (1 + number),
                countries=("CHN",) if exchange.currency == "CNY" else abroad,
                tmax_ms=exchange.tmax_ms,
                token=exchange.token,
                billed_on_win=exchange.billable == "nurl",
                deals=tuple(
                    Deal(deal.id, deal.floor_micros / 1e6, deal.currency, deal.at, _deal_media(deal.id))
                    for deal in catalog.deals
                    if deal.exchange_id == exchange.id
                ),
            )
        )
    return tuple(venues)


def _deal_media(name: str) -> int:
    """What a deal is about, as far as its name says: a catalog knows its id and price only."""
    return VIDEO if "video" in name else BANNER | NATIVE if "native" in name else BANNER | VIDEO | NATIVE
