"""What people really do: the true probabilities of every step of the funnel, and what that makes an impression worth.

Nothing here is visible to the bidder. The functions are smooth in the hidden columns of `People`, with the effects a
marketer would expect: intent drives clicks and applications, creditworthiness approvals and defaults, attention (site,
format, position, hour) clicks only. Because the truth is known, so is the best possible bid, and regret against it.

The world is *brisk*: clicks and applications are some ten times likelier than in life, so that one minute of traffic
shows every stage; relations between people, products and contexts are what is meant to be realistic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dsp.catalog.layout import (
    LIV_EAD,
    LIV_LGD,
    LIV_MARGIN,
    LIV_PAYOUT_APPLY,
    LIV_PAYOUT_APPROVE,
    LIV_PAYOUT_CLICK,
    LIV_PAYOUT_FUND,
    PRODUCTS,
)
from dsp.market.people import People, mix64
from dsp.market.places import PLACES
from dsp.market.supply import Scene
from dsp.openrtb.columns import NATIVE, VIDEO

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

CLICK, APPLY, APPROVE, FUND, DEFAULT = range(5)  # columns, in the order of the models' HEADS

_UTCOFFSET = np.array([place.utcoffset for place in PLACES])
_LENDING = np.array([product in ("loan", "credit_card") for product in PRODUCTS])
_RICH = np.array([0.0, 0.1, 0.1, 0.7, 0.4])  # pull of wealth on applying, per product
_LENIENCE = np.array([0.1, 0.3, 2.0, 2.4, 2.8])  # log odds of approval for the average applicant


@dataclass(frozen=True)
class Exposures:
    """n impressions, as columns: who saw which ad where and when."""

    person: I64
    product: I64  # PRODUCTS index
    line_item: I64  # public ids: offers and ads differ in appeal
    creative: I64
    ead: F64  # exposure at default in USD, 0 where not lent
    media: I64  # what was shown
    area: F64  # pixels
    pos: I64
    instl: I64
    quality: F64  # the site's
    affinity: I64  # the site's topic
    finance: F64  # 1 on finance sites
    utc_hour: F64

    @classmethod
    def of(
        cls,
        scenes: Sequence[Scene],
        slots: Sequence[int],
        shown: Sequence[tuple[int, int, int, float, int]],
        utc_hour: F64,
    ) -> Exposures:
        """From scenes, slot numbers and what was shown: (product, line item, creative, ead USD, medium) each."""
        facts = [scene.slots[k] for scene, k in zip(scenes, slots, strict=True)]
        product, line_item, creative, ead, media = zip(*shown, strict=True) if shown else ((),) * 5
        return cls(
            person=np.array([scene.person for scene in scenes], np.int64),
            product=np.array(product, np.int64),
            line_item=np.array(line_item, np.int64),
            creative=np.array(creative, np.int64),
            ead=np.array(ead, np.float64),
            media=np.array(media, np.int64),
            area=np.array([slot.w * slot.h for slot in facts], np.float64),
            pos=np.array([slot.pos for slot in facts], np.int64),
            instl=np.array([slot.instl for slot in facts], np.int64),
            quality=np.array([scene.site.quality for scene in scenes], np.float64),
            affinity=np.array([scene.site.affinity for scene in scenes], np.int64),
            finance=np.array([float(scene.site.categories[0] == "IAB13") for scene in scenes]),
            utc_hour=utc_hour,
        )


@dataclass(frozen=True)
class Truth:
    """The laws of one world."""

    people: People
    seed: int
    _effects: dict[int, dict[int, float]] = field(default_factory=dict, repr=False)  # as far as asked for

    def funnel(self, x: Exposures) -> F64:
        """True p(click), p(apply|click), p(approve|apply), p(fund|approve), p(default|fund): float64[n, 5]."""
        people, who = self.people, x.person
        intent = people.intent[who, x.product].astype(np.float64)
        wealth = people.wealth[who].astype(np.float64)
        credit = people.credit[who].astype(np.float64)
        owned = (people.owned[who] >> x.product) & 1
        lending = _LENDING[x.product]
        debt = np.where(lending, np.log(np.maximum(x.ead, 500.0) / 5_000.0), 0.0)
        out = np.empty((len(who), 5))
        out[:, CLICK] = (
            -5.35
            + people.response[who]
            + 2.6 * intent
            + self._attention(x)
            + 0.5 * x.finance * intent
            - 0.5 * owned
            + self._appeal(x.creative, 0x0C0D, 0.22)
        )
        out[:, APPLY] = (
            -2.5
            + 3.3 * intent
            + 0.4 * (x.quality - 0.5)
            - 0.9 * x.instl  # full-screen ads are tapped by accident
            + _RICH[x.product] * wealth
            + self._appeal(x.line_item, 0x0FFE, 0.25)
        )
        out[:, APPROVE] = _LENIENCE[x.product] + np.where(
            lending, 1.5 * credit + 0.4 * wealth - 0.25 * debt, 0.4 * wealth
        )
        out[:, FUND] = 0.7 + 1.2 * intent - 0.25 * wealth + self._appeal(x.line_item, 0xF00D, 0.2)
        out[:, DEFAULT] = np.where(lending, -2.9 - 1.2 * credit - 0.3 * wealth + 0.2 * debt, -6.0)
        return 1 / (1 + np.exp(-out))

    def _attention(self, x: Exposures) -> F64:
        """Log odds that context adds to a click: site, topic, format, size, position and hour of the person's day."""
        people, who = self.people, x.person
        local = (x.utc_hour + _UTCOFFSET[people.place[who]] / 60.0) % 24
        awake = np.cos((local - people.peak_hour[who]) * (2 * np.pi / 24))
        shape = np.where(
            x.media == NATIVE, 0.45, np.where(x.media == VIDEO, 0.15, 0.18 * np.log(x.area / 75_000 + 0.1))
        )
        topic = people.affinity[who, x.affinity].astype(np.float64)
        place = np.where(x.pos == 1, 0.2, 0.0) + 0.5 * x.instl
        return 1.1 * (x.quality - 0.5) + 0.6 * topic + shape + place + 0.35 * awake

    def _appeal(self, ids: I64, salt: int, spread: float) -> F64:
        """A fixed effect per offer or ad, uniform with the given standard deviation; depends on id and seed."""
        effects = self._effects.setdefault(salt, {})
        wanted = ids.tolist()
        for i in wanted:
            if i not in effects:
                u = mix64((self.seed << 20) ^ salt << 8 ^ i) / 2**64
                effects[i] = (u - 0.5) * spread * 12**0.5
        return np.array([effects[i] for i in wanted], np.float64)


def impression_value(p: F64, offer: F64) -> F64:
    """Worth of impressions, account currency: ``p`` float64[n, 5] (HEADS), ``offer`` float64[n, LIV_WIDTH] or one row.

    The design's formula: funded margin less expected loss, plus the payouts of each stage reached.
    """
    clicked = p[:, CLICK]
    applied = clicked * p[:, APPLY]
    approved = applied * p[:, APPROVE]
    funded = approved * p[:, FUND]
    offer = np.atleast_2d(offer)
    loss = p[:, DEFAULT] * offer[:, LIV_LGD] * offer[:, LIV_EAD]
    return (
        funded * (offer[:, LIV_MARGIN] - loss)
        + clicked * offer[:, LIV_PAYOUT_CLICK]
        + applied * offer[:, LIV_PAYOUT_APPLY]
        + approved * offer[:, LIV_PAYOUT_APPROVE]
        + funded * offer[:, LIV_PAYOUT_FUND]
    )


def omniscient_profit(value_cpm: F64, price_to_win_cpm: F64) -> F64:
    """Profit per thousand of who knows both the value and the price that wins: it buys what is worth more than that."""
    return np.maximum(value_cpm - price_to_win_cpm, 0.0)


def regret(value_cpm: F64, price_to_win_cpm: F64, won: npt.NDArray[np.bool_], paid_cpm: F64) -> F64:
    """What each auction left on the table against `omniscient_profit`, at the true expected value; never negative
    for prices of at least ``price_to_win_cpm``. All float64[n], CPM of one currency."""
    return omniscient_profit(value_cpm, price_to_win_cpm) - np.where(won, value_cpm - paid_cpm, 0.0)
