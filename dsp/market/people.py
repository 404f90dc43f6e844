"""The synthetic population: who people really are, and the noisy part of it that a profile knows.

Everything is a column over person numbers 0..n-1, made by one seeded generator, so a population is reproduced from
(n, seed) alone and nothing is stored. Hidden columns (income, intent, credit risk, responsiveness) drive what people do
(`dsp.market.truth`); the bidder only ever sees `People.profiles()`, a partial and noisy view, and what requests say.
Identifiers are functions of the person number and the seed: no table of ids exists, and none is needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dsp.catalog.layout import PRODUCTS
from dsp.market.devices import DEVICES
from dsp.market.places import COUNTRIES, COUNTRY_INDEX, PLACE_COUNTRY, PLACES

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

# Content affinities, in the order of PROFILE["affinity"]; sites declare one of them.
AFFINITIES = ("news", "finance", "sports", "technology", "entertainment", "shopping", "travel", "home")
INCOME_EDGES = (0.45, 0.75, 1.1, 1.6, 2.6)  # of the country's median: bands 1..6
AGE_EDGES = (25, 35, 45, 55, 65)  # bands 1 (18-24) .. 6 (65+)

# How a person's data may be used.
ALLOWED = 0  # consents, or nothing forbids it
REFUSED = 1  # TCF or PIPL consent refused, US opt-out
LIMITED = 2  # limit ad tracking: no identifier in requests


@dataclass(frozen=True)
class Mix:
    """What the population looks like, as shares."""

    known: float = 0.98  # have a record in the audience store
    refused: float = 0.03  # of people, by country weight: more in GDPR countries
    limited: float = 0.02


@dataclass(frozen=True)
class People:
    """``n`` people as columns; make them with `People.generate`."""

    n: int
    seed: int
    place: npt.NDArray[np.uint8]  # PLACES index
    device: npt.NDArray[np.uint8]  # DEVICES index
    privacy: npt.NDArray[np.uint8]  # ALLOWED, REFUSED or LIMITED
    known: npt.NDArray[np.bool_]  # has a record in the audience store
    language: npt.NDArray[np.uint8]  # index into the country's languages
    age: npt.NDArray[np.uint8]
    gender: npt.NDArray[np.uint8]  # 1 female, 2 male
    peak_hour: npt.NDArray[np.uint8]  # local hour of most activity
    owned: npt.NDArray[np.uint8]  # bit per product
    # Hidden from the bidder:
    income_usd: F32  # a year
    wealth: F32  # income against the country's median, log
    intent: F32  # [n, products] 0..1: how much they want the product now
    credit: F32  # latent creditworthiness, about N(0, 1); higher is better
    response: F32  # log multiplier of every click probability, mean about 0
    affinity: F32  # [n, AFFINITIES] 0..1

    @classmethod
    def generate(cls, n: int, seed: int, mix: Mix | None = None) -> People:
        """``n`` people (1..2**24) from ``seed``; about 120 bytes and 0.6 µs per person."""
        mix = mix or Mix()
        rng = np.random.default_rng([seed, 0x9E09])
        country, place = _places(rng, n)
        age = np.clip(rng.gamma(5.5, 5.2, n) + 17, 18, 88).astype(np.uint8)
        local = np.array([p.wealth for p in PLACES])[place]
        hump = -0.35 * ((age.astype(np.float64) - 48) / 22) ** 2 + 0.12
        wealth = (np.log(local) * 0.8 + hump + rng.normal(0, 0.48, n)).astype(np.float32)
        median = np.array([c.median_income_usd for c in COUNTRIES])[country]
        credit = (0.55 * wealth + 0.012 * (age - 42.0) + rng.normal(0, 0.85, n)).astype(np.float32)
        gdpr = np.array([c.gdpr for c in COUNTRIES])[country]
        return cls(
            n=n,
            seed=seed,
            place=place.astype(np.uint8),
            device=_devices(rng, wealth, country),
            privacy=_privacy(rng, gdpr, mix),
            known=rng.random(n) < mix.known,
            language=_languages(rng, country),
            age=age,
            gender=rng.integers(1, 3, n, np.uint8),
            peak_hour=rng.choice(24, n, p=_HOURS).astype(np.uint8),
            owned=_owned(rng, age, wealth),
            income_usd=(median * np.exp(wealth)).astype(np.float32),
            wealth=wealth,
            intent=_intent(rng, age, wealth, credit),
            credit=credit,
            response=rng.normal(0, 0.45, n).astype(np.float32),
            affinity=rng.beta(0.8, 1.8, (n, len(AFFINITIES))).astype(np.float32),
        )

    @property
    def country(self) -> npt.NDArray[np.intp]:
        """COUNTRIES index per person."""
        return _PLACE_COUNTRY[self.place]

    def person_of_rank(self, rank: int) -> int:
        """The person who is ``rank``-th most active (0 first): a fixed permutation, so activity tells nothing else."""
        return (rank * self._stride + self._shift) % self.n

    def rank_of_person(self, person: I64) -> I64:
        """The activity ranks of persons; inverse of `person_of_rank`."""
        inverse = pow(self._stride, -1, self.n) if self.n > 1 else 0
        return (person - self._shift) % self.n * inverse % self.n

    @property
    def _stride(self) -> int:
        stride = int(self.n * 0.6180339887) | 1
        while np.gcd(stride, self.n) != 1:
            stride += 2
        return stride % self.n if self.n > 1 else 0

    @property
    def _shift(self) -> int:
        return mix64(self.seed) % self.n

    def ifa(self, person: int) -> str:
        """The advertising id of the person's device, lower-case UUID text (a function of number and seed)."""
        return self.ifas(np.array([person]))[0]

    def ifas(self, persons: I64) -> list[str]:
        """`ifa` of many."""
        high = mix64_many(np.uint64(self.seed << 34) ^ persons.astype(np.uint64))
        low = mix64_many(high ^ np.uint64(0x1FA))
        text = np.stack([high, low], 1).astype(">u8").tobytes().hex()
        return [
            f"{t[:8]}-{t[8:12]}-4{t[13:16]}-{'89ab'[int(t[16], 16) & 3]}{t[17:20]}-{t[20:]}"
            for t in (text[at : at + 32] for at in range(0, len(text), 32))
        ]

    def buyeruid(self, person: int, exchange: str) -> str:
        """Our own id of the person as matched by ``exchange``: 16 hex digits (a function of number, seed, exchange)."""
        return self.buyeruids(np.array([person]), exchange)[0]

    def buyeruids(self, persons: I64, exchange: str) -> list[str]:
        """`buyeruid` of many."""
        salt = np.uint64(int.from_bytes(exchange.encode()[:7].ljust(7, b"."), "little"))
        own = mix64_many(np.uint64(self.seed << 34) ^ persons.astype(np.uint64) ^ np.uint64(0xB0F))
        text = mix64_many(own ^ salt).astype(">u8").tobytes().hex()
        return [text[at : at + 16] for at in range(0, len(text), 16)]


def mix64(value: int) -> int:
    """splitmix64's next output from state ``value``: a fast stateless hash of a number to 64 bits."""
    value = (value + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    value = (value ^ value >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return value ^ value >> 31


def mix64_many(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """`mix64` of an array."""
    with np.errstate(over="ignore"):
        out = values + np.uint64(0x9E3779B97F4A7C15)
        out = (out ^ (out >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        out = (out ^ (out >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return out ^ (out >> np.uint64(31))


_PLACE_COUNTRY = np.array(PLACE_COUNTRY)
_HOURS = np.array([1, 1, 1, 1, 1, 2, 4, 6, 7, 6, 5, 5, 6, 6, 5, 5, 5, 6, 8, 10, 11, 10, 7, 3], float)
_HOURS /= _HOURS.sum()


def _places(rng: np.random.Generator, n: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    weights = np.array([place.weight for place in PLACES])
    shares = np.zeros(len(PLACES))
    for i, country in enumerate(COUNTRIES):
        mine = i == _PLACE_COUNTRY
        shares[mine] = country.share * weights[mine] / weights[mine].sum()
    place = rng.choice(len(PLACES), n, p=shares / shares.sum())
    return _PLACE_COUNTRY[place], place


def _devices(rng: np.random.Generator, wealth: F32, country: npt.NDArray[np.intp]) -> U8:
    """A device per person by the Gumbel-max trick: shares, shifted by what the owner can afford."""
    base = np.log([d.weight for d in DEVICES])
    premium = np.array([d.premium for d in DEVICES])
    domestic = np.array([0.9 if d.web.get("make") in ("HUAWEI", "OPPO", "Xiaomi") else 0.0 for d in DEVICES])
    device = np.empty(len(wealth), np.uint8)
    for start in range(0, len(wealth), 1 << 16):  # bounds memory: a block is 65,536 x devices
        part = slice(start, start + (1 << 16))
        china = (country[part] == COUNTRY_INDEX["CHN"])[:, None]
        score = base + 2.2 * premium * wealth[part, None] + np.where(china, domestic, -domestic)
        device[part] = (score + rng.gumbel(size=score.shape)).argmax(1)
    return device


def _privacy(rng: np.random.Generator, gdpr: npt.NDArray[np.bool_], mix: Mix) -> U8:
    refused = mix.refused * np.where(gdpr, 2.0, 0.5)
    u = rng.random(len(gdpr))
    return np.where(u < refused, REFUSED, np.where(u < refused + mix.limited, LIMITED, ALLOWED)).astype(np.uint8)


def _languages(rng: np.random.Generator, country: npt.NDArray[np.intp]) -> U8:
    second = np.array([len(c.languages) > 1 for c in COUNTRIES])[country]
    return (second & (rng.random(len(country)) < 0.12)).astype(np.uint8)


def _owned(rng: np.random.Generator, age: U8, wealth: F32) -> U8:
    """Products already held, one bit each: cards and insurance are common, wealth products are not."""
    logit = np.array([-1.9, 0.2, 0.1, -2.4, -0.6]) + np.outer((age - 40.0) / 20, [0.1, 0.3, 0.5, 0.6, 0.5])
    logit += np.outer(wealth, [-0.2, 0.8, 0.4, 1.4, 0.6])
    held = rng.random(logit.shape) < 1 / (1 + np.exp(-logit))
    return (held << np.arange(len(PRODUCTS))).sum(1).astype(np.uint8)


def _intent(rng: np.random.Generator, age: U8, wealth: F32, credit: F32) -> F32:
    """Demand now: most people want nothing of a product (Beta near 0), a minority is in the market (Beta near 0.8)."""
    logit = np.array([-1.9, -1.6, -1.8, -2.3, -2.0]) + np.outer((age - 40.0) / 20, [-0.5, -0.4, 0.3, 0.4, 0.2])
    logit += np.outer(wealth, [-0.3, 0.2, 0.2, 1.1, 0.6]) + np.outer(credit, [-0.35, -0.1, 0, 0, 0])
    seeking = rng.random(logit.shape) < 1 / (1 + np.exp(-logit))
    return np.where(seeking, rng.beta(6, 2, logit.shape), rng.beta(1.2, 12, logit.shape)).astype(np.float32)
